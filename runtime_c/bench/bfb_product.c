/* One product of a matrix and some columns, already int8. */
#include "bfb_bench.h"
#include "bfe_internal.h"

#include <string.h>

typedef struct product {
    bfb_matrix weight;
    const int8_t *q;
    const float *s;
    float *y;
    void *scratch;
    size_t count;
} product;

size_t bfb_product_prepare(void *memory, const char *kernels, const bfb_weight *weight, const int8_t *q, const float *s,
                           uint32_t count) {
    const bfe_kernels *const set = bfb_kernels(kernels);
    if (!set)
        return 0;
    bfb_memory pieces = {memory, 0};
    product *const self = bfb_take(&pieces, sizeof *self);
    const size_t stride = bfe_pad_columns(weight->columns);
    product p;
    p.weight = bfb_load(&pieces, set, weight);
    int8_t *const columns = bfb_take(&pieces, count * stride);
    p.q = columns;
    p.s = bfb_copy(&pieces, s, count * sizeof *s);
    p.y = bfb_take(&pieces, (size_t)count * weight->rows * sizeof *p.y);
    p.scratch = bfb_take(&pieces, bfe_scratch_bytes(set->layout, weight->rows, weight->columns));
    p.count = count;
    if (self) {
        memset(columns, 0, count * stride);
        for (size_t c = 0; c < count; c++)
            memcpy(columns + c * stride, q + c * weight->columns, weight->columns);
        *self = p;
    }
    return pieces.used;
}

void bfb_product_run(void *memory) {
    const product *const p = memory;
    p->weight.product(&p->weight.matrix, p->q, bfe_pad_columns(p->weight.matrix.columns), p->s, p->count, p->y,
                      p->weight.matrix.rows, p->scratch);
}

const float *bfb_product_result(const void *memory) { return ((const product *)memory)->y; }
