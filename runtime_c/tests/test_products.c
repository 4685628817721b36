/* The products of every set of kernels against their definition, bit for bit: shapes, extreme values, memory's ends. */
#include "bfe_format.h"
#include "bfe_tiles.h"
#include "bfedge.h"
#include "kernels.h"
#include "test.h"

#include <stdlib.h>

/* What the elements are. All but the first make sums as large as they get, partial sums of either sign included. */
typedef enum contents { RANDOM, EQUAL, OPPOSITE, ALTERNATING, PIXELS } contents;

typedef struct problem {
    uint32_t rows, columns;
    size_t count, q_stride;
    uint16_t encoding;
    int8_t *weight; /* [rows, columns] */
    float *scale;   /* [rows] */
    block q;
    float *s;     /* [count] */
    int32_t *sum; /* [count, rows] */
} problem;

static const uint16_t encodings[] = {BFE_ENCODING_INT8, BFE_ENCODING_TRITS2, BFE_ENCODING_TRITS3};

static size_t round_up(size_t value, size_t to) { return (value + to - 1) / to * to; }

static int8_t weight_of(contents what, uint16_t encoding, uint32_t row, uint32_t column) {
    const int32_t largest = encoding == BFE_ENCODING_INT8 ? 127 : 1;
    if (what == RANDOM)
        return (int8_t)((int32_t)test_random_below(2u * (uint32_t)largest + 1) - largest);
    const int is_negative = (what == ALTERNATING && column % 2 != 0) != (row % 3 == 2);
    return (int8_t)(is_negative ? -largest : largest);
}

static int8_t q_of(contents what, uint16_t encoding, size_t c, uint32_t column) {
    if (what == RANDOM)
        return test_random_int8();
    const int is_negative = ((what == ALTERNATING && column % 2 != 0) + (what >= OPPOSITE) + (c % 3 == 1)) % 2 != 0;
    return (int8_t)(!is_negative ? 127 : what == PIXELS && encoding == BFE_ENCODING_INT8 ? -128 : -127);
}

static void fill(problem *p, contents what) {
    int8_t *const q = p->q.data;
    for (uint32_t r = 0; r < p->rows; r++) {
        p->scale[r] = 1e-3f + test_random_float() * test_random_float();
        for (uint32_t i = 0; i < p->columns; i++)
            p->weight[r * p->columns + i] = weight_of(what, p->encoding, r, i);
    }
    for (size_t c = 0; c < p->count; c++) {
        p->s[c] = test_random_float() * 0.01f;
        for (size_t i = 0; i < round_up(p->columns, BFE_COLUMN_BLOCK); i++)
            q[c * p->q_stride + i] = i < p->columns ? q_of(what, p->encoding, c, (uint32_t)i) : 0;
    }
}

static void multiply(problem *p) {
    for (size_t c = 0; c < p->count; c++) {
        const int8_t *const q = (const int8_t *)p->q.data + c * p->q_stride;
        for (uint32_t r = 0; r < p->rows; r++) {
            int64_t sum = 0;
            for (uint32_t i = 0; i < p->columns; i++)
                sum += (int64_t)p->weight[r * p->columns + i] * q[i];
            p->sum[c * p->rows + r] = (int32_t)sum;
            CHECK(p->sum[c * p->rows + r] == sum);
        }
    }
}

static problem new_problem(uint32_t rows, uint32_t columns, size_t count, uint16_t encoding, contents what) {
    const size_t padded = round_up(columns, BFE_COLUMN_BLOCK);
    problem p;
    p.rows = rows;
    p.columns = columns;
    p.count = count;
    p.q_stride = padded + BFE_ALIGNMENT * (size_t)test_random_below(3);
    p.encoding = encoding;
    p.weight = malloc((size_t)rows * columns);
    p.scale = malloc(rows * sizeof *p.scale);
    p.q = new_block((count - 1) * p.q_stride + padded, BFE_ALIGNMENT);
    p.s = malloc(count * sizeof *p.s);
    p.sum = malloc(count * rows * sizeof *p.sum);
    fill(&p, what);
    multiply(&p);
    return p;
}

