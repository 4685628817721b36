#include "bfe_tiles_avx512vnni.h"

#ifdef BFE_HAS_X86_KERNELS

/* The sums begin with what the offset of 128 will add too much. |sum| <= 16384 * 128 * 128 + 16384 * 255 * 128 < 2^30.
 */
BFE_AVX512VNNI_INLINE void multiply(const bfe_matrix *matrix, size_t row, const int8_t *q, size_t q_stride,
                                    const size_t n, const bfe_columns *columns, const float *s, void *y,
                                    size_t y_stride) {
    const size_t blocks = bfe_blocks_for(n);
    const uint8_t *tile[BLOCKS_AT_ONCE];
    __m512i sum[BLOCKS_AT_ONCE][2][COLUMNS_AT_ONCE];
#pragma GCC unroll 4
    for (size_t k = 0; k < blocks; k++) {
        /* Behind the last row any other block will do: its sums are not stored. */
        const size_t block = row / 32 + (row + 32 * k < matrix->rows ? k : 0);
        tile[k] = (const uint8_t *)matrix->weight + 2 * block * matrix->stride;
#pragma GCC unroll 16
        for (size_t c = 0; c < n; c++)
            sum[k][0][c] = sum[k][1][c] = _mm512_set1_epi32(-128 * columns->sum_of_q[c]);
    }

    for (size_t i = 0; i < matrix->columns; i += 4) {
        const __m512i sign = _mm512_set1_epi8(-128);
        __m512i weight[BLOCKS_AT_ONCE][2];
#pragma GCC unroll 4
        for (size_t k = 0; k < blocks; k++) {
            weight[k][0] = _mm512_xor_si512(_mm512_load_si512(tile[k] + 16 * i), sign);
            weight[k][1] = _mm512_xor_si512(_mm512_load_si512(tile[k] + matrix->stride + 16 * i), sign);
        }
        bfe_add_products(weight, blocks, q + i, q_stride, n, sum);
    }

#pragma GCC unroll 4
    for (size_t k = 0; k < blocks; k++) {
        const size_t first = row + 32 * k;
        const uint32_t rows = bfe_rows_from(matrix, first);
        if (matrix->scale == NULL) {
#pragma GCC unroll 16
            for (size_t c = 0; c < n; c++) {
                int32_t *const to = (int32_t *)y + c * y_stride + first;
                _mm512_mask_storeu_epi32(to, (__mmask16)rows, sum[k][0][c]);
                _mm512_mask_storeu_epi32(to + 16, (__mmask16)(rows >> 16), sum[k][1][c]);
            }
        } else {
            const __m512 scale0 = _mm512_maskz_loadu_ps((__mmask16)rows, matrix->scale + first);
            const __m512 scale1 = _mm512_maskz_loadu_ps((__mmask16)(rows >> 16), matrix->scale + first + 16);
#pragma GCC unroll 16
            for (size_t c = 0; c < n; c++) {
                float *const to = (float *)y + c * y_stride + first;
                const __m512 y0 =
                    _mm512_mul_ps(_mm512_cvtepi32_ps(sum[k][0][c]), _mm512_mul_ps(_mm512_set1_ps(s[c]), scale0));
                const __m512 y1 =
                    _mm512_mul_ps(_mm512_cvtepi32_ps(sum[k][1][c]), _mm512_mul_ps(_mm512_set1_ps(s[c]), scale1));
                _mm512_mask_storeu_ps(to, (__mmask16)rows, y0);
                _mm512_mask_storeu_ps(to + 16, (__mmask16)(rows >> 16), y1);
            }
        }
    }
}

#define CASE(n)                                                                                                        \
    case n:                                                                                                            \
        for (size_t row = 0; row < matrix->rows; row += 32 * bfe_blocks_for(n))                                        \
            multiply(matrix, row, first, q_stride, n, columns, scale_of_q, to, y_stride);                              \
        break

BFE_AVX512VNNI void bfe_product_int8_avx512vnni(const bfe_matrix *matrix, const int8_t *q, size_t q_stride,
                                                const float *s, size_t count, void *y, size_t y_stride, void *scratch) {
    bfe_columns *const columns = scratch;
    for (size_t c = 0; c < count; c += COLUMNS_AT_ONCE) {
        const size_t n = count - c < COLUMNS_AT_ONCE ? count - c : COLUMNS_AT_ONCE;
        const int8_t *const first = q + c * q_stride;
        const float *const scale_of_q = matrix->scale == NULL ? NULL : s + c;
        float *const to = (float *)y + c * y_stride; /* or int32_t, which are as large */
        bfe_add_up_q(first, q_stride, matrix->columns, n, columns->sum_of_q);
        switch (n) {
            CASE(1);
            CASE(2);
            CASE(3);
            CASE(4);
            CASE(5);
            CASE(6);
            CASE(7);
            CASE(8);
            CASE(9);
            CASE(10);
            CASE(11);
            CASE(12);
            CASE(13);
        }
    }
}

#endif
