/* What the generated kernels are made of: integer arithmetic, and the instructions of the processor where it has them.
 *
 * Freestanding C99; every function has a portable form that computes the same bytes. Right shifts of negative numbers
 * must be arithmetic and conversions to narrower integers modular, as they are on every compiler that counts.
 */
#ifndef QCC_H
#define QCC_H

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

/* ---- Quantization at the edges: real = scale * (q - zero_point) ---- */

/* Half to even, for |v| up to 2^22; needs IEEE floats without -ffast-math. */
static inline float qcc_round_even(float v)
{
    const float no_fraction = 12582912.0F; /* 1.5 * 2^23: the sum has no bits left for a fraction */
    return (v + no_fraction) - no_fraction;
}

/* Rounds and saturates; inverse_scale is (float)(1.0 / scale). x must not be NaN. */
static inline int8_t qcc_quantize(float x, float inverse_scale, int32_t zero_point)
{
    const float low = (float)(-128 - zero_point), high = (float)(127 - zero_point);
    const float v = x * inverse_scale;
    return (int8_t)((int32_t)qcc_round_even((v < low) ? low : ((v > high) ? high : v)) + zero_point);
}

static inline float qcc_dequantize(int8_t q, float scale, int32_t zero_point)
{
    return (float)((int32_t)q - zero_point) * scale;
}

/* ---- Scalars ---- */

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

