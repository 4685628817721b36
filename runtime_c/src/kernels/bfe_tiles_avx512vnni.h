/*
 * What the products of tiles have in common with AVX-512 VNNI. Its multiplication takes four unsigned bytes times four
 * signed ones: weights plus an offset that makes them unsigned, times q. The offset times the sum of q is taken off
 * again.
 */
#ifndef BFE_TILES_AVX512VNNI_H
#define BFE_TILES_AVX512VNNI_H

#include "bfe_avx512vnni.h"

#ifdef BFE_HAS_X86_KERNELS

#include <string.h>

enum {
    COLUMNS_AT_ONCE = 13, /* their sums with 32 rows take 26 of 32 registers */
    BLOCKS_AT_ONCE = 4    /* of 32 rows */
};

/* About a few columns. In the scratch memory, for the stack is small. */
typedef struct bfe_columns {
    int32_t sum_of_q[(COLUMNS_AT_ONCE + 3) / 4 * 4];
    float factor[COLUMNS_AT_ONCE];
} bfe_columns;

/* How many blocks of 32 rows are multiplied with n columns at a time: enough sums that none waits for itself. */
BFE_AVX512VNNI_INLINE size_t bfe_blocks_for(size_t n) { return n == 1 ? 4 : n <= 5 ? 2 : 1; }

/* Bit r: whether there is a row `first` + r. */
BFE_AVX512VNNI_INLINE uint32_t bfe_rows_from(const bfe_matrix *matrix, size_t first) {
    const size_t rows = first < matrix->rows ? matrix->rows - first : 0;
    return rows < 32 ? ((uint32_t)1 << rows) - 1 : ~(uint32_t)0;
}

/* sum_of_q[c], c < n; more elements of it are written. |sum| <= 16384 * 128. */
BFE_AVX512VNNI_INLINE void bfe_add_up_q(const int8_t *q, size_t q_stride, size_t columns, size_t n, int32_t *sum_of_q) {
    for (size_t c = 0; c < n; c += 4) {
        __m128i sum[4];
        for (size_t j = 0; j < 4; j++) {
            const __m128i *const from = (const __m128i *)(const void *)(q + (c + j < n ? c + j : c) * q_stride);
            sum[j] = _mm_setzero_si128();
            for (size_t i = 0; BFE_COLUMN_BLOCK * i < columns; i++)
                sum[j] = _mm_dpbusd_epi32(sum[j], _mm_set1_epi8(1), _mm_load_si128(from + i));
        }
        _mm_storeu_si128((__m128i *)(void *)(sum_of_q + c),
                         _mm_hadd_epi32(_mm_hadd_epi32(sum[0], sum[1]), _mm_hadd_epi32(sum[2], sum[3])));
    }
}

/* sum + weight * q. Not the intrinsic, for which GCC 12 copies every sum to another register and back. */
BFE_AVX512VNNI_INLINE __m512i bfe_multiply_add(__m512i sum, __m512i weight, __m512i q) {
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(weight), "v"(q));
    return sum;
}

/* Adds the products of 4 columns of the matrix, 32 rows (two registers) a block, and n columns of q. */
BFE_AVX512VNNI_INLINE void bfe_add_products(__m512i weight[][2], const size_t blocks, const int8_t *q, size_t q_stride,
                                            const size_t n, __m512i sum[][2][COLUMNS_AT_ONCE]) {
#pragma GCC unroll 16
    for (size_t c = 0; c < n; c++) {
        int32_t four;
        memcpy(&four, q + c * q_stride, sizeof four);
#pragma GCC unroll 4
        for (size_t k = 0; k < blocks; k++) {
            sum[k][0][c] = bfe_multiply_add(sum[k][0][c], weight[k][0], _mm512_set1_epi32(four));
            sum[k][1][c] = bfe_multiply_add(sum[k][1][c], weight[k][1], _mm512_set1_epi32(four));
        }
    }
}

#endif

#endif
