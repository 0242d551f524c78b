/* A small pool of threads that share one loop at a time. One caller at a time. */
#ifndef QCC_THREADS_H
#define QCC_THREADS_H

#include <stdint.h>

/* Iterations [begin, end) of a loop. */
typedef void (*qcc_range)(void *context, int32_t begin, int32_t end);

/* Runs [0, extent) in equal contiguous parts, one on the calling thread; returns when all are done. */
void qcc_parallel(qcc_range body, void *context, int32_t extent);

/* Sets the number of threads, the caller's included; returns how many there are (fewer if the system refuses). */
int qcc_set_threads(int count);

#endif
