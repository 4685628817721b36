/* How much memory something uses, found by painting it before and looking after what has changed. */
#ifndef BFD_PAINT_H
#define BFD_PAINT_H

#include <stddef.h>
#include <stdint.h>

/* Paints the stack below the caller, down to bfd_stack_low(). */
void bfd_paint_stack(void);

/* The lowest address of the stack whose paint has gone since. */
uintptr_t bfd_stack_depth(void);

void bfd_paint(uint8_t *bytes, size_t size, uint8_t colour);

/* The number of bytes up to and with the last one that is not of this colour any more. */
size_t bfd_unpainted(const uint8_t *bytes, size_t size, uint8_t colour);

#endif
