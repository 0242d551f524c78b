/* Kernels of processors with vectors of 16 bytes: Cortex-M55, M85. Elsewhere the portable forms are compiled. */
#ifndef QCC_MVE_H
#define QCC_MVE_H

#include "qcc_scalar.h"

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
