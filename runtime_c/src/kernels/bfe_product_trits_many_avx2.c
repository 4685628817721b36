#include "bfe_avx2.h"

#ifdef BFE_HAS_X86_KERNELS

/*
 * The method of the four Russians: of every four inputs of 16 columns, a table of the 81 sums that four trits can ask
 * for; a row's trits are then one index and one addition of 16 columns. A pass does that for 32 inputs, whose tables
 * stay in the first-level cache, and all rows, up to a number whose sums stay in the second-level cache.
 */
enum {
    COLUMNS = 16, /* of q and y at once */
    FEWEST_COLUMNS = 13,
    FEWEST_ROWS = 256, /* with less, multiplying is faster */
    ROWS = 32,
    MOST_ROWS = 2048,
    TURNED_ROWS = 256,
    GROUPS = 8,                            /* of four inputs, in a pass */
    ENTRY = 2 * COLUMNS * sizeof(int16_t), /* bytes of two groups' sums, side by side */
    TABLE = 81 * ENTRY,
    PASS = 4 * GROUPS
};

/* Where everything lies in the scratch memory. */
typedef struct memory {
    int16_t *tables;   /* [GROUPS / 2][81][2][COLUMNS] */
    int16_t *inputs;   /* [PASS][COLUMNS] */
    uint16_t *offsets; /* [GROUPS / 2][ROWS / 4][2][4]: of entries in bytes, rows in order, by fours; over the inputs,
                        * which are in the tables by then */
    int16_t *sums;     /* [rows][COLUMNS] */
} memory;

static memory lay_out(void *scratch) {
    const size_t misaligned = (uintptr_t)scratch % BFE_TILES_ALIGNMENT;
    char *const at = (char *)scratch + (misaligned == 0 ? 0 : BFE_TILES_ALIGNMENT - misaligned);
    memory m;
    m.tables = (int16_t *)(void *)at;
    m.inputs = (int16_t *)(void *)(at + GROUPS / 2 * TABLE);
    m.offsets = (uint16_t *)m.inputs;
    m.sums = m.inputs + PASS * COLUMNS;
    return m;
}

BFE_AVX2_INLINE __m256i load(const void *from) { return _mm256_loadu_si256((const __m256i *)from); }
BFE_AVX2_INLINE void store(void *to, __m256i v) { _mm256_storeu_si256((__m256i *)to, v); }

/* Interleaves the bytes of vectors 0 and 8, 1 and 9 ...; four times that turns rows into columns. */
BFE_AVX2_INLINE void interleave(const __m128i *from, __m128i *to) {
    for (int i = 0; i < 8; i++) {
        to[2 * i] = _mm_unpacklo_epi8(from[i], from[i + 8]);
        to[2 * i + 1] = _mm_unpackhi_epi8(from[i], from[i + 8]);
    }
}

/* 16 inputs of `count` <= 16 columns: from bytes, column by column, to words, input by input. */
BFE_AVX2 static void transpose_inputs(const int8_t *q, size_t q_stride, size_t count, int16_t *inputs) {
    __m128i a[COLUMNS], b[COLUMNS];
    for (size_t c = 0; c < COLUMNS; c++)
        a[c] = c < count ? _mm_loadu_si128((const __m128i *)(const void *)(q + c * q_stride)) : _mm_setzero_si128();
    interleave(a, b);
    interleave(b, a);
    interleave(a, b);
    interleave(b, a);
    for (size_t i = 0; i < COLUMNS; i++)
        store(inputs + i * COLUMNS, _mm256_cvtepi8_epi16(a[i]));
}

/* The 81 sums of four inputs, each less, without or with: |sum| <= 4 * 127. */
BFE_AVX2 static void fill_table(const int16_t *inputs, int16_t *table) {
    const __m256i x0 = load(inputs), x1 = load(inputs + COLUMNS), x2 = load(inputs + 2 * COLUMNS),
                  x3 = load(inputs + 3 * COLUMNS);
    __m256i sum0 = _mm256_sub_epi16(_mm256_setzero_si256(), x0);
    for (int i0 = 0; i0 < 3; i0++, sum0 = _mm256_add_epi16(sum0, x0)) {
        __m256i sum1 = _mm256_sub_epi16(sum0, x1);
        for (int i1 = 0; i1 < 3; i1++, sum1 = _mm256_add_epi16(sum1, x1)) {
            __m256i sum2 = _mm256_sub_epi16(sum1, x2);
            for (int i2 = 0; i2 < 3; i2++, sum2 = _mm256_add_epi16(sum2, x2), table += 6 * COLUMNS) {
                store(table, _mm256_sub_epi16(sum2, x3));
                store(table + 2 * COLUMNS, sum2);
                store(table + 4 * COLUMNS, _mm256_add_epi16(sum2, x3));
            }
        }
    }
}

/* Of one field of a tile, 8 rows: where its four codes, as a number in base 3, find their entry. */
BFE_AVX2_INLINE __m256i entries(__m256i tile, int field) {
    const __m256i codes = _mm256_and_si256(tile, _mm256_set1_epi8((char)(3 << 2 * field)));
    const __m256i pairs = _mm256_maddubs_epi16(codes, _mm256_set1_epi32(27 | 9 << 8 | 3 << 16 | 1 << 24));
    return _mm256_madd_epi16(pairs, _mm256_set1_epi16(ENTRY >> 2 * field));
}