/* acc * multiplier / 2^32, half up. */
static inline int32_t qcc_requantize_high(int32_t acc, int32_t multiplier)
{
#if QCC_DSP
    int32_t r;
    __asm__("smmulr %0, %1, %2" : "=r"(r) : "r"(acc), "r"(multiplier));
    return r;
#else
    return qcc_requantize(acc, multiplier, 32);
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
    const int32_t high = qcc_requantize_high(2 * v, multiplier);
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
    int32_t i = 0;
    for (; i <= (count - 4); i += 4) {
        int32_t word;
        (void)memcpy(&word, &from[i], 4); /* a load: the processor allows any address */
        (void)memcpy(&to[i], &word, 4);
    }
    for (; i < count; ++i) {
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

/* ---- Vectors of 16 bytes. `shift` is 31 or 32, or 0 for TensorFlow Lite's rounding by `shifts` (0 to 31). ---- */

static inline int32_t qcc_requantize_one(int32_t acc, int32_t multiplier, int32_t by, int32_t shift)
{
    return (shift == 0) ? qcc_tflite_multiply(acc, multiplier, by) : qcc_requantize(acc, multiplier, shift);
}

/* sums[c] += products of one pixel's bytes with the weights of four channels, 16 bytes of each after the other. */
static inline void qcc_dot_wide(const int8_t *x, const int8_t *w, int32_t vectors, int32_t *sums)
{
#if QCC_MVE
    int32_t s0 = sums[0], s1 = sums[1], s2 = sums[2], s3 = sums[3];
    int8x16_t v, m;
    __asm__ volatile("dls         lr, %[count]\n"
                     "1:\n\t"
                     "vldrb.8     %q[v], [%[x]], #16\n\t"
                     "vldrb.8     %q[m], [%[w]], #16\n\t"
                     "vmladava.s8 %[s0], %q[v], %q[m]\n\t"
                     "vldrb.8     %q[m], [%[w]], #16\n\t"
                     "vmladava.s8 %[s1], %q[v], %q[m]\n\t"
                     "vldrb.8     %q[m], [%[w]], #16\n\t"
                     "vmladava.s8 %[s2], %q[v], %q[m]\n\t"
                     "vldrb.8     %q[m], [%[w]], #16\n\t"
                     "vmladava.s8 %[s3], %q[v], %q[m]\n\t"
                     "le          lr, 1b"
                     : [s0] "+&Te"(s0), [s1] "+&Te"(s1), [s2] "+&Te"(s2), [s3] "+&Te"(s3), [x] "+&r"(x), [w] "+&r"(w),
                       [v] "=&w"(v), [m] "=&w"(m)
                     : [count] "r"(vectors)
                     : "lr", "memory");
    sums[0] = s0;
    sums[1] = s1;
    sums[2] = s2;
    sums[3] = s3;
#else
    for (int32_t i = 0; i < (64 * vectors); ++i) {
        sums[(i / 16) % 4] += x[(16 * (i / 64)) + (i % 16)] * w[i];
    }
#endif
}

#if QCC_MVE
static inline int32x4_t qcc_requantize_wide(int32x4_t acc, const int32_t *multiplier, const int8_t *shifts, int32_t shift)
{
    const int32x4_t m = vldrwq_s32(multiplier);
    if (shift != 0) {
        return (shift == 32) ? vrmulhq_s32(acc, m) : vqrdmulhq_s32(acc, m);
    }
    const int32x4_t high = vqrdmulhq_s32(acc, m), by = vnegq_s32(vldrbq_s32(shifts));
    return vrshlq_s32(vqaddq_s32(high, vshrq_n_s32(vandq_s32(high, by), 31)), by);
}

static inline int32x4_t qcc_gathered(const int32_t *sums)
{
    int32x4_t v;
    __asm__("vmov %q0[2], %q0[0], %1, %2\n\tvmov %q0[3], %q0[1], %3, %4"
            : "=&w"(v)
            : "r"(sums[0]), "r"(sums[2]), "r"(sums[1]), "r"(sums[3]));
    return v;
}
#endif

/* What follows four channels' sums. */
static inline void qcc_finish_wide(const int32_t *sums, const int32_t *multiplier, const int8_t *shifts, int32_t shift,
                                   int32_t zero, int32_t low, int32_t high, int8_t *y)
{
#if QCC_MVE
    int32x4_t v = vaddq_n_s32(qcc_requantize_wide(qcc_gathered(sums), multiplier, shifts, shift), zero);
    v = vminq_s32(vmaxq_s32(v, vdupq_n_s32(low)), vdupq_n_s32(high));
    vstrbq_s32(y, v);
#else
    for (int32_t c = 0; c < 4; ++c) {
        y[c] = qcc_clamp(qcc_requantize_one(sums[c], multiplier[c], shifts[c], shift) + zero, low, high);
    }
#endif
}

/* The same with a residual that is added in `fraction` bits; y may be where the residual is. */
static inline void qcc_finish_wide_residual(const int32_t *sums, const int32_t *multiplier, const int8_t *shifts,
                                            int32_t shift, int32_t zero, int32_t low, int32_t high,
                                            const int8_t *residual, int32_t residual_zero, int32_t residual_multiplier,
                                            int32_t fraction, int8_t *y)
{
#if QCC_MVE
    const int32x4_t r = vmulq_n_s32(vsubq_n_s32(vldrbq_s32(residual), residual_zero), residual_multiplier);
    int32x4_t v = vaddq_s32(qcc_requantize_wide(qcc_gathered(sums), multiplier, shifts, shift), r);
    v = vaddq_n_s32(vrshlq_s32(v, vdupq_n_s32(-fraction)), zero);
    v = vminq_s32(vmaxq_s32(v, vdupq_n_s32(low)), vdupq_n_s32(high));
    vstrbq_s32(y, v);
#else
    for (int32_t c = 0; c < 4; ++c) {
        const int32_t r = (residual[c] - residual_zero) * residual_multiplier;
        const int32_t v = qcc_requantize_one(sums[c], multiplier[c], shifts[c], shift) + r;
        y[c] = qcc_clamp(((v + ((1 << fraction) >> 1)) >> fraction) + zero, low, high);
    }
#endif
}

/* One output pixel of a depthwise convolution: tap (ky, kx) of channel c is x[ky * row + kx * column + c].
 *
 * Weights are [channels / 8][taps][8]; bias and multiplier [channels / 8][8], even channels before odd ones. Products of
 * two taps fit 16 bits, as weights are above -128. */
static inline void qcc_depthwise_wide(const int8_t *x, int32_t row, int32_t column, int32_t taps_y, int32_t taps_x,
                                      const int8_t *w, const int32_t *bias, const int32_t *multiplier,
                                      const int8_t *shifts, int32_t shift, int32_t zero, int32_t low, int32_t high, int32_t channels, int8_t *y)
{
#if QCC_MVE
    for (int32_t c = 0; c < channels; c += 8) {
        const mve_pred16_t inside = vctp16q((uint32_t)(channels - c));
        const int whole = (channels % 8) == 0;
        int32x4_t even = vldrwq_s32(bias), odd = vldrwq_s32(&bias[4]);
        for (int32_t ky = 0; ky < taps_y; ++ky) {
            const int8_t *p = &x[ky * row];
            for (int32_t kx = 0; kx < (taps_x / 2); ++kx) {
                const int8_t *const q = &p[column];
                const int16x8_t a = vmulq_s16(whole ? vldrbq_s16(p) : vldrbq_z_s16(p, inside), vldrbq_s16(w));
                const int16x8_t b = vmulq_s16(whole ? vldrbq_s16(q) : vldrbq_z_s16(q, inside), vldrbq_s16(&w[8]));
                const int16x8_t both = vaddq_s16(a, b);
                even = vaddq_s32(even, vmovlbq_s16(both));
                odd = vaddq_s32(odd, vmovltq_s16(both));
                w = &w[16];
                p = &q[column];
            }
            if ((taps_x % 2) != 0) {
                const int16x8_t last = vmulq_s16(whole ? vldrbq_s16(p) : vldrbq_z_s16(p, inside), vldrbq_s16(w));
                even = vaddq_s32(even, vmovlbq_s16(last));
                odd = vaddq_s32(odd, vmovltq_s16(last));
                w = &w[8];
            }
        }
        even = vaddq_n_s32(qcc_requantize_wide(even, multiplier, shifts, shift), zero);
        odd = vaddq_n_s32(qcc_requantize_wide(odd, &multiplier[4], &shifts[4], shift), zero);
        int16x8_t out = vqmovntq_s32(vqmovnbq_s32(vreinterpretq_s16_s32(even), even), odd);
        out = vminq_s16(vmaxq_s16(out, vdupq_n_s16((int16_t)low)), vdupq_n_s16((int16_t)high));
        if (whole) {
            vstrbq_s16(&y[c], out);
        } else {
            vstrbq_p_s16(&y[c], out, inside);
        }
        x = &x[8];
        bias = &bias[8];
        multiplier = &multiplier[8];
        shifts = &shifts[8];
    }
#else
    for (int32_t c = 0; c < channels; ++c) {
        const int32_t lane = (c & ~7) + (4 * (c & 1)) + ((c & 7) / 2);
        const int8_t *const taps = &w[((c / 8) * taps_y * taps_x * 8) + (c % 8)];
        int32_t sum = bias[lane];
        for (int32_t t = 0; t < (taps_y * taps_x); ++t) {
            sum += x[((t / taps_x) * row) + ((t % taps_x) * column) + c] * taps[8 * t];
        }
        y[c] = qcc_clamp(qcc_requantize_one(sum, multiplier[lane], shifts[lane], shift) + zero, low, high);
    }
#endif
}

/* TensorFlow Lite's addition; q holds zero point, low and high of the output, zero points of a and b, multipliers of a,
 * b and their sum, and shifts likewise. */
static inline void qcc_tflite_add_wide(const int8_t *a, const int8_t *b, const int32_t *q, int32_t sign, int32_t count,
                                       int8_t *y)
{
#if QCC_MVE
    const int32x4_t by_a = vdupq_n_s32(-q[8]), by_b = vdupq_n_s32(-q[9]), by_y = vdupq_n_s32(-q[10]);
    for (int32_t i = 0; i < count; i += 4) {
        const mve_pred16_t inside = vctp32q((uint32_t)(count - i));
        int32x4_t s = vqrdmulhq_n_s32(vshlq_n_s32(vsubq_n_s32(vldrbq_z_s32(&a[i], inside), q[3]), 20), q[5]);
        int32x4_t t = vqrdmulhq_n_s32(vshlq_n_s32(vsubq_n_s32(vldrbq_z_s32(&b[i], inside), q[4]), 20), q[6]);
        s = vrshlq_s32(vaddq_s32(s, vshrq_n_s32(vandq_s32(s, by_a), 31)), by_a);
        t = vrshlq_s32(vaddq_s32(t, vshrq_n_s32(vandq_s32(t, by_b), 31)), by_b);
        s = vqrdmulhq_n_s32((sign < 0) ? vsubq_s32(s, t) : vaddq_s32(s, t), q[7]);
        s = vaddq_n_s32(vrshlq_s32(vaddq_s32(s, vshrq_n_s32(vandq_s32(s, by_y), 31)), by_y), q[0]);
        vstrbq_p_s32(&y[i], vminq_s32(vmaxq_s32(s, vdupq_n_s32(q[1])), vdupq_n_s32(q[2])), inside);
    }
#else
    for (int32_t i = 0; i < count; ++i) {
        const int32_t s = qcc_tflite_multiply((a[i] - q[3]) * 1048576, q[5], q[8]);
        const int32_t t = qcc_tflite_multiply((b[i] - q[4]) * 1048576, q[6], q[9]);
        y[i] = qcc_clamp(qcc_tflite_multiply(s + (sign * t), q[7], q[10]) + q[0], q[1], q[2]);
    }
#endif
}

#endif
