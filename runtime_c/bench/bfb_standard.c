/* A standard mixture of experts, each with its own two matrices, on the same kernels. */
#include "bfb_bench.h"
#include "bfe_internal.h"

#include <string.h>

typedef struct standard {
    const bfe_kernels *kernels;
    bfb_matrix router;
    bfb_matrix *up, *down; /* [experts] */
    const float *z, *gain, *bias;
    float *residual, *norm; /* [tokens, d_model], [d_model] */
    int8_t *q;              /* [tokens, d_model] */
    float *s;               /* [tokens] */
    float *logits;          /* [columns at a time, experts] */
    uint16_t *selected;     /* [tokens, top_k] */
    float *gate;            /* [tokens, top_k] */
    uint32_t *first;        /* [experts + 1]: where an expert's pairs begin in `order` */
    uint32_t *order;        /* [tokens * top_k]: the pairs token * top_k + rank, by expert */
    struct {                /* of the pairs of one expert, some at a time */
        int8_t *q;          /* [pairs, d_model] */
        float *s;
        float *hidden;    /* [pairs, d_ff] */
        int8_t *hidden_q; /* [pairs, d_ff] */
        float *hidden_s;
        float *output; /* [pairs, d_model] */
    } batch;
    float *sum; /* [tokens, d_model] */
    void *scratch;
    size_t tokens;
    uint32_t top_k;
} standard;

static size_t larger(size_t a, size_t b) { return a > b ? a : b; }

size_t bfb_standard_prepare(void *memory, const char *kernels, const bfb_input *input, const bfb_weight *router,
                            const bfb_weight *up, const bfb_weight *down, uint32_t top_k) {
    const bfe_kernels *const set = bfb_kernels(kernels);
    if (!set)
        return 0;
    bfb_memory pieces = {memory, 0};
    standard *const self = bfb_take(&pieces, sizeof *self);
    const size_t tokens = input->tokens, d = input->d_model, d_ff = up->rows, experts = router->rows;
    const size_t step = bfe_columns_at_once(set->layout);
    standard l;
    l.kernels = set;
    l.router = bfb_load(&pieces, set, router);
    l.up = bfb_take(&pieces, experts * sizeof *l.up);
    l.down = bfb_take(&pieces, experts * sizeof *l.down);
    for (size_t e = 0; e < experts; e++) {
        const bfb_matrix up_e = bfb_load(&pieces, set, up + e), down_e = bfb_load(&pieces, set, down + e);
        if (self) {
            l.up[e] = up_e;
            l.down[e] = down_e;
        }
    }
    l.z = bfb_copy(&pieces, input->z, tokens * d * sizeof(float));
    l.gain = bfb_copy(&pieces, input->gain, d * sizeof(float));
    l.bias = bfb_copy(&pieces, input->bias, d * sizeof(float));
    l.residual = bfb_take(&pieces, tokens * d * sizeof(float));
    l.norm = bfb_take(&pieces, d * sizeof(float));
    const size_t q_bytes = tokens * bfe_pad_columns(up->columns), batch_bytes = step * bfe_pad_columns(up->columns);
    const size_t hidden_bytes = step * bfe_pad_columns(down->columns);
    l.q = bfb_take(&pieces, q_bytes);
    l.s = bfb_take(&pieces, tokens * sizeof(float));
    l.logits = bfb_take(&pieces, step * experts * sizeof(float));
    l.selected = bfb_take(&pieces, tokens * top_k * sizeof *l.selected);
    l.gate = bfb_take(&pieces, tokens * top_k * sizeof(float));
    l.first = bfb_take(&pieces, (experts + 1) * sizeof *l.first);
    l.order = bfb_take(&pieces, tokens * top_k * sizeof *l.order);
    l.batch.q = bfb_take(&pieces, batch_bytes);
    l.batch.s = bfb_take(&pieces, step * sizeof(float));
    l.batch.hidden = bfb_take(&pieces, step * d_ff * sizeof(float));
    l.batch.hidden_q = bfb_take(&pieces, hidden_bytes);
    l.batch.hidden_s = bfb_take(&pieces, step * sizeof(float));
    l.batch.output = bfb_take(&pieces, step * d * sizeof(float));
    l.sum = bfb_take(&pieces, tokens * d * sizeof(float));
    l.scratch = bfb_take(&pieces, larger(bfe_scratch_bytes(set->layout, router->rows, router->columns),
                                         larger(bfe_scratch_bytes(set->layout, up->rows, up->columns),
                                                bfe_scratch_bytes(set->layout, down->rows, down->columns))));
    l.tokens = tokens;
    l.top_k = top_k;
    if (self) {
        memset(l.q, 0, q_bytes); /* what follows the last column stays zero */
        memset(l.batch.q, 0, batch_bytes);
        memset(l.batch.hidden_q, 0, hidden_bytes);
        *self = l;
    }
    return pieces.used;
}

