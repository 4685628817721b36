#include "../bfe_float.h"
#include "../bfe_kernels.h"

int32_t bfe_exp2fix_f32(float t) {
    t = t > -17.0f ? t : -17.0f; /* from here on t is in [-17, 0], even if it was NaN */
    int32_t n = (int32_t)t;
    n -= (float)n > t; /* towards minus infinity, where the conversion goes towards zero */
    const float f = t - (float)n;
    const float p = (((0x1.bd07c2p-7f * f + 0x1.a99434p-5f) * f + 0x1.ee7afap-3f) * f + 0x1.62d354p-1f) * f + 1.0f;
    const float power = bfe_from_bits((uint32_t)(n + 15 + 127) << 23); /* 2^(n + 15) */
    return bfe_round(p * power);
}
