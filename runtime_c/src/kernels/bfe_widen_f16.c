#include "../bfe_float.h"
#include "../bfe_kernels.h"

float bfe_widen_f16(uint16_t half) {
    const uint32_t sign = (uint32_t)(half & 0x8000) << 16;
    uint32_t exponent = half >> 10 & 31;
    uint32_t mantissa = half & 0x3FF;

    if (exponent == 31) /* infinity, NaN */
        return bfe_from_bits(sign | 0x7F800000 | mantissa << 13);
    if (exponent == 0) {
        if (mantissa == 0)
            return bfe_from_bits(sign);
        exponent = 1;
        while (mantissa < 0x400) { /* subnormal here, normal in binary32 */
            mantissa *= 2;
            exponent--;
        }
    }
    /* Exponent may have wrapped below 0; the bias brings it back. */
    return bfe_from_bits(sign | (exponent + (127 - 15)) << 23 | (mantissa & 0x3FF) << 13);
}
