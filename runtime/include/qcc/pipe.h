/* What the programs share that are driven through a pipe: commands on standard input, results on standard output;
 * numbers are int32 and double in the machine's byte order. For the programs' own sources, which define
 * _POSIX_C_SOURCE before they include anything (clock_gettime wants 199309L); generated code never sees these names. */
#ifndef QCC_PIPE_H
#define QCC_PIPE_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

/* What is counted stands between these: `hint #126` and `hint #127` do nothing, and an emulator's plugin can count the
 * instructions between them. */
#ifdef __aarch64__
#define MARK_START() __asm__ volatile("hint #126" ::: "memory")
#define MARK_END() __asm__ volatile("hint #127" ::: "memory")
#elif defined __arm__ && !defined __thumb__
#define MARK_START() __asm__ volatile(".inst 0xe320f07e" ::: "memory")
#define MARK_END() __asm__ volatile(".inst 0xe320f07f" ::: "memory")
#else
#define MARK_START() (void)0
#define MARK_END() (void)0
#endif

static inline void fail(const char *what)
{
    fprintf(stderr, "%s\n", what);
    exit(1);
}

static inline void get(void *to, size_t bytes)
{
    if (bytes && fread(to, 1, bytes, stdin) != bytes) {
        fail("the input ended early");
    }
}

static inline int32_t get_int(void)
{
    int32_t value;
    get(&value, sizeof value);
    return value;
}

static inline void put(const void *from, size_t bytes)
{
    if (bytes && fwrite(from, 1, bytes, stdout) != bytes) {
        fail("the output cannot be written");
    }
}

/* Seconds from some fixed moment on. */
static inline double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

#endif
