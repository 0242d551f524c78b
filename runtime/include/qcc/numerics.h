/* The integer arithmetic of every compiled model: the C twin of compiler/qcc/numerics.py, equal to it to the byte.
 *
 * real = scale * (q - zero_point). There is one rounding, half up: (v + (1 << (n - 1))) >> n.
 * Freestanding C99. Right shifts of negative numbers must be arithmetic, as they are on every compiler that counts;
 * qcc_quantize and qcc_dequantize need IEEE floats without -ffast-math.
 */
#ifndef QCC_NUMERICS_H
#define QCC_NUMERICS_H

#include <stdint.h>

#define QCC_INT8_MIN (-128)
#define QCC_INT8_MAX 127

/* Saturates to [low, high], which lies within int8. */
static inline int8_t qcc_clamp(int64_t v, int32_t low, int32_t high)
{
    return (int8_t)(v < low ? low : v > high ? high : v);
}

/* v / 2^shift, half up; shift 0 leaves v. */
static inline int64_t qcc_rounding_shift(int64_t v, int32_t shift)
{
    return shift != 0 ? (v + ((int64_t)1 << (shift - 1))) >> shift : v;
}

/* acc * multiplier / 2^shift, half up, through the 64-bit product. */
static inline int64_t qcc_requantize(int32_t acc, int32_t multiplier, int32_t shift)
{
    return qcc_rounding_shift((int64_t)acc * multiplier, shift);
}

/* What follows the sums of a convolution or dense layer, without a residual. */
static inline int8_t qcc_finish(int32_t acc, int32_t multiplier, int32_t shift, int32_t zero_point,
                                int32_t low, int32_t high)
{
    return qcc_clamp(qcc_requantize(acc, multiplier, shift) + zero_point, low, high);
}

/* The same with a residual r (centred: its zero point is subtracted), kept in `fraction` bits until the end. */
static inline int8_t qcc_finish_residual(int32_t acc, int32_t multiplier, int32_t shift, int32_t r,
                                         int32_t residual_multiplier, int32_t fraction, int32_t zero_point,
                                         int32_t low, int32_t high)
{
    const int64_t v = qcc_requantize(acc, multiplier, shift) + (int64_t)r * residual_multiplier;
    return qcc_clamp(qcc_rounding_shift(v, fraction) + zero_point, low, high);
}

/* a * multiplier_a + b * multiplier_b for centred a and b; stays within int32. */
static inline int8_t qcc_add(int32_t a, int32_t multiplier_a, int32_t b, int32_t multiplier_b, int32_t shift,
                             int32_t zero_point, int32_t low, int32_t high)
{
    const int32_t v = a * multiplier_a + b * multiplier_b;
    return qcc_clamp(qcc_rounding_shift(v, shift) + zero_point, low, high);
}

/* float to int8; inverse_scale is (float)(1.0 / scale). Rounds half to even. x must not be NaN. */
static inline int8_t qcc_quantize(float x, float inverse_scale, int32_t zero_point)
{
    const float low = (float)(QCC_INT8_MIN - zero_point), high = (float)(QCC_INT8_MAX - zero_point);
    const float to_even = 12582912.0f; /* 1.5 * 2^23: adding it leaves no bits for a fraction */
    float v = x * inverse_scale;
    v = v < low ? low : v > high ? high : v;
    v = (v + to_even) - to_even;
    return (int8_t)((int32_t)v + zero_point);
}

/* int8 to float. */
static inline float qcc_dequantize(int8_t q, float scale, int32_t zero_point)
{
    return (float)(q - zero_point) * scale;
}

/* Softmax of n values; table[d] = round(exp(-scale * d) * 2^K). The result has scale 1 / 256 and zero point -128. */
static inline void qcc_softmax(const int8_t *q, int32_t n, const int32_t *table, int8_t *out)
{
    int32_t largest = QCC_INT8_MIN, total = 0;
    for (int32_t i = 0; i < n; ++i) {
        largest = q[i] > largest ? q[i] : largest;
    }
    for (int32_t i = 0; i < n; ++i) {
        total += table[largest - q[i]];
    }
    for (int32_t i = 0; i < n; ++i) {
        const uint32_t numerator = ((uint32_t)table[largest - q[i]] << 9) + (uint32_t)total;
        const uint32_t share = numerator / (2u * (uint32_t)total);
        out[i] = (int8_t)((int32_t)(share < 255u ? share : 255u) - 128);
    }
}

/* Four neighbours, their weights along rows and columns in 1/2048 of the higher one. */
static inline int8_t qcc_bilinear(int8_t low_low, int8_t low_high, int8_t high_low, int8_t high_high,
                                  int32_t row_weight, int32_t column_weight)
{
    const int32_t top = low_low * (2048 - column_weight) + low_high * column_weight;
    const int32_t bottom = high_low * (2048 - column_weight) + high_high * column_weight;
    return (int8_t)qcc_rounding_shift((int64_t)top * (2048 - row_weight) + (int64_t)bottom * row_weight, 22);
}

#endif
