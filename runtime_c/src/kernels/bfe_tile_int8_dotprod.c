#include "../bfe_kernels.h"

#ifdef BFE_HAS_NEON_KERNELS

#include "bfe_tile_dotprod_neon.h"

/* GCC would need more registers than there are, if it moved instructions before it gave them registers. */
#if !defined(__clang__)
#pragma GCC optimize("no-schedule-insns")
#endif

/* Adds a tile's products with four columns' values, lane `lane` of q, to the sums of 16 rows. */
#define ADD(sum, q, lane)                                                                                              \
    do {                                                                                                               \
        (sum).val[0] = vdotq_laneq_s32((sum).val[0], w.val[0], q, lane);                                               \
        (sum).val[1] = vdotq_laneq_s32((sum).val[1], w.val[1], q, lane);                                               \
        (sum).val[2] = vdotq_laneq_s32((sum).val[2], w.val[2], q, lane);                                               \
        (sum).val[3] = vdotq_laneq_s32((sum).val[3], w.val[3], q, lane);                                               \
    } while (0)

#define ADD_TILE(lane)                                                                                                 \
    do {                                                                                                               \
        const int8x16x4_t w = vld1q_s8_x4(tile + 64 * (lane));                                                         \
        ADD(a, qa, lane);                                                                                              \
        if (count > 1)                                                                                                 \
            ADD(b, qb, lane);                                                                                          \
        if (count > 2)                                                                                                 \
            ADD(c, qc, lane);                                                                                          \
        if (count > 3)                                                                                                 \
            ADD(d, qd, lane);                                                                                          \
    } while (0)

static inline int32x4x4_t fill(int32_t value) {
    const int32x4_t v = vdupq_n_s32(value);
    return (int32x4x4_t){{v, v, v, v}};
}

static inline void store(int32_t *to, int32x4x4_t sum) {
    vst1q_s32(to, sum.val[0]);
    vst1q_s32(to + 4, sum.val[1]);
    vst1q_s32(to + 8, sum.val[2]);
    vst1q_s32(to + 12, sum.val[3]);
}

/* With a constant count, so that the sums stay in registers. */
BFE_DOTPROD static inline __attribute__((always_inline)) void multiply(const int8_t *tile, size_t columns,
                                                                       const int8_t *q, size_t q_stride, size_t count,
                                                                       const int32_t *start, int32_t *sum,
                                                                       size_t sum_stride) {
    int32x4x4_t a = fill(start[0]), b = a, c = a, d = a;
    if (count > 1)
        b = fill(start[1]);
    if (count > 2)
        c = fill(start[2]);
    if (count > 3)
        d = fill(start[3]);
    for (size_t i = 0; i < columns; i += BFE_COLUMN_BLOCK, q += BFE_COLUMN_BLOCK, tile += 16 * BFE_COLUMN_BLOCK) {
        const int8x16_t qa = vld1q_s8(q);
        const int8x16_t qb = count > 1 ? vld1q_s8(q + q_stride) : qa;
        const int8x16_t qc = count > 2 ? vld1q_s8(q + 2 * q_stride) : qa;
        const int8x16_t qd = count > 3 ? vld1q_s8(q + 3 * q_stride) : qa;
        ADD_TILE(0);
        ADD_TILE(1);
        ADD_TILE(2);
        ADD_TILE(3);
    }
    store(sum, a);
    if (count > 1)
        store(sum + sum_stride, b);
    if (count > 2)
        store(sum + 2 * sum_stride, c);
    if (count > 3)
        store(sum + 3 * sum_stride, d);
}

BFE_DOTPROD void bfe_tile_int8_dotprod(const int8_t *tile, size_t columns, const int8_t *q, size_t q_stride,
                                       size_t count, const int32_t *start, int32_t *sum, size_t sum_stride) {
    switch (count) {
    case 1:
        multiply(tile, columns, q, q_stride, 1, start, sum, sum_stride);
        break;
    case 2:
        multiply(tile, columns, q, q_stride, 2, start, sum, sum_stride);
        break;
    case 3:
        multiply(tile, columns, q, q_stride, 3, start, sum, sum_stride);
        break;
    default:
        multiply(tile, columns, q, q_stride, 4, start, sum, sum_stride);
        break;
    }
}

#endif
