#include "bfe_functions_neon.h"

#ifdef BFE_HAS_NEON_KERNELS

#include "../bfe_float.h"

#include <arm_neon.h>

enum { LANES = 4 };

typedef struct pairs {
    float32x4_t a, b;
} pairs;

static inline pairs rotate(float32x4_t a, float32x4_t b, float32x4_t c, float32x4_t s) {
    return (pairs){vsubq_f32(vmulq_f32(c, a), vmulq_f32(s, b)), vaddq_f32(vmulq_f32(s, a), vmulq_f32(c, b))};
}

/* Pairs of neighbours. */
static void rotate_by_1(float *x, size_t padded, const float *cosine, const float *sine) {
    for (size_t i = 0; i < padded; i += 2 * LANES, cosine += LANES, sine += LANES) {
        const float32x4x2_t v = vld2q_f32(x + i);
        const pairs p = rotate(v.val[0], v.val[1], vld1q_f32(cosine), vld1q_f32(sine));
        const float32x4x2_t rotated = {{p.a, p.b}};
        vst2q_f32(x + i, rotated);
    }
}

static inline float32x4_t first_halves(float32x4_t x, float32x4_t y) {
    return vreinterpretq_f32_u64(vtrn1q_u64(vreinterpretq_u64_f32(x), vreinterpretq_u64_f32(y)));
}

static inline float32x4_t second_halves(float32x4_t x, float32x4_t y) {
    return vreinterpretq_f32_u64(vtrn2q_u64(vreinterpretq_u64_f32(x), vreinterpretq_u64_f32(y)));
}

static void rotate_by_2(float *x, size_t padded, const float *cosine, const float *sine) {
    for (size_t i = 0; i < padded; i += 2 * LANES, cosine += LANES, sine += LANES) {
        const float32x4_t v = vld1q_f32(x + i), w = vld1q_f32(x + i + LANES);
        const pairs p = rotate(first_halves(v, w), second_halves(v, w), vld1q_f32(cosine), vld1q_f32(sine));
        vst1q_f32(x + i, first_halves(p.a, p.b));
        vst1q_f32(x + i + LANES, second_halves(p.a, p.b));
    }
}

static void rotate_by_4(float *x, size_t padded, const float *cosine, const float *sine) {
    for (size_t i = 0; i < padded; i += 2 * LANES, cosine += LANES, sine += LANES) {
        const pairs p = rotate(vld1q_f32(x + i), vld1q_f32(x + i + LANES), vld1q_f32(cosine), vld1q_f32(sine));
        vst1q_f32(x + i, p.a);
        vst1q_f32(x + i + LANES, p.b);
    }
}

/* `distance` pairs, a multiple of 8. */
static inline void rotate_halves(float *first, float *second, size_t distance, const float *cosine, const float *sine) {
    for (size_t j = 0; j < distance; j += 2 * LANES) {
        const float32x4x2_t a = vld1q_f32_x2(first + j), b = vld1q_f32_x2(second + j);
        const float32x4x2_t c = vld1q_f32_x2(cosine + j), s = vld1q_f32_x2(sine + j);
        const pairs p = rotate(a.val[0], b.val[0], c.val[0], s.val[0]);
        const pairs q = rotate(a.val[1], b.val[1], c.val[1], s.val[1]);
        vst1q_f32(first + j, p.a);
        vst1q_f32(first + j + LANES, q.a);
        vst1q_f32(second + j, p.b);
        vst1q_f32(second + j + LANES, q.b);
    }
}

void bfe_rotate_f32_neon(float *x, size_t padded, size_t layers, const float *cosine, const float *sine) {
    if (padded < 2 * LANES) {
        bfe_rotate_f32_c(x, padded, layers, cosine, sine);
        return;
    }
    for (size_t layer = 0; layer < layers; layer++, cosine += padded / 2, sine += padded / 2) {
        const size_t distance = layer == 0 ? 1 : padded >> layer;
        if (distance == 1)
            rotate_by_1(x, padded, cosine, sine);
        else if (distance == 2)
            rotate_by_2(x, padded, cosine, sine);
        else if (distance == 4)
            rotate_by_4(x, padded, cosine, sine);
        else
            for (size_t j = 0; j < padded / 2; j += distance)
                rotate_halves(x + 2 * j, x + 2 * j + distance, distance, cosine + j, sine + j);
    }
}

#endif
