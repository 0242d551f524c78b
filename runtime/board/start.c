/* Start-up and semihosting for QEMU's boards. */
#include "board.h"

#include <stddef.h>
#include <string.h>

extern uint32_t stack_top, stack_bottom, bss_begin, bss_end, data_begin, data_end, data_source;

enum { WRITE0 = 0x04, EXIT_EXTENDED = 0x20, PAINT = 0x5A5A5A5A };

static int semihosting(int operation, const void *argument)
{
#ifdef __riscv
    register int a0 __asm__("a0") = operation;
    register const void *a1 __asm__("a1") = argument;
    __asm__ volatile(".option push\n\t.option norvc\n\t"
                     "slli x0, x0, 0x1f\n\tebreak\n\tsrai x0, x0, 7\n\t.option pop" : "+r"(a0) : "r"(a1) : "memory");
    return a0;
#else
    register int r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = argument;
    __asm__ volatile("bkpt 0xAB" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
#endif
}

void board_print(const char *text)
{
    (void)semihosting(WRITE0, text);
}

void board_print_bytes(const void *data, uint32_t count)
{
    const uint8_t *const bytes = data;
    char line[65];
    uint32_t used = 0;
    for (uint32_t i = 0; i < count; ++i) {
        line[used++] = "0123456789abcdef"[bytes[i] >> 4];
        line[used++] = "0123456789abcdef"[bytes[i] & 15];
        if (used == 64 || i + 1 == count) {
            line[used] = 0;
            board_print(line);
            used = 0;
        }
    }
    board_print("\n");
}

void board_print_number(const char *name, uint32_t value)
{
    char digits[12];
    int i = 11;
    digits[i] = 0;
    do {
        digits[--i] = (char)('0' + value % 10);
        value /= 10;
    } while (value != 0);
    board_print(name);
    board_print(" ");
    board_print(&digits[i]);
    board_print("\n");
}

__attribute__((noinline)) void board_paint_stack(void)
{
    const uint32_t *const end = (const uint32_t *)(board_stack_pointer() - 32);
    for (uint32_t *p = &stack_bottom; p < end; ++p) {
        *p = PAINT;
    }
}

uint32_t board_stack_used(uint32_t before)
{
    uint32_t *p = &stack_bottom;
    while (*p == PAINT) {
        ++p;
    }
    return before - (uint32_t)p;
}

static void leave(int code)
{
    const uint32_t block[2] = {0x20026, (uint32_t)code};
    (void)semihosting(EXIT_EXTENDED, block);
    for (;;) {
    }
}

__attribute__((aligned(4))) static void fault(void)
{
    board_print("fault\n");
    leave(99);
}

void reset(void)
{
#if __ARM_FP || __ARM_FEATURE_MVE
    *(volatile uint32_t *)0xE000ED88U |= 0xFU << 20; /* let the FPU and MVE run */
    __asm__ volatile("dsb\n\tisb" ::: "memory");
#endif
    memcpy(&data_begin, &data_source, (size_t)((char *)&data_end - (char *)&data_begin));
    memset(&bss_begin, 0, (size_t)((char *)&bss_end - (char *)&bss_begin));
    leave(board_main());
}

#ifdef __riscv
__attribute__((naked, section(".vectors"), used)) void _start(void)
{
    __asm__ volatile(".option arch, +zicsr\n\t"
                     "la sp, stack_top\n\tla t0, %0\n\tcsrw mtvec, t0\n\tj reset" ::"i"(fault));
}
#else
__attribute__((section(".vectors"), used)) const void *const vectors[16] = {
    &stack_top, (void *)reset, (void *)fault, (void *)fault, (void *)fault, (void *)fault, (void *)fault,
};
#endif