static void free_problem(problem *p) {
    free(p->weight);
    free(p->scale);
    free_block(&p->q);
    free(p->s);
    free(p->sum);
}

/* As FORMAT.md says, and with up to 20 bytes between rows, as where the rows are parts of larger ones. */
static block to_rows(const problem *p, bfe_matrix *matrix) {
    const uint32_t per_byte = p->encoding == BFE_ENCODING_INT8 ? 1 : p->encoding == BFE_ENCODING_TRITS2 ? 4 : 5;
    const uint32_t base = p->encoding == BFE_ENCODING_TRITS2 ? 4 : 3, bytes = (p->columns + per_byte - 1) / per_byte;
    matrix->stride = bytes + (test_random_below(2) == 0 ? 0 : test_random_below(20));
    const block b = new_block((size_t)(p->rows - 1) * matrix->stride + bytes, BFE_ALIGNMENT);
    for (uint32_t r = 0; r < p->rows; r++) {
        const int8_t *const row = p->weight + (size_t)r * p->columns;
        uint8_t *const to = (uint8_t *)b.data + (size_t)r * matrix->stride;
        for (uint32_t i = 0; i < bytes; i++) {
            uint32_t code = 0;
            for (uint32_t j = per_byte; j-- > 0;)
                code = code * base + (uint32_t)((per_byte * i + j < p->columns ? row[per_byte * i + j] : 0) + 1);
            to[i] = p->encoding == BFE_ENCODING_INT8 ? (uint8_t)row[i] : (uint8_t)code;
        }
    }
    return b;
}

/* As bfe_kernels.h says. */
static block to_tiles(const problem *p, bfe_matrix *matrix) {
    const int is_int8 = p->encoding == BFE_ENCODING_INT8;
    const uint32_t padded = (uint32_t)round_up(p->columns, BFE_COLUMN_BLOCK), tile_rows = is_int8 ? 16 : 32;
    matrix->stride = padded / 4 * (is_int8 ? 64 : 32);
    const block b = new_block(round_up(p->rows, BFE_TILE_ROWS) / tile_rows * matrix->stride, BFE_TILES_ALIGNMENT);
    uint8_t *const tiles = b.data;
    memset(tiles, is_int8 ? 0 : 0x55, b.bytes);
    for (uint32_t r = 0; r < p->rows; r++) {
        for (uint32_t i = 0; i < p->columns; i++) {
            uint8_t *const tile = tiles + r / tile_rows * (size_t)matrix->stride + i / 4 * (is_int8 ? 64 : 32);
            const int8_t w = p->weight[(size_t)r * p->columns + i];
            const uint32_t shift = r % 32 / 8 * 2;
            if (is_int8)
                tile[4 * (r % 16) + i % 4] = (uint8_t)w;
            else
                tile[4 * (r % 8) + i % 4] =
                    (uint8_t)((tile[4 * (r % 8) + i % 4] & ~(3u << shift)) | (uint32_t)(w + 1) << shift);
        }
    }
    return b;
}

static bfe_matrix describe(const problem *p, bfe_layout layout, block *memory) {
    bfe_matrix m = {NULL, p->scale, p->rows, p->columns, 0, p->encoding, (uint16_t)layout, 0};
    *memory = layout == BFE_LAYOUT_ROWS ? to_rows(p, &m) : to_tiles(p, &m);
    m.weight = memory->data;
    m.bytes = (uint32_t)memory->bytes;
    return m;
}

