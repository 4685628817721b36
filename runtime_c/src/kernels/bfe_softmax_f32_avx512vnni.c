#include "bfe_avx512vnni.h"

#ifdef BFE_HAS_X86_KERNELS

/* p * x + c */
BFE_AVX512VNNI_INLINE __m512 step(__m512 p, __m512 x, float c) {
    return _mm512_add_ps(_mm512_mul_ps(p, x), _mm512_set1_ps(c));
}

/* As bfe_exp2fix_f32. */
BFE_AVX512VNNI_INLINE __m512i exp2fix(__m512 t) {
    t = _mm512_max_ps(t, _mm512_set1_ps(-17.0f));
    const __m512 n = _mm512_floor_ps(t);
    const __m512 f = _mm512_sub_ps(t, n);
    __m512 p = step(_mm512_set1_ps(0x1.bd07c2p-7f), f, 0x1.a99434p-5f);
    p = step(p, f, 0x1.ee7afap-3f);
    p = step(p, f, 0x1.62d354p-1f);
    p = step(p, f, 1.0f);
    return _mm512_cvtps_epi32(_mm512_scalef_ps(p, _mm512_add_ps(n, _mm512_set1_ps(15.0f)))); /* p * 2^(n + 15) */
}

BFE_AVX512VNNI int32_t bfe_softmax_f32_avx512vnni(const int32_t *product, float scale, const float *k_scale,
                                                  const float *v_scale, size_t count, float *weight) {
    __m512 highest16 = _mm512_set1_ps(-FLT_MAX); /* scores are finite */
    for (size_t j = 0; j < count; j += 16) {
        const __mmask16 lanes = bfe_lanes_avx512vnni(count - j);
        const __m512 factor = _mm512_mul_ps(_mm512_set1_ps(scale), _mm512_maskz_loadu_ps(lanes, k_scale + j));
        const __m512 sum = _mm512_cvtepi32_ps(_mm512_maskz_loadu_epi32(lanes, product + j));
        const __m512 score = _mm512_mul_ps(sum, factor);
        highest16 = _mm512_mask_max_ps(highest16, lanes, highest16, score);
        _mm512_mask_storeu_ps(weight + j, lanes, score);
    }
    const __m512 highest = _mm512_set1_ps(_mm512_reduce_max_ps(highest16));
    __m512i total = _mm512_setzero_si512();
    for (size_t j = 0; j < count; j += 16) {
        const __mmask16 lanes = bfe_lanes_avx512vnni(count - j);
        const __m512i e = exp2fix(_mm512_sub_ps(_mm512_maskz_loadu_ps(lanes, weight + j), highest));
        total = _mm512_mask_add_epi32(total, lanes, total, e);
        const __m512 value = _mm512_mul_ps(_mm512_cvtepi32_ps(e), _mm512_maskz_loadu_ps(lanes, v_scale + j));
        _mm512_mask_storeu_ps(weight + j, lanes, value);
    }
    return _mm512_reduce_add_epi32(total);
}

#endif
