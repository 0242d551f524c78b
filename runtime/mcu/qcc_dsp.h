/* Kernels of processors that multiply pairs of int16: Cortex-M4, M7, M33. Elsewhere the portable forms are compiled. */
#ifndef QCC_DSP_H
#define QCC_DSP_H

#include "qcc_scalar.h"

/* ---- Columns: the inputs of a convolution's output pixel as int16, in groups of four (a, b, c, d) that are kept as
 * (a, c) and (b, d). The groups of two pixels lie interleaved: group g of the first pixel is at 8 g and 8 g + 4, that
 * of the second two elements further. ---- */

static inline void qcc_widen(int16_t *column, const int8_t *from, int32_t groups)
{
#if QCC_DSP
    int32_t even, odd;
    const int8_t *const end = &from[4 * groups];
    __asm__ volatile("1:\n\t"
                     "ldr    %[odd], [%[from]], #4\n\t"
                     "sxtb16 %[even], %[odd]\n\t"
                     "sxtb16 %[odd], %[odd], ror #8\n\t"
                     "cmp    %[from], %[end]\n\t"
                     "str    %[odd], [%[to], #8]\n\t"
                     "str    %[even], [%[to]], #16\n\t"
                     "bne    1b"
                     : [even] "=&r"(even), [odd] "=&r"(odd), [from] "+&r"(from), [to] "+&r"(column)
                     : [end] "r"(end)
                     : "cc", "memory");
#else
    for (int32_t g = 0; g < groups; ++g) {
        column[(8 * g) + 0] = from[(4 * g) + 0];
        column[(8 * g) + 1] = from[(4 * g) + 2];
        column[(8 * g) + 4] = from[(4 * g) + 1];
        column[(8 * g) + 5] = from[(4 * g) + 3];
    }
#endif
}

static inline void qcc_widen_fill(int16_t *column, int16_t value, int32_t groups)
{
    for (int32_t g = 0; g < groups; ++g) {
        column[(8 * g) + 0] = value;
        column[(8 * g) + 1] = value;
        column[(8 * g) + 4] = value;
        column[(8 * g) + 5] = value;
    }
}

/* sums[2 * c + p] += products of two pixels' columns with the weights of two channels; a group of weights is
 * (a0, a1, c0, c1), (b0, b1, d0, d1) for channels 0 and 1. */
static inline void qcc_dot_2x2(const int16_t *column, const int8_t *w, int32_t groups, int32_t *sums)
{
#if QCC_DSP
#define QCC_STEP(word)                                                                                                 \
    "ldrd   %[x], %[y], [%[column]], #8\n\t"                                                                           \
    "sxtb16 %[t], %[" word "]\n\t"                                                                                     \
    "sxtb16 %[" word "], %[" word "], ror #8\n\t"                                                                      \
    "smlad  %[s0], %[t], %[x], %[s0]\n\t"                                                                              \
    "smlad  %[s1], %[t], %[y], %[s1]\n\t"                                                                              \
    "smlad  %[s2], %[" word "], %[x], %[s2]\n\t"                                                                       \
    "smlad  %[s3], %[" word "], %[y], %[s3]\n\t"
#define QCC_GROUP "ldrd   %[a], %[b], [%[w]], #8\n\t" QCC_STEP("a") QCC_STEP("b")
    int32_t s0 = sums[0], s1 = sums[1], s2 = sums[2], s3 = sums[3], a, b, t, x, y;
    const int8_t *const end = &w[8 * groups];
    if ((groups & 1) != 0) {
        __asm__ volatile(QCC_GROUP
                         : [s0] "+&r"(s0), [s1] "+&r"(s1), [s2] "+&r"(s2), [s3] "+&r"(s3), [w] "+&r"(w),
                           [column] "+&r"(column), [a] "=&r"(a), [b] "=&r"(b), [t] "=&r"(t), [x] "=&r"(x), [y] "=&r"(y)
                         :
                         : "memory");
    }
    if (groups > 1) {
        __asm__ volatile("1:\n\t" QCC_GROUP QCC_GROUP "cmp %[w], %[end]\n\t"
                         "bne 1b"
                         : [s0] "+&r"(s0), [s1] "+&r"(s1), [s2] "+&r"(s2), [s3] "+&r"(s3), [w] "+&r"(w),
                           [column] "+&r"(column), [a] "=&r"(a), [b] "=&r"(b), [t] "=&r"(t), [x] "=&r"(x), [y] "=&r"(y)
                         : [end] "r"(end)
                         : "cc", "memory");
    }
#undef QCC_GROUP
#undef QCC_STEP
    sums[0] = s0;
    sums[1] = s1;
    sums[2] = s2;
    sums[3] = s3;
#else
    for (int32_t k = 0; k < (2 * groups); ++k) {
        for (int32_t c = 0; c < 2; ++c) {
            const int32_t w0 = w[(4 * k) + c], w1 = w[(4 * k) + 2 + c];
            for (int32_t p = 0; p < 2; ++p) {
                sums[(2 * c) + p] += (column[(4 * k) + (2 * p)] * w0) + (column[(4 * k) + (2 * p) + 1] * w1);
            }
        }
    }
#endif
}

