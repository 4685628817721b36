/* The 64-bit product of two words, for a processor whose multiplier gives 32 bits. */
#ifndef XTENSA_WIDE_H
#define XTENSA_WIDE_H

#include <stdint.h>

static inline void wide_multiply(uint32_t a, uint32_t b, uint32_t *high, uint32_t *low) {
    const uint32_t a_low = a & 0xFFFF, a_high = a >> 16, b_low = b & 0xFFFF, b_high = b >> 16;
    const uint32_t outer = a_low * b_low, cross = a_high * b_low;
    const uint32_t middle = (outer >> 16) + (cross & 0xFFFF) + a_low * b_high;
    *low = middle << 16 | (outer & 0xFFFF);
    *high = a_high * b_high + (cross >> 16) + (middle >> 16);
}

#endif
