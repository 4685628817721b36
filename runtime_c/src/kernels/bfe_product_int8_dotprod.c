#include "bfe_functions_neon.h"

#ifdef BFE_HAS_NEON_KERNELS

#include "bfe_store_neon.h"
#include "bfe_tile_dotprod_neon.h"

enum { ROWS = 16 };

/* |sum| <= 16384 * 127 * 128 < 2^28. */
void bfe_product_int8_dotprod(const bfe_matrix *matrix, const int8_t *q, size_t q_stride, const float *s, size_t count,
                              void *y, size_t y_stride, void *scratch) {
    static const int32_t zeros[BFE_DOT_COLUMNS] = {0};
    (void)scratch;
    for (size_t first = 0; first < matrix->rows; first += ROWS) {
        const int8_t *const tile = (const int8_t *)matrix->weight + first / ROWS * matrix->stride;
        for (size_t c = 0; c < count; c += BFE_DOT_COLUMNS) {
            const size_t columns = count - c < BFE_DOT_COLUMNS ? count - c : BFE_DOT_COLUMNS;
            int32_t sum[BFE_DOT_COLUMNS * ROWS];
            bfe_tile_int8_dotprod(tile, matrix->columns, q + c * q_stride, q_stride, columns, zeros, sum, ROWS);
            /* s may be NULL without a scale */
            bfe_store_int8_neon(matrix, first, sum, matrix->scale != NULL ? s + c : s, columns,
                                (float *)y + c * y_stride, y_stride);
        }
    }
}

#endif
