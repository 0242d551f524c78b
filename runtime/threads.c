/* Workers spin for the next loop for about as long as a layer takes, then sleep. */
#define _POSIX_C_SOURCE 200809L
#include "qcc/threads.h"

#include <limits.h>
#include <pthread.h>
#include <sched.h>

enum { MAX_THREADS = 64, SPINS = 4000, SPINS_PER_YIELD = 256, LINE = 64 };

typedef struct {
    pthread_t thread;
    int index;
    uint32_t done; /* generation of the last loop finished */
    char pad[LINE];
} worker;

static worker workers[MAX_THREADS];
static int threads = 1;

static struct {
    qcc_range body;
    void *context;
    int32_t extent;
} loop;

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

static void run_part(int index)
{
    const int32_t begin = (int32_t)((int64_t)loop.extent * index / threads);
    const int32_t end = (int32_t)((int64_t)loop.extent * (index + 1) / threads);
    if (begin < end) {
        loop.body(loop.context, begin, end);
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
    uint32_t seen = self->done;
    for (;;) {
        seen = next_generation(seen);
        if (leaving) {
            return NULL;
        }
        run_part(self->index);
        __atomic_store_n(&self->done, seen, __ATOMIC_RELEASE);
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
    loop.body = body;
    loop.context = context;
    loop.extent = extent;
    start();
    run_part(0);
    for (int i = 1; i < threads; ++i) {
        for (int spin = 0; __atomic_load_n(&workers[i].done, __ATOMIC_ACQUIRE) != generation; spin = (spin + 1) & INT_MAX) {
            relax(spin);
        }
    }
}

static void stop_workers(void)
{
    if (threads == 1) {
        return;
    }
    leaving = 1;
    start();
    for (int i = 1; i < threads; ++i) {
        pthread_join(workers[i].thread, NULL);
    }
    leaving = 0;
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
        workers[started].done = generation;
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