static void run(const bfe_kernels *set, const bfe_matrix *m, const problem *p) {
    bfe_product *const product = m->encoding == BFE_ENCODING_INT8     ? set->product_int8
                                 : m->encoding == BFE_ENCODING_TRITS2 ? set->product_trits2
                                                                      : set->product_trits3;
    const size_t y_stride = p->rows + test_random_below(4);
    block y = new_guarded_block(((p->count - 1) * y_stride + p->rows) * sizeof(float), BFE_ALIGNMENT);
    block scratch = new_guarded_block(bfe_scratch_bytes(set->layout, p->rows, p->columns), BFE_ALIGNMENT);
    uint8_t *const before = malloc(y.bytes);
    memcpy(before, y.data, y.bytes);

    product(m, p->q.data, p->q_stride, m->scale == NULL ? NULL : p->s, p->count, y.data, y_stride, scratch.data);
    uint32_t wrong = 0;
    for (size_t c = 0; c < p->count; c++) {
        for (size_t r = 0; r < y_stride && c * y_stride + r < y.bytes / sizeof(float); r++) {
            const size_t at = (c * y_stride + r) * sizeof(float);
            const int32_t sum = r < p->rows ? p->sum[c * p->rows + r] : 0;
            float value = 0;
            if (m->scale != NULL && r < p->rows)
                value = (float)sum * (p->s[c] * m->scale[m->encoding == BFE_ENCODING_INT8 ? r : 0]);
            const void *const expected = r >= p->rows       ? (void *)(before + at)
                                         : m->scale == NULL ? (void *)&sum
                                                            : (void *)&value;
            wrong += memcmp((uint8_t *)y.data + at, expected, sizeof(float)) != 0;
        }
    }
    CHECK(wrong == 0);
    CHECK(is_intact(&y));
    CHECK(is_intact(&scratch));
    free_block(&y);
    free_block(&scratch);
    free(before);
}

static void compare(uint32_t rows, uint32_t columns, size_t count, uint16_t encoding, contents what) {
    problem p = new_problem(rows, columns, count, encoding, what);
    block memory[2];
    bfe_matrix matrices[2];
    for (int layout = 0; layout < 2; layout++)
        matrices[layout] = describe(&p, (bfe_layout)layout, &memory[layout]);

    block tiles = new_guarded_block(memory[1].bytes, BFE_TILES_ALIGNMENT);
    bfe_tile_matrix(&matrices[0], tiles.data);
    CHECK(memcmp(tiles.data, memory[1].data, tiles.bytes) == 0 && is_intact(&tiles));
    free_block(&tiles);

    for (uint32_t i = 0; kernels_to_test(i) != NULL; i++) {
        const bfe_kernels *const set = kernels_to_test(i);
        const int failures = test_failures;
        bfe_matrix m = matrices[set->layout];
        run(set, &m, &p);
        m.scale = NULL;
        if (encoding == BFE_ENCODING_INT8)
            run(set, &m, &p);
        if (test_failures != failures)
            fprintf(stderr, "... kernels %s, encoding %u, %u x %u, %u columns, contents %d\n", set->name, encoding,
                    rows, columns, (unsigned)count, (int)what);
    }
    free_block(&memory[0]);
    free_block(&memory[1]);
    free_problem(&p);
}

int main(void) {
    static const uint32_t wide[] = {250, 255, 256, 257, 258, 259, 260, 320, 400, 511, 513, 1279, 4100, 16384};
    for (size_t e = 0; e < sizeof encodings / sizeof encodings[0]; e++) {
        const uint16_t encoding = encodings[e];
        for (uint32_t i = 1; i <= 70; i++) {
            const size_t count = i <= 40 ? i : i <= 50 ? 64 : i <= 60 ? 65 : 130;
            compare(1 + test_random_below(70), i, 1 + test_random_below(40), encoding, RANDOM);
            compare(i, 1 + test_random_below(70), 1 + test_random_below(40), encoding, RANDOM);
            compare(1 + test_random_below(70), 1 + test_random_below(300), count, encoding, RANDOM);
            compare(1 + test_random_below(300), 1 + test_random_below(70), 1 + i % 5, encoding, RANDOM);
        }
        for (contents what = EQUAL; what <= PIXELS; what++) {
            for (size_t i = 0; i < sizeof wide / sizeof wide[0]; i++) {
                compare(1 + test_random_below(40), wide[i], 1, encoding, what);
                compare(1 + test_random_below(40), wide[i], 2 + test_random_below(6), encoding, what);
                compare(34, wide[i], 33, encoding, what);
            }
        }
        compare(1024, 256, 1, encoding, RANDOM);
        compare(1024, 256, 130, encoding, RANDOM);
        compare(768, 256, 64, encoding, RANDOM);
        compare(1025, 271, 33, encoding, RANDOM);
        compare(16384, 5, 1, encoding, RANDOM);
        compare(16384, 5, 34, encoding, RANDOM);
    }
    return test_result();
}
