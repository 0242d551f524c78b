/* A program around variants of one kernel, for machines that have nothing else: data and commands come on standard
 * input, results go to standard output. Linked with generated code: `variants`, and `prepare`, which is called first.
 *
 * Numbers are as in qcc/pipe.h. First comes the memory: the number of buffers, and of each its bytes and contents; then
 * the number of arguments, and of each its buffer and byte offset; then the bytes that copies of the constants should
 * fill, and the number of constants (the last buffers). Then commands of one character:
 *
 *   r variant      -> buffers                  one call on fresh memory, and all memory after it
 *   m calls rounds -> doubles                  seconds of `calls` calls: of each variant in turn, round after round
 *
 * Constants are read from other memory with every timed call, as in a model, whose weights were last used an inference
 * ago; activations stay where they are. The call of `r` stands between marks for an emulator that counts
 * instructions. */
#define _POSIX_C_SOURCE 200112L
#include "qcc/pipe.h"
#include <string.h>

typedef void (*variant)(void *const *arguments);
extern const variant variants[];
extern const int32_t variant_count;
int prepare(void);

enum { MOST_BUFFERS = 64, MOST_ARGUMENTS = 64, MOST_COPIES = 1024, ALIGNMENT = 256 };

typedef struct {
    int32_t bytes;
    uint8_t *fresh;
    uint8_t *memory;
} buffer;

static buffer buffers[MOST_BUFFERS];
static int32_t buffer_count, argument_count, constant_count, copies;
static int32_t places[MOST_ARGUMENTS][2];
static void *arguments[MOST_COPIES][MOST_ARGUMENTS];

static int32_t get_in_range(int32_t least, int32_t most)
{
    const int32_t value = get_int();
    if (value < least || value > most) {
        fail("a number is out of its range");
    }
    return value;
}

static uint8_t *room(int32_t bytes)
{
    void *found = NULL;
    if (posix_memalign(&found, ALIGNMENT, (size_t)bytes + ALIGNMENT)) {
        fail("no memory");
    }
    return found;
}

static uint8_t *copy_of(const buffer *b)
{
    uint8_t *const made = room(b->bytes);
    memcpy(made, b->fresh, (size_t)b->bytes);
    return made;
}

static void get_memory(void)
{
    buffer_count = get_in_range(1, MOST_BUFFERS);
    for (int32_t i = 0; i < buffer_count; ++i) {
        buffer *const b = &buffers[i];
        b->bytes = get_in_range(0, INT32_MAX - 2 * ALIGNMENT);
        b->fresh = room(b->bytes);
        get(b->fresh, (size_t)b->bytes);
        b->memory = copy_of(b);
    }
    argument_count = get_in_range(1, MOST_ARGUMENTS);
    for (int32_t i = 0; i < argument_count; ++i) {
        places[i][0] = get_in_range(0, buffer_count - 1);
        places[i][1] = get_in_range(0, INT32_MAX);
    }
    const int32_t wanted = get_in_range(0, INT32_MAX);
    constant_count = get_in_range(0, buffer_count);
    int32_t bytes = 0;
    for (int32_t i = buffer_count - constant_count; i < buffer_count; ++i) {
        bytes += buffers[i].bytes;
    }
    copies = bytes ? wanted / bytes + 1 : 1;
    copies = copies < MOST_COPIES ? copies : MOST_COPIES;
    for (int32_t copy = 0; copy < copies; ++copy) {
        uint8_t *starts[MOST_BUFFERS];
        for (int32_t i = 0; i < buffer_count; ++i) {
            const int constant = i >= buffer_count - constant_count;
            starts[i] = constant && copy ? copy_of(&buffers[i]) : buffers[i].memory;
        }
        for (int32_t i = 0; i < argument_count; ++i) {
            arguments[copy][i] = starts[places[i][0]] + places[i][1];
        }
    }
}

static void run(void)
{
    const variant function = variants[get_in_range(0, variant_count - 1)];
    for (int32_t i = 0; i < buffer_count; ++i) {
        memcpy(buffers[i].memory, buffers[i].fresh, (size_t)buffers[i].bytes);
    }
    MARK_START();
    function(arguments[0]);
    MARK_END();
    for (int32_t i = 0; i < buffer_count; ++i) {
        put(buffers[i].memory, (size_t)buffers[i].bytes);
    }
}

static void measure(void)
{
    const int32_t calls = get_in_range(1, INT32_MAX), rounds = get_in_range(1, INT32_MAX);
    int32_t copy = 0;
    for (int32_t round = 0; round < rounds; ++round) {
        for (int32_t v = 0; v < variant_count; ++v) {
            const double start = now();
            for (int32_t i = 0; i < calls; ++i) {
                variants[v](arguments[copy]);
                copy = copy + 1 < copies ? copy + 1 : 0;
            }
            const double seconds = now() - start;
            put(&seconds, sizeof seconds);
        }
    }
}

int main(void)
{
    if (!prepare()) {
        fail("the system does not let programs use this processor's tile registers");
    }
    get_memory();
    for (int command; (command = getchar()) != EOF; fflush(stdout)) {
        switch (command) {
        case 'r':
            run();
            break;
        case 'm':
            measure();
            break;
        default:
            fail("unknown command");
        }
    }
    return 0;
}
