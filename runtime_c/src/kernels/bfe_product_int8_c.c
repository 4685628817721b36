#include "../bfe_float.h"
#include "../bfe_kernels.h"

static int32_t dot(const int8_t *a, const int8_t *b, size_t count) {
    int32_t sum = 0;
    for (size_t i = 0; i < count; i++)
        sum += a[i] * b[i];
    return sum;
}

void bfe_product_int8_c(const bfe_matrix *matrix, const int8_t *q, size_t q_stride, const float *s, size_t count,
                        void *y, size_t y_stride, void *scratch) {
    const int8_t *const weight = matrix->weight;
    (void)scratch;
    for (size_t c = 0; c < count; c++) {
        int32_t *const sums = (int32_t *)y + c * y_stride;
        float *const values = (float *)y + c * y_stride;
        for (size_t r = 0; r < matrix->rows; r++) {
            const int32_t sum = dot(weight + r * matrix->stride, q + c * q_stride, matrix->columns);
            if (matrix->scale == NULL)
                sums[r] = sum;
            else
                values[r] = (float)sum * (s[c] * matrix->scale[r]);
        }
    }
}
