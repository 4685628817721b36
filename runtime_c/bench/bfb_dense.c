/* A dense feed-forward layer on the same kernels. */
#include "bfb_bench.h"
#include "bfe_internal.h"

#include <string.h>

typedef struct dense {
    const bfe_kernels *kernels;
    bfb_matrix up, down;
    const float *z, *gain, *bias;
    float *residual, *norm; /* [tokens, d_model], [d_model] */
    int8_t *q;              /* [tokens * copies, d_model] */
    float *s;               /* [tokens * copies] */
    float *hidden;          /* [columns at a time, d_ff] */
    float *mean;            /* [tokens, d_ff] */
    int8_t *mean_q;         /* [tokens, d_ff] */
    float *mean_s;          /* [tokens] */
    float *product;         /* [columns at a time, d_model] */
    void *scratch;
    size_t tokens, copies;
} dense;

size_t bfb_dense_prepare(void *memory, const char *kernels, const bfb_input *input, const bfb_weight *up,
                         const bfb_weight *down, uint32_t copies) {
    const bfe_kernels *const set = bfb_kernels(kernels);
    if (!set)
        return 0;
    bfb_memory pieces = {memory, 0};
    dense *const self = bfb_take(&pieces, sizeof *self);
    const size_t tokens = input->tokens, d = input->d_model, d_ff = up->rows, step = bfe_columns_at_once(set->layout);
    const size_t scratch_up = bfe_scratch_bytes(set->layout, up->rows, up->columns);
    const size_t scratch_down = bfe_scratch_bytes(set->layout, down->rows, down->columns);
    const size_t q_bytes = tokens * copies * bfe_pad_columns(up->columns),
                 mean_bytes = tokens * bfe_pad_columns(down->columns);
    dense l;
    l.kernels = set;
    l.up = bfb_load(&pieces, set, up);
    l.down = bfb_load(&pieces, set, down);
    l.z = bfb_copy(&pieces, input->z, tokens * d * sizeof(float));
    l.gain = bfb_copy(&pieces, input->gain, d * sizeof(float));
    l.bias = bfb_copy(&pieces, input->bias, d * sizeof(float));
    l.residual = bfb_take(&pieces, tokens * d * sizeof(float));
    l.norm = bfb_take(&pieces, d * sizeof(float));
    l.q = bfb_take(&pieces, q_bytes);
    l.s = bfb_take(&pieces, tokens * copies * sizeof(float));
    l.hidden = bfb_take(&pieces, step * d_ff * sizeof(float));
    l.mean = bfb_take(&pieces, tokens * d_ff * sizeof(float));
    l.mean_q = bfb_take(&pieces, mean_bytes);
    l.mean_s = bfb_take(&pieces, tokens * sizeof(float));
    l.product = bfb_take(&pieces, step * d * sizeof(float));
    l.scratch = bfb_take(&pieces, scratch_up > scratch_down ? scratch_up : scratch_down);
    l.tokens = tokens;
    l.copies = copies;
    if (self) {
        memset(l.q, 0, q_bytes); /* what follows the last column stays zero */
        memset(l.mean_q, 0, mean_bytes);
        *self = l;
    }
    return pieces.used;
}

/* Every token's normalised vector, quantised as many times as it has copies. */
static void quantise_input(const dense *l) {
    const size_t d = l->up.matrix.columns, stride = bfe_pad_columns(l->up.matrix.columns);
    for (size_t t = 0; t < l->tokens; t++) {
        l->kernels->layer_norm(l->residual + t * d, l->gain, l->bias, d, l->norm);
        for (size_t c = t * l->copies; c < (t + 1) * l->copies; c++)
            l->s[c] = l->kernels->quantise(l->norm, d, l->q + c * stride);
    }
}

/* Up projection and GELU of all columns, a few at a time; what is to go down, quantised. */
static void project_up(const dense *l) {
    const size_t d_ff = l->up.matrix.rows, stride = bfe_pad_columns(l->up.matrix.columns), all = l->tokens * l->copies;
    const size_t step = bfe_columns_at_once(l->kernels->layout), mean_stride = bfe_pad_columns(l->down.matrix.columns);
    const float share = 1.0f / (float)l->copies;
    if (l->copies > 1)
        memset(l->mean, 0, l->tokens * d_ff * sizeof *l->mean);
    for (size_t first = 0; first < all; first += step) {
        const size_t count = all - first < step ? all - first : step;
        l->up.product(&l->up.matrix, l->q + first * stride, stride, l->s + first, count, l->hidden, d_ff, l->scratch);
        for (size_t c = 0; c < count; c++) {
            float *const hidden = l->hidden + c * d_ff;
            const size_t t = (first + c) / l->copies;
            l->kernels->gelu(hidden, d_ff);
            if (l->copies > 1)
                l->kernels->add_scaled(l->mean + t * d_ff, share, hidden, d_ff);
            else
                l->mean_s[t] = l->kernels->quantise(hidden, d_ff, l->mean_q + t * mean_stride);
        }
    }
    for (size_t t = 0; l->copies > 1 && t < l->tokens; t++)
        l->mean_s[t] = l->kernels->quantise(l->mean + t * d_ff, d_ff, l->mean_q + t * mean_stride);
}

/* Down projection into the residual. */
static void project_down(const dense *l) {
    const size_t d = l->down.matrix.rows, stride = bfe_pad_columns(l->down.matrix.columns);
    const size_t step = bfe_columns_at_once(l->kernels->layout);
    for (size_t first = 0; first < l->tokens; first += step) {
        const size_t count = l->tokens - first < step ? l->tokens - first : step;
        l->down.product(&l->down.matrix, l->mean_q + first * stride, stride, l->mean_s + first, count, l->product, d,
                        l->scratch);
        l->kernels->add(l->residual + first * d, l->product, count * d);
    }
}

void bfb_dense_run(void *memory) {
    const dense *const l = memory;
    memcpy(l->residual, l->z, l->tokens * l->up.matrix.columns * sizeof *l->residual);
    quantise_input(l);
    project_up(l);
    project_down(l);
}

const float *bfb_dense_result(const void *memory) { return ((const dense *)memory)->residual; }
