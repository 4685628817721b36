#include "../bfe_kernels.h"

#ifdef BFE_HAS_NEON_KERNELS

#include "bfe_tile_dotprod_neon.h"

/* GCC would need more registers than there are, if it moved instructions before it gave them registers. */
#if !defined(__clang__)
#pragma GCC optimize("no-schedule-insns")
#endif

enum { ROWS = 32, TILE = 32 };

/* Adds the codes' products with one column's four values, lane `lane` of q. */
#define ADD(sum, q, lane)                                                                                              \
    do {                                                                                                               \
        (sum).val[0] = vdotq_laneq_s32((sum).val[0], f0, q, lane);                                                     \
        (sum).val[1] = vdotq_laneq_s32((sum).val[1], f1, q, lane);                                                     \
        (sum).val[2] = vdotq_laneq_s32((sum).val[2], f2, q, lane);                                                     \
        (sum).val[3] = vdotq_laneq_s32((sum).val[3], f3, q, lane);                                                     \
    } while (0)

/* Two fields stay where they are, 4 and 16 times their codes: cheaper than shifts, and their sums are shifted instead.
 */
#define ADD_TILE(lane)                                                                                                 \
    do {                                                                                                               \
        const uint8x16_t fields = vld1q_u8(tile + TILE * (lane));                                                      \
        const int8x16_t f0 = vreinterpretq_s8_u8(vandq_u8(fields, vdupq_n_u8(0x03)));                                  \
        const int8x16_t f1 = vreinterpretq_s8_u8(vandq_u8(fields, vdupq_n_u8(0x0C)));                                  \
        const int8x16_t f2 = vreinterpretq_s8_u8(vandq_u8(fields, vdupq_n_u8(0x30)));                                  \
        const int8x16_t f3 = vreinterpretq_s8_u8(vshrq_n_u8(fields, 6));                                               \
        ADD(a, qa, lane);                                                                                              \
        if (count > 1)                                                                                                 \
            ADD(b, qb, lane);                                                                                          \
        if (count > 2)                                                                                                 \
            ADD(c, qc, lane);                                                                                          \
        if (count > 3)                                                                                                 \
            ADD(d, qd, lane);                                                                                          \
    } while (0)

static inline void store(int32_t *to, int32x4x4_t sum, int32_t sum_of_q) {
    const int32x4_t less = vdupq_n_s32(sum_of_q);
    vst1q_s32(to, vsubq_s32(sum.val[0], less));
    vst1q_s32(to + 8, vsubq_s32(vshrq_n_s32(sum.val[1], 2), less));
    vst1q_s32(to + 16, vsubq_s32(vshrq_n_s32(sum.val[2], 4), less));
    vst1q_s32(to + 24, vsubq_s32(sum.val[3], less));
}

/*
 * Rows 0 to 3 of each field of the tile times `count` <= 4 columns; the count is a constant, so that the sums stay in
 * registers. |sum| <= 16384 * 32 * 127 < 2^27.
 */
BFE_DOTPROD static inline __attribute__((always_inline)) void multiply(const uint8_t *tile, size_t columns,
                                                                       const int8_t *q, size_t q_stride, size_t count,
                                                                       const int32_t *sum_of_q, int32_t *sum) {
    const int32x4_t zero = vdupq_n_s32(0);
    int32x4x4_t a = {{zero, zero, zero, zero}}, b = a, c = a, d = a;
    for (size_t i = 0; i < columns; i += BFE_COLUMN_BLOCK, q += BFE_COLUMN_BLOCK, tile += 4 * TILE) {
        const int8x16_t qa = vld1q_s8(q);
        const int8x16_t qb = count > 1 ? vld1q_s8(q + q_stride) : qa;
        const int8x16_t qc = count > 2 ? vld1q_s8(q + 2 * q_stride) : qa;
        const int8x16_t qd = count > 3 ? vld1q_s8(q + 3 * q_stride) : qa;
        ADD_TILE(0);
        ADD_TILE(1);
        ADD_TILE(2);
        ADD_TILE(3);
    }
    store(sum, a, sum_of_q[0]);
    if (count > 1)
        store(sum + ROWS, b, sum_of_q[1]);
    if (count > 2)
        store(sum + 2 * ROWS, c, sum_of_q[2]);
    if (count > 3)
        store(sum + 3 * ROWS, d, sum_of_q[3]);
}

BFE_DOTPROD void bfe_tile_trits_dotprod(const uint8_t *tile, size_t columns, const int8_t *q, size_t q_stride,
                                        size_t count, const int32_t *sum_of_q, int32_t *sum) {
    for (size_t half = 0; half < 2; half++, tile += TILE / 2, sum += 4) {
        switch (count) {
        case 1:
            multiply(tile, columns, q, q_stride, 1, sum_of_q, sum);
            break;
        case 2:
            multiply(tile, columns, q, q_stride, 2, sum_of_q, sum);
            break;
        case 3:
            multiply(tile, columns, q, q_stride, 3, sum_of_q, sum);
            break;
        default:
            multiply(tile, columns, q, q_stride, 4, sum_of_q, sum);
            break;
        }
    }
}

#endif
