#include "../bfe_float.h"
#include "../bfe_kernels.h"

void bfe_layer_norm_f32_c(const float *x, const float *gain, const float *bias, size_t count, float *y) {
    uint32_t largest = bfe_bits(BFE_TINY);
    for (size_t i = 0; i < count; i++) {
        const uint32_t magnitude = bfe_magnitude(x[i]);
        largest = magnitude > largest ? magnitude : largest;
    }
    const float m = bfe_from_bits(largest);
    const float factor = 2047.0f / m;

    int64_t sum = 0, sum_of_squares = 0;
    for (size_t i = 0; i < count; i++) {
        const int16_t q =
            (int16_t)bfe_round(x[i] * factor); /* 16 bits, so that not even NaNs could overflow the sums */
        sum += q;
        sum_of_squares += q * q;
    }
    const int64_t n = (int64_t)count;
    int64_t variance = n * sum_of_squares - sum * sum;
    variance = variance > n ? variance : n; /* bounds y where the integers see no variance */

    const float s = m / 2047.0f;
    const float mean = (float)sum / (float)n * s;
    const float var = (float)variance / (float)(n * n) * s * s;
    const float r = 1.0f / bfe_sqrt_f32(var + 1e-5f);
    for (size_t i = 0; i < count; i++)
        y[i] = (x[i] - mean) * r * gain[i] + bias[i];
}
