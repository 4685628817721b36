#include "../bfe_float.h"
#include "../bfe_kernels.h"

/* Algorithm 1 shuffles between its layers; here the elements stay and the pairs move apart instead: at distance 1, then
 * padded / 2, padded / 4 and so on (DESIGN.md). */
void bfe_rotate_f32_c(float *x, size_t padded, size_t layers, const float *cosine, const float *sine) {
    for (size_t layer = 0; layer < layers; layer++) {
        const size_t distance = layer == 0 ? 1 : padded >> layer;
        for (size_t base = 0; base < padded; base += 2 * distance) {
            float *restrict const first = x + base;
            float *restrict const second = x + base + distance;
            for (size_t j = 0; j < distance; j++) {
                const float a = first[j], b = second[j];
                first[j] = cosine[j] * a - sine[j] * b;
                second[j] = sine[j] * a + cosine[j] * b;
            }
            cosine += distance;
            sine += distance;
        }
    }
}
