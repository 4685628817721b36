#include "../bfe_float.h"
#include "../bfe_kernels.h"

enum { ROWS = 32, LANES = 8, FIELDS = 4 };

/* Codes are trits plus one: |sum| <= 16384 * 2 * 127 < 2^23. */
static void multiply(const uint8_t *tile, const int8_t *q, size_t columns, int32_t *sum) {
    for (size_t r = 0; r < ROWS; r++)
        sum[r] = 0;
    for (size_t i = 0; i < columns; i += 4, tile += ROWS) {
        for (size_t f = 0; f < FIELDS; f++) {
            for (size_t r = 0; r < LANES; r++) {
                const uint8_t *const bytes = tile + 4 * r;
                sum[LANES * f + r] += (bytes[0] >> 2 * f & 3) * q[i] + (bytes[1] >> 2 * f & 3) * q[i + 1] +
                                      (bytes[2] >> 2 * f & 3) * q[i + 2] + (bytes[3] >> 2 * f & 3) * q[i + 3];
            }
        }
    }
}

void bfe_product_trits_tiles(const bfe_matrix *matrix, const int8_t *q, size_t q_stride, const float *s, size_t count,
                             void *y, size_t y_stride, void *scratch) {
    (void)scratch;
    for (size_t c = 0; c < count; c++, q += q_stride) {
        float *const values = (float *)y + c * y_stride;
        const float factor = s[c] * matrix->scale[0];
        int32_t sum_of_q = 0;
        for (size_t i = 0; i < matrix->columns; i++)
            sum_of_q += q[i];
        for (size_t first = 0; first < matrix->rows; first += ROWS) {
            const size_t rows = matrix->rows - first < ROWS ? matrix->rows - first : ROWS;
            int32_t sum[ROWS];
            multiply((const uint8_t *)matrix->weight + first / ROWS * matrix->stride, q, matrix->columns, sum);
            for (size_t r = 0; r < rows; r++)
                values[first + r] = (float)(sum[r] - sum_of_q) * factor;
        }
    }
}
