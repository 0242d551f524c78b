/* Quantization at the edges of a model: real = scale * (q - zero_point). Freestanding C99. */
#ifndef QCC_H
#define QCC_H

#include <stdint.h>

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

#endif
