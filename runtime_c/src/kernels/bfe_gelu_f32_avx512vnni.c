#include "bfe_avx512vnni.h"

#ifdef BFE_HAS_X86_KERNELS

#pragma GCC diagnostic ignored "-Wsign-conversion" /* of GCC's gathering, which is a macro without -O */

BFE_AVX512VNNI void bfe_gelu_f32_avx512vnni(float *x, size_t count) {
    for (size_t at = 0; at < count; at += 16) {
        const __mmask16 lanes = bfe_lanes_avx512vnni(count - at);
        const __m512 value = _mm512_maskz_loadu_ps(lanes, x + at);
        /* If one operand is NaN, minimum and maximum are the second. */
        __m512 u = _mm512_mul_ps(_mm512_abs_ps(value), _mm512_set1_ps(128.0f));
        u = _mm512_min_ps(u, _mm512_set1_ps(640.0f));
        const __m512i i = _mm512_cvttps_epi32(u);
        const __m512 f = _mm512_sub_ps(u, _mm512_cvtepi32_ps(i));
        /* Entry i, and above it i + 1. Into zeros, or GCC would have it wait for what was in that register before. */
        const __m512i both = _mm512_mask_i32gather_epi32(_mm512_setzero_si512(), lanes, i, bfe_gelu_table, 2);
        const __m512 low = _mm512_cvtepi32_ps(_mm512_and_si512(both, _mm512_set1_epi32(0xFFFF)));
        const __m512 high = _mm512_cvtepi32_ps(_mm512_srli_epi32(both, 16));
        const __m512 sum = _mm512_add_ps(low, _mm512_mul_ps(f, _mm512_sub_ps(high, low)));
        const __m512 delta = _mm512_mul_ps(sum, _mm512_set1_ps(0x1p-18f));
        _mm512_mask_storeu_ps(x + at, lanes, _mm512_sub_ps(_mm512_max_ps(value, _mm512_setzero_ps()), delta));
    }
}

#endif
