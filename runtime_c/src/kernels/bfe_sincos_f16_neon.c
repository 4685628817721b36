#include "bfe_functions_neon.h"

#ifdef BFE_HAS_NEON_KERNELS

#include "../bfe_float.h"

#include <arm_neon.h>

enum { LANES = 4 };

/* a * b + c, two operations */
static inline float32x4_t then_add(float32x4_t a, float32x4_t b, float c) {
    return vaddq_f32(vmulq_f32(a, b), vdupq_n_f32(c));
}

static inline float32x4_t negate_if(float32x4_t x, uint32x4_t bit1) {
    const uint32x4_t sign = vandq_u32(vshlq_n_u32(bit1, 30), vdupq_n_u32(0x80000000));
    return vreinterpretq_f32_u32(veorq_u32(vreinterpretq_u32_f32(x), sign));
}

static inline void sincos4(float32x4_t x, float *cosine, float *sine) {
    /* Rounds as bfe_round does: the sum's low bits are those of k, the quarter turns. */
    const float32x4_t sum = then_add(x, vdupq_n_f32(0x1.45f306p-1f), 12582912.0f);
    const uint32x4_t k = vreinterpretq_u32_f32(sum);
    const float32x4_t turns = vsubq_f32(sum, vdupq_n_f32(12582912.0f));
    const float32x4_t r = vsubq_f32(vsubq_f32(x, vmulq_n_f32(turns, 1.5703125f)), vmulq_n_f32(turns, 0x1.fb5444p-12f));
    const float32x4_t z = vmulq_f32(r, r);
    float32x4_t s = then_add(vdupq_n_f32(-0x1.98da66p-13f), z, 0x1.1105b4p-7f);
    s = then_add(s, z, -0x1.555540p-3f);
    s = vaddq_f32(vmulq_f32(vmulq_f32(s, z), r), r);
    float32x4_t c = then_add(vdupq_n_f32(0x1.9a0250p-16f), z, -0x1.6c0c8cp-10f);
    c = vmulq_f32(vmulq_f32(then_add(c, z, 0x1.55554ap-5f), z), z);
    c = vaddq_f32(vsubq_f32(c, vmulq_n_f32(z, 0.5f)), vdupq_n_f32(1.0f));

    const uint32x4_t is_odd = vtstq_u32(k, vdupq_n_u32(1));
    vst1q_f32(sine, negate_if(vbslq_f32(is_odd, c, s), k));
    vst1q_f32(cosine, negate_if(vbslq_f32(is_odd, s, c), vaddq_u32(k, vdupq_n_u32(1))));
}

void bfe_sincos_f16_neon(const uint16_t *angles, size_t count, float *cosine, float *sine) {
    size_t i = 0;
    for (; i + LANES <= count; i += LANES)
        sincos4(vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(angles + i))), cosine + i, sine + i);
    bfe_sincos_f16_c(angles + i, count - i, cosine + i, sine + i);
}

#endif
