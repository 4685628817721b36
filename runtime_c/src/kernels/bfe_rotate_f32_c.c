#include "../bfe_float.h"
#include "../bfe_kernels.h"

/* Rotates the pairs (first[i * step], second[i * step]), i < count. */
static void rotate_pairs(float *restrict first, float *restrict second, size_t step, size_t count,
                         const float *restrict cosine, const float *restrict sine) {
    for (size_t i = 0; i < count; i++) {
        const float a = first[i * step], b = second[i * step];
        first[i * step] = cosine[i] * a - sine[i] * b;
        second[i * step] = sine[i] * a + cosine[i] * b;
    }
}

/* Algorithm 1 shuffles between its layers; here the elements stay and the pairs move apart instead: at distance 1, then
 * padded / 2, padded / 4 and so on (DESIGN.md). */
void bfe_rotate_f32_c(float *x, size_t padded, size_t layers, const float *cosine, const float *sine) {
    rotate_pairs(x, x + 1, 2, padded / 2, cosine, sine);
    for (size_t layer = 1; layer < layers; layer++) {
        const size_t distance = padded >> layer;
        cosine += padded / 2;
        sine += padded / 2;
        for (size_t p = 0; p < padded / 2; p += distance)
            rotate_pairs(x + 2 * p, x + 2 * p + distance, 1, distance, cosine + p, sine + p);
    }
}
