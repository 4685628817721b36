/*
 * Products with trits as they lie in the file, for processors without vectors. All sums that a byte of trits can stand
 * for, of two columns at a time, go into a table which the byte indexes: no trit is ever unpacked, and a handful of
 * instructions adds four or five products to the sums of both columns.
 */
#include "../bfe_format.h"
#include "bfe_product_tables.h"

enum { FEWEST_ROWS = 20 }; /* that tables are worth building for */

/* An encoding of trits: `per_byte` digits to the base `base` a byte. */
typedef struct trit_code {
    size_t per_byte, base;
} trit_code;

/*
 * The sums of two columns lie in a word as lower + 65536 * upper, modulo 2^32, so that one addition adds both. Both can
 * be had back while they are within 16 bits: BFE_MOST_TRITS columns see to that.
 */
static inline int32_t lower(uint32_t word) { return (int16_t)(word & 0xFFFF); }

static inline int32_t upper(uint32_t word) { return (int16_t)((word + 0x8000) >> 16); }

/* Makes a table for some digits one for one digit more, which stands for x and steps by `step` entries. The first
 * `used` entries are those of bytes that occur, and a few between them. */
BFE_LOOP void extend_table(uint32_t *entry, size_t used, size_t step, uint32_t x) {
    uint32_t *once = entry + step, *twice = once + step;
    for (const uint32_t *const end = entry + used; entry != end; entry++) {
        const uint32_t sum = *entry + x;
        *once++ = sum;
        *twice++ = sum + x;
    }
}

/* The table of a byte whose first trit meets element `first` of the columns. */
static void build_table(const bfe_columns *x, size_t first, size_t columns, trit_code code, uint32_t *table) {
    uint32_t value[5];
    *table = 0;
    for (size_t j = 0; j < code.per_byte; j++) {
        const size_t i = first + j;
        value[j] = i < columns ? (uint32_t)x->q[0][i] + ((uint32_t)x->q[1][i] << 16) : 0;
        *table -= value[j]; /* digits of 0 are trits of -1 */
    }
    for (size_t j = 0, used = 1, step = 1; j < code.per_byte; j++, used += 2 * step, step *= code.base)
        extend_table(table, used, step, value[j]);
}

/* Adds to the sums of all rows what a byte of each stands for. */
BFE_LOOP void add_byte(const uint8_t *row, size_t stride, const uint32_t *restrict table, uint32_t *restrict sum,
                       const uint32_t *end) {
    for (; sum != end; sum++, row += stride)
        *sum += table[*row];
}

/* The same for BFE_TABLES bytes, whose tables follow each other. */
BFE_LOOP void add_bytes(const uint8_t *row, size_t stride, const uint32_t *restrict table, uint32_t *restrict sum,
                        const uint32_t *end) {
    const uint32_t *const table1 = table + BFE_TABLE_ENTRIES, *const table2 = table1 + BFE_TABLE_ENTRIES;
    const uint32_t *const table3 = table2 + BFE_TABLE_ENTRIES;
    for (; sum != end; sum++, row += stride)
        *sum += table[row[0]] + table1[row[1]] + table2[row[2]] + table3[row[3]];
}

/* Takes the sums out of their words. Before the last part of the columns they stay integers in y, where the next part
 * finds them. */
BFE_LOOP void unpack(const uint32_t *word, size_t rows, const bfe_columns *x, float scale, int is_first, int is_last) {
    const float factor0 = x->s[0] * scale, factor1 = x->s[1] * scale;
    float *y0 = x->y[0], *y1 = x->y[1];
    for (const uint32_t *const end = word + rows; word != end; word++, y0++, y1++) {
        const int32_t before0 = is_first ? 0 : *(int32_t *)y0, before1 = is_first ? 0 : *(int32_t *)y1;
        const int32_t sum0 = before0 + lower(*word), sum1 = before1 + upper(*word);
        if (is_last) {
            *y0 = (float)sum0 * factor0;
            *y1 = (float)sum1 * factor1;
        } else {
            *(int32_t *)y0 = sum0;
            *(int32_t *)y1 = sum1;
        }
    }
}

static void multiply_two(const bfe_matrix *matrix, const bfe_columns *x, trit_code code, uint32_t *table) {
    const size_t bytes = (matrix->columns + code.per_byte - 1) / code.per_byte;
    const size_t most = matrix->columns <= BFE_MOST_TRITS ? bytes : BFE_MOST_TRITS / code.per_byte;
    uint32_t *const sum = table + BFE_TABLES * BFE_TABLE_ENTRIES, *const end_sum = sum + matrix->rows;
    for (size_t first = 0; first < bytes; first += most) {
        const size_t end = bytes - first < most ? bytes : first + most;
        memset(sum, 0, matrix->rows * sizeof *sum);
        for (size_t at = first, step; at < end; at += step) {
            const uint8_t *const row = (const uint8_t *)matrix->weight + at;
            step = end - at < BFE_TABLES ? 1 : BFE_TABLES;
            for (size_t i = 0; i < step; i++)
                build_table(x, (at + i) * code.per_byte, matrix->columns, code, table + i * BFE_TABLE_ENTRIES);
            (step == 1 ? add_byte : add_bytes)(row, matrix->stride, table, sum, end_sum);
        }
        unpack(sum, matrix->rows, x, *matrix->scale, first == 0, end == bytes);
    }
}

static void product(const bfe_matrix *matrix, const int8_t *q, size_t q_stride, const float *s, size_t count, float *y,
                    size_t y_stride, uint32_t *scratch, trit_code code) {
    for (size_t c = 0; c < count; c += 2) {
        const bfe_columns x = bfe_columns_from(c, count, q, q_stride, s, y, y_stride);
        multiply_two(matrix, &x, code, scratch);
    }
}

void bfe_product_trits2_tables(const bfe_matrix *matrix, const int8_t *q, size_t q_stride, const float *s, size_t count,
                               void *y, size_t y_stride, void *scratch) {
    static const trit_code bits = {4, 4};
    if (matrix->rows < FEWEST_ROWS)
        bfe_product_trits2_c(matrix, q, q_stride, s, count, y, y_stride, scratch);
    else
        product(matrix, q, q_stride, s, count, y, y_stride, scratch, bits);
}

void bfe_product_trits3_tables(const bfe_matrix *matrix, const int8_t *q, size_t q_stride, const float *s, size_t count,
                               void *y, size_t y_stride, void *scratch) {
    static const trit_code digits = {5, 3};
    if (matrix->rows < FEWEST_ROWS)
        bfe_product_trits3_c(matrix, q, q_stride, s, count, y, y_stride, scratch);
    else
        product(matrix, q, q_stride, s, count, y, y_stride, scratch, digits);
}

/* int8 goes four columns at a time, or three; one or two that are left go one by one. */
size_t bfe_passes_tables(const bfe_matrix *matrix, size_t count) {
    if (matrix->encoding == BFE_ENCODING_INT8)
        return count / BFE_COLUMNS + (count % BFE_COLUMNS == 3 ? 1 : count % BFE_COLUMNS);
    return matrix->rows < FEWEST_ROWS ? count : (count + 1) / 2;
}
