#include "bfe_functions_neon.h"

#ifdef BFE_HAS_NEON_KERNELS

#include "../bfe_float.h"
#include "bfe_floats_neon.h"

enum { STEP = 16 };

void bfe_add_f32_neon(float *y, const float *x, size_t count) {
    size_t i = 0;
    for (; i + STEP <= count; i += STEP) {
        const float32x4x4_t a = vld1q_f32_x4(y + i), b = vld1q_f32_x4(x + i);
        const float32x4x4_t sum = {{vaddq_f32(a.val[0], b.val[0]), vaddq_f32(a.val[1], b.val[1]),
                                    vaddq_f32(a.val[2], b.val[2]), vaddq_f32(a.val[3], b.val[3])}};
        vst1q_f32_x4(y + i, sum);
    }
    for (; i < count; i++)
        y[i] = y[i] + x[i];
}

void bfe_add_scaled_f32_neon(float *y, float factor, const float *x, size_t count) {
    size_t i = 0;
    for (; i + STEP <= count; i += STEP) {
        const float32x4x4_t a = vld1q_f32_x4(y + i), b = vld1q_f32_x4(x + i);
        const float32x4x4_t sum = {
            {vaddq_f32(a.val[0], vmulq_n_f32(b.val[0], factor)), vaddq_f32(a.val[1], vmulq_n_f32(b.val[1], factor)),
             vaddq_f32(a.val[2], vmulq_n_f32(b.val[2], factor)), vaddq_f32(a.val[3], vmulq_n_f32(b.val[3], factor))}};
        vst1q_f32_x4(y + i, sum);
    }
    for (; i < count; i++)
        y[i] = y[i] + factor * x[i];
}

#endif
