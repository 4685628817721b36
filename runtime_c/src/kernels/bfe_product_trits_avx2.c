#include "bfe_avx2.h"

#ifdef BFE_HAS_X86_KERNELS

/*
 * Codes, trits plus one, times bytes; what the products exceed is the sum of the bytes. A step is a tile of 32 rows and
 * four columns, two bits a row: four bytes of q, repeated, meet 8 rows at a time, without sums across a register.
 */
enum { ROWS = 32, TILE_COLUMNS = 4, MOST_AT_ONCE = 6 };

/* sum += w * y, by pairs of bytes, in 16 bits. In assembly because GCC copies such sums around, for up to 1.9 times the
 * time. */
#define MULTIPLY_ADD(sum, w, y)                                                                                        \
    do {                                                                                                               \
        __m256i product;                                                                                               \
        __asm__("vpmaddubsw %3, %2, %1\n\tvpaddw %1, %0, %0" : "+x"(sum), "=&x"(product) : "x"(w), "x"(y));            \
    } while (0)

BFE_AVX2_INLINE __m256i load(const void *from) { return _mm256_loadu_si256((const __m256i *)from); }

BFE_AVX2_INLINE __m256i four_bytes(const int8_t *q) {
    int32_t bytes;
    memcpy(&bytes, q, sizeof bytes);
    return _mm256_set1_epi32(bytes);
}

BFE_AVX2_INLINE __m256i add_pairs(__m256i sum, __m256i words) {
    return _mm256_add_epi32(sum, _mm256_madd_epi16(words, _mm256_set1_epi16(1)));
}

BFE_AVX2 static int32_t sum_of(const int8_t *q, size_t columns) {
    __m256i sum8 = _mm256_setzero_si256();
    for (size_t i = 0; i < columns; i += 16) {
        const __m256i words = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(const void *)(q + i)));
        sum8 = add_pairs(sum8, words);
    }
    int32_t lanes[8], sum = 0;
    _mm256_storeu_si256((__m256i *)(void *)lanes, sum8);
    for (int lane = 0; lane < 8; lane++)
        sum += lanes[lane];
    return sum;
}

/* Up to 8 rows of a column. */
BFE_AVX2_INLINE void finish(__m256i sum, int32_t sum_of_q, float factor, float *y, size_t rows) {
    const __m256 exact = _mm256_cvtepi32_ps(_mm256_sub_epi32(sum, _mm256_set1_epi32(sum_of_q)));
    const __m256 values = _mm256_mul_ps(exact, _mm256_set1_ps(factor));
    bfe_store_avx2(y, values, rows);
}

BFE_AVX2_INLINE size_t left(size_t rows, size_t done) { return rows > done ? rows - done : 0; }

/* One column times the tiles of 32 rows. */
BFE_AVX2 static void multiply_one(const uint8_t *tile, size_t columns, const int8_t *q, int32_t sum_of_q, float factor,
                                  float *y, size_t rows) {
    enum { FLUSH = 64 }; /* codes in place are up to four times as large: 16 tiles * 2 * 8 * 127 < 2^15 */
    const __m256i low = _mm256_set1_epi8(0x03), high = _mm256_set1_epi8(0x0C);
    __m256i sum0 = _mm256_setzero_si256(), sum1 = sum0, sum2 = sum0, sum3 = sum0;
    for (size_t i = 0; i < columns;) {
        const size_t end = columns - i < FLUSH ? columns : i + FLUSH;
        __m256i a0 = _mm256_setzero_si256(), a1 = a0, a2 = a0, a3 = a0;
        for (; i < end; i += TILE_COLUMNS, tile += ROWS) {
            const __m256i fields01 = load(tile), fields23 = _mm256_srli_epi16(fields01, 4), y4 = four_bytes(q + i);
            MULTIPLY_ADD(a0, _mm256_and_si256(fields01, low), y4);
            MULTIPLY_ADD(a1, _mm256_and_si256(fields01, high), y4);
            MULTIPLY_ADD(a2, _mm256_and_si256(fields23, low), y4);
            MULTIPLY_ADD(a3, _mm256_and_si256(fields23, high), y4);
        }
        sum0 = add_pairs(sum0, a0);
        sum1 = add_pairs(sum1, a1);
        sum2 = add_pairs(sum2, a2);
        sum3 = add_pairs(sum3, a3);
    }
    finish(sum0, sum_of_q, factor, y, rows);
    finish(_mm256_srai_epi32(sum1, 2), sum_of_q, factor, y + 8, left(rows, 8));
    finish(sum2, sum_of_q, factor, y + 16, left(rows, 16));
    finish(_mm256_srai_epi32(sum3, 2), sum_of_q, factor, y + 24, left(rows, 24));
}

#define EACH_COLUMN(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5)

/* `count` <= 6 columns times two fields of the tiles, from bit `shift` on: 16 rows. sum[2 * c] and the next are column
 * c's. */
