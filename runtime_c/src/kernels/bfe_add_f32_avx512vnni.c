#include "bfe_avx512vnni.h"

#ifdef BFE_HAS_X86_KERNELS

BFE_AVX512VNNI void bfe_add_f32_avx512vnni(float *y, const float *x, size_t count) {
    size_t i = 0;
    for (; i + 16 <= count; i += 16)
        _mm512_storeu_ps(y + i, _mm512_add_ps(_mm512_loadu_ps(y + i), _mm512_loadu_ps(x + i)));
    const __mmask16 rest = bfe_lanes_avx512vnni(count - i);
    const __m512 sum = _mm512_add_ps(_mm512_maskz_loadu_ps(rest, y + i), _mm512_maskz_loadu_ps(rest, x + i));
    _mm512_mask_storeu_ps(y + i, rest, sum);
}

BFE_AVX512VNNI void bfe_add_scaled_f32_avx512vnni(float *y, float factor, const float *x, size_t count) {
    const __m512 f = _mm512_set1_ps(factor);
    size_t i = 0;
    for (; i + 16 <= count; i += 16) {
        const __m512 scaled = _mm512_mul_ps(f, _mm512_loadu_ps(x + i));
        _mm512_storeu_ps(y + i, _mm512_add_ps(_mm512_loadu_ps(y + i), scaled));
    }
    const __mmask16 rest = bfe_lanes_avx512vnni(count - i);
    const __m512 scaled = _mm512_mul_ps(f, _mm512_maskz_loadu_ps(rest, x + i));
    _mm512_mask_storeu_ps(y + i, rest, _mm512_add_ps(_mm512_maskz_loadu_ps(rest, y + i), scaled));
}

BFE_AVX512VNNI void bfe_set_scaled_f32_avx512vnni(float *y, float factor, const float *x, size_t count) {
    const __m512 f = _mm512_set1_ps(factor), zero = _mm512_setzero_ps();
    size_t i = 0;
    for (; i + 16 <= count; i += 16)
        _mm512_storeu_ps(y + i, _mm512_add_ps(zero, _mm512_mul_ps(f, _mm512_loadu_ps(x + i))));
    const __mmask16 rest = bfe_lanes_avx512vnni(count - i);
    const __m512 scaled = _mm512_mul_ps(f, _mm512_maskz_loadu_ps(rest, x + i));
    _mm512_mask_storeu_ps(y + i, rest, _mm512_add_ps(zero, scaled));
}

#endif
