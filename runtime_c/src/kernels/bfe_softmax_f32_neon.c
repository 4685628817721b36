#include "bfe_functions_neon.h"

#ifdef BFE_HAS_NEON_KERNELS

#include "../bfe_float.h"

#include <arm_neon.h>

enum { LANES = 4 };

/* Sets weight to t_j and returns the highest. */
static float scale_scores(const int32_t *product, float scale, const float *k_scale, size_t count, float *weight) {
    size_t j = 0;
    float highest = (float)product[0] * (scale * k_scale[0]);
    float32x4_t highest4 = vdupq_n_f32(highest);
    for (; j + LANES <= count; j += LANES) {
        const float32x4_t factor = vmulq_n_f32(vld1q_f32(k_scale + j), scale);
        const float32x4_t t = vmulq_f32(vcvtq_f32_s32(vld1q_s32(product + j)), factor);
        vst1q_f32(weight + j, t);
        highest4 = vmaxq_f32(highest4, t);
    }
    highest = vmaxvq_f32(highest4);
    for (; j < count; j++) {
        weight[j] = (float)product[j] * (scale * k_scale[j]);
        highest = weight[j] > highest ? weight[j] : highest;
    }
    return highest;
}

/* bfe_exp2fix_f32 of four values. */
static inline int32x4_t exp2fix(float32x4_t t) {
    t = vmaxq_f32(t, vdupq_n_f32(-17.0f));
    const float32x4_t n = vrndmq_f32(t);
    const float32x4_t f = vsubq_f32(t, n);
    float32x4_t p = vaddq_f32(vmulq_n_f32(f, 0x1.bd07c2p-7f), vdupq_n_f32(0x1.a99434p-5f));
    p = vaddq_f32(vmulq_f32(p, f), vdupq_n_f32(0x1.ee7afap-3f));
    p = vaddq_f32(vmulq_f32(p, f), vdupq_n_f32(0x1.62d354p-1f));
    p = vaddq_f32(vmulq_f32(p, f), vdupq_n_f32(1.0f));
    const int32x4_t power = vshlq_n_s32(vaddq_s32(vcvtq_s32_f32(n), vdupq_n_s32(15 + 127)), 23); /* 2^(n + 15) */
    return vcvtnq_s32_f32(vmulq_f32(p, vreinterpretq_f32_s32(power)));
}

/* The sum of up to 16384 E of at most 2^15 is at most 2^29. */
int32_t bfe_softmax_f32_neon(const int32_t *product, float scale, const float *k_scale, const float *v_scale,
                             size_t count, float *weight) {
    const float highest = scale_scores(product, scale, k_scale, count, weight);
    int32x4_t total4 = vdupq_n_s32(0);
    size_t j = 0;
    for (; j + LANES <= count; j += LANES) {
        const int32x4_t e = exp2fix(vsubq_f32(vld1q_f32(weight + j), vdupq_n_f32(highest)));
        total4 = vaddq_s32(total4, e);
        vst1q_f32(weight + j, vmulq_f32(vcvtq_f32_s32(e), vld1q_f32(v_scale + j)));
    }
    int32_t total = vaddvq_s32(total4);
    for (; j < count; j++) {
        const int32_t e = bfe_exp2fix_f32(weight[j] - highest);
        total += e;
        weight[j] = (float)e * v_scale[j];
    }
    return total;
}

#endif
