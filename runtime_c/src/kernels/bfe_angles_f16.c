#include "../bfe_float.h"
#include "../bfe_kernels.h"

void bfe_angles_f16(const int8_t *codes, size_t count, uint16_t *angles) {
    for (size_t i = 0; i < count; i++) {
        /* 2^-112 times the angle has, as binary32, the exponent bits that the angle has as binary16. No angle is a tie,
         * and a product rounded before is on the same side of the middle (tested, all 256). */
        const uint32_t rounded = bfe_bits((float)codes[i] * 0x1.921fb6p-118f) + 0x1000;
        angles[i] = (uint16_t)((rounded >> 13 & 0x7FFF) | (rounded >> 16 & 0x8000));
    }
}
