#include "bfe_avx2.h"

#ifdef BFE_HAS_X86_KERNELS

/* bfe_round's lowest byte, in each of 8 lanes of 32 bits: rounding leaves it as the sum's lowest. */
BFE_AVX2_INLINE __m256i round_to_byte(const float *x, __m256 factor) {
    const __m256 sum = _mm256_add_ps(_mm256_mul_ps(_mm256_loadu_ps(x), factor), _mm256_set1_ps(12582912.0f));
    return _mm256_and_si256(_mm256_castps_si256(sum), _mm256_set1_epi32(0xFF));
}

BFE_AVX2 float bfe_quantise_f32_avx2(const float *x, size_t count, int8_t *q) {
    const float m = bfe_largest_magnitude_avx2(x, count);
    const float factor = 127.0f / m;
    const __m256 factors = _mm256_set1_ps(factor);
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7); /* undoes what packing does, half by half */
    size_t i = 0;
    for (; i + 32 <= count; i += 32) {
        const __m256i a = round_to_byte(x + i, factors), b = round_to_byte(x + i + 8, factors);
        const __m256i c = round_to_byte(x + i + 16, factors), d = round_to_byte(x + i + 24, factors);
        const __m256i bytes = _mm256_packus_epi16(_mm256_packus_epi32(a, b), _mm256_packus_epi32(c, d));
        _mm256_storeu_si256((__m256i *)(void *)(q + i), _mm256_permutevar8x32_epi32(bytes, order));
    }
    for (; i < count; i++)
        q[i] = (int8_t)bfe_round(x[i] * factor);
    return m / 127.0f;
}

#endif
