#include "bfe_avx512vnni.h"

#ifdef BFE_HAS_X86_KERNELS

BFE_AVX512VNNI_INLINE __m512 times(__m512 x, float c) { return _mm512_mul_ps(x, _mm512_set1_ps(c)); }

BFE_AVX512VNNI_INLINE __m512 plus(__m512 x, float c) { return _mm512_add_ps(x, _mm512_set1_ps(c)); }

/* x, negated where bit 1 is set: x ^ (the bit & the sign). */
BFE_AVX512VNNI_INLINE __m512 negate_where(__m512i bit_1, __m512 x) {
    const __m512i sign = _mm512_set1_epi32(INT32_MIN), bit_31 = _mm512_slli_epi32(bit_1, 30);
    return _mm512_castsi512_ps(_mm512_ternarylogic_epi32(_mm512_castps_si512(x), bit_31, sign, 0x78));
}

/* Of 16 angles. */
BFE_AVX512VNNI_INLINE void expand(__m256i angles, __m512 *cosine, __m512 *sine) {
    const __m512 x = _mm512_cvtph_ps(angles);
    const __m512i k = _mm512_cvtps_epi32(times(x, 0x1.45f306p-1f)); /* quarter turns, -2..2 */
    const __m512 turns = _mm512_cvtepi32_ps(k);
    const __m512 r = _mm512_sub_ps(_mm512_sub_ps(x, times(turns, 1.5703125f)), times(turns, 0x1.fb5444p-12f));
    const __m512 z = _mm512_mul_ps(r, r);
    __m512 s = plus(times(z, -0x1.98da66p-13f), 0x1.1105b4p-7f);
    s = plus(_mm512_mul_ps(s, z), -0x1.555540p-3f);
    s = _mm512_add_ps(_mm512_mul_ps(_mm512_mul_ps(s, z), r), r);
    __m512 c = plus(times(z, 0x1.9a0250p-16f), -0x1.6c0c8cp-10f);
    c = plus(_mm512_mul_ps(c, z), 0x1.55554ap-5f);
    c = plus(_mm512_sub_ps(_mm512_mul_ps(_mm512_mul_ps(c, z), z), times(z, 0.5f)), 1.0f);

    /* Odd quarters swap the two; quarters 2 and 3 have a negative sine, 1 and 2 a negative cosine. */
    const __mmask16 odd = _mm512_test_epi32_mask(k, _mm512_set1_epi32(1));
    const __m512i next = _mm512_add_epi32(k, _mm512_set1_epi32(1));
    *sine = negate_where(k, _mm512_mask_blend_ps(odd, s, c));
    *cosine = negate_where(next, _mm512_mask_blend_ps(odd, c, s));
}

BFE_AVX512VNNI void bfe_sincos_f16_avx512vnni(const uint16_t *angles, size_t count, float *cosine, float *sine) {
    __m512 c, s;
    size_t i = 0;
    for (; i + 16 <= count; i += 16) {
        expand(_mm256_loadu_si256((const __m256i *)(const void *)(angles + i)), &c, &s);
        _mm512_storeu_ps(cosine + i, c);
        _mm512_storeu_ps(sine + i, s);
    }
    if (i < count) {
        const __mmask16 lanes = bfe_lanes_avx512vnni(count - i);
        expand(_mm256_maskz_loadu_epi16(lanes, angles + i), &c, &s);
        _mm512_mask_storeu_ps(cosine + i, lanes, c);
        _mm512_mask_storeu_ps(sine + i, lanes, s);
    }
}

#endif
