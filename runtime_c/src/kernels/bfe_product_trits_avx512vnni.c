#include "bfe_tiles_avx512vnni.h"

#ifdef BFE_HAS_X86_KERNELS

/*
 * The sums below for one column, two tiles in a register at a time. Masking is much of the work, and one of the four
 * fields needs none: all of them together less the other three. |sum| <= 16384 * 170 * 127 < 2^29.
 */
BFE_AVX512VNNI_INLINE void add_up_one(const uint8_t *const tile[BLOCKS_AT_ONCE], size_t columns, const int8_t *q,
                                      __m512i sum[][2][COLUMNS_AT_ONCE]) {
    const size_t blocks = bfe_blocks_for(1);
    __m512i field[BLOCKS_AT_ONCE][4];
#pragma GCC unroll 4
    for (size_t k = 0; k < blocks; k++)
        field[k][0] = field[k][1] = field[k][2] = field[k][3] = _mm512_setzero_si512();
    for (size_t i = 0; i < columns; i += 8) {
        int32_t four[2];
        memcpy(four, q + i, sizeof four);
        const __m512i x = _mm512_mask_set1_epi32(_mm512_set1_epi32(four[0]), 0xFF00, four[1]);
#pragma GCC unroll 4
        for (size_t k = 0; k < blocks; k++) {
            const __m512i all = _mm512_load_si512(tile[k] + 8 * i);
            field[k][0] = bfe_multiply_add(field[k][0], _mm512_and_si512(all, _mm512_set1_epi8(0x03)), x);
            field[k][1] = bfe_multiply_add(field[k][1], _mm512_and_si512(all, _mm512_set1_epi8(0x0C)), x);
            field[k][2] = bfe_multiply_add(field[k][2], _mm512_and_si512(all, _mm512_set1_epi8(0x30)), x);
            field[k][3] = bfe_multiply_add(field[k][3], all, x);
        }
    }
#pragma GCC unroll 4
    for (size_t k = 0; k < blocks; k++) {
        const __m512i others = _mm512_add_epi32(_mm512_add_epi32(field[k][0], field[k][1]), field[k][2]);
        field[k][3] = _mm512_sub_epi32(field[k][3], others);
#pragma GCC unroll 2
        for (size_t i = 0; i < 2; i++) /* what the first tile adds up to plus what the second does */
            sum[k][i][0] = _mm512_add_epi32(_mm512_shuffle_i64x2(field[k][2 * i], field[k][2 * i + 1], 0x44),
                                            _mm512_shuffle_i64x2(field[k][2 * i], field[k][2 * i + 1], 0xEE));
    }
}

/*
 * A tile fills half a register and is loaded into both halves. `lower` leaves the codes of rows 0..7 in the lower half
 * and of rows 8..15 in the upper one, `upper` those of rows 16..23 and 24..31: times 1, 4, 16 and 64, which is shifted
 * out of their sums. |sum| <= 16384 * 2 * 64 * 127 < 2^28.
 */
BFE_AVX512VNNI_INLINE void multiply(const bfe_matrix *matrix, size_t row, const int8_t *q, size_t q_stride,
                                    const size_t n, const bfe_columns *columns, float *y, size_t y_stride) {
    const size_t blocks = bfe_blocks_for(n);
    const uint8_t *tile[BLOCKS_AT_ONCE];
    __m512i sum[BLOCKS_AT_ONCE][2][COLUMNS_AT_ONCE];
#pragma GCC unroll 4
    for (size_t k = 0; k < blocks; k++) {
        /* Behind the last row any other block will do: its sums are not stored. */
        const size_t block = row / 32 + (row + 32 * k < matrix->rows ? k : 0);
        tile[k] = (const uint8_t *)matrix->weight + block * matrix->stride;
#pragma GCC unroll 16
        for (size_t c = 0; c < n; c++)
            sum[k][0][c] = sum[k][1][c] = _mm512_setzero_si512();
    }

    const __m512i lower = _mm512_mask_set1_epi8(_mm512_set1_epi8(0x03), 0xFFFFFFFF00000000, 0x0C);
    const __m512i upper = _mm512_slli_epi64(lower, 4);
    if (n == 1) {
        add_up_one(tile, matrix->columns, q, sum);
    } else {
        for (size_t i = 0; i < matrix->columns; i += 4) {
            __m512i weight[BLOCKS_AT_ONCE][2];
#pragma GCC unroll 4
            for (size_t k = 0; k < blocks; k++) {
                const __m256i half = _mm256_load_si256((const __m256i *)(const void *)(tile[k] + 8 * i));
                weight[k][0] = _mm512_and_si512(_mm512_broadcast_i64x4(half), lower);
                weight[k][1] = _mm512_and_si512(_mm512_broadcast_i64x4(half), upper);
            }
            bfe_add_products(weight, blocks, q + i, q_stride, n, sum);
        }
    }

    const __m512i lower_shift = _mm512_mask_set1_epi32(_mm512_setzero_si512(), 0xFF00, 2);
    const __m512i upper_shift = _mm512_add_epi32(lower_shift, _mm512_set1_epi32(4));
#pragma GCC unroll 16
    for (size_t c = 0; c < n; c++) {
        const __m512i offset = _mm512_set1_epi32(columns->sum_of_q[c]); /* codes are trits plus one */
        const __m512 factor = _mm512_set1_ps(columns->factor[c]);
#pragma GCC unroll 4
        for (size_t k = 0; k < blocks; k++) {
            const uint32_t rows = bfe_rows_from(matrix, row + 32 * k);
            float *const to = y + c * y_stride + row + 32 * k;
            const __m512i first = _mm512_sub_epi32(_mm512_srav_epi32(sum[k][0][c], lower_shift), offset);
            const __m512i second = _mm512_sub_epi32(_mm512_srav_epi32(sum[k][1][c], upper_shift), offset);
            _mm512_mask_storeu_ps(to, (__mmask16)rows, _mm512_mul_ps(_mm512_cvtepi32_ps(first), factor));
            _mm512_mask_storeu_ps(to + 16, (__mmask16)(rows >> 16), _mm512_mul_ps(_mm512_cvtepi32_ps(second), factor));
        }
    }
}

#define CASE(n)                                                                                                        \
    case n:                                                                                                            \
        for (size_t row = 0; row < matrix->rows; row += 32 * bfe_blocks_for(n))                                        \
            multiply(matrix, row, first, q_stride, n, columns, to, y_stride);                                          \
        break

BFE_AVX512VNNI void bfe_product_trits_avx512vnni(const bfe_matrix *matrix, const int8_t *q, size_t q_stride,
                                                 const float *s, size_t count, void *y, size_t y_stride,
                                                 void *scratch) {
    bfe_columns *const columns = scratch;
    for (size_t c = 0; c < count; c += COLUMNS_AT_ONCE) {
        const size_t n = count - c < COLUMNS_AT_ONCE ? count - c : COLUMNS_AT_ONCE;
        const int8_t *const first = q + c * q_stride;
        float *const to = (float *)y + c * y_stride;
        bfe_add_up_q(first, q_stride, matrix->columns, n, columns->sum_of_q);
        for (size_t i = 0; i < n; i++)
            columns->factor[i] = s[c + i] * matrix->scale[0];
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
