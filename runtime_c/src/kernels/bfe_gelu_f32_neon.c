#include "bfe_functions_neon.h"

#ifdef BFE_HAS_NEON_KERNELS

#include "../bfe_float.h"

#include <arm_neon.h>

enum { LANES = 4, STEPS = 128, LAST = 640 }; /* steps a unit; beyond LAST / STEPS = 5 the table is 0 */

/* Entry i of the table in the low half, entry i + 1 in the high one, from the bytes' offset 2 * i. */
static inline uint32_t two_entries(uint64_t offset) {
    uint32_t entries;
    memcpy(&entries, (const uint8_t *)bfe_gelu_table + offset, sizeof entries);
    return entries;
}

static inline uint32x4_t look_up(int32x4_t i) {
    const uint64x2_t offsets = vreinterpretq_u64_s32(vaddq_s32(i, i));
    const uint64_t a = vgetq_lane_u64(offsets, 0), b = vgetq_lane_u64(offsets, 1);
    uint32x4_t entries = vdupq_n_u32(two_entries((uint32_t)a));
    entries = vsetq_lane_u32(two_entries(a >> 32), entries, 1);
    entries = vsetq_lane_u32(two_entries((uint32_t)b), entries, 2);
    return vsetq_lane_u32(two_entries(b >> 32), entries, 3);
}

static inline float32x4_t gelu(float32x4_t x) {
    const float32x4_t u = vminnmq_f32(vmulq_n_f32(vabsq_f32(x), (float)STEPS), vdupq_n_f32((float)LAST));
    const int32x4_t i = vcvtq_s32_f32(u);
    const float32x4_t f = vsubq_f32(u, vcvtq_f32_s32(i));
    const uint32x4_t entries = look_up(i);
    const float32x4_t low = vcvtq_f32_u32(vandq_u32(entries, vdupq_n_u32(0xFFFF)));
    const float32x4_t high = vcvtq_f32_u32(vshrq_n_u32(entries, 16));
    const float32x4_t delta = vmulq_n_f32(vaddq_f32(low, vmulq_f32(f, vsubq_f32(high, low))), 0x1p-18f);
    return vsubq_f32(vmaxnmq_f32(x, vdupq_n_f32(0.0f)), delta);
}

void bfe_gelu_f32_neon(float *x, size_t count) {
    size_t at = 0;
    for (; at + LANES <= count; at += LANES)
        vst1q_f32(x + at, gelu(vld1q_f32(x + at)));
    bfe_gelu_f32_c(x + at, count - at);
}

#endif
