#include "bfe_avx2.h"

#ifdef BFE_HAS_X86_KERNELS

/* bfe_exp2fix_f32 of 8 values. */
BFE_AVX2_INLINE __m256i exp2fix(__m256 t) {
    t = _mm256_max_ps(t, _mm256_set1_ps(-17.0f)); /* in this order NaN becomes -17 */
    const __m256 n = _mm256_floor_ps(t);
    const __m256 f = _mm256_sub_ps(t, n);
    __m256 p = _mm256_mul_ps(_mm256_set1_ps(0x1.bd07c2p-7f), f);
    p = _mm256_mul_ps(_mm256_add_ps(p, _mm256_set1_ps(0x1.a99434p-5f)), f);
    p = _mm256_mul_ps(_mm256_add_ps(p, _mm256_set1_ps(0x1.ee7afap-3f)), f);
    p = _mm256_mul_ps(_mm256_add_ps(p, _mm256_set1_ps(0x1.62d354p-1f)), f);
    p = _mm256_add_ps(p, _mm256_set1_ps(1.0f));
    const __m256i exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(15 + 127));
    const __m256 power = _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23)); /* 2^(n + 15) */
    return _mm256_cvtps_epi32(_mm256_mul_ps(p, power));
}

BFE_AVX2_INLINE float highest_of(__m256 x) {
    const __m128 x4 = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    const __m128 x2 = _mm_max_ps(x4, _mm_movehl_ps(x4, x4));
    return _mm_cvtss_f32(_mm_max_ss(x2, _mm_movehdup_ps(x2)));
}

BFE_AVX2_INLINE int32_t sum_of(__m256i x) {
    const __m128i x4 = _mm_add_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
    const __m128i x2 = _mm_add_epi32(x4, _mm_unpackhi_epi64(x4, x4));
    return _mm_cvtsi128_si32(_mm_add_epi32(x2, _mm_srli_epi64(x2, 32)));
}

BFE_AVX2 int32_t bfe_softmax_f32_avx2(const int32_t *product, float scale, const float *k_scale, const float *v_scale,
                                      size_t count, float *weight) {
    if (count == 0)
        return 0;
    __m256 highest8 = _mm256_set1_ps((float)product[0] * (scale * k_scale[0]));
    for (size_t i = 0; i < count; i += 8) {
        const size_t left = count - i;
        const __m256i products = _mm256_castps_si256(bfe_load_avx2((const float *)(const void *)(product + i), left));
        const __m256 scales = _mm256_mul_ps(_mm256_set1_ps(scale), bfe_load_avx2(k_scale + i, left));
        const __m256 t = _mm256_mul_ps(_mm256_cvtepi32_ps(products), scales);
        const __m256 lanes = _mm256_castsi256_ps(bfe_first_lanes_avx2(left));
        highest8 = _mm256_max_ps(_mm256_blendv_ps(highest8, t, lanes), highest8);
        bfe_store_avx2(weight + i, t, left);
    }
    const __m256 highest = _mm256_set1_ps(highest_of(highest8));

    __m256i total8 = _mm256_setzero_si256(); /* <= 16384 * 32768 = 2^29 in all lanes together */
    for (size_t i = 0; i < count; i += 8) {
        const size_t left = count - i;
        const __m256i e = exp2fix(_mm256_sub_ps(bfe_load_avx2(weight + i, left), highest));
        total8 = _mm256_add_epi32(total8, _mm256_and_si256(e, bfe_first_lanes_avx2(left)));
        bfe_store_avx2(weight + i, _mm256_mul_ps(_mm256_cvtepi32_ps(e), bfe_load_avx2(v_scale + i, left)), left);
    }
    return sum_of(total8);
}

#endif