/* sums[c] += products of one pixel's bytes with the weights of four channels; a group of weights holds that of channels
 * 0 and 1 as above, then that of 2 and 3. */
static inline void qcc_dot_1x4(const int8_t *x, const int8_t *w, int32_t groups, int32_t *sums)
{
#if QCC_DSP
#define QCC_HALF(s, r)                                                                                                 \
    "ldrd   %[a], %[b], [%[w]], #8\n\t"                                                                                \
    "sxtb16 %[t], %[a]\n\t"                                                                                            \
    "sxtb16 %[a], %[a], ror #8\n\t"                                                                                    \
    "smlad  %[" s "], %[t], %[x0], %[" s "]\n\t"                                                                       \
    "smlad  %[" r "], %[a], %[x0], %[" r "]\n\t"                                                                       \
    "sxtb16 %[t], %[b]\n\t"                                                                                            \
    "sxtb16 %[b], %[b], ror #8\n\t"                                                                                    \
    "smlad  %[" s "], %[t], %[x1], %[" s "]\n\t"                                                                       \
    "smlad  %[" r "], %[b], %[x1], %[" r "]\n\t"
    int32_t s0 = sums[0], s1 = sums[1], s2 = sums[2], s3 = sums[3], a, b, t, x0, x1;
    const int8_t *const end = &x[4 * groups];
    __asm__ volatile("1:\n\t"
                     "ldr    %[x1], [%[x]], #4\n\t"
                     "sxtb16 %[x0], %[x1]\n\t"
                     "sxtb16 %[x1], %[x1], ror #8\n\t" QCC_HALF("s0", "s1") QCC_HALF("s2", "s3") "cmp %[x], %[end]\n\t"
                     "bne 1b"
                     : [s0] "+&r"(s0), [s1] "+&r"(s1), [s2] "+&r"(s2), [s3] "+&r"(s3), [w] "+&r"(w), [x] "+&r"(x),
                       [a] "=&r"(a), [b] "=&r"(b), [t] "=&r"(t), [x0] "=&r"(x0), [x1] "=&r"(x1)
                     : [end] "r"(end)
                     : "cc", "memory");
#undef QCC_HALF
    sums[0] = s0;
    sums[1] = s1;
    sums[2] = s2;
    sums[3] = s3;
#else
    for (int32_t g = 0; g < groups; ++g) {
        for (int32_t c = 0; c < 4; ++c) {
            const int8_t *const v = &w[(16 * g) + (8 * (c / 2)) + (c % 2)];
            sums[c] += (x[4 * g] * v[0]) + (x[(4 * g) + 2] * v[2]) + (x[(4 * g) + 1] * v[4]) + (x[(4 * g) + 3] * v[6]);
        }
    }
#endif
}

