#ifndef BOARD_H
#define BOARD_H

#include <stdint.h>

/* The markers of count.c. */
#define COUNT_START() __asm__ volatile("mov r8, r8" ::: "memory")
#define COUNT_END() __asm__ volatile("mov r9, r9" ::: "memory")

int board_main(void);
void board_print(const char *text);
void board_print_bytes(const void *data, uint32_t count);
void board_print_number(const char *name, uint32_t value);

static inline uint32_t board_stack_pointer(void)
{
    uint32_t pointer;
    __asm__ volatile("mov %0, sp" : "=r"(pointer));
    return pointer;
}

/* Gives the unused stack a pattern; then, the bytes below `before` down to the last one that was overwritten. */
void board_paint_stack(void);
uint32_t board_stack_used(uint32_t before);

#endif
