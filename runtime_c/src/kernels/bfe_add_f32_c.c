#include "../bfe_float.h"
#include "../bfe_kernels.h"

void bfe_add_f32_c(float *restrict y, const float *restrict x, size_t count) {
    for (size_t i = 0; i < count; i++)
        y[i] = y[i] + x[i];
}

void bfe_add_scaled_f32_c(float *restrict y, float factor, const float *restrict x, size_t count) {
    for (size_t i = 0; i < count; i++)
        y[i] = y[i] + factor * x[i];
}

void bfe_set_scaled_f32_c(float *restrict y, float factor, const float *restrict x, size_t count) {
    for (size_t i = 0; i < count; i++)
        y[i] = 0.0f + factor * x[i]; /* never -0.0 */
}
