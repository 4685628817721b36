#include "../bfe_kernels.h"

#include <string.h>

void bfe_weighted_sum_int8(const int8_t *weight, const int8_t *rows, size_t row_count, size_t stride, size_t count,
                           int32_t *restrict sum) {
    memset(sum, 0, count * sizeof *sum);
    for (size_t j = 0; j < row_count; j++) {
        const int8_t *const row = rows + j * stride;
        const int32_t w = weight[j];
        for (size_t i = 0; i < count; i++)
            sum[i] += w * row[i];
    }
}