static void route_tokens(const standard *l) {
    const size_t d = l->router.matrix.columns, stride = bfe_pad_columns(l->router.matrix.columns);
    const size_t experts = l->router.matrix.rows, step = bfe_columns_at_once(l->kernels->layout);
    for (size_t t = 0; t < l->tokens; t++) {
        l->kernels->layer_norm(l->residual + t * d, l->gain, l->bias, d, l->norm);
        l->s[t] = l->kernels->quantise(l->norm, d, l->q + t * stride);
    }
    for (size_t first = 0; first < l->tokens; first += step) {
        const size_t count = l->tokens - first < step ? l->tokens - first : step;
        l->router.product(&l->router.matrix, l->q + first * stride, stride, l->s + first, count, l->logits, experts,
                          l->scratch);
        for (size_t t = first; t < first + count; t++)
            bfe_route(l->logits + (t - first) * experts, (uint32_t)experts, l->top_k, l->selected + t * l->top_k,
                      l->gate + t * l->top_k);
    }
}

/* Sorts the pairs by expert; an expert's pairs stay in the order of their tokens. */
static void group_pairs(const standard *l) {
    const size_t pairs = l->tokens * l->top_k, experts = l->router.matrix.rows;
    memset(l->first, 0, (experts + 1) * sizeof *l->first);
    for (size_t i = 0; i < pairs; i++)
        l->first[l->selected[i]]++;
    for (size_t e = 1; e <= experts; e++)
        l->first[e] += l->first[e - 1]; /* now where an expert's pairs end */
    for (size_t i = pairs; i-- > 0;)
        l->order[--l->first[l->selected[i]]] = (uint32_t)i;
}

/* Some pairs of one expert through its two matrices into the sums. */
static void run_batch(const standard *l, size_t expert, const uint32_t *pairs, size_t count) {
    const bfb_matrix *const up = l->up + expert, *const down = l->down + expert;
    const size_t d = up->matrix.columns, d_ff = up->matrix.rows;
    const size_t stride = bfe_pad_columns(up->matrix.columns), hidden_stride = bfe_pad_columns(down->matrix.columns);
    for (size_t i = 0; i < count; i++) {
        const size_t t = pairs[i] / l->top_k;
        memcpy(l->batch.q + i * stride, l->q + t * stride, d);
        l->batch.s[i] = l->s[t];
    }
    up->product(&up->matrix, l->batch.q, stride, l->batch.s, count, l->batch.hidden, d_ff, l->scratch);
    for (size_t i = 0; i < count; i++) {
        float *const hidden = l->batch.hidden + i * d_ff;
        l->kernels->gelu(hidden, d_ff);
        l->batch.hidden_s[i] = l->kernels->quantise(hidden, d_ff, l->batch.hidden_q + i * hidden_stride);
    }
    down->product(&down->matrix, l->batch.hidden_q, hidden_stride, l->batch.hidden_s, count, l->batch.output, d,
                  l->scratch);
    for (size_t i = 0; i < count; i++) {
        float *const sum = l->sum + pairs[i] / l->top_k * d;
        l->kernels->add_scaled(sum, l->gate[pairs[i]], l->batch.output + i * d, d);
    }
}

void bfb_standard_run(void *memory) {
    const standard *const l = memory;
    const size_t values = l->tokens * l->router.matrix.columns, step = bfe_columns_at_once(l->kernels->layout);
    memcpy(l->residual, l->z, values * sizeof *l->residual);
    memset(l->sum, 0, values * sizeof *l->sum);
    route_tokens(l);
    group_pairs(l);
    for (size_t e = 0; e < l->router.matrix.rows; e++) {
        const size_t end = l->first[e + 1];
        for (size_t i = l->first[e]; i < end; i += step)
            run_batch(l, e, l->order + i, end - i < step ? end - i : step);
    }
    l->kernels->add(l->residual, l->sum, values);
}

const float *bfb_standard_result(const void *memory) { return ((const standard *)memory)->residual; }