/* The offsets of two groups, that is tiles, of 32 rows. */
BFE_AVX2_INLINE void find_offsets(const uint8_t *tiles, uint16_t *offsets) {
    const __m256i first = load(tiles), second = load(tiles + 32);
    store(offsets, _mm256_packus_epi32(entries(first, 0), entries(second, 0)));
    store(offsets + 16, _mm256_packus_epi32(entries(first, 1), entries(second, 1)));
    store(offsets + 32, _mm256_packus_epi32(entries(first, 2), entries(second, 2)));
    store(offsets + 48, _mm256_packus_epi32(entries(first, 3), entries(second, 3)));
}

/* Adds to the sums of up to 32 rows (or sets them to) what their trits select of the tables. */
BFE_AVX2_INLINE void add_selected(const memory *m, size_t groups, int is_first, int16_t *sums, size_t rows) {
    const uint16_t *offsets = m->offsets;
    for (size_t r = 0; r < rows; r += 4, offsets += 8, sums += 4 * COLUMNS) {
        __m256i sum0 = _mm256_setzero_si256(), sum1 = sum0, sum2 = sum0, sum3 = sum0;
        if (!is_first) {
            sum0 = load(sums);
            sum1 = load(sums + COLUMNS);
            sum2 = load(sums + 2 * COLUMNS);
            sum3 = load(sums + 3 * COLUMNS);
        }
/* One load for the offsets of four rows: loads are what limits this. */
#define ADD_GROUP(g)                                                                                                   \
    if (groups > g) {                                                                                                  \
        const char *const table = (const char *)m->tables + g / 2 * TABLE + g % 2 * (ENTRY / 2);                       \
        uint64_t four;                                                                                                 \
        memcpy(&four, offsets + g / 2 * (2 * ROWS) + g % 2 * 4, sizeof four);                                          \
        sum0 = _mm256_add_epi16(sum0, load(table + (four & 0xFFFF)));                                                  \
        sum1 = _mm256_add_epi16(sum1, load(table + (four >> 16 & 0xFFFF)));                                            \
        sum2 = _mm256_add_epi16(sum2, load(table + (four >> 32 & 0xFFFF)));                                            \
        sum3 = _mm256_add_epi16(sum3, load(table + (four >> 48)));                                                     \
    }
        ADD_GROUP(0)
        ADD_GROUP(1) ADD_GROUP(2) ADD_GROUP(3) ADD_GROUP(4) ADD_GROUP(5) ADD_GROUP(6) ADD_GROUP(7) store(sums, sum0);
        store(sums + COLUMNS, sum1);
        store(sums + 2 * COLUMNS, sum2);
        store(sums + 3 * COLUMNS, sum3);
    }
}

/* A pass over 32 inputs, or the last 16. `tiles` are those of the first rows. */
BFE_AVX2 static void pass(const bfe_matrix *matrix, const uint8_t *tiles, size_t rows, size_t groups, int is_first,
                          const memory *m) {
    for (size_t g = 0; g < groups; g++)
        fill_table(m->inputs + g * 4 * COLUMNS, m->tables + g / 2 * (TABLE / 2) + g % 2 * COLUMNS);
    for (size_t r = 0; r < rows; r += ROWS, tiles += matrix->stride) {
        for (size_t g = 0; g < groups; g += 2) {
            _mm_prefetch((const char *)tiles + matrix->stride + g * 32, _MM_HINT_T0); /* too far apart to be foreseen */
            find_offsets(tiles + g * 32, m->offsets + g * ROWS);
        }
        const size_t here = rows - r < ROWS ? rows - r : ROWS;
        if (groups == GROUPS && is_first)
            add_selected(m, GROUPS, 1, m->sums + r * COLUMNS, here);
        else if (groups == GROUPS)
            add_selected(m, GROUPS, 0, m->sums + r * COLUMNS, here);
        else
            add_selected(m, GROUPS / 2, is_first, m->sums + r * COLUMNS, here);
    }
}

/* Turns the sums of 16 rows and 8 columns into runs of 16 rows, TURNED_ROWS apart. */
BFE_AVX2_INLINE void transpose_sums(const int16_t *sums, int16_t *turned) {
    __m256i a[8], b[8];
    for (int i = 0; i < 8; i++) {
        const __m128i low = _mm_loadu_si128((const __m128i *)(const void *)(sums + i * COLUMNS));
        const __m128i high = _mm_loadu_si128((const __m128i *)(const void *)(sums + (i + 8) * COLUMNS));
        a[i] = _mm256_inserti128_si256(_mm256_castsi128_si256(low), high, 1);
    }
    for (int i = 0; i < 4; i++) {
        b[2 * i] = _mm256_unpacklo_epi16(a[i], a[i + 4]);
        b[2 * i + 1] = _mm256_unpackhi_epi16(a[i], a[i + 4]);
    }
    for (int i = 0; i < 4; i++) {
        a[2 * i] = _mm256_unpacklo_epi16(b[i], b[i + 4]);
        a[2 * i + 1] = _mm256_unpackhi_epi16(b[i], b[i + 4]);
    }
    for (int i = 0; i < 4; i++) {
        store(turned + 2 * i * TURNED_ROWS, _mm256_unpacklo_epi16(a[i], a[i + 4]));
        store(turned + (2 * i + 1) * TURNED_ROWS, _mm256_unpackhi_epi16(a[i], a[i + 4]));
    }
}

