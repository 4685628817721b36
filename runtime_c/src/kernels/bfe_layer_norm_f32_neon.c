#include "bfe_functions_neon.h"

#ifdef BFE_HAS_NEON_KERNELS

#include "../bfe_float.h"
#include "bfe_floats_neon.h"

/* Squares of PART values, 512 in a lane, add up within 32 bits: 512 * 2047 * 2047 < 2^31. */
enum { STEP = 16, PART = 4096 };

typedef struct statistics {
    int64_t sum, sum_of_squares;
} statistics;

static void add_part(statistics *to, const float *x, size_t count, float factor) {
    int32x4_t sum = vdupq_n_s32(0), low = sum, high = sum;
    size_t i = 0;
    for (; i + STEP <= count; i += STEP) {
        const float32x4x4_t v = vld1q_f32_x4(x + i);
        const int16x8_t a = bfe_round_8_neon(v.val[0], v.val[1], factor);
        const int16x8_t b = bfe_round_8_neon(v.val[2], v.val[3], factor);
        sum = vpadalq_s16(vpadalq_s16(sum, a), b);
        low = vmlal_s16(vmlal_s16(low, vget_low_s16(a), vget_low_s16(a)), vget_low_s16(b), vget_low_s16(b));
        high = vmlal_high_s16(vmlal_high_s16(high, a, a), b, b);
    }
    to->sum += vaddvq_s32(sum);
    to->sum_of_squares += vaddlvq_s32(low) + vaddlvq_s32(high);
    for (; i < count; i++) {
        const int16_t q = (int16_t)bfe_round(x[i] * factor);
        to->sum += q;
        to->sum_of_squares += q * q;
    }
}

static inline float32x4_t normalise(float32x4_t x, float mean, float r, float32x4_t gain, float32x4_t bias) {
    return vaddq_f32(vmulq_f32(vmulq_n_f32(vsubq_f32(x, vdupq_n_f32(mean)), r), gain), bias);
}

void bfe_layer_norm_f32_neon(const float *x, const float *gain, const float *bias, size_t count, float *y) {
    const float m = bfe_largest_neon(x, count);
    statistics total = {0, 0};
    for (size_t i = 0; i < count; i += PART)
        add_part(&total, x + i, count - i < PART ? count - i : PART, 2047.0f / m);
    const int64_t n = (int64_t)count;
    int64_t variance = n * total.sum_of_squares - total.sum * total.sum;
    variance = variance > n ? variance : n; /* bounds y where the integers see no variance */

    const float s = m / 2047.0f;
    const float mean = (float)total.sum / (float)n * s;
    const float var = (float)variance / (float)(n * n) * s * s;
    const float r = 1.0f / vget_lane_f32(vsqrt_f32(vdup_n_f32(var + 1e-5f)), 0);
    size_t i = 0;
    for (; i + STEP <= count; i += STEP) {
        const float32x4x4_t v = vld1q_f32_x4(x + i), g = vld1q_f32_x4(gain + i), b = vld1q_f32_x4(bias + i);
        const float32x4x4_t normalised = {
            {normalise(v.val[0], mean, r, g.val[0], b.val[0]), normalise(v.val[1], mean, r, g.val[1], b.val[1]),
             normalise(v.val[2], mean, r, g.val[2], b.val[2]), normalise(v.val[3], mean, r, g.val[3], b.val[3])}};
        vst1q_f32_x4(y + i, normalised);
    }
    for (; i < count; i++)
        y[i] = (x[i] - mean) * r * gain[i] + bias[i];
}

#endif
