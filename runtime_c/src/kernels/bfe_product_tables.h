/* What the products in place for processors without vectors have in common: they take up to four columns at a time. */
#ifndef BFE_PRODUCT_TABLES_H
#define BFE_PRODUCT_TABLES_H

#include "../bfe_float.h"
#include "../bfe_kernels.h"

/* Firmware is built for size, but these loops are where it spends its time. As functions of their own they do not run
 * out of registers. */
#if defined(__GNUC__)
#if defined(__OPTIMIZE_SIZE__) && !defined(__clang__)
#pragma GCC optimize("O2")
#endif
#define BFE_LOOP static __attribute__((noinline))
#else
#define BFE_LOOP static
#endif

enum {
    BFE_COLUMNS = 4,
    BFE_TABLES = 4,         /* in the scratch, in front of a word for each row */
    BFE_TABLE_ENTRIES = 243 /* of 32 bits: 3^5 for bytes of five trits; those of four trits reach 0xAA */
};

/* Up to four columns of a product, and where their results go. In place of those that there are not, the last one
 * again, which computes the same again. */
typedef struct bfe_columns {
    const int8_t *q[BFE_COLUMNS];
    float *y[BFE_COLUMNS];
    float s[BFE_COLUMNS]; /* 0 where there are no scales */
} bfe_columns;

static inline bfe_columns bfe_columns_from(size_t first, size_t count, const int8_t *q, size_t q_stride, const float *s,
                                           float *y, size_t y_stride) {
    bfe_columns x;
    for (size_t i = 0; i < BFE_COLUMNS; i++) {
        const size_t c = i < count - first ? first + i : count - 1;
        x.q[i] = q + c * q_stride;
        x.y[i] = y + c * y_stride;
        x.s[i] = s != NULL ? s[c] : 0.0f;
    }
    return x;
}

/* Of the sets "tables" and "dsp". */
size_t bfe_passes_tables(const bfe_matrix *matrix, size_t count);

bfe_product bfe_product_int8_tables, bfe_product_trits2_tables, bfe_product_trits3_tables, bfe_product_int8_dsp;

#endif
