#include "../bfe_float.h"
#include "../bfe_kernels.h"

enum { ROWS = 16 };

/* |sum| <= 16384 * 127 * 128 < 2^28. */
static void multiply(const int8_t *tile, const int8_t *q, size_t columns, int32_t *sum) {
    for (size_t r = 0; r < ROWS; r++)
        sum[r] = 0;
    for (size_t i = 0; i < columns; i += 4, tile += 4 * ROWS)
        for (size_t r = 0; r < ROWS; r++)
            sum[r] += tile[4 * r] * q[i] + tile[4 * r + 1] * q[i + 1] + tile[4 * r + 2] * q[i + 2] +
                      tile[4 * r + 3] * q[i + 3];
}

void bfe_product_int8_tiles(const bfe_matrix *matrix, const int8_t *q, size_t q_stride, const float *s, size_t count,
                            void *y, size_t y_stride, void *scratch) {
    (void)scratch;
    for (size_t first = 0; first < matrix->rows; first += ROWS) {
        const int8_t *const tile = (const int8_t *)matrix->weight + first / ROWS * matrix->stride;
        const size_t rows = matrix->rows - first < ROWS ? matrix->rows - first : ROWS;
        for (size_t c = 0; c < count; c++) {
            int32_t *const sums = (int32_t *)y + c * y_stride + first;
            float *const values = (float *)y + c * y_stride + first;
            int32_t sum[ROWS];
            multiply(tile, q + c * q_stride, matrix->columns, sum);
            for (size_t r = 0; r < rows; r++) {
                if (matrix->scale == NULL)
                    sums[r] = sum[r];
                else
                    values[r] = (float)sum[r] * (s[c] * matrix->scale[first + r]);
            }
        }
    }
}
