/* Filling the halo of an NHWC image buffer, which convolutions read as their padding. */
#ifndef QCC_HALO_H
#define QCC_HALO_H

#include <stdint.h>
#include <string.h>

/* Sets `top`, `left`, `bottom`, `right` rows and columns around n images of height x width pixels to `value`.
 * A pixel has `channels` bytes; rows follow each other without gaps. */
static inline void qcc_fill_halo(uint8_t *buffer, int32_t n, int32_t height, int32_t width, int32_t channels,
                                 int32_t top, int32_t left, int32_t bottom, int32_t right, uint8_t value)
{
    const size_t inside = (size_t)width * (size_t)channels;
    const size_t before = (size_t)left * (size_t)channels, after = (size_t)right * (size_t)channels;
    const size_t row = before + inside + after;
    for (int32_t image = 0; image < n; ++image) {
        uint8_t *p = buffer;
        memset(p, value, (size_t)top * row + before);
        p += (size_t)top * row + before;
        for (int32_t y = 0; y + 1 < height; ++y) {
            memset(p + inside, value, after + before); /* the end of this row and the beginning of the next */
            p += row;
        }
        memset(p + inside, value, after + (size_t)bottom * row);
        buffer += row * (size_t)(top + height + bottom);
    }
}

#endif
