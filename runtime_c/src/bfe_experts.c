/*
 * Butterfly experts (NUMERICS.md, section 11). All experts share one substrate, so the (token, expert) pairs go through
 * it as columns of one product, whatever their experts are; only the rotations before and after it are an expert's own.
 * A tile of tokens at a time, so that the workspace can be chosen.
 */
#include "bfe_float.h"
#include "bfe_internal.h"
#include "bfe_sections.h"

#include <string.h>

/* The sections of a block's rotations, and their shapes. */
typedef struct rotation {
    const uint8_t *angles; /* [experts, layers, padded / 2], in this encoding */
    uint16_t encoding;
    size_t width, padded, layers;
    float *cosine, *sine; /* of the expert that was expanded last */
    uint32_t expanded;
} rotation;

/* What a worker needs of a block. */
typedef struct experts_block {
    const bfe_job *job;
    const bfe_model *model;
    uint32_t worker;
    bfe_experts_pieces w;
    uint32_t columns, pairs;  /* that go through a matrix together */
    const float *gain, *bias; /* of the norm */
    bfe_matrix router, substrate, down;
    rotation input, output;
} experts_block;

static const uint32_t NO_EXPERT = UINT32_MAX;

enum { ANGLES_AT_ONCE = 64 }; /* of 8 bits: their binary16 values lie on the stack */

/* Where the angles are. */
static void find_angles(const bfe_model *model, uint16_t kind, uint32_t block, rotation *r) {
    const bfe_entry entry = bfe_read_entry(model->file, bfe_section_position(&model->config, kind, block));
    r->angles = model->file + entry.offset;
    r->encoding = entry.encoding;
}

static void load_block(const bfe_job *job, uint32_t worker, experts_block *b) {
    const bfe_model *const model = job->model;
    const bfe_config *const config = &model->config;
    const uint32_t block = job->block;
    b->job = job;
    b->model = model;
    b->worker = worker;
    bfe_lay_out_experts(job, worker, &b->w);
    b->columns = job->schedule.columns;
    b->pairs = job->schedule.pairs;
    b->gain = bfe_section(model, BFE_KIND_NORM2, block);
    b->bias = b->gain + config->d_model;
    b->router = bfe_matrix_of(model, BFE_KIND_ROUTER_WEIGHT, block);
    b->substrate = bfe_matrix_of(model, BFE_KIND_SUBSTRATE, block);
    b->down = bfe_matrix_of(model, BFE_KIND_DOWN_WEIGHT, block);
    find_angles(model, BFE_KIND_THETA, block, &b->input);
    b->input.width = config->d_model;
    b->input.padded = bfe_padded(config->d_model);
    b->input.layers = config->theta_layers;
    b->input.cosine = b->w.expert.theta_cosine;
    b->input.sine = b->w.expert.theta_sine;
    find_angles(model, BFE_KIND_PHI, block, &b->output);
    b->output.width = config->d_ff;
    b->output.padded = bfe_padded(config->d_ff);
    b->output.layers = config->phi_layers;
    b->output.cosine = b->w.expert.phi_cosine;
    b->output.sine = b->w.expert.phi_sine;
}

/* An expert's cosines and sines. */
static void expand(const experts_block *b, rotation *r, uint32_t expert) {
    const bfe_kernels *const kernels = b->model->kernels;
    const size_t count = r->layers * (r->padded / 2);
    if (r->encoding == BFE_ENCODING_F16) {
        const uint16_t *const angles = (const uint16_t *)(const void *)r->angles + expert * count;
        kernels->sincos(angles, count, r->cosine, r->sine);
        bfe_count(b->job, b->worker, count * sizeof *angles);
    } else {
        const int8_t *const codes = (const int8_t *)r->angles + expert * count;
        for (size_t i = 0; i < count; i += ANGLES_AT_ONCE) {
            uint16_t angles[ANGLES_AT_ONCE];
            const size_t some = bfe_least(count - i, ANGLES_AT_ONCE);
            bfe_angles_f16(codes + i, some, angles);
            kernels->sincos(angles, some, r->cosine + i, r->sine + i);
        }
        bfe_count(b->job, b->worker, count * sizeof *codes);
    }
    r->expanded = expert;
}

/* Rotates x[padded], of which the first `width` elements are set, by an expert's angles, and compacts the result. Pairs
 * come in the order of their experts, so that each expert's cosines and sines are expanded once a tile. */
static void rotate(const experts_block *b, rotation *r, uint32_t expert, float *x) {
    if (r->expanded != expert)
        expand(b, r, expert);
    for (size_t i = r->width; i < r->padded; i++)
        x[i] = 0.0f;
    b->model->kernels->rotate(x, r->padded, r->layers, r->cosine, r->sine);
    bfe_compact_f32(x, r->width, r->padded, r->layers);
}

