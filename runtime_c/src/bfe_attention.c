/* Attention (NUMERICS.md, section 7). */
#include "bfe_float.h"
#include "bfe_internal.h"
#include "bfe_kernels.h"

/* Queries, keys and values of all tokens, quantised part by part: a part is one of the three of one head. */
static void project(const bfe_model *model, uint32_t block, const bfe_workspace *w) {
    const size_t d = model->config.d_model, parts = 3 * (size_t)model->config.heads;
    const size_t part_size = d / model->config.heads;
    const float *const gain = bfe_section(model, BFE_KIND_NORM1, block);
    const float *const bias = bfe_section(model, BFE_KIND_QKV_BIAS, block);
    const bfe_matrix weight = bfe_matrix_of(model, BFE_KIND_QKV_WEIGHT, block);
    float *const product = w->attention.project.product;
    *w->model_bytes += (uint64_t)model->config.tokens * (weight.bytes + (2 + 3) * d * sizeof(float)); /* norm, bias */

    for (size_t t = 0; t < model->config.tokens; t++) {
        bfe_layer_norm_f32(w->residual + t * d, gain, gain + d, d, w->attention.project.norm);
        const float s = bfe_quantise_f32(w->attention.project.norm, d, w->attention.project.quantised);
        bfe_matvec(&weight, w->attention.project.quantised, s, product);
        bfe_add_f32(product, bias, 3 * d);
        for (size_t part = 0; part < parts; part++)
            w->attention.scale[t * parts + part] = bfe_quantise_f32(product + part * part_size, part_size,
                                                                    w->attention.qkv + t * 3 * d + part * part_size);
    }
}

/* One head of one query token over all tokens: its part of the output. */
static void attend(const bfe_config *config, size_t query, size_t head, const bfe_workspace *w) {
    const size_t d = config->d_model, heads = config->heads, tokens = config->tokens;
    const size_t part_size = d / heads;
    const int8_t *const q = w->attention.qkv + query * 3 * d + head * part_size;
    const int8_t *const k = w->attention.qkv + d + head * part_size;
    const int8_t *const v = w->attention.qkv + 2 * d + head * part_size;
    const float *const q_scale = w->attention.scale + query * 3 * heads + head;
    const float *const k_scale = w->attention.scale + heads + head;
    const float *const v_scale = w->attention.scale + 2 * heads + head;
    float *const score = w->attention.attend.score;

    const float scale = *q_scale * config->attention_scale;
    float highest = 0.0f;
    for (size_t j = 0; j < tokens; j++) {
        score[j] = (float)bfe_dot_int8(q, k + j * 3 * d, part_size) * (scale * k_scale[j * 3 * heads]);
        highest = j == 0 || score[j] > highest ? score[j] : highest;
    }
    int32_t total = 0;
    for (size_t j = 0; j < tokens; j++) {
        const int32_t e = bfe_exp2fix_f32(score[j] - highest);
        total += e;
        score[j] = (float)e * v_scale[j * 3 * heads];
    }
    const float weight_scale = bfe_quantise_f32(score, tokens, w->attention.attend.weight);
    const float factor = weight_scale / (float)total;
    bfe_weighted_sum_int8(w->attention.attend.weight, v, tokens, 3 * d, part_size, w->attention.attend.sum);
    float *const output = w->attention.attend.output + head * part_size;
    for (size_t i = 0; i < part_size; i++)
        output[i] = (float)w->attention.attend.sum[i] * factor;
}

void bfe_attention(const bfe_model *model, uint32_t block, const bfe_workspace *workspace) {
    const bfe_workspace *const w = workspace;
    const size_t d = model->config.d_model;
    const float *const bias = bfe_section(model, BFE_KIND_PROJ_BIAS, block);
    const bfe_matrix weight = bfe_matrix_of(model, BFE_KIND_PROJ_WEIGHT, block);

    *w->model_bytes += (uint64_t)model->config.tokens * (weight.bytes + d * sizeof *bias);
    project(model, block, w);
    for (size_t t = 0; t < model->config.tokens; t++) {
        for (size_t head = 0; head < model->config.heads; head++)
            attend(&model->config, t, head, w);
        const float s = bfe_quantise_f32(w->attention.attend.output, d, w->attention.attend.quantised);
        bfe_matvec(&weight, w->attention.attend.quantised, s, w->attention.attend.product);
        bfe_add_f32(w->attention.attend.product, bias, d);
        bfe_add_f32(w->residual + t * d, w->attention.attend.product, d);
    }
}
