#include "bfe_functions_neon.h"

#ifdef BFE_HAS_NEON_KERNELS

#include "bfe_store_neon.h"
#include "bfe_tile_dotprod_neon.h"

/* Tiles of up to EXPANDED columns are expanded to bytes once for all of up to GROUP columns of q. */
enum { ROWS = 32, TILE = 32, GROUP = 32, EXPANDED = 1024 };

BFE_DOTPROD static int32_t sum_of(const int8_t *q, size_t columns) {
    int32x4_t sum = vdupq_n_s32(0);
    for (size_t i = 0; i < columns; i += BFE_COLUMN_BLOCK)
        sum = vdotq_s32(sum, vld1q_s8(q + i), vdupq_n_s8(1));
    return vaddvq_s32(sum);
}

/* The codes of 32 rows as int8 tiles: first those of 16 rows, then those of the other 16. */
static void expand(const uint8_t *tile, size_t columns, uint8_t *codes) {
    uint8_t *low = codes, *high = codes + ROWS / 2 * columns;
    const uint8x16_t mask = vdupq_n_u8(3);
    for (size_t i = 0; i < columns; i += 4, tile += TILE, low += 64, high += 64) {
        const uint8x16_t a = vld1q_u8(tile), b = vld1q_u8(tile + 16);
        vst1q_u8(low, vandq_u8(a, mask));
        vst1q_u8(low + 16, vandq_u8(b, mask));
        vst1q_u8(low + 32, vandq_u8(vshrq_n_u8(a, 2), mask));
        vst1q_u8(low + 48, vandq_u8(vshrq_n_u8(b, 2), mask));
        vst1q_u8(high, vandq_u8(vshrq_n_u8(a, 4), mask));
        vst1q_u8(high + 16, vandq_u8(vshrq_n_u8(b, 4), mask));
        vst1q_u8(high + 32, vshrq_n_u8(a, 6));
        vst1q_u8(high + 48, vshrq_n_u8(b, 6));
    }
}

static size_t at_most(size_t value, size_t bound) { return value < bound ? value : bound; }

/* Up to GROUP columns. |sum| <= 16384 * 32 * 127 < 2^27, 32 because bfe_tile_trits_dotprod may shift after adding. */
static void multiply(const bfe_matrix *matrix, const int8_t *q, size_t q_stride, const float *s, size_t count, float *y,
                     size_t y_stride, uint8_t *codes) {
    const size_t columns = (matrix->columns + BFE_COLUMN_BLOCK - 1) / BFE_COLUMN_BLOCK * BFE_COLUMN_BLOCK;
    const int is_expanded = count > BFE_DOT_COLUMNS && columns <= EXPANDED;
    int32_t sum_of_q[GROUP], less[GROUP];
    for (size_t c = 0; c < count; c++) {
        sum_of_q[c] = sum_of(q + c * q_stride, columns);
        less[c] = -sum_of_q[c];
    }
    for (size_t first = 0; first < matrix->rows; first += ROWS) {
        const uint8_t *const tile = (const uint8_t *)matrix->weight + first / ROWS * matrix->stride;
        if (is_expanded)
            expand(tile, columns, codes);
        for (size_t c = 0; c < count; c += BFE_DOT_COLUMNS) {
            const int8_t *const from = q + c * q_stride;
            const size_t n = at_most(count - c, BFE_DOT_COLUMNS);
            int32_t sum[BFE_DOT_COLUMNS * ROWS];
            if (is_expanded) {
                const int8_t *const low = (const int8_t *)codes, *const high = low + ROWS / 2 * columns;
                bfe_tile_int8_dotprod(low, columns, from, q_stride, n, less + c, sum, ROWS);
                bfe_tile_int8_dotprod(high, columns, from, q_stride, n, less + c, sum + ROWS / 2, ROWS);
            } else {
                bfe_tile_trits_dotprod(tile, columns, from, q_stride, n, sum_of_q + c, sum);
            }
            bfe_store_trits_neon(matrix, first, sum, s + c, n, y + c * y_stride, y_stride);
        }
    }
}

void bfe_product_trits_dotprod(const bfe_matrix *matrix, const int8_t *q, size_t q_stride, const float *s, size_t count,
                               void *y, size_t y_stride, void *scratch) {
    for (size_t c = 0; c < count; c += GROUP)
        multiply(matrix, q + c * q_stride, q_stride, s + c, at_most(count - c, GROUP), (float *)y + c * y_stride,
                 y_stride, scratch);
}

#endif
