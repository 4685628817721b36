#include "bfe_avx2.h"

#ifdef BFE_HAS_X86_KERNELS

BFE_AVX2 void bfe_add_f32_avx2(float *y, const float *x, size_t count) {
    size_t i = 0;
    for (; i + 8 <= count; i += 8)
        _mm256_storeu_ps(y + i, _mm256_add_ps(_mm256_loadu_ps(y + i), _mm256_loadu_ps(x + i)));
    bfe_add_f32_c(y + i, x + i, count - i);
}

BFE_AVX2 void bfe_add_scaled_f32_avx2(float *y, float factor, const float *x, size_t count) {
    const __m256 factors = _mm256_set1_ps(factor);
    size_t i = 0;
    for (; i + 8 <= count; i += 8) {
        const __m256 scaled = _mm256_mul_ps(factors, _mm256_loadu_ps(x + i));
        _mm256_storeu_ps(y + i, _mm256_add_ps(_mm256_loadu_ps(y + i), scaled));
    }
    bfe_add_scaled_f32_c(y + i, factor, x + i, count - i);
}

BFE_AVX2 void bfe_set_scaled_f32_avx2(float *y, float factor, const float *x, size_t count) {
    const __m256 factors = _mm256_set1_ps(factor);
    size_t i = 0;
    for (; i + 8 <= count; i += 8) {
        const __m256 scaled = _mm256_mul_ps(factors, _mm256_loadu_ps(x + i));
        _mm256_storeu_ps(y + i, _mm256_add_ps(_mm256_setzero_ps(), scaled));
    }
    bfe_set_scaled_f32_c(y + i, factor, x + i, count - i);
}

#endif
