/* Classifies one handwritten digit with the library that `make demo` compiled. */
#include <stdio.h>

#include "digits.h"

static const unsigned char picture[64] = {
     0,  0,  3, 11,  0,  0,  0,  0,
     0,  0, 12, 11,  0,  0,  0,  0,
     0,  1, 14,  1,  0,  0,  0,  0,
     0,  2, 15,  0,  0,  0,  0,  0,
     0,  4, 15, 15, 16, 15,  2,  0,
     0,  1, 16,  8,  4,  8, 11,  0,
     0,  1, 16, 11,  7, 10, 12,  0,
     0,  0,  5, 10, 12, 15,  7,  0,
};

int main(void) {
    float image[64], logits[10];
    for (int i = 0; i < 64; i++) {
        image[i] = (float)picture[i] / 16;
        printf("%c%s", " .:-=+*#%@"[picture[i] * 9 / 16], i % 8 == 7 ? "\n" : "");
    }
    digits(image, logits);
    int best = 0;
    for (int i = 1; i < 10; i++)
        if (logits[i] > logits[best]) best = i;
    printf("this is a %d\n", best);
    return 0;
}
