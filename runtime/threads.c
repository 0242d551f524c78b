/* Each thread has a part of the loop, takes it piece by piece, and then helps the others: a thread that the system does
 * not run holds nobody up. Workers spin for the next loop for about as long as a layer takes, then sleep. */
#define _POSIX_C_SOURCE 200809L
#include "qcc/threads.h"

#include <limits.h>
#include <pthread.h>
#include <sched.h>

enum { MAX_THREADS = 64, SPINS = 4000, SPINS_PER_YIELD = 256, PIECES = 4, LINE = 64 };

typedef struct {
    pthread_t thread;
    int index;
    uint32_t seen; /* generation of the last loop looked at */
} worker;

typedef struct {
    uint64_t left; /* generation << 32 | iterations that nobody took */
    int32_t end;
    char pad[LINE - sizeof(uint64_t) - sizeof(int32_t)];
} part;

static worker workers[MAX_THREADS];
static part parts[MAX_THREADS];
static int threads = 1;

/* Read by those who took a piece of it: it stays until all pieces are finished. */
static struct {
    qcc_range body;
    void *context;
} loop;

static int32_t finished; /* iterations */
static uint32_t generation;
static int sleepers, leaving;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t wake = PTHREAD_COND_INITIALIZER;

static void relax(int spin)
{
    if (spin % SPINS_PER_YIELD == SPINS_PER_YIELD - 1) {
        sched_yield();
    }
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#endif
}

/* Takes the next iterations [*begin, *end) of a part of loop `now`; 0 if there are none. */
static int take(part *p, uint32_t now, int32_t *begin, int32_t *end)
{
    uint64_t state = __atomic_load_n(&p->left, __ATOMIC_ACQUIRE);
    for (;;) {
        const uint32_t left = (uint32_t)state, count = (left + PIECES - 1) / PIECES;
        if (state >> 32 != now || left == 0) {
            return 0;
        }
        if (__atomic_compare_exchange_n(&p->left, &state, state - count, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
            *begin = p->end - (int32_t)left;
            *end = *begin + (int32_t)count;
            return 1;
        }
    }
}

static void run(int index, uint32_t now)
{
    int32_t begin, end;
    for (int i = 0; i < threads; ++i) {
        while (take(&parts[(index + i) % threads], now, &begin, &end)) {
            loop.body(loop.context, begin, end);
            __atomic_fetch_add(&finished, end - begin, __ATOMIC_RELEASE);
        }
    }
}

/* Returns the generation that follows `seen`. */
static uint32_t next_generation(uint32_t seen)
{
    for (int spin = 0; spin < SPINS; ++spin) {
        const uint32_t now = __atomic_load_n(&generation, __ATOMIC_ACQUIRE);
        if (now != seen) {
            return now;
        }
        relax(spin);
    }
    pthread_mutex_lock(&mutex);
    __atomic_fetch_add(&sleepers, 1, __ATOMIC_SEQ_CST);
    uint32_t now;
    while ((now = __atomic_load_n(&generation, __ATOMIC_SEQ_CST)) == seen) {
        pthread_cond_wait(&wake, &mutex);
    }
    __atomic_fetch_sub(&sleepers, 1, __ATOMIC_SEQ_CST);
    pthread_mutex_unlock(&mutex);
    return now;
}

static void *work(void *argument)
{
    worker *self = argument;
    for (;;) {
        self->seen = next_generation(self->seen);
        if (__atomic_load_n(&leaving, __ATOMIC_RELAXED)) {
            return NULL;
        }
        run(self->index, self->seen);
    }
}

/* A worker that is about to sleep either sees the new generation or is counted among the sleepers. */
static void start(void)
{
    __atomic_fetch_add(&generation, 1, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&sleepers, __ATOMIC_SEQ_CST) > 0) {
        pthread_mutex_lock(&mutex);
        pthread_cond_broadcast(&wake);
        pthread_mutex_unlock(&mutex);
    }
}

void qcc_parallel(qcc_range body, void *context, int32_t extent)
{
    if (threads == 1 || extent < 2) {
        body(context, 0, extent);
        return;
    }
    const uint32_t now = generation + 1;
    loop.body = body;
    loop.context = context;
    __atomic_store_n(&finished, 0, __ATOMIC_RELAXED);
    for (int i = 0; i < threads; ++i) {
        const int32_t begin = (int32_t)((int64_t)extent * i / threads);
        parts[i].end = (int32_t)((int64_t)extent * (i + 1) / threads);
        __atomic_store_n(&parts[i].left, (uint64_t)now << 32 | (uint32_t)(parts[i].end - begin), __ATOMIC_RELEASE);
    }
    start();
    run(0, now);
    for (int spin = 0; __atomic_load_n(&finished, __ATOMIC_ACQUIRE) != extent; spin = (spin + 1) & INT_MAX) {
        relax(spin);
    }
}

static void stop_workers(void)
{
    if (threads == 1) {
        return;
    }
    __atomic_store_n(&leaving, 1, __ATOMIC_RELAXED);
    start();
    for (int i = 1; i < threads; ++i) {
        pthread_join(workers[i].thread, NULL);
    }
    __atomic_store_n(&leaving, 0, __ATOMIC_RELAXED);
    threads = 1;
}

/* A forked child has none of its parent's workers. */
static void forget_workers(void)
{
    threads = 1;
    sleepers = 0;
    pthread_mutex_init(&mutex, NULL);
    pthread_cond_init(&wake, NULL);
}

int qcc_set_threads(int count)
{
    static int watching_forks;
    const int wanted = count < 1 ? 1 : count > MAX_THREADS ? MAX_THREADS : count;
    if (wanted == threads) {
        return threads;
    }
    if (!watching_forks) {
        watching_forks = pthread_atfork(NULL, NULL, forget_workers) == 0;
    }
    stop_workers();
    int started = 1;
    for (; started < wanted; ++started) {
        workers[started].index = started;
        workers[started].seen = generation;
        if (pthread_create(&workers[started].thread, NULL, work, &workers[started]) != 0) {
            break;
        }
    }
    threads = started;
    return threads;
}

__attribute__((destructor)) static void leave(void)
{
    stop_workers();
}
