/* A program around one compiled model, for machines that the compiler does not run on: commands come on standard input,
 * results go to standard output. Compiled with -Dmodel_run=<prefix>_run and so on.
 *
 * Arrays are their bytes, numbers as in qcc/pipe.h. First come the sizes: the number of inputs and the bytes of each,
 * the same for outputs, the bytes of the arena. Then commands of one character:
 *
 *   r inputs            -> outputs                    one inference
 *   t inputs            -> (node, arena)..., -1       the arena after each node
 *   m seconds count     -> n, n doubles               times of at least `count` inferences, on the last inputs
 *   l seconds           -> n, nodes, rounds, doubles  times of each node, round after round, on the last inputs
 *   s threads           -> threads                    sets their number, returns how many there are
 *
 * An inference, and each node of `l`, stands between marks for an emulator that counts instructions. */
#define _POSIX_C_SOURCE 199309L
#include "qcc/pipe.h"

int model_run(const void *const *inputs, void *const *outputs);
int model_set_threads(int count);
void model_set_hook(void (*hook)(void *context, int32_t node), void *context);
const uint8_t *model_arena(void);

enum { MOST_ARRAYS = 64, MOST_NODES = 4096, MOST_STAMPS = 1 << 20 };

typedef struct {
    int32_t count;
    int32_t bytes[MOST_ARRAYS];
    void *data[MOST_ARRAYS];
} arrays;

static arrays inputs, outputs;
static int32_t arena_bytes;
static int32_t nodes[MOST_NODES];
static int32_t node_count, stamp_count;
static double stamps[MOST_STAMPS];
static double before;

static double get_double(void)
{
    double value;
    get(&value, sizeof value);
    return value;
}

static void put_int(int32_t value)
{
    put(&value, sizeof value);
}

static void get_sizes(arrays *a)
{
    a->count = get_int();
    if (a->count < 0 || a->count > MOST_ARRAYS) {
        fail("too many arrays");
    }
    for (int i = 0; i < a->count; ++i) {
        a->bytes[i] = get_int();
        a->data[i] = calloc((size_t)a->bytes[i] + 1, 1);
        if (!a->data[i]) {
            fail("no memory");
        }
    }
}

static void get_inputs(void)
{
    for (int i = 0; i < inputs.count; ++i) {
        get(inputs.data[i], (size_t)inputs.bytes[i]);
    }
}

static void run(void)
{
    MARK_START();
    model_run((const void *const *)inputs.data, outputs.data);
    MARK_END();
}

static void show_arena(void *context, int32_t node)
{
    (void)context;
    put_int(node);
    put(model_arena(), (size_t)arena_bytes);
}

static void stamp(void *context, int32_t node)
{
    MARK_END();
    const double time = now();
    if (!*(int *)context && node_count < MOST_NODES) {
        nodes[node_count++] = node;
    }
    if (stamp_count < MOST_STAMPS) {
        stamps[stamp_count++] = time - before;
    }
    before = now();
    MARK_START();
}

static void measure(void)
{
    const double seconds = get_double();
    const int32_t least = get_int();
    double total = 0;
    stamp_count = 0;
    while (stamp_count < MOST_STAMPS && (stamp_count < least || total < seconds)) {
        const double start = now();
        run();
        stamps[stamp_count] = now() - start;
        total += stamps[stamp_count++];
    }
    put_int(stamp_count);
    put(stamps, (size_t)stamp_count * sizeof stamps[0]);
}

static void measure_layers(void)
{
    const double end = now() + get_double();
    int32_t rounds = 0;
    node_count = stamp_count = 0;
    model_set_hook(stamp, &rounds);
    do {
        before = now();
        run();
        ++rounds;
    } while (now() < end && stamp_count + node_count <= MOST_STAMPS);
    model_set_hook(NULL, NULL);
    put_int(node_count);
    put(nodes, (size_t)node_count * sizeof nodes[0]);
    put_int(rounds);
    put(stamps, (size_t)rounds * (size_t)node_count * sizeof stamps[0]);
}

int main(void)
{
    get_sizes(&inputs);
    get_sizes(&outputs);
    arena_bytes = get_int();
    for (int command; (command = getchar()) != EOF; fflush(stdout)) {
        switch (command) {
        case 'r':
            get_inputs();
            run();
            for (int i = 0; i < outputs.count; ++i) {
                put(outputs.data[i], (size_t)outputs.bytes[i]);
            }
            break;
        case 't':
            get_inputs();
            model_set_hook(show_arena, NULL);
            run();
            model_set_hook(NULL, NULL);
            put_int(-1);
            break;
        case 'm':
            measure();
            break;
        case 'l':
            measure_layers();
            break;
        case 's':
            put_int(model_set_threads(get_int()));
            break;
        default:
            fail("unknown command");
        }
    }
    return 0;
}