/* Moves 8 sums of a column to y, or as many as there are rows left: as integers, added to those that are there already,
 * and the last time as values. */
BFE_AVX2_INLINE void move(const int16_t *sums, int adds, int is_last, float factor, float *y, size_t rows) {
    __m256i sum = _mm256_cvtepi16_epi32(_mm_loadu_si128((const __m128i *)(const void *)sums));
    if (adds)
        sum = _mm256_add_epi32(sum, _mm256_castps_si256(bfe_load_avx2(y, rows)));
    const __m256 values = _mm256_mul_ps(_mm256_cvtepi32_ps(sum), _mm256_set1_ps(factor));
    bfe_store_avx2(y, is_last ? values : _mm256_castsi256_ps(sum), rows);
}

/* Moves all sums to y. The tables, which the next pass fills anew, hold them in between: y is written in long runs. */
BFE_AVX2 static void flush(const memory *m, size_t rows, size_t count, int adds, int is_last, const float *factor,
                           float *y, size_t y_stride) {
    int16_t *const turned = m->tables;
    for (size_t first = 0; first < rows; first += TURNED_ROWS) {
        const size_t here = rows - first < TURNED_ROWS ? rows - first : TURNED_ROWS;
        for (size_t c = 0; c < count; c++) {
            if (c % 8 == 0)
                for (size_t r = 0; r < here; r += 16)
                    transpose_sums(m->sums + (first + r) * COLUMNS + c, turned + r);
            float *const to = y + c * y_stride + first;
            for (size_t r = 0; r < here; r += 8)
                move(turned + c % 8 * TURNED_ROWS + r, adds, is_last, factor[c], to + r, here - r);
        }
    }
}

/* Of each column: at most 32 * 127. */
BFE_AVX2 static __m256i sum_of_magnitudes(const int16_t *inputs, size_t count) {
    __m256i sum = _mm256_setzero_si256();
    for (size_t i = 0; i < count; i++)
        sum = _mm256_add_epi16(sum, _mm256_abs_epi16(load(inputs + i * COLUMNS)));
    return sum;
}

/* `count` <= 16 columns times up to MOST_ROWS rows. */
BFE_AVX2 static void multiply(const bfe_matrix *matrix, size_t first_row, size_t rows, const int8_t *q, size_t q_stride,
                              const float *s, size_t count, float *y, size_t y_stride, const memory *m) {
    const uint8_t *const tiles = (const uint8_t *)matrix->weight + first_row / ROWS * matrix->stride;
    float factor[COLUMNS];
    for (size_t c = 0; c < count; c++)
        factor[c] = s[c] * matrix->scale[0];
    /* A column's sums are at most the sum of its inputs' magnitudes: they move to y before that outgrows 16 bits. */
    __m256i bound = _mm256_setzero_si256();
    int is_first = 1, moved = 0;
    for (size_t i = 0; i < matrix->columns; i += PASS, is_first = 0) {
        const size_t groups = matrix->columns - i > PASS / 2 ? GROUPS : GROUPS / 2;
        for (size_t j = 0; j < groups * 4; j += 16)
            transpose_inputs(q + i + j, q_stride, count, m->inputs + j * COLUMNS);
        const __m256i more = sum_of_magnitudes(m->inputs, groups * 4);
        bound = _mm256_add_epi16(bound, more);
        if ((uint32_t)_mm256_movemask_epi8(bound) & 0xAAAAAAAA) { /* one's sign bit */
            flush(m, rows, count, moved, 0, factor, y, y_stride);
            bound = more;
            is_first = moved = 1;
        }
        pass(matrix, tiles + i / 4 * 32, rows, groups, is_first, m);
    }
    flush(m, rows, count, moved, 1, factor, y, y_stride);
}

size_t bfe_product_trits_many_avx2(const bfe_matrix *matrix, const int8_t *q, size_t q_stride, const float *s,
                                   size_t count, float *y, size_t y_stride, void *scratch) {
    const memory m = lay_out(scratch);
    size_t done = 0;
    while (matrix->rows >= FEWEST_ROWS && count - done >= FEWEST_COLUMNS) {
        const size_t columns = count - done < COLUMNS ? count - done : COLUMNS;
        for (size_t r = 0; r < matrix->rows; r += MOST_ROWS) {
            const size_t rows = matrix->rows - r < MOST_ROWS ? matrix->rows - r : MOST_ROWS;
            multiply(matrix, r, rows, q + done * q_stride, q_stride, s + done, columns, y + done * y_stride + r,
                     y_stride, &m);
        }
        done += columns;
    }
    return done;
}

#endif
