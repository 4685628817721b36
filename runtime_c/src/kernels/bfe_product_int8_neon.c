#include "bfe_functions_neon.h"

#ifdef BFE_HAS_NEON_KERNELS

#include "bfe_store_neon.h"

#include <arm_neon.h>

/* Moving instructions before it gives them registers, GCC would find too few. */
#if !defined(__clang__)
#pragma GCC optimize("no-schedule-insns")
#endif

enum { ROWS = 16, TILE = 64, COLUMNS = 2 };

/* Two rows a vector, two lanes each. */
typedef struct sums {
    int32x4_t v[ROWS / 2];
} sums;

/* The four values of a column that belong to tile `lane`, as often as a vector has rows. */
#define VALUES(q, lane) vreinterpretq_s8_s32(vdupq_laneq_s32(vreinterpretq_s32_s8(q), lane))

/* Adds rows 8 * i to 8 * i + 7 of two tiles, w0 and w1, w2 and w3. Two products fit in 16 bits: 2 * 127 * 128 < 2^15.
 * Steps that depend on each other are apart, for processors that run them in order. */
#define ADD(sum, i, q0, q1)                                                                                            \
    do {                                                                                                               \
        int16x8_t p0 = vmull_s8(vget_low_s8(w0), vget_low_s8(q0)), p1 = vmull_high_s8(w0, q0);                         \
        int16x8_t p2 = vmull_s8(vget_low_s8(w1), vget_low_s8(q0)), p3 = vmull_high_s8(w1, q0);                         \
        p0 = vmlal_s8(p0, vget_low_s8(w2), vget_low_s8(q1));                                                           \
        p1 = vmlal_high_s8(p1, w2, q1);                                                                                \
        p2 = vmlal_s8(p2, vget_low_s8(w3), vget_low_s8(q1));                                                           \
        p3 = vmlal_high_s8(p3, w3, q1);                                                                                \
        (sum).v[4 * (i)] = vpadalq_s16((sum).v[4 * (i)], p0);                                                          \
        (sum).v[4 * (i) + 1] = vpadalq_s16((sum).v[4 * (i) + 1], p1);                                                  \
        (sum).v[4 * (i) + 2] = vpadalq_s16((sum).v[4 * (i) + 2], p2);                                                  \
        (sum).v[4 * (i) + 3] = vpadalq_s16((sum).v[4 * (i) + 3], p3);                                                  \
    } while (0)

#define ADD_ROWS(i)                                                                                                    \
    do {                                                                                                               \
        const int8x16_t w0 = vld1q_s8(tile + 32 * (i)), w1 = vld1q_s8(tile + 32 * (i) + 16);                           \
        const int8x16_t w2 = vld1q_s8(tile + TILE + 32 * (i)), w3 = vld1q_s8(tile + TILE + 32 * (i) + 16);             \
        ADD(a, i, qa0, qa1);                                                                                           \
        if (count > 1)                                                                                                 \
            ADD(b, i, qb0, qb1);                                                                                       \
    } while (0)

/* Tiles `lane` and `lane + 1` of a block of 16 columns. */
#define ADD_TILES(lane)                                                                                                \
    do {                                                                                                               \
        const int8x16_t qa0 = VALUES(qa, lane), qa1 = VALUES(qa, lane + 1);                                            \
        const int8x16_t qb0 = VALUES(qb, lane), qb1 = VALUES(qb, lane + 1);                                            \
        ADD_ROWS(0);                                                                                                   \
        ADD_ROWS(1);                                                                                                   \
        tile += 2 * TILE;                                                                                              \
    } while (0)

static inline void store(int32_t *to, sums sum) {
    vst1q_s32(to, vpaddq_s32(sum.v[0], sum.v[1]));
    vst1q_s32(to + 4, vpaddq_s32(sum.v[2], sum.v[3]));
    vst1q_s32(to + 8, vpaddq_s32(sum.v[4], sum.v[5]));
    vst1q_s32(to + 12, vpaddq_s32(sum.v[6], sum.v[7]));
}

/* 16 rows times `count` <= 2 columns; the count is a constant, so that the sums stay in registers.
 * |sum| <= 16384 * 127 * 128 < 2^28. */
static inline __attribute__((always_inline)) void multiply(const int8_t *tile, size_t columns, const int8_t *q,
                                                           size_t q_stride, size_t count, int32_t *sum) {
    const int32x4_t zero = vdupq_n_s32(0);
    sums a = {{zero, zero, zero, zero, zero, zero, zero, zero}}, b = a;
    for (size_t i = 0; i < columns; i += BFE_COLUMN_BLOCK, q += BFE_COLUMN_BLOCK) {
        const int8x16_t qa = vld1q_s8(q);
        const int8x16_t qb = count > 1 ? vld1q_s8(q + q_stride) : qa;
        ADD_TILES(0);
        ADD_TILES(2);
    }
    store(sum, a);
    if (count > 1)
        store(sum + ROWS, b);
}

void bfe_product_int8_neon(const bfe_matrix *matrix, const int8_t *q, size_t q_stride, const float *s, size_t count,
                           void *y, size_t y_stride, void *scratch) {
    (void)scratch;
    for (size_t first = 0; first < matrix->rows; first += ROWS) {
        const int8_t *const tile = (const int8_t *)matrix->weight + first / ROWS * matrix->stride;
        for (size_t c = 0; c < count; c += COLUMNS) {
            const size_t columns = count - c < COLUMNS ? count - c : COLUMNS;
            int32_t sum[COLUMNS * ROWS];
            if (columns == COLUMNS)
                multiply(tile, matrix->columns, q + c * q_stride, q_stride, COLUMNS, sum);
            else
                multiply(tile, matrix->columns, q + c * q_stride, q_stride, 1, sum);
            bfe_store_int8_neon(matrix, first, sum, matrix->scale != NULL ? s + c : s, columns,
                                (float *)y + c * y_stride, y_stride);
        }
    }
}

#endif
