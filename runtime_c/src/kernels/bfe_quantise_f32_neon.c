#include "bfe_functions_neon.h"

#ifdef BFE_HAS_NEON_KERNELS

#include "../bfe_float.h"
#include "bfe_floats_neon.h"

enum { STEP = 16 };

float bfe_quantise_f32_neon(const float *x, size_t count, int8_t *q) {
    const float m = bfe_largest_neon(x, count);
    const float factor = 127.0f / m;
    size_t i = 0;
    for (; i + STEP <= count; i += STEP) {
        const float32x4x4_t v = vld1q_f32_x4(x + i);
        const int8x16_t low = vreinterpretq_s8_s16(bfe_round_8_neon(v.val[0], v.val[1], factor));
        const int8x16_t high = vreinterpretq_s8_s16(bfe_round_8_neon(v.val[2], v.val[3], factor));
        vst1q_s8(q + i, vuzp1q_s8(low, high));
    }
    for (; i < count; i++)
        q[i] = (int8_t)bfe_round(x[i] * factor);
    return m / 127.0f;
}

#endif