/* qcc_dot_2x2 with weights that are int16 already, twice as long: a group is (a0, c0), (a1, c1), (b0, d0), (b1, d1). */
static inline void qcc_dot_2x2_words(const int16_t *column, const int16_t *w, int32_t groups, int32_t *sums)
{
#if QCC_DSP
#define QCC_STEP                                                                                                       \
    "ldrd   %[a], %[b], [%[w]], #8\n\t"                                                                                \
    "ldrd   %[x], %[y], [%[column]], #8\n\t"                                                                           \
    "smlad  %[s0], %[a], %[x], %[s0]\n\t"                                                                              \
    "smlad  %[s1], %[a], %[y], %[s1]\n\t"                                                                              \
    "smlad  %[s2], %[b], %[x], %[s2]\n\t"                                                                              \
    "smlad  %[s3], %[b], %[y], %[s3]\n\t"
    int32_t s0 = sums[0], s1 = sums[1], s2 = sums[2], s3 = sums[3], a, b, x, y;
    const int16_t *const end = &w[8 * groups];
    if ((groups & 1) != 0) {
        __asm__ volatile(QCC_STEP QCC_STEP
                         : [s0] "+&r"(s0), [s1] "+&r"(s1), [s2] "+&r"(s2), [s3] "+&r"(s3), [w] "+&r"(w),
                           [column] "+&r"(column), [a] "=&r"(a), [b] "=&r"(b), [x] "=&r"(x), [y] "=&r"(y)
                         :
                         : "memory");
    }
    if (groups > 1) {
        __asm__ volatile("1:\n\t" QCC_STEP QCC_STEP QCC_STEP QCC_STEP "cmp %[w], %[end]\n\t"
                         "bne 1b"
                         : [s0] "+&r"(s0), [s1] "+&r"(s1), [s2] "+&r"(s2), [s3] "+&r"(s3), [w] "+&r"(w),
                           [column] "+&r"(column), [a] "=&r"(a), [b] "=&r"(b), [x] "=&r"(x), [y] "=&r"(y)
                         : [end] "r"(end)
                         : "cc", "memory");
    }
#undef QCC_STEP
    sums[0] = s0;
    sums[1] = s1;
    sums[2] = s2;
    sums[3] = s3;
#else
    for (int32_t k = 0; k < (2 * groups); ++k) {
        for (int32_t c = 0; c < 2; ++c) {
            const int32_t w0 = w[(4 * k) + (2 * c)], w1 = w[(4 * k) + (2 * c) + 1];
            for (int32_t p = 0; p < 2; ++p) {
                sums[(2 * c) + p] += (column[(4 * k) + (2 * p)] * w0) + (column[(4 * k) + (2 * p) + 1] * w1);
            }
        }
    }
#endif
}

/* qcc_dot_1x4 with such weights. */
static inline void qcc_dot_1x4_words(const int8_t *x, const int16_t *w, int32_t groups, int32_t *sums)
{
#if QCC_DSP
#define QCC_HALF(s, r)                                                                                                 \
    "ldrd   %[a], %[b], [%[w]], #8\n\t"                                                                                \
    "smlad  %[" s "], %[a], %[x0], %[" s "]\n\t"                                                                       \
    "smlad  %[" r "], %[b], %[x0], %[" r "]\n\t"                                                                       \
    "ldrd   %[a], %[b], [%[w]], #8\n\t"                                                                                \
    "smlad  %[" s "], %[a], %[x1], %[" s "]\n\t"                                                                       \
    "smlad  %[" r "], %[b], %[x1], %[" r "]\n\t"
    int32_t s0 = sums[0], s1 = sums[1], s2 = sums[2], s3 = sums[3], a, b, x0, x1;
    const int8_t *const end = &x[4 * groups];
    __asm__ volatile("1:\n\t"
                     "ldr    %[x1], [%[x]], #4\n\t"
                     "sxtb16 %[x0], %[x1]\n\t"
                     "sxtb16 %[x1], %[x1], ror #8\n\t" QCC_HALF("s0", "s1") QCC_HALF("s2", "s3") "cmp %[x], %[end]\n\t"
                     "bne 1b"
                     : [s0] "+&r"(s0), [s1] "+&r"(s1), [s2] "+&r"(s2), [s3] "+&r"(s3), [w] "+&r"(w), [x] "+&r"(x),
                       [a] "=&r"(a), [b] "=&r"(b), [x0] "=&r"(x0), [x1] "=&r"(x1)
                     : [end] "r"(end)
                     : "cc", "memory");
#undef QCC_HALF
    sums[0] = s0;
    sums[1] = s1;
    sums[2] = s2;
    sums[3] = s3;
#else
    for (int32_t g = 0; g < groups; ++g) {
        for (int32_t c = 0; c < 4; ++c) {
            const int16_t *const v = &w[(16 * g) + (8 * (c / 2)) + (2 * (c % 2))];
            sums[c] += (x[4 * g] * v[0]) + (x[(4 * g) + 2] * v[1]) + (x[(4 * g) + 1] * v[4]) + (x[(4 * g) + 3] * v[5]);
        }
    }
#endif
}

