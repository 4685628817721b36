#include "../bfe_float.h"
#include "../bfe_kernels.h"

/* In integers, because sqrtf is libm's. Called once per LayerNorm, so digit by digit is quick enough. */
float bfe_sqrt_f32(float x) {
    const uint32_t bits = bfe_bits(x);
    if (bits == 0 || bits >= 0x7F800000) /* zero, infinity, NaN; and what the caller must not pass */
        return x;

    int32_t exponent = (int32_t)(bits >> 23);
    uint64_t mantissa = bits & 0x7FFFFF;
    if (exponent == 0)
        exponent = 1;
    else
        mantissa |= 0x800000;
    while (mantissa < 0x800000) { /* subnormal */
        mantissa *= 2;
        exponent--;
    }

    /* x = mantissa * 2^(exponent - 150). With an even power split off, the integer root has 25 bits: the 24 of the
     * result and one that rounds it. A tie cannot happen: it would be the root of an odd square, and this one is even.
     */
    const int32_t shift = exponent % 2 == 0 ? 26 : 25;
    uint64_t rest = mantissa << shift;
    uint64_t root = 0;
    for (uint64_t digit = (uint64_t)1 << 48; digit != 0; digit >>= 2) {
        if (rest >= root + digit) {
            rest -= root + digit;
            root = (root >> 1) + digit;
        } else {
            root >>= 1;
        }
    }
    /* The result is root * 2^half. The rounded root brings its leading one (or its carry) along, so the exponent field
     * below it is one short. */
    const int32_t half = (exponent - 150 - shift) / 2;
    return bfe_from_bits(((uint32_t)(half + 150) << 23) + (uint32_t)((root + 1) >> 1));
}
