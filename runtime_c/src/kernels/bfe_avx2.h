/* What the files of the AVX2 set share. Compiled without flags: each function says itself which instructions it uses.
 */
#ifndef BFE_AVX2_H
#define BFE_AVX2_H

#include "../bfe_float.h"
#include "../bfe_kernels.h"

#ifdef BFE_HAS_X86_KERNELS

#include <immintrin.h>

#define BFE_AVX2 __attribute__((target("avx2")))
/* Part of its caller, where its arguments are constants: loops over them are gone and arrays become registers. */
#define BFE_AVX2_INLINE static inline __attribute__((always_inline, target("avx2")))

bfe_product bfe_product_int8_avx2, bfe_product_trits_avx2;
float bfe_quantise_f32_avx2(const float *x, size_t count, int8_t *q);
void bfe_layer_norm_f32_avx2(const float *x, const float *gain, const float *bias, size_t count, float *y);
int32_t bfe_softmax_f32_avx2(const int32_t *product, float scale, const float *k_scale, const float *v_scale,
                             size_t count, float *weight);
void bfe_gelu_f32_avx2(float *x, size_t count);
void bfe_sincos_f16_avx2(const uint16_t *angles, size_t count, float *cosine, float *sine);
void bfe_rotate_f32_avx2(float *x, size_t padded, size_t layers, const float *cosine, const float *sine);
void bfe_add_f32_avx2(float *y, const float *x, size_t count);
void bfe_add_scaled_f32_avx2(float *y, float factor, const float *x, size_t count);
void bfe_set_scaled_f32_avx2(float *y, float factor, const float *x, size_t count);

/*
 * The product with trits of the first columns by the method of the four Russians, 16 at a time or the last 13 to 15;
 * returns how many: 0 where there are too few columns or rows for it to pay.
 */
size_t bfe_product_trits_many_avx2(const bfe_matrix *matrix, const int8_t *q, size_t q_stride, const float *s,
                                   size_t count, float *y, size_t y_stride, void *scratch);

/* The largest magnitude among x[count] and BFE_TINY. */
BFE_AVX2_INLINE float bfe_largest_magnitude_avx2(const float *x, size_t count) {
    const __m256i magnitude = _mm256_set1_epi32(0x7FFFFFFF);
    __m256i largest8 = _mm256_set1_epi32((int32_t)bfe_bits(BFE_TINY));
    size_t i = 0;
    for (; i + 8 <= count; i += 8) {
        const __m256i bits = _mm256_loadu_si256((const __m256i *)(const void *)(x + i));
        largest8 = _mm256_max_epi32(largest8, _mm256_and_si256(bits, magnitude));
    }
    const __m128i largest4 = _mm_max_epi32(_mm256_castsi256_si128(largest8), _mm256_extracti128_si256(largest8, 1));
    const __m128i largest2 = _mm_max_epi32(largest4, _mm_unpackhi_epi64(largest4, largest4));
    const __m128i largest1 = _mm_max_epi32(largest2, _mm_srli_epi64(largest2, 32));
    uint32_t largest = (uint32_t)_mm_cvtsi128_si32(largest1);
    for (; i < count; i++)
        largest = bfe_magnitude(x[i]) > largest ? bfe_magnitude(x[i]) : largest;
    return bfe_from_bits(largest);
}

/* All ones in the first `count` lanes. */
BFE_AVX2_INLINE __m256i bfe_first_lanes_avx2(size_t count) {
    const int32_t lanes = count < 8 ? (int32_t)count : 8;
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(lanes), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

/* 8 values, or the `count` that there are and zeros. Whole vectors apart, for masked stores are slow. */
BFE_AVX2_INLINE __m256 bfe_load_avx2(const float *from, size_t count) {
    return count >= 8 ? _mm256_loadu_ps(from) : _mm256_maskload_ps(from, bfe_first_lanes_avx2(count));
}

BFE_AVX2_INLINE void bfe_store_avx2(float *to, __m256 values, size_t count) {
    if (count >= 8)
        _mm256_storeu_ps(to, values);
    else
        _mm256_maskstore_ps(to, bfe_first_lanes_avx2(count), values);
}

#endif

#endif