/* ---- Depthwise: rows of three taps over a plane of bytes ---- */

/* A row of three weights (a, b, c) as pairs: (a, c) in the low word, (b, anything) in the high word. Reads w[3]. */
static inline int64_t qcc_load_taps(const int8_t *w)
{
#if QCC_DSP
    int32_t word, outer, inner;
    (void)memcpy(&word, w, 4);
    __asm__("sxtb16 %0, %1" : "=r"(outer) : "r"(word));
    __asm__("sxtb16 %0, %1, ror #8" : "=r"(inner) : "r"(word));
#else
    const int32_t outer = (w[2] * 65536) + (int32_t)(uint16_t)w[0], inner = w[1];
#endif
    return (int64_t)(((uint64_t)(uint32_t)inner << 32) | (uint32_t)outer);
}

/* sums[0] += a row of taps at x; sums[1] += the same one byte further. Reads x[0] to x[3]. */
static inline void qcc_row_pair(const int8_t *x, int64_t taps, int32_t *sums)
{
#if QCC_DSP
    int32_t s0 = sums[0], s1 = sums[1], even, odd;
    __asm__("ldr     %[odd], [%[x]]\n\t"
            "sxtb16  %[even], %[odd]\n\t"
            "sxtb16  %[odd], %[odd], ror #8\n\t"
            "smlad   %[s0], %[even], %[outer], %[s0]\n\t"
            "smlatb  %[s1], %[even], %[inner], %[s1]\n\t"
            "smlabb  %[s0], %[odd], %[inner], %[s0]\n\t"
            "smlad   %[s1], %[odd], %[outer], %[s1]"
            : [s0] "+&r"(s0), [s1] "+&r"(s1), [even] "=&r"(even), [odd] "=&r"(odd)
            : [x] "r"(x), [outer] "r"((int32_t)taps), [inner] "r"((int32_t)(taps >> 32)), "m"(*(const int8_t(*)[4])x));
    sums[0] = s0;
    sums[1] = s1;
#else
    const int32_t a = (int16_t)taps, b = (int16_t)(taps >> 32), c = (int32_t)taps >> 16;
    sums[0] += (x[0] * a) + (x[1] * b) + (x[2] * c);
    sums[1] += (x[1] * a) + (x[2] * b) + (x[3] * c);
#endif
}

/* The sum plus a row of taps at x. Reads x[0] to x[3]. */
static inline int32_t qcc_row(const int8_t *x, int64_t taps, int32_t sum)
{
#if QCC_DSP
    int32_t even, odd;
    __asm__("ldr     %[odd], [%[x]]\n\t"
            "sxtb16  %[even], %[odd]\n\t"
            "sxtb16  %[odd], %[odd], ror #8\n\t"
            "smlad   %[s], %[even], %[outer], %[s]\n\t"
            "smlabb  %[s], %[odd], %[inner], %[s]"
            : [s] "+&r"(sum), [even] "=&r"(even), [odd] "=&r"(odd)
            : [x] "r"(x), [outer] "r"((int32_t)taps), [inner] "r"((int32_t)(taps >> 32)), "m"(*(const int8_t(*)[4])x));
    return sum;
#else
    int32_t sums[2] = {sum, 0};
    const int8_t four[4] = {x[0], x[1], x[2], 0};
    qcc_row_pair(four, taps, sums);
    return sums[0];
#endif
}

#endif
