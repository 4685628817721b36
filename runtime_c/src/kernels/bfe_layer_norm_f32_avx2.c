#include "bfe_avx2.h"

#ifdef BFE_HAS_X86_KERNELS

/* bfe_round's lowest 16 bits, in each of 8 lanes of 32: rounding leaves them as the sum's lowest. */
BFE_AVX2_INLINE __m256i round_to_word(const float *x, __m256 factor) {
    const __m256 sum = _mm256_add_ps(_mm256_mul_ps(_mm256_loadu_ps(x), factor), _mm256_set1_ps(12582912.0f));
    return _mm256_and_si256(_mm256_castps_si256(sum), _mm256_set1_epi32(0xFFFF));
}

BFE_AVX2 void bfe_layer_norm_f32_avx2(const float *x, const float *gain, const float *bias, size_t count, float *y) {
    const float m = bfe_largest_magnitude_avx2(x, count);
    const float factor = 2047.0f / m;
    const __m256 factors = _mm256_set1_ps(factor);
    const __m256i low_half = _mm256_set1_epi64x(0xFFFFFFFF);
    /* A lane of sums8 adds up at most 16384 values of 16 bits: < 2^30. */
    __m256i sums8 = _mm256_setzero_si256(), squares4 = sums8;
    size_t i = 0;
    for (; i + 16 <= count; i += 16) {
        const __m256i q = _mm256_packus_epi32(round_to_word(x + i, factors), round_to_word(x + i + 8, factors));
        const __m256i squares = _mm256_madd_epi16(q, q); /* at most 2 * 2^30: unsigned */
        sums8 = _mm256_add_epi32(sums8, _mm256_madd_epi16(q, _mm256_set1_epi16(1)));
        squares4 = _mm256_add_epi64(squares4, _mm256_and_si256(squares, low_half));
        squares4 = _mm256_add_epi64(squares4, _mm256_srli_epi64(squares, 32));
    }
    int64_t sum = 0, sum_of_squares = 0, squares[4];
    int32_t sums[8];
    _mm256_storeu_si256((__m256i *)(void *)sums, sums8);
    _mm256_storeu_si256((__m256i *)(void *)squares, squares4);
    for (int lane = 0; lane < 8; lane++)
        sum += sums[lane];
    for (int lane = 0; lane < 4; lane++)
        sum_of_squares += squares[lane];
    for (; i < count; i++) {
        const int16_t q = (int16_t)bfe_round(x[i] * factor);
        sum += q;
        sum_of_squares += q * q;
    }
    const int64_t n = (int64_t)count;
    int64_t variance = n * sum_of_squares - sum * sum;
    variance = variance > n ? variance : n;

    const float s = m / 2047.0f;
    const float mean = (float)sum / (float)n * s;
    const float var = (float)variance / (float)(n * n) * s * s;
    const float r = 1.0f / _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(var + 1e-5f)));
    const __m256 means = _mm256_set1_ps(mean), rs = _mm256_set1_ps(r);
    for (i = 0; i + 8 <= count; i += 8) {
        const __m256 normal = _mm256_mul_ps(_mm256_sub_ps(_mm256_loadu_ps(x + i), means), rs);
        const __m256 scaled = _mm256_mul_ps(normal, _mm256_loadu_ps(gain + i));
        _mm256_storeu_ps(y + i, _mm256_add_ps(scaled, _mm256_loadu_ps(bias + i)));
    }
    for (; i < count; i++)
        y[i] = (x[i] - mean) * r * gain[i] + bias[i];
}

#endif
