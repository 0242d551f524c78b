/* What generated kernels are made of: integer arithmetic and moves of bytes.
 *
 * Freestanding C99; every function has a portable form that computes the same bytes. Right shifts of negative numbers
 * must be arithmetic and conversions to narrower integers modular, as they are on every compiler that counts.
 */
#ifndef QCC_SCALAR_H
#define QCC_SCALAR_H

#include <stdint.h>
#include <string.h>

#if defined(__GNUC__) && defined(__ARM_FEATURE_DSP) && defined(__thumb__) && !defined(__ARM_BIG_ENDIAN)
#define QCC_DSP 1
#else
#define QCC_DSP 0
#endif

#if defined(__ARM_FEATURE_MVE) && !defined(__ARM_BIG_ENDIAN)
#include <arm_mve.h>
#define QCC_MVE 1
#else
#define QCC_MVE 0
#endif

#if defined(__GNUC__)
#define QCC_ALIGNED __attribute__((aligned(4)))
#define QCC_ONCE static __attribute__((noinline, unused)) /* too long to be repeated in every kernel */
#else
#define QCC_ALIGNED
#define QCC_ONCE static inline
#endif

static inline int32_t qcc_min(int32_t a, int32_t b)
{
    return (a < b) ? a : b;
}

static inline int32_t qcc_max(int32_t a, int32_t b)
{
    return (a > b) ? a : b;
}

/* acc * multiplier / 2^shift, half up. */
static inline int32_t qcc_requantize(int32_t acc, int32_t multiplier, int32_t shift)
{
    return (int32_t)((((int64_t)acc * multiplier) + ((int64_t)1 << (shift - 1))) >> shift);
}

/* acc * multiplier / 2^32, half up, and more. */
static inline int32_t qcc_requantize_high(int32_t acc, int32_t multiplier, int32_t more)
{
#if QCC_DSP
    int32_t r;
    __asm__("smmlar %0, %1, %2, %3" : "=r"(r) : "r"(acc), "r"(multiplier), "r"(more));
    return r;
#else
    return qcc_requantize(acc, multiplier, 32) + more;
#endif
}

/* TensorFlow Lite's rounding: the high word of 2 * v * multiplier half up, then by `shift` to the right (to the left
 * before, if it is negative) with halves away from zero. */
QCC_ONCE int32_t qcc_tflite_multiply(int32_t v, int32_t multiplier, int32_t shift)
{
    const int32_t left = (shift < 0) ? -shift : 0, right = (shift < 0) ? 0 : shift;
    const int32_t high = qcc_requantize((int32_t)((uint32_t)v << left), multiplier, 31);
    const int32_t mask = (int32_t)(((uint32_t)1 << right) - 1U);
    return (high >> right) + (((high & mask) > ((mask >> 1) + ((high < 0) ? 1 : 0))) ? 1 : 0);
}

/* The same for |v| below 2^30 and shifts from 0 to 30. */
static inline int32_t qcc_tflite_multiply_high(int32_t v, int32_t multiplier, int32_t shift)
{
    const int32_t high = qcc_requantize_high(2 * v, multiplier, 0);
    const int32_t half = (int32_t)(((uint32_t)1 << shift) >> 1);
    return (high + half + ((shift != 0) ? (high >> 31) : 0)) >> shift;
}

static inline int8_t qcc_clamp(int32_t v, int32_t low, int32_t high)
{
    return (int8_t)qcc_min(qcc_max(v, low), high);
}

static inline int8_t qcc_saturate(int32_t v)
{
#if QCC_DSP
    int32_t r;
    __asm__("ssat %0, #8, %1" : "=r"(r) : "r"(v) : "cc");
    return (int8_t)r;
#else
    return qcc_clamp(v, -128, 127);
#endif
}

/* ---- Moving bytes ---- */

static inline void qcc_copy(int8_t *to, const int8_t *from, int32_t count)
{
#if QCC_MVE
    for (int32_t i = count >> 4; i > 0; --i) {
        vstrbq_s8(to, vldrbq_s8(from));
        to = &to[16];
        from = &from[16];
    }
    if ((count & 15) != 0) {
        const mve_pred16_t inside = vctp8q((uint32_t)count & 15U);
        vstrbq_p_s8(to, vldrbq_z_s8(from, inside), inside);
    }
#elif QCC_DSP
    /* A word of four bytes is one load and one store, at any address; the last one may overlap that before. */
    int32_t word;
    for (int32_t i = 0; i < (count - 3); i += 4) {
        (void)memcpy(&word, &from[i], 4);
        (void)memcpy(&to[i], &word, 4);
    }
    if (((count & 3) != 0) && (count > 3)) {
        (void)memcpy(&word, &from[count - 4], 4);
        (void)memcpy(&to[count - 4], &word, 4);
    }
    for (int32_t i = 0; (count < 4) && (i < count); ++i) {
        to[i] = from[i];
    }
#else
    (void)memcpy(to, from, (size_t)count);
#endif
}

static inline void qcc_fill(int8_t *to, int8_t value, int32_t count)
{
#if QCC_MVE
    for (int32_t i = 0; i < count; i += 16) {
        vstrbq_p_s8(&to[i], vdupq_n_s8(value), vctp8q((uint32_t)(count - i)));
    }
#else
    (void)memset(to, value, (size_t)count);
#endif
}

/* Every stride-th byte. */
static inline void qcc_gather(int8_t *to, const int8_t *from, int32_t stride, int32_t count)
{
    for (int32_t i = count >> 2; i > 0; --i) {
        to[0] = from[0];
        to[1] = from[stride];
        to[2] = from[2 * stride];
        to[3] = from[3 * stride];
        from = &from[4 * stride];
        to = &to[4];
    }
    for (int32_t i = 0; i < (count & 3); ++i) {
        to[i] = from[i * stride];
    }
}

#endif
