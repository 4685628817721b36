#include "bfe_avx2.h"

#ifdef BFE_HAS_X86_KERNELS

enum { STEPS = 128, LAST = 640 }; /* steps a unit; beyond LAST / STEPS = 5 the table is 0 */

BFE_AVX2 void bfe_gelu_f32_avx2(float *x, size_t count) {
    const __m256 magnitude = _mm256_castsi256_ps(_mm256_set1_epi32(0x7FFFFFFF));
    const int *const table = (const int *)(const void *)bfe_gelu_table;
    /* Hidden from GCC, which would otherwise gather over the previous entries and so wait for them. */
    __m256i every_lane = _mm256_set1_epi32(-1);
    __asm__("" : "+x"(every_lane));
    size_t at = 0;
    for (; at + 8 <= count; at += 8) {
        const __m256 v = _mm256_loadu_ps(x + at);
        __m256 u = _mm256_mul_ps(_mm256_and_ps(v, magnitude), _mm256_set1_ps(STEPS));
        u = _mm256_min_ps(u, _mm256_set1_ps(LAST)); /* in this order NaN becomes LAST */
        const __m256i i = _mm256_cvttps_epi32(u);
        const __m256 f = _mm256_sub_ps(u, _mm256_cvtepi32_ps(i));
        /* Entries i and i + 1, two bytes each. */
        const __m256i pair = _mm256_mask_i32gather_epi32(_mm256_setzero_si256(), table, i, every_lane, 2);
        const __m256 low = _mm256_cvtepi32_ps(_mm256_and_si256(pair, _mm256_set1_epi32(0xFFFF)));
        const __m256 high = _mm256_cvtepi32_ps(_mm256_srli_epi32(pair, 16));
        const __m256 delta =
            _mm256_mul_ps(_mm256_add_ps(low, _mm256_mul_ps(f, _mm256_sub_ps(high, low))), _mm256_set1_ps(0x1p-18f));
        _mm256_storeu_ps(x + at, _mm256_sub_ps(_mm256_max_ps(v, _mm256_setzero_ps()), delta));
    }
    bfe_gelu_f32_c(x + at, count - at);
}

#endif
