/* Prints what one thread can do at most: GMAC/s of vpdpbusd on 512-bit registers, GMAC/s of tdpbusd on tile registers
 * (0 without such instructions), and GB/s of reading memory beyond the level-2 cache. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "qcc/amx.h"

enum { CHAINS = 16, ROUNDS = 2000000, MACS_PER_INSTRUCTION = 64 };
enum { TILES = 4, TILE_ROUNDS = 500000, MACS_PER_TILE = 16 * 16 * 64, BYTES = 32 << 20 };

static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* Sixteen independent sums cover latency times issue width; named registers keep the compiler from spilling them. */
#define SUM(r) "vpdpbusd %%zmm0, %%zmm0, %%zmm" #r "\n\t"
#define CHAIN                                                               \
    SUM(1) SUM(2) SUM(3) SUM(4) SUM(5) SUM(6) SUM(7) SUM(8)                 \
    SUM(9) SUM(10) SUM(11) SUM(12) SUM(13) SUM(14) SUM(15) SUM(16)

__attribute__((target("avx512f,avx512vnni"))) static double vectors(void) {
    double start = seconds();
    for (long round = 0; round < ROUNDS; round++)
        __asm__ volatile(CHAIN ::
                             : "zmm1", "zmm2", "zmm3", "zmm4", "zmm5", "zmm6", "zmm7", "zmm8", "zmm9", "zmm10",
                               "zmm11", "zmm12", "zmm13", "zmm14", "zmm15", "zmm16");
    return 1e-9 * (double)ROUNDS * CHAINS * MACS_PER_INSTRUCTION / (seconds() - start);
}

static double tiles(void) {
    uint8_t shape[64] = {1}; /* palette 1; bytes of a row as 16 bits from byte 16, rows from byte 48 */
    for (int tile = 0; tile < 8; tile++) {
        shape[16 + 2 * tile] = 64;
        shape[48 + tile] = 16;
    }
    __asm__ volatile("ldtilecfg %0" ::"m"(shape));
    double start = seconds();
    for (long round = 0; round < TILE_ROUNDS; round++)
        __asm__ volatile("tdpbusd %tmm6, %tmm4, %tmm0\n\ttdpbusd %tmm7, %tmm4, %tmm1\n\t"
                         "tdpbusd %tmm6, %tmm5, %tmm2\n\ttdpbusd %tmm7, %tmm5, %tmm3");
    double rate = 1e-9 * (double)TILE_ROUNDS * TILES * MACS_PER_TILE / (seconds() - start);
    __asm__ volatile("tilerelease");
    return rate;
}

static uint64_t *memory;

static double reading(void) {
    uint64_t sums[4] = {0};
    double start = seconds();
    for (long i = 0; i < (long)(BYTES / sizeof *memory); i += 8)
        for (int k = 0; k < 4; k++) sums[k] += memory[i + 2 * k];
    double rate = 1e-9 * BYTES / (seconds() - start);
    return sums[0] + sums[1] + sums[2] + sums[3] == 1 ? 0 : rate;
}

static double best(double (*measure)(void)) {
    double most = 0;
    for (int repeat = 0; repeat < 10; repeat++) {
        double rate = measure();
        if (rate > most) most = rate;
    }
    return most;
}

int main(int count, char **arguments) {
    int vnni = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vnni");
    int amx = count > 1 && strcmp(arguments[1], "amx") == 0 && qcc_amx_allowed();
    memory = malloc(BYTES);
    if (!memory) return 1;
    memset(memory, 1, BYTES);
    printf("%.1f %.1f %.1f\n", vnni ? best(vectors) : 0, amx ? best(tiles) : 0, best(reading));
    return 0;
}
