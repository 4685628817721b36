#include "bfd_paint.h"
#include "bfd_platform.h"

/* The address sanitizer has nothing to find below the stack pointer, but would complain. */
#if defined(__clang__) || defined(__GNUC__)
#define NOT_INLINED_NOT_SANITIZED __attribute__((noinline, no_sanitize_address))
#else
#define NOT_INLINED_NOT_SANITIZED
#endif

enum { STACK_COLOUR = 0xC5, OWN_FRAME = 128 };

NOT_INLINED_NOT_SANITIZED void bfd_paint_stack(void) {
    volatile uint8_t here = 0;
    volatile uint8_t *const low = (volatile uint8_t *)(uintptr_t)bfd_stack_low();
    const uintptr_t end = (uintptr_t)&here - OWN_FRAME;
    for (uintptr_t at = (uintptr_t)low; at < end; at++)
        low[at - (uintptr_t)low] = STACK_COLOUR;
}

NOT_INLINED_NOT_SANITIZED uintptr_t bfd_stack_depth(void) {
    const volatile uint8_t *at = bfd_stack_low();
    while (at < bfd_stack_high() && *at == STACK_COLOUR)
        at++;
    return (uintptr_t)at;
}

void bfd_paint(uint8_t *bytes, size_t size, uint8_t colour) {
    for (size_t i = 0; i < size; i++)
        bytes[i] = colour;
}

size_t bfd_unpainted(const uint8_t *bytes, size_t size, uint8_t colour) {
    while (size > 0 && bytes[size - 1] == colour)
        size--;
    return size;
}
