#include "../bfe_float.h"
#include "../bfe_kernels.h"

int32_t bfe_softmax_f32_c(const int32_t *product, float scale, const float *k_scale, const float *v_scale, size_t count,
                          float *weight) {
    float highest = 0.0f;
    for (size_t j = 0; j < count; j++) {
        weight[j] = (float)product[j] * (scale * k_scale[j]);
        highest = j == 0 || weight[j] > highest ? weight[j] : highest;
    }
    int32_t total = 0;
    for (size_t j = 0; j < count; j++) {
        const int32_t e = bfe_exp2fix_f32(weight[j] - highest);
        total += e;
        weight[j] = (float)e * v_scale[j];
    }
    return total;
}
