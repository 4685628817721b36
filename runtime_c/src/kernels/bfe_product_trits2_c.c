#include "../bfe_float.h"
#include "../bfe_kernels.h"

/* sum of code * q: the trits are the codes minus one. Four trits a byte, the first in the lowest bits. */
static int32_t dot_codes(const uint8_t *row, const int8_t *q, size_t columns) {
    int32_t sum = 0;
    const size_t whole = columns / 4;
    for (size_t b = 0; b < whole; b++) {
        const int32_t byte = row[b];
        sum += (byte & 3) * q[4 * b] + (byte >> 2 & 3) * q[4 * b + 1];
        sum += (byte >> 4 & 3) * q[4 * b + 2] + (byte >> 6) * q[4 * b + 3];
    }
    for (size_t i = 4 * whole; i < columns; i++)
        sum += (row[whole] >> 2 * (i % 4) & 3) * q[i];
    return sum;
}

void bfe_product_trits2_c(const bfe_matrix *matrix, const int8_t *q, size_t q_stride, const float *s, size_t count,
                          void *y, size_t y_stride, void *scratch) {
    const uint8_t *const weight = matrix->weight;
    (void)scratch;
    for (size_t c = 0; c < count; c++, q += q_stride) {
        float *const values = (float *)y + c * y_stride;
        const float factor = s[c] * matrix->scale[0];
        int32_t sum_of_q = 0;
        for (size_t i = 0; i < matrix->columns; i++)
            sum_of_q += q[i];
        for (size_t r = 0; r < matrix->rows; r++)
            values[r] = (float)(dot_codes(weight + r * matrix->stride, q, matrix->columns) - sum_of_q) * factor;
    }
}