BFE_AVX2_INLINE void multiply_fields(const uint8_t *tile, size_t columns, const int8_t *q, size_t q_stride, int shift,
                                     int count, __m256i *sum) {
    const __m256i mask = _mm256_set1_epi8(3);
    for (int c = 0; c < 2 * count; c++)
        sum[c] = _mm256_setzero_si256();
    for (size_t i = 0; i < columns;) {
        const size_t end =
            columns - i < BFE_MOST_TRITS ? columns : i + BFE_MOST_TRITS; /* 64 tiles * 2 * 2 * 127 < 2^15 */
#define DECLARE(c) __m256i a##c = _mm256_setzero_si256(), b##c = a##c;
        EACH_COLUMN(DECLARE)
        for (; i < end; i += TILE_COLUMNS, tile += ROWS) {
            const __m256i codes = load(tile);
            const __m256i codes_a = _mm256_and_si256(_mm256_srli_epi16(codes, shift), mask);
            const __m256i codes_b = _mm256_and_si256(_mm256_srli_epi16(codes, shift + 2), mask);
#define MULTIPLY(c)                                                                                                    \
    if (count > c) {                                                                                                   \
        const __m256i y4 = four_bytes(q + c * q_stride + i);                                                           \
        MULTIPLY_ADD(a##c, codes_a, y4);                                                                               \
        MULTIPLY_ADD(b##c, codes_b, y4);                                                                               \
    }
            EACH_COLUMN(MULTIPLY)
        }
#define FLUSH(c)                                                                                                       \
    if (count > c) {                                                                                                   \
        sum[2 * c] = add_pairs(sum[2 * c], a##c);                                                                      \
        sum[2 * c + 1] = add_pairs(sum[2 * c + 1], b##c);                                                              \
    }
        EACH_COLUMN(FLUSH)
    }
}

/* `count` <= 6 columns times the whole matrix. */
BFE_AVX2_INLINE void multiply_some(const bfe_matrix *matrix, const int8_t *q, size_t q_stride, const float *s,
                                   int count, float *y, size_t y_stride) {
    int32_t sum_of_q[MOST_AT_ONCE];
    float factor[MOST_AT_ONCE];
    for (int c = 0; c < count; c++) {
        sum_of_q[c] = sum_of(q + (size_t)c * q_stride, matrix->columns);
        factor[c] = s[c] * matrix->scale[0];
    }
    const uint8_t *tiles = matrix->weight;
    for (size_t r = 0; r < matrix->rows; r += ROWS, tiles += matrix->stride, y += ROWS) {
        const size_t rows = matrix->rows - r;
        if (count == 1) {
            multiply_one(tiles, matrix->columns, q, sum_of_q[0], factor[0], y, rows);
            continue;
        }
        for (int half = 0; half < 2; half++) {
            const size_t done = half == 0 ? 0 : ROWS / 2;
            __m256i sum[2 * MOST_AT_ONCE];
            if (half == 0)
                multiply_fields(tiles, matrix->columns, q, q_stride, 0, count, sum);
            else
                multiply_fields(tiles, matrix->columns, q, q_stride, 4, count, sum);
            for (int c = 0; c < count; c++) {
                float *const to = y + (size_t)c * y_stride + done;
                finish(sum[2 * c], sum_of_q[c], factor[c], to, left(rows, done));
                finish(sum[2 * c + 1], sum_of_q[c], factor[c], to + 8, left(rows, done + 8));
            }
        }
    }
}

#define DEFINE(count)                                                                                                  \
    BFE_AVX2 static void multiply_##count(const bfe_matrix *matrix, const int8_t *q, size_t q_stride, const float *s,  \
                                          float *y, size_t y_stride) {                                                 \
        multiply_some(matrix, q, q_stride, s, count, y, y_stride);                                                     \
    }
DEFINE(1)
DEFINE(2)
DEFINE(3)
DEFINE(4)
DEFINE(5)
DEFINE(6)

void bfe_product_trits_avx2(const bfe_matrix *matrix, const int8_t *q, size_t q_stride, const float *s, size_t count,
                            void *y, size_t y_stride, void *scratch) {
    typedef void multiply(const bfe_matrix *, const int8_t *, size_t, const float *, float *, size_t);
    static multiply *const multiply_at_once[] = {multiply_1, multiply_2, multiply_3,
                                                 multiply_4, multiply_5, multiply_6};
    size_t c = bfe_product_trits_many_avx2(matrix, q, q_stride, s, count, y, y_stride, scratch);
    while (c < count) {
        /* As evenly as possible: 8 = 4 + 4. */
        const size_t parts = (count - c + MOST_AT_ONCE - 1) / MOST_AT_ONCE, now = (count - c + parts - 1) / parts;
        multiply_at_once[now - 1](matrix, q + c * q_stride, q_stride, s + c, (float *)y + c * y_stride, y_stride);
        c += now;
    }
}

#endif
