#include "bfe_avx2.h"

#ifdef BFE_HAS_X86_KERNELS

/* a * b + c, each rounded. */
BFE_AVX2_INLINE __m256 multiply_add(__m256 a, __m256 b, __m256 c) { return _mm256_add_ps(_mm256_mul_ps(a, b), c); }

__attribute__((target("avx2,f16c"))) void bfe_sincos_f16_avx2(const uint16_t *angles, size_t count, float *cosine,
                                                              float *sine) {
    const __m256 sign = _mm256_set1_ps(-0.0f);
    size_t i = 0;
    for (; i + 8 <= count; i += 8) {
        const __m256 x = _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)(angles + i)));
        /* bfe_round: the quarter turns are the low bits of a sum, and as a float what is left of it. */
        const __m256 to_round = _mm256_set1_ps(12582912.0f);
        const __m256 sum = multiply_add(x, _mm256_set1_ps(0x1.45f306p-1f), to_round);
        const __m256i k = _mm256_castps_si256(sum);
        const __m256 turns = _mm256_sub_ps(sum, to_round);

        const __m256 rest = _mm256_sub_ps(x, _mm256_mul_ps(turns, _mm256_set1_ps(1.5703125f)));
        const __m256 r = _mm256_sub_ps(rest, _mm256_mul_ps(turns, _mm256_set1_ps(0x1.fb5444p-12f)));
        const __m256 z = _mm256_mul_ps(r, r);
        __m256 s = multiply_add(_mm256_set1_ps(-0x1.98da66p-13f), z, _mm256_set1_ps(0x1.1105b4p-7f));
        s = multiply_add(s, z, _mm256_set1_ps(-0x1.555540p-3f));
        s = multiply_add(_mm256_mul_ps(s, z), r, r);
        __m256 c = multiply_add(_mm256_set1_ps(0x1.9a0250p-16f), z, _mm256_set1_ps(-0x1.6c0c8cp-10f));
        c = _mm256_mul_ps(_mm256_mul_ps(multiply_add(c, z, _mm256_set1_ps(0x1.55554ap-5f)), z), z);
        c = _mm256_add_ps(_mm256_sub_ps(c, _mm256_mul_ps(_mm256_set1_ps(0.5f), z)), _mm256_set1_ps(1.0f));

        /* Odd quarters swap sine and cosine; quarters 2 and 3 negate the sine, 1 and 2 the cosine. */
        const __m256 odd = _mm256_castsi256_ps(_mm256_slli_epi32(k, 31));
        const __m256 sine_sign = _mm256_castsi256_ps(_mm256_slli_epi32(k, 30));
        const __m256 cosine_sign = _mm256_xor_ps(sine_sign, odd);
        _mm256_storeu_ps(sine + i, _mm256_xor_ps(_mm256_blendv_ps(s, c, odd), _mm256_and_ps(sine_sign, sign)));
        _mm256_storeu_ps(cosine + i, _mm256_xor_ps(_mm256_blendv_ps(c, s, odd), _mm256_and_ps(cosine_sign, sign)));
    }
    bfe_sincos_f16_c(angles + i, count - i, cosine + i, sine + i);
}

#endif
