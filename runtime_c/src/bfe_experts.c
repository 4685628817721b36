/* Butterfly experts (NUMERICS.md, section 11), a tile of tokens at a time so that the workspace can be chosen. */
#include "bfe_float.h"
#include "bfe_internal.h"
#include "bfe_kernels.h"
#include "bfe_sections.h"

#include <string.h>

/* A rotation's shape: `width` channels, padded to a power of two. */
typedef struct rotation {
    size_t width, padded, layers;
} rotation;

/* A block's sections and shapes. */
typedef struct experts_block {
    const bfe_config *config;
    const float *gain, *bias; /* of the norm */
    bfe_matrix router, substrate, down;
    const uint16_t *theta, *phi;
    rotation input, output;
} experts_block;

static experts_block load_block(const bfe_model *model, uint32_t block) {
    const bfe_config *const config = &model->config;
    experts_block b;
    b.config = config;
    b.gain = bfe_section(model, BFE_KIND_NORM2, block);
    b.bias = b.gain + config->d_model;
    b.router = bfe_matrix_of(model, BFE_KIND_ROUTER_WEIGHT, block);
    b.substrate = bfe_matrix_of(model, BFE_KIND_SUBSTRATE, block);
    b.down = bfe_matrix_of(model, BFE_KIND_DOWN_WEIGHT, block);
    b.theta = bfe_section(model, BFE_KIND_THETA, block);
    b.phi = bfe_section(model, BFE_KIND_PHI, block);
    b.input.width = config->d_model;
    b.input.padded = bfe_padded(config->d_model);
    b.input.layers = config->theta_layers;
    b.output.width = config->d_ff;
    b.output.padded = bfe_padded(config->d_ff);
    b.output.layers = config->phi_layers;
    return b;
}

/* Rotates x[padded], of which the first `width` elements are set, and compacts the result. */
static void rotate(const rotation *r, float *x, const float *cosine, const float *sine) {
    for (size_t i = r->width; i < r->padded; i++)
        x[i] = 0.0f;
    bfe_rotate_f32(x, r->padded, r->layers, cosine, sine);
    bfe_compact_f32(x, r->width, r->padded, r->layers);
}

/* LayerNorm and routing of a tile. */
static void route_tile(const experts_block *b, const float *residual, size_t count, const bfe_workspace *w) {
    const size_t d = b->config->d_model, top_k = b->config->top_k;
    *w->model_bytes += (uint64_t)count * (b->router.bytes + 2 * d * sizeof *b->gain);
    for (size_t t = 0; t < count; t++) {
        float *const norm = w->experts.norm + t * d;
        bfe_layer_norm_f32(residual + t * d, b->gain, b->bias, d, norm);
        const float s = bfe_quantise_f32(norm, d, w->experts.route.quantised);
        bfe_matvec(&b->router, w->experts.route.quantised, s, w->experts.route.logits);
        bfe_route(w->experts.route.logits, b->config->experts, b->config->top_k, w->experts.selected + t * top_k,
                  w->experts.gate + t * top_k);
    }
}

/* Cosines and sines of one expert's angles. */
static void expand_angles(const experts_block *b, size_t expert, const bfe_workspace *w) {
    const size_t theta_count = b->input.layers * (b->input.padded / 2);
    const size_t phi_count = b->output.layers * (b->output.padded / 2);
    *w->model_bytes += (theta_count + phi_count) * sizeof *b->theta;
    bfe_sincos_f16(b->theta + expert * theta_count, theta_count, w->experts.expert.theta_cosine,
                   w->experts.expert.theta_sine);
    bfe_sincos_f16(b->phi + expert * phi_count, phi_count, w->experts.expert.phi_cosine, w->experts.expert.phi_sine);
}

/* sum += gate * (the expanded expert's output for one token) */
static void add_expert(const experts_block *b, const float *norm, float gate, float *sum, const bfe_workspace *w) {
    float *const input = w->experts.expert.input, *const hidden = w->experts.expert.hidden;
    *w->model_bytes += b->substrate.bytes;
    memcpy(input, norm, b->input.width * sizeof *input);
    rotate(&b->input, input, w->experts.expert.theta_cosine, w->experts.expert.theta_sine);
    const float s = bfe_quantise_f32(input, b->input.width, w->experts.expert.quantised);
    bfe_matvec(&b->substrate, w->experts.expert.quantised, s, hidden);
    bfe_gelu_f32(hidden, b->output.width);
    rotate(&b->output, hidden, w->experts.expert.phi_cosine, w->experts.expert.phi_sine);
    bfe_add_scaled_f32(sum, gate, hidden, b->output.width);
}

/* Experts in the outer loop, ascending: each one's angles are expanded once a tile, and every token adds its experts in
 * ascending order. */
static void run_tile(const experts_block *b, size_t count, const bfe_workspace *w) {
    const size_t d = b->config->d_model, d_ff = b->config->d_ff, top_k = b->config->top_k;
    for (size_t i = 0; i < count * d_ff; i++)
        w->experts.sum[i] = 0.0f;
    for (size_t expert = 0; expert < b->config->experts; expert++) {
        int expanded = 0;
        for (size_t i = 0; i < count * top_k; i++) {
            if (w->experts.selected[i] != expert)
                continue;
            if (!expanded)
                expand_angles(b, expert, w);
            expanded = 1;
            const size_t t = i / top_k;
            add_expert(b, w->experts.norm + t * d, w->experts.gate[i], w->experts.sum + t * d_ff, w);
        }
    }
}

/* The down projection, shared by all experts, into the residual. */
static void project_tile(const experts_block *b, float *residual, size_t count, const bfe_workspace *w) {
    const size_t d = b->config->d_model, d_ff = b->config->d_ff;
    *w->model_bytes += (uint64_t)count * b->down.bytes;
    for (size_t t = 0; t < count; t++) {
        const float s = bfe_quantise_f32(w->experts.sum + t * d_ff, d_ff, w->experts.down.quantised);
        bfe_matvec(&b->down, w->experts.down.quantised, s, w->experts.down.product);
        bfe_add_f32(residual + t * d, w->experts.down.product, d);
    }
}

void bfe_experts(const bfe_model *model, uint32_t block, uint32_t tile, const bfe_workspace *workspace) {
    const experts_block b = load_block(model, block);
    const uint32_t tokens = model->config.tokens;
    for (uint32_t first = 0; first < tokens; first += tile) {
        const size_t count = tokens - first < tile ? tokens - first : tile;
        float *const residual = workspace->residual + (size_t)first * model->config.d_model;
        route_tile(&b, residual, count, workspace);
        run_tile(&b, count, workspace);
        project_tile(&b, residual, count, workspace);
    }
}
