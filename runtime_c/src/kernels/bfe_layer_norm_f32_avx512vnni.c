#include "bfe_avx512vnni.h"

#ifdef BFE_HAS_X86_KERNELS

BFE_AVX512VNNI_INLINE __m512i integers(const float *x, size_t count, __m512 factor) {
    return _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_maskz_loadu_ps(bfe_lanes_avx512vnni(count), x), factor));
}

BFE_AVX512VNNI_INLINE int64_t add_up_unsigned(__m512i x) {
    const __m512i lower = _mm512_cvtepu32_epi64(_mm512_castsi512_si256(x));
    return _mm512_reduce_add_epi64(_mm512_add_epi64(lower, _mm512_cvtepu32_epi64(_mm512_extracti64x4_epi64(x, 1))));
}

BFE_AVX512VNNI void bfe_layer_norm_f32_avx512vnni(const float *x, const float *gain, const float *bias, size_t count,
                                                  float *y) {
    const float m = bfe_largest_magnitude_avx512vnni(x, count);
    const __m512 factor = _mm512_set1_ps(2047.0f / m);

    /* A lane holds two integers and adds up 16384 / 16 squares: below 1024 * 2047^2 < 2^32. */
    __m512i sums = _mm512_setzero_si512(), sums_of_squares = _mm512_setzero_si512();
    for (size_t i = 0; i < count; i += 32) {
        const __m512i lower = integers(x + i, count - i, factor);
        const __m512i upper = integers(x + i + 16, count - i > 16 ? count - i - 16 : 0, factor);
        const __m512i q = _mm512_mask_blend_epi16(0xAAAAAAAA, lower, _mm512_slli_epi32(upper, 16));
        sums = _mm512_dpwssd_epi32(sums, q, _mm512_set1_epi16(1));
        sums_of_squares = _mm512_dpwssd_epi32(sums_of_squares, q, q);
    }
    const int64_t sum = _mm512_reduce_add_epi32(sums), sum_of_squares = add_up_unsigned(sums_of_squares);
    const int64_t n = (int64_t)count;
    int64_t variance = n * sum_of_squares - sum * sum;
    variance = variance > n ? variance : n; /* bounds y where the integers see no variance */

    const float s = m / 2047.0f;
    const __m512 mean = _mm512_set1_ps((float)sum / (float)n * s);
    const float var = (float)variance / (float)(n * n) * s * s;
    const __m512 r = _mm512_set1_ps(1.0f / _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(var + 1e-5f))));
    for (size_t i = 0; i < count; i += 16) {
        const __mmask16 lanes = bfe_lanes_avx512vnni(count - i);
        const __m512 normal = _mm512_mul_ps(_mm512_sub_ps(_mm512_maskz_loadu_ps(lanes, x + i), mean), r);
        const __m512 scaled = _mm512_mul_ps(normal, _mm512_maskz_loadu_ps(lanes, gain + i));
        _mm512_mask_storeu_ps(y + i, lanes, _mm512_add_ps(scaled, _mm512_maskz_loadu_ps(lanes, bias + i)));
    }
}

#endif
