#include "bfe_avx512vnni.h"

#ifdef BFE_HAS_X86_KERNELS

BFE_AVX512VNNI float bfe_quantise_f32_avx512vnni(const float *x, size_t count, int8_t *q) {
    const float m = bfe_largest_magnitude_avx512vnni(x, count);
    const __m512 factor = _mm512_set1_ps(127.0f / m);
    for (size_t i = 0; i < count; i += 16) {
        const __mmask16 lanes = bfe_lanes_avx512vnni(count - i);
        const __m512 product = _mm512_mul_ps(_mm512_maskz_loadu_ps(lanes, x + i), factor);
        _mm_mask_storeu_epi8(q + i, lanes, _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(product)));
    }
    return m / 127.0f;
}

#endif
