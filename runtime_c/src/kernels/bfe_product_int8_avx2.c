#include "bfe_avx2.h"

#ifdef BFE_HAS_X86_KERNELS

/* Bytes become words, whose products add up by pairs: 8 rows at a time, four columns a step, two sums a row. */
enum {
    ROWS = 16, /* of a tile */
    TILE_COLUMNS = 4,
    TILE = ROWS * TILE_COLUMNS,
    MOST_AT_ONCE = 6, /* columns of q and y */
    BLOCK = 1024      /* columns of the matrix whose inputs lie in the scratch memory as words */
};

/* sum += w * y, by pairs of words, in 32 bits. In assembly because GCC copies such sums around. */
#define MULTIPLY_ADD(sum, w, y)                                                                                        \
    do {                                                                                                               \
        __m256i product;                                                                                               \
        __asm__("vpmaddwd %3, %2, %1\n\tvpaddd %1, %0, %0" : "+x"(sum), "=&x"(product) : "x"(w), "x"(y));              \
    } while (0)

BFE_AVX2_INLINE __m256i words(const int8_t *bytes) {
    return _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(const void *)bytes));
}

/* The inputs as words: four of each of `count` columns, then the next four. */
BFE_AVX2_INLINE void widen(const int8_t *q, size_t q_stride, size_t columns, int count, int16_t *inputs) {
    for (size_t i = 0; i < columns; i += 16) {
        for (int c = 0; c < count; c++) {
            const __m256i wide = words(q + (size_t)c * q_stride + i);
            const __m128i low = _mm256_castsi256_si128(wide), high = _mm256_extracti128_si256(wide, 1);
            int16_t *const to = inputs + i * (size_t)count + 4 * c;
            _mm_storel_epi64((__m128i *)(void *)to, low);
            _mm_storel_epi64((__m128i *)(void *)(to + 4 * count), _mm_unpackhi_epi64(low, low));
            _mm_storel_epi64((__m128i *)(void *)(to + 8 * count), high);
            _mm_storel_epi64((__m128i *)(void *)(to + 12 * count), _mm_unpackhi_epi64(high, high));
        }
    }
}

BFE_AVX2_INLINE __m256i four_words(const int16_t *inputs) {
    int64_t four;
    memcpy(&four, inputs, sizeof four);
    return _mm256_set1_epi64x(four);
}

#define EACH_COLUMN(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5)

/* 8 rows times `count` <= 6 columns: sum[c] holds column c's. |sum| <= 16384 * 127 * 128 < 2^28. */
BFE_AVX2_INLINE void multiply_tiles(const int8_t *tile, const int16_t *inputs, size_t columns, int count,
                                    __m256i *sum) {
#define DECLARE(c) __m256i a##c = _mm256_setzero_si256(), b##c = a##c;
    EACH_COLUMN(DECLARE)
    for (size_t i = 0; i < columns; i += TILE_COLUMNS, tile += TILE, inputs += TILE_COLUMNS * count) {
        const __m256i rows_a = words(tile), rows_b = words(tile + 16);
#define MULTIPLY(c)                                                                                                    \
    if (count > c) {                                                                                                   \
        const __m256i y4 = four_words(inputs + c * TILE_COLUMNS);                                                      \
        MULTIPLY_ADD(a##c, rows_a, y4);                                                                                \
        MULTIPLY_ADD(b##c, rows_b, y4);                                                                                \
    }
        EACH_COLUMN(MULTIPLY)
    }
#define ADD_PAIRS(c)                                                                                                   \
    if (count > c)                                                                                                     \
        sum[c] = _mm256_permute4x64_epi64(_mm256_hadd_epi32(a##c, b##c), 0xD8);
    EACH_COLUMN(ADD_PAIRS)
}

/* Up to 8 rows of a column: with more than BLOCK columns, the sums so far are in y, as integers. */
BFE_AVX2_INLINE void finish(__m256i sum, int is_first, const float *scale, float s, float *y, size_t rows) {
    if (!is_first)
        sum = _mm256_add_epi32(sum, _mm256_castps_si256(bfe_load_avx2(y, rows)));
    __m256 result = _mm256_castsi256_ps(sum);
    if (scale != NULL) {
        const __m256 scales = _mm256_mul_ps(_mm256_set1_ps(s), bfe_load_avx2(scale, rows));
        result = _mm256_mul_ps(_mm256_cvtepi32_ps(sum), scales);
    }
    bfe_store_avx2(y, result, rows);
}

/* `count` <= 6 columns times the whole matrix. */
BFE_AVX2_INLINE void multiply_some(const bfe_matrix *matrix, const int8_t *q, size_t q_stride, const float *s,
                                   int count, float *y, size_t y_stride, int16_t *inputs) {
    for (size_t i = 0; i < matrix->columns; i += BLOCK) {
        const int is_last = matrix->columns - i <= BLOCK;
        const size_t columns = is_last ? (matrix->columns - i + 15) / 16 * 16 : BLOCK;
        const float *const scale = is_last ? matrix->scale : NULL;
        const int8_t *const tiles = (const int8_t *)matrix->weight + i / TILE_COLUMNS * TILE;
        widen(q + i, q_stride, columns, count, inputs);
        for (size_t r = 0; r < matrix->rows; r += ROWS / 2) {
            __m256i sum[MOST_AT_ONCE];
            multiply_tiles(tiles + r / ROWS * matrix->stride + r % ROWS * TILE_COLUMNS, inputs, columns, count, sum);
            for (int c = 0; c < count; c++)
                finish(sum[c], i == 0, scale == NULL ? NULL : scale + r, scale == NULL ? 0.0f : s[c],
                       y + (size_t)c * y_stride + r, matrix->rows - r);
        }
    }
}

#define DEFINE(count)                                                                                                  \
    BFE_AVX2 static void multiply_##count(const bfe_matrix *matrix, const int8_t *q, size_t q_stride, const float *s,  \
                                          float *y, size_t y_stride, int16_t *inputs) {                                \
        multiply_some(matrix, q, q_stride, s, count, y, y_stride, inputs);                                             \
    }
DEFINE(1)
DEFINE(2)
DEFINE(3)
DEFINE(4)
DEFINE(5)
DEFINE(6)

void bfe_product_int8_avx2(const bfe_matrix *matrix, const int8_t *q, size_t q_stride, const float *s, size_t count,
                           void *y, size_t y_stride, void *scratch) {
    typedef void multiply(const bfe_matrix *, const int8_t *, size_t, const float *, float *, size_t, int16_t *);
    static multiply *const multiply_at_once[] = {multiply_1, multiply_2, multiply_3,
                                                 multiply_4, multiply_5, multiply_6};
    for (size_t c = 0; c < count;) {
        /* As evenly as possible: 8 = 4 + 4. */
        const size_t parts = (count - c + MOST_AT_ONCE - 1) / MOST_AT_ONCE, now = (count - c + parts - 1) / parts;
        multiply_at_once[now - 1](matrix, q + c * q_stride, q_stride, s == NULL ? NULL : s + c,
                                  (float *)y + c * y_stride, y_stride, scratch);
        c += now;
    }
}

#endif