/* LayerNorm and routing of a tile. */
static void route_tile(const experts_block *b, const float *residual, uint32_t tokens) {
    const bfe_config *const config = &b->model->config;
    const bfe_experts_pieces *const w = &b->w;
    const size_t d = config->d_model, padded = bfe_pad_columns(d), top_k = config->top_k, experts = config->experts;
    bfe_count(b->job, b->worker, (uint64_t)tokens * 2 * d * sizeof *b->gain);
    for (uint32_t t = 0; t < tokens;) {
        const uint32_t count = bfe_least(tokens - t, b->columns);
        for (uint32_t c = 0; c < count; c++) {
            float *const norm = w->norm + (t + c) * d;
            b->model->kernels->layer_norm(residual + (t + c) * d, b->gain, b->bias, d, norm);
            w->route.s[c] = bfe_quantise_column(b->model, norm, d, w->route.quantised + c * padded);
        }
        bfe_multiply(b->job, b->worker, &b->router, w->route.quantised, padded, w->route.s, count, w->route.logits,
                     experts, w->route.scratch);
        for (uint32_t c = 0; c < count; c++)
            bfe_route(w->route.logits + c * experts, config->experts, config->top_k, w->selected + (t + c) * top_k,
                      w->gate + (t + c) * top_k);
        t += count;
    }
}

/* Orders the pairs of a tile by expert, and those of an expert by token: every token then adds its experts in ascending
 * order. */
static void sort_pairs(const experts_block *b, uint32_t pairs) {
    const uint32_t experts = b->model->config.experts;
    uint32_t *const start = b->w.sort.start;
    const uint16_t *const selected = b->w.selected;
    memset(start, 0, (experts + 1) * sizeof *start);
    for (uint32_t i = 0; i < pairs; i++)
        start[selected[i] + 1]++;
    for (uint32_t e = 0; e < experts; e++)
        start[e + 1] += start[e];
    for (uint32_t i = 0; i < pairs; i++)
        b->w.order[start[selected[i]]++] = (uint16_t)i;
}

/* sum = the sum of gate * (the expert's output for its token), from +0.0, for all pairs of a tile. */
static void run_pairs(experts_block *b, uint32_t pairs) {
    const bfe_experts_pieces *const w = &b->w;
    const size_t d = b->input.width, padded = bfe_pad_columns(d), d_ff = b->output.width;
    const uint32_t top_k = b->model->config.top_k;
    float *const input = w->expert.input, *const hidden = w->expert.hidden;
    b->input.expanded = b->output.expanded = NO_EXPERT;
    for (uint32_t first = 0; first < pairs;) {
        const uint32_t count = bfe_least(pairs - first, b->pairs);
        const uint16_t *const order = w->order + first;
        for (uint32_t c = 0; c < count; c++) {
            memcpy(input, w->norm + order[c] / top_k * d, d * sizeof *input);
            rotate(b, &b->input, w->selected[order[c]], input);
            w->expert.s[c] = bfe_quantise_column(b->model, input, d, w->expert.quantised + c * padded);
        }
        bfe_multiply(b->job, b->worker, &b->substrate, w->expert.quantised, padded, w->expert.s, count, hidden,
                     w->expert.hidden_stride, w->expert.scratch);
        for (uint32_t c = 0; c < count; c++) {
            float *const x = hidden + c * w->expert.hidden_stride;
            b->model->kernels->gelu(x, d_ff);
            rotate(b, &b->output, w->selected[order[c]], x);
            /* A token's pairs are numbered by ascending expert, so its first one comes first here, too. */
            const int is_first = order[c] % top_k == 0;
            (is_first ? b->model->kernels->set_scaled : b->model->kernels->add_scaled)(w->sum + order[c] / top_k * d_ff,
                                                                                       w->gate[order[c]], x, d_ff);
        }
        first += count;
    }
}

/* The down projection, shared by all experts and so once a token, into the residual. */
static void project_tile(const experts_block *b, float *residual, uint32_t tokens) {
    const bfe_experts_pieces *const w = &b->w;
    const size_t d = b->input.width, d_ff = b->output.width, padded = bfe_pad_columns(d_ff);
    for (uint32_t t = 0; t < tokens;) {
        const uint32_t count = bfe_least(tokens - t, b->columns);
        for (uint32_t c = 0; c < count; c++)
            w->down.s[c] = bfe_quantise_column(b->model, w->sum + (t + c) * d_ff, d_ff, w->down.quantised + c * padded);
        bfe_multiply(b->job, b->worker, &b->down, w->down.quantised, padded, w->down.s, count, w->down.product, d,
                     w->down.scratch);
        b->model->kernels->add(residual + t * d, w->down.product, count * d);
        t += count;
    }
}

void bfe_experts(const bfe_job *job, uint32_t worker) {
    const bfe_config *const config = &job->model->config;
    experts_block b;
    load_block(job, worker, &b);
    uint32_t first, end;
    bfe_share(&job->schedule, worker, config->tokens, &first, &end);
    for (uint32_t token = first; token < end;) {
        const uint32_t count = bfe_least(end - token, job->schedule.tile);
        float *const residual = job->residual + (size_t)token * config->d_model;
        route_tile(&b, residual, count);
        sort_pairs(&b, count * config->top_k);
        run_pairs(&b, count * config->top_k);
        project_tile(&b, residual, count);
        token += count;
    }
}
