/* What the kernels for floats share on aarch64. */
#ifndef BFE_FLOATS_NEON_H
#define BFE_FLOATS_NEON_H

#include "../bfe_float.h"

#include <arm_neon.h>
#include <stddef.h>

/* The largest |x|, and at least BFE_TINY. Magnitudes are ordered like their bits. */
static inline float bfe_largest_neon(const float *x, size_t count) {
    uint32x4_t a = vdupq_n_u32(bfe_bits(BFE_TINY)), b = a, c = a, d = a;
    size_t i = 0;
    for (; i + 16 <= count; i += 16) {
        const float32x4x4_t v = vld1q_f32_x4(x + i);
        a = vmaxq_u32(a, vreinterpretq_u32_f32(vabsq_f32(v.val[0])));
        b = vmaxq_u32(b, vreinterpretq_u32_f32(vabsq_f32(v.val[1])));
        c = vmaxq_u32(c, vreinterpretq_u32_f32(vabsq_f32(v.val[2])));
        d = vmaxq_u32(d, vreinterpretq_u32_f32(vabsq_f32(v.val[3])));
    }
    uint32_t largest = vmaxvq_u32(vmaxq_u32(vmaxq_u32(a, b), vmaxq_u32(c, d)));
    for (; i < count; i++)
        largest = bfe_magnitude(x[i]) > largest ? bfe_magnitude(x[i]) : largest;
    return bfe_from_bits(largest);
}

/* The low 16 bits of bfe_round(x[i] * factor) for eight values. */
static inline int16x8_t bfe_round_8_neon(float32x4_t low, float32x4_t high, float factor) {
    const float32x4_t magic = vdupq_n_f32(12582912.0f);
    const float32x4_t a = vaddq_f32(vmulq_n_f32(low, factor), magic), b = vaddq_f32(vmulq_n_f32(high, factor), magic);
    return vuzp1q_s16(vreinterpretq_s16_f32(a), vreinterpretq_s16_f32(b));
}

#endif
