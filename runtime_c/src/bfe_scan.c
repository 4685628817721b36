#include "bfe_scan.h"
#include "bfe_format.h"

#include <stddef.h>

/* A byte of which the first `used` trits count. Unused trits, at the end of a row, are 0: what is left of the byte
 * after the used ones is the code 1, repeated; after all of them, 0. */
static int is_bad_trits2(uint8_t byte, uint32_t used) {
    return (byte & byte >> 1 & 0x55) != 0 || byte >> 2 * used != 0x55 >> 2 * used;
}

static int is_bad_trits3(uint8_t byte, uint32_t used) {
    static const uint8_t power[6] = {1, 3, 9, 27, 81, 243};
    return byte / power[used] != (power[5 - used] - 1) / 2;
}

uint32_t bfe_scan_weight(const uint8_t *weight, uint32_t bytes, uint16_t encoding, uint32_t columns) {
    uint32_t i = 0;
    if (encoding == BFE_ENCODING_INT8) {
        while (i < bytes && weight[i] != 0x80)
            i++;
        return i;
    }
    int (*const is_bad)(uint8_t, uint32_t) = encoding == BFE_ENCODING_TRITS2 ? is_bad_trits2 : is_bad_trits3;
    const uint32_t trits = encoding == BFE_ENCODING_TRITS2 ? 4 : 5;
    for (uint32_t column = 0; i < bytes; i++) {
        const uint32_t left = columns - column;
        if (is_bad(weight[i], left < trits ? left : trits))
            break;
        column = left > trits ? column + trits : 0;
    }
    return i;
}

uint32_t bfe_scan_f32(const uint8_t *floats, uint32_t count, uint32_t mask, uint32_t lowest, uint32_t highest) {
    uint32_t i = 0;
    for (; i < count; i++) {
        const uint32_t bits = bfe_read_u32(floats + 4 * (size_t)i) & mask;
        if (bits < lowest || bits > highest)
            break;
    }
    return i;
}

uint32_t bfe_scan_f16(const uint8_t *angles, uint32_t count, uint16_t highest) {
    uint32_t i = 0;
    while (i < count && (bfe_read_u16(angles + 2 * (size_t)i) & 0x7FFF) <= highest)
        i++;
    return i;
}
