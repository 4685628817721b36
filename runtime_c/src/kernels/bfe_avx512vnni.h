/* What the files of the AVX-512 VNNI set share. Compiled without flags: each function says itself which instructions it
 * uses. */
#ifndef BFE_AVX512VNNI_H
#define BFE_AVX512VNNI_H

#include "../bfe_float.h" /* these functions could use fused multiply-add, so this matters */
#include "../bfe_kernels.h"

#ifdef BFE_HAS_X86_KERNELS

#include <immintrin.h>

#define BFE_AVX512VNNI __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")))
/* Part of its caller, where its arguments are constants: loops over them are gone and arrays become registers. */
#define BFE_AVX512VNNI_INLINE                                                                                          \
    static inline __attribute__((always_inline, target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")))

bfe_product bfe_product_int8_avx512vnni, bfe_product_trits_avx512vnni;
float bfe_quantise_f32_avx512vnni(const float *x, size_t count, int8_t *q);
void bfe_layer_norm_f32_avx512vnni(const float *x, const float *gain, const float *bias, size_t count, float *y);
int32_t bfe_softmax_f32_avx512vnni(const int32_t *product, float scale, const float *k_scale, const float *v_scale,
                                   size_t count, float *weight);
void bfe_gelu_f32_avx512vnni(float *x, size_t count);
void bfe_sincos_f16_avx512vnni(const uint16_t *angles, size_t count, float *cosine, float *sine);
void bfe_rotate_f32_avx512vnni(float *x, size_t padded, size_t layers, const float *cosine, const float *sine);
void bfe_add_f32_avx512vnni(float *y, const float *x, size_t count);
void bfe_add_scaled_f32_avx512vnni(float *y, float factor, const float *x, size_t count);
void bfe_set_scaled_f32_avx512vnni(float *y, float factor, const float *x, size_t count);

/* Which of 16 lanes are among the next `count` elements. */
BFE_AVX512VNNI_INLINE __mmask16 bfe_lanes_avx512vnni(size_t count) {
    return (__mmask16)(count < 16 ? (1u << count) - 1 : 0xFFFFu);
}

/* The largest magnitude among x[count] and BFE_TINY. */
BFE_AVX512VNNI_INLINE float bfe_largest_magnitude_avx512vnni(const float *x, size_t count) {
    const __m512i magnitude = _mm512_set1_epi32(0x7FFFFFFF);
    __m512i largest = _mm512_set1_epi32((int32_t)bfe_bits(BFE_TINY)), other = largest;
    size_t i = 0;
    for (; i + 32 <= count; i += 32) { /* two, for neither to wait for itself */
        largest = _mm512_max_epi32(largest, _mm512_and_si512(_mm512_loadu_si512(x + i), magnitude));
        other = _mm512_max_epi32(other, _mm512_and_si512(_mm512_loadu_si512(x + i + 16), magnitude));
    }
    for (; i < count; i += 16) {
        const __m512i rest = _mm512_maskz_loadu_epi32(bfe_lanes_avx512vnni(count - i), x + i);
        largest = _mm512_max_epi32(largest, _mm512_and_si512(rest, magnitude));
    }
    return bfe_from_bits((uint32_t)_mm512_reduce_max_epi32(_mm512_max_epi32(largest, other)));
}

#endif

#endif
