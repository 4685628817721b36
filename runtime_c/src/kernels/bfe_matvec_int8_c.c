#include "../bfe_float.h"
#include "../bfe_kernels.h"

void bfe_matvec_int8(const int8_t *weight, const float *scale, size_t rows, size_t columns, const int8_t *q, float s,
                     float *y) {
    for (size_t r = 0; r < rows; r++)
        y[r] = (float)bfe_dot_int8(weight + r * columns, q, columns) * (s * scale[r]);
}
