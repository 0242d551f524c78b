/* Kernels of processors that multiply pairs of int16: Cortex-M4, M7, M33. Elsewhere the portable forms are compiled. */
#ifndef QCC_DSP_H
#define QCC_DSP_H

#include "qcc_scalar.h"

#if QCC_DSP
/* Instructions on named registers: load two words; widen the bytes at even and at odd places; add two products. */
#define QCC_LOAD(first, second, from) "ldrd   %[" first "], %[" second "], [%[" from "]], #8\n\t"
#define QCC_WIDEN(even, odd)                                                                                           \
    "sxtb16 %[" even "], %[" odd "]\n\t"                                                                               \
    "sxtb16 %[" odd "], %[" odd "], ror #8\n\t"
#define QCC_ADD(sum, w, x) "smlad  %[" sum "], %[" w "], %[" x "], %[" sum "]\n\t"
#endif

/* ---- Columns: the inputs of a convolution's output pixel as int16, in groups of four (a, b, c, d) that are kept as
 * (a, c) and (b, d). The groups of two pixels lie interleaved: group g of the first pixel is at 8 g and 8 g + 4, that
 * of the second two elements further. ---- */

static inline void qcc_widen(int16_t *column, const int8_t *from, int32_t groups)
{
#if QCC_DSP
    int32_t even, odd;
    const int8_t *const end = &from[4 * groups];
    __asm__ volatile("1:\n\t"
                     "ldr    %[odd], [%[from]], #4\n\t" QCC_WIDEN("even", "odd")
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

/* ---- Sums of products. A group of the weights of channels 0 and 1 is (a0, a1, c0, c1), (b0, b1, d0, d1) as bytes; as
 * int16 ("words"), twice as long, it is widened already: (a0, c0), (a1, c1), (b0, d0), (b1, d1). ---- */

#if QCC_DSP
/* The register that only widening needs. */
#define QCC_SPARE [t] "=&r"(t),
/* The code of a group, with weights in bytes and in words, and the body of a function around it. */
#define QCC_ADD_2X2(w0, w1)                                                                                            \
    QCC_ADD("s0", w0, "x") QCC_ADD("s1", w0, "y") QCC_ADD("s2", w1, "x") QCC_ADD("s3", w1, "y")
#define QCC_BYTES_2X2                                                                                                  \
    QCC_LOAD("a", "b", "w")                                                                                            \
    QCC_LOAD("x", "y", "column") QCC_WIDEN("t", "a") QCC_ADD_2X2("t", "a")                                             \
    QCC_LOAD("x", "y", "column") QCC_WIDEN("t", "b") QCC_ADD_2X2("t", "b")
#define QCC_WORDS_2X2                                                                                                  \
    QCC_LOAD("a", "b", "w") QCC_LOAD("x", "y", "column") QCC_ADD_2X2("a", "b")                                         \
    QCC_LOAD("a", "b", "w") QCC_LOAD("x", "y", "column") QCC_ADD_2X2("a", "b")
#define QCC_DOT_2X2(group, spare)                                                                                      \
    int32_t s0 = sums[0], s1 = sums[1], s2 = sums[2], s3 = sums[3], a, b, x, y;                                        \
    const void *const end = &w[8 * groups];                                                                            \
    if ((groups & 1) != 0) {                                                                                           \
        __asm__ volatile(group                                                                                         \
                         : [s0] "+&r"(s0), [s1] "+&r"(s1), [s2] "+&r"(s2), [s3] "+&r"(s3), [w] "+&r"(w),               \
                           [column] "+&r"(column), [a] "=&r"(a), [b] "=&r"(b), spare [x] "=&r"(x), [y] "=&r"(y)        \
                         :                                                                                             \
                         : "memory");                                                                                  \
    }                                                                                                                  \
    if (groups > 1) {                                                                                                  \
        __asm__ volatile("1:\n\t" group group "cmp    %[w], %[end]\n\t"                                                \
                         "bne    1b"                                                                                   \
                         : [s0] "+&r"(s0), [s1] "+&r"(s1), [s2] "+&r"(s2), [s3] "+&r"(s3), [w] "+&r"(w),               \
                           [column] "+&r"(column), [a] "=&r"(a), [b] "=&r"(b), spare [x] "=&r"(x), [y] "=&r"(y)        \
                         : [end] "r"(end)                                                                              \
                         : "cc", "memory");                                                                            \
    }                                                                                                                  \
    sums[0] = s0;                                                                                                      \
    sums[1] = s1;                                                                                                      \
    sums[2] = s2;                                                                                                      \
    sums[3] = s3
#endif

/* sums[2 * c + p] += products of two pixels' columns with the weights of two channels. */
static inline void qcc_dot_2x2(const int16_t *column, const int8_t *w, int32_t groups, int32_t *sums)
{
#if QCC_DSP
    int32_t t;
    QCC_DOT_2X2(QCC_BYTES_2X2, QCC_SPARE);
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

/* qcc_dot_2x2 with weights in words. */
static inline void qcc_dot_2x2_words(const int16_t *column, const int16_t *w, int32_t groups, int32_t *sums)
{
#if QCC_DSP
    QCC_DOT_2X2(QCC_WORDS_2X2, );
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

#if QCC_DSP
/* The same of one pixel, in x0 and x1, and two of the channels, whose sums are s and r. */
#define QCC_BYTES_1X2(s, r)                                                                                            \
    QCC_LOAD("a", "b", "w")                                                                                            \
    QCC_WIDEN("t", "a") QCC_ADD(s, "t", "x0") QCC_ADD(r, "a", "x0")                                                    \
    QCC_WIDEN("t", "b") QCC_ADD(s, "t", "x1") QCC_ADD(r, "b", "x1")
#define QCC_WORDS_1X2(s, r)                                                                                            \
    QCC_LOAD("a", "b", "w") QCC_ADD(s, "a", "x0") QCC_ADD(r, "b", "x0")                                                \
    QCC_LOAD("a", "b", "w") QCC_ADD(s, "a", "x1") QCC_ADD(r, "b", "x1")
#define QCC_DOT_1X4(two, spare)                                                                                        \
    int32_t s0 = sums[0], s1 = sums[1], s2 = sums[2], s3 = sums[3], a, b, x0, x1;                                      \
    const int8_t *const end = &x[4 * groups];                                                                          \
    __asm__ volatile("1:\n\t"                                                                                          \
                     "ldr    %[x1], [%[x]], #4\n\t" QCC_WIDEN("x0", "x1") two("s0", "s1") two("s2", "s3")              \
                     "cmp    %[x], %[end]\n\t"                                                                         \
                     "bne    1b"                                                                                       \
                     : [s0] "+&r"(s0), [s1] "+&r"(s1), [s2] "+&r"(s2), [s3] "+&r"(s3), [w] "+&r"(w), [x] "+&r"(x),     \
                       [a] "=&r"(a), [b] "=&r"(b), spare [x0] "=&r"(x0), [x1] "=&r"(x1)                                \
                     : [end] "r"(end)                                                                                  \
                     : "cc", "memory");                                                                                \
    sums[0] = s0;                                                                                                      \
    sums[1] = s1;                                                                                                      \
    sums[2] = s2;                                                                                                      \
    sums[3] = s3
#endif

/* sums[c] += products of one pixel's bytes with the weights of four channels: a group of channels 0 and 1, then one of
 * 2 and 3. */
static inline void qcc_dot_1x4(const int8_t *x, const int8_t *w, int32_t groups, int32_t *sums)
{
#if QCC_DSP
    int32_t t;
    QCC_DOT_1X4(QCC_BYTES_1X2, QCC_SPARE);
#else
    for (int32_t g = 0; g < groups; ++g) {
        for (int32_t c = 0; c < 4; ++c) {
            const int8_t *const v = &w[(16 * g) + (8 * (c / 2)) + (c % 2)];
            sums[c] += (x[4 * g] * v[0]) + (x[(4 * g) + 2] * v[2]) + (x[(4 * g) + 1] * v[4]) + (x[(4 * g) + 3] * v[6]);
        }
    }
#endif
}

/* qcc_dot_1x4 with weights in words. */
static inline void qcc_dot_1x4_words(const int8_t *x, const int16_t *w, int32_t groups, int32_t *sums)
{
#if QCC_DSP
    QCC_DOT_1X4(QCC_WORDS_1X2, );
#else
    for (int32_t g = 0; g < groups; ++g) {
        for (int32_t c = 0; c < 4; ++c) {
            const int16_t *const v = &w[(16 * g) + (8 * (c / 2)) + (2 * (c % 2))];
            sums[c] += (x[4 * g] * v[0]) + (x[(4 * g) + 2] * v[1]) + (x[(4 * g) + 1] * v[4]) + (x[(4 * g) + 3] * v[5]);
        }
    }
#endif
}

/* ---- Depthwise ---- */

/* Sums of a row of outputs of a 3x3 depthwise convolution, `step` bytes apart in a plane whose rows that meet the taps
 * are `pitch` bytes apart. Reads up to two bytes behind the last window. */
#if QCC_DSP && !defined(__clang__)
__attribute__((optimize("O2"))) /* without optimization a register that it needs holds the frame */
#endif
QCC_ONCE void qcc_depthwise_3x3(const int8_t *x, int32_t pitch, int32_t step, const int8_t *w, int32_t bias,
                                int32_t count, int32_t *sums)
{
#if QCC_DSP
    /* Taps (a, b, c) of each row: a and c as a pair, b apart. The number of turns left is the upper half of `last`. */
#define QCC_PAIR(low, high) (int32_t)(((uint32_t)(high) << 16) | (uint16_t)(low))
    const int32_t outer0 = QCC_PAIR(w[0], w[2]), outer1 = QCC_PAIR(w[3], w[5]), outer2 = QCC_PAIR(w[6], w[8]);
    const int32_t inner = QCC_PAIR(w[1], w[4]), pairs = (step == 1) ? (count >> 1) : 0;
    int32_t last, s0, s1, even, odd;
    if (pairs > 0) {
        last = QCC_PAIR(w[7], pairs - 1);
        __asm__ volatile("1:\n\t"
                         "ldr    %[odd], [%[x], %[pitch], lsl #1]\n\t" QCC_WIDEN("even", "odd")
                         "ldr    %[s0], %[bias]\n\t"
                         "smlad  %[s1], %[odd], %[outer2], %[s0]\n\t"
                         "smlad  %[s0], %[even], %[outer2], %[s0]\n\t"
                         "smlabb %[s0], %[odd], %[last], %[s0]\n\t"
                         "smlatb %[s1], %[even], %[last], %[s1]\n\t"
                         "ldr    %[odd], [%[x], %[pitch]]\n\t" QCC_WIDEN("even", "odd")
                         "smlad  %[s0], %[even], %[outer1], %[s0]\n\t"
                         "smlad  %[s1], %[odd], %[outer1], %[s1]\n\t"
                         "smlabt %[s0], %[odd], %[inner], %[s0]\n\t"
                         "smlatt %[s1], %[even], %[inner], %[s1]\n\t"
                         "ldr    %[odd], [%[x]], #2\n\t" QCC_WIDEN("even", "odd")
                         "smlad  %[s0], %[even], %[outer0], %[s0]\n\t"
                         "smlad  %[s1], %[odd], %[outer0], %[s1]\n\t"
                         "smlabb %[s0], %[odd], %[inner], %[s0]\n\t"
                         "smlatb %[s1], %[even], %[inner], %[s1]\n\t"
                         "strd   %[s0], %[s1], [%[sums]], #8\n\t"
                         "subs   %[last], %[last], #65536\n\t"
                         "bpl    1b"
                         : [s0] "=&r"(s0), [s1] "=&r"(s1), [even] "=&r"(even), [odd] "=&r"(odd), [x] "+&r"(x),
                           [sums] "+&r"(sums), [last] "+&r"(last)
                         : [pitch] "r"(pitch), [bias] "m"(bias), [outer0] "r"(outer0), [outer1] "r"(outer1),
                           [outer2] "r"(outer2), [inner] "r"(inner)
                         : "cc", "memory");
    }
    if (count > (2 * pairs)) {
        last = QCC_PAIR(w[7], count - (2 * pairs) - 1);
        __asm__ volatile("1:\n\t"
                         "ldr    %[odd], [%[x], %[pitch], lsl #1]\n\t" QCC_WIDEN("even", "odd")
                         "ldr    %[s0], %[bias]\n\t"
                         "smlad  %[s0], %[even], %[outer2], %[s0]\n\t"
                         "smlabb %[s0], %[odd], %[last], %[s0]\n\t"
                         "ldr    %[odd], [%[x], %[pitch]]\n\t" QCC_WIDEN("even", "odd")
                         "smlad  %[s0], %[even], %[outer1], %[s0]\n\t"
                         "smlabt %[s0], %[odd], %[inner], %[s0]\n\t"
                         "ldr    %[odd], [%[x]]\n\t" QCC_WIDEN("even", "odd")
                         "smlad  %[s0], %[even], %[outer0], %[s0]\n\t"
                         "smlabb %[s0], %[odd], %[inner], %[s0]\n\t"
                         "add    %[x], %[x], %[step]\n\t"
                         "str    %[s0], [%[sums]], #4\n\t"
                         "subs   %[last], %[last], #65536\n\t"
                         "bpl    1b"
                         : [s0] "=&r"(s0), [even] "=&r"(even), [odd] "=&r"(odd), [x] "+&r"(x), [sums] "+&r"(sums),
                           [last] "+&r"(last)
                         : [pitch] "r"(pitch), [step] "r"(step), [bias] "m"(bias), [outer0] "r"(outer0),
                           [outer1] "r"(outer1), [outer2] "r"(outer2), [inner] "r"(inner)
                         : "cc", "memory");
    }
#undef QCC_PAIR
#else
    for (int32_t i = 0; i < count; ++i) {
        sums[i] = bias;
        for (int32_t t = 0; t < 9; ++t) {
            sums[i] += x[(i * step) + ((t / 3) * pitch) + (t % 3)] * w[t];
        }
    }
#endif
}

#endif
