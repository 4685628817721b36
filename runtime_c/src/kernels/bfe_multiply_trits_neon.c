#include "bfe_trits_neon.h"

#ifdef BFE_HAS_NEON_KERNELS

#include "bfe_store_neon.h"

#include <arm_neon.h>
#include <string.h>

/* GCC would need more registers than there are, if it moved instructions before it gave them registers. */
#if !defined(__clang__)
#pragma GCC optimize("no-schedule-insns")
#endif

enum { STRIP = 32, TILE = 32, COLUMNS = BFE_MULTIPLIED_COLUMNS, PART = 96 };

/* One column's sums of rows 0 to 3 of a tile's fields, four lanes a row: rows 0 and 1 of field f in v[2 * f], 2 and 3
 * in v[2 * f + 1]. */
typedef struct sums {
    int16x8_t v[8];
} sums;

#define ADD_FIELD(sum, f, code, q)                                                                                     \
    do {                                                                                                               \
        (sum).v[2 * (f)] = vmlal_s8((sum).v[2 * (f)], vget_low_s8(code), vget_low_s8(q));                              \
        (sum).v[2 * (f) + 1] = vmlal_high_s8((sum).v[2 * (f) + 1], code, q);                                           \
    } while (0)

#define ADD(sum, q)                                                                                                    \
    do {                                                                                                               \
        ADD_FIELD(sum, 0, f0, q);                                                                                      \
        ADD_FIELD(sum, 1, f1, q);                                                                                      \
        ADD_FIELD(sum, 2, f2, q);                                                                                      \
        ADD_FIELD(sum, 3, f3, q);                                                                                      \
    } while (0)

/* The four values of a column that belong to tile `lane`, as often as a vector has rows. */
#define VALUES(q, lane) vreinterpretq_s8_s32(vdupq_laneq_s32(vreinterpretq_s32_s8(q), lane))

/* Two fields are not what they should be, for fewer instructions: f1 is 4 times its code, f2 has 4 times f3 added. */
#define ADD_TILE(lane)                                                                                                 \
    do {                                                                                                               \
        const uint8x16_t fields = vld1q_u8(tile + TILE * (lane));                                                      \
        const int8x16_t f0 = vreinterpretq_s8_u8(vandq_u8(fields, vdupq_n_u8(0x03)));                                  \
        const int8x16_t f1 = vreinterpretq_s8_u8(vandq_u8(fields, vdupq_n_u8(0x0C)));                                  \
        const int8x16_t f2 = vreinterpretq_s8_u8(vshrq_n_u8(fields, 4));                                               \
        const int8x16_t f3 = vreinterpretq_s8_u8(vshrq_n_u8(fields, 6));                                               \
        const int8x16_t qa4 = VALUES(qa, lane), qb4 = VALUES(qb, lane);                                                \
        ADD(a, qa4);                                                                                                   \
        if (count > 1)                                                                                                 \
            ADD(b, qb4);                                                                                               \
    } while (0)

/* Rows 0 to 3 of a field. */
static inline int32x4_t add_lanes(int16x8_t low, int16x8_t high) {
    return vpaddq_s32(vpaddlq_s16(low), vpaddlq_s16(high));
}

static inline void add_part(int32_t *to, sums sum) {
    const int32x4_t f0 = add_lanes(sum.v[0], sum.v[1]), f1 = add_lanes(sum.v[2], sum.v[3]);
    const int32x4_t f2 = add_lanes(sum.v[4], sum.v[5]), f3 = add_lanes(sum.v[6], sum.v[7]);
    vst1q_s32(to, vaddq_s32(vld1q_s32(to), f0));
    vst1q_s32(to + 8, vsraq_n_s32(vld1q_s32(to + 8), f1, 2));
    vst1q_s32(to + 16, vmlsq_n_s32(vaddq_s32(vld1q_s32(to + 16), f2), f3, 4));
    vst1q_s32(to + 24, vaddq_s32(vld1q_s32(to + 24), f3));
}

/*
 * Adds rows 0 to 3 of each field times `count` <= 2 columns, at most PART of each; the count is a constant, so that the
 * sums stay in registers. A lane of a sum takes one product a tile, codes up to 10: |sum| <= 96 / 4 * 10 * 127 < 2^15.
 */
static inline __attribute__((always_inline)) void multiply(const uint8_t *tile, size_t columns, const int8_t *q,
                                                           size_t q_stride, size_t count, int32_t *sum) {
    const int16x8_t zero = vdupq_n_s16(0);
    sums a = {{zero, zero, zero, zero, zero, zero, zero, zero}}, b = a;
    for (size_t i = 0; i < columns; i += BFE_COLUMN_BLOCK, q += BFE_COLUMN_BLOCK, tile += 4 * TILE) {
        const int8x16_t qa = vld1q_s8(q);
        const int8x16_t qb = count > 1 ? vld1q_s8(q + q_stride) : qa;
        ADD_TILE(0);
        ADD_TILE(1);
        ADD_TILE(2);
        ADD_TILE(3);
    }
    add_part(sum, a);
    if (count > 1)
        add_part(sum + STRIP, b);
}

/* Minus the sum of a column's values: the codes are the trits plus one. */
static int32_t minus_sum_of(const int8_t *q, size_t columns) {
    int32x4_t sum = vdupq_n_s32(0);
    for (size_t i = 0; i < columns; i += BFE_COLUMN_BLOCK)
        sum = vpadalq_s16(sum, vpaddlq_s8(vld1q_s8(q + i)));
    return -vaddvq_s32(sum);
}

/* |sum| <= 16384 * 2 * 127 < 2^23. */
void bfe_multiply_trits_neon(const bfe_matrix *matrix, const int8_t *q, size_t q_stride, const float *s, size_t count,
                             float *y, size_t y_stride) {
    int32_t start[COLUMNS * STRIP];
    for (size_t c = 0; c < count; c++) {
        const int32_t less = minus_sum_of(q + c * q_stride, matrix->columns);
        for (size_t r = 0; r < STRIP; r++)
            start[c * STRIP + r] = less;
    }
    for (size_t first = 0; first < matrix->rows; first += STRIP) {
        const uint8_t *const tile = (const uint8_t *)matrix->weight + first / STRIP * matrix->stride;
        int32_t sum[COLUMNS * STRIP];
        memcpy(sum, start, sizeof sum);
        for (size_t i = 0; i < matrix->columns; i += PART) {
            const size_t part = matrix->columns - i < PART ? matrix->columns - i : PART;
            const uint8_t *const from = tile + i / 4 * TILE;
            if (count == COLUMNS) {
                multiply(from, part, q + i, q_stride, COLUMNS, sum);
                multiply(from + TILE / 2, part, q + i, q_stride, COLUMNS, sum + 4);
            } else {
                multiply(from, part, q + i, q_stride, 1, sum);
                multiply(from + TILE / 2, part, q + i, q_stride, 1, sum + 4);
            }
        }
        bfe_store_trits_neon(matrix, first, sum, s, count, y, y_stride);
    }
}

#endif
