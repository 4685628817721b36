#include "../bfe_float.h"
#include "../bfe_kernels.h"

float bfe_quantise_f32_c(const float *x, size_t count, int8_t *q) {
    uint32_t largest = bfe_bits(BFE_TINY);
    for (size_t i = 0; i < count; i++) {
        const uint32_t magnitude = bfe_magnitude(x[i]);
        largest = magnitude > largest ? magnitude : largest;
    }
    const float m = bfe_from_bits(largest);
    const float factor = 127.0f / m;
    for (size_t i = 0; i < count; i++)
        q[i] = (int8_t)bfe_round(x[i] * factor);
    return m / 127.0f;
}
