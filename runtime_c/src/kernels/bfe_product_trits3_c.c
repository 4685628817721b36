#include "../bfe_float.h"
#include "../bfe_kernels.h"

/* sum of code * q: the trits are the codes minus one. Five trits a byte, the first in the lowest base-3 digit. */
static int32_t dot_codes(const uint8_t *row, const int8_t *q, size_t columns) {
    int32_t sum = 0;
    const size_t whole = columns / 5;
    for (size_t b = 0; b < whole; b++) {
        /* Quotients by powers of three from the byte itself, not from each other: no chain for the processor to wait
         * on. floor(v * 171 / 512) = floor(v / 3) and so on, for every byte. */
        const uint32_t v = row[b];
        const uint32_t v1 = v * 171 >> 9, v2 = v * 57 >> 9, v3 = v * 19 >> 9, v4 = v * 203 >> 14;
        const int32_t code0 = (int32_t)(v - 3 * v1), code1 = (int32_t)(v1 - 3 * v2), code2 = (int32_t)(v2 - 3 * v3);
        const int32_t code3 = (int32_t)(v3 - 3 * v4), code4 = (int32_t)v4;
        const int8_t *const x = q + 5 * b;
        sum += code0 * x[0] + code1 * x[1] + code2 * x[2] + code3 * x[3] + code4 * x[4];
    }
    uint32_t rest = 5 * whole < columns ? row[whole] : 0;
    for (size_t i = 5 * whole; i < columns; i++) {
        sum += (int32_t)(rest % 3) * q[i];
        rest /= 3;
    }
    return sum;
}

void bfe_product_trits3_c(const bfe_matrix *matrix, const int8_t *q, size_t q_stride, const float *s, size_t count,
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
