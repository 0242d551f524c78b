#ifndef BOARD_H
#define BOARD_H

#include <stdint.h>

/* The markers of count.c. */
#ifdef __riscv
#define COUNT_START() __asm__ volatile(".4byte 0x00100013" ::: "memory") /* addi x0, x0, 1 */
#define COUNT_END() __asm__ volatile(".4byte 0x00200013" ::: "memory")
#else
#define COUNT_START() __asm__ volatile("mov r8, r8" ::: "memory")
#define COUNT_END() __asm__ volatile("mov r9, r9" ::: "memory")
#endif

int board_main(void);
void board_print(const char *text);
void board_print_bytes(const void *data, uint32_t count);
void board_print_number(const char *name, uint32_t value);

static inline uint32_t board_stack_pointer(void)
{
    uint32_t pointer;
#ifdef __riscv
    __asm__ volatile("mv %0, sp" : "=r"(pointer));
#else
    __asm__ volatile("mov %0, sp" : "=r"(pointer));
#endif
    return pointer;
}

/* Gives the unused stack a pattern; then, the bytes below `before` down to the last one that was overwritten. */
void board_paint_stack(void);
uint32_t board_stack_used(uint32_t before);

#endif
