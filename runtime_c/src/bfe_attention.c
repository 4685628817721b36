/* Attention (NUMERICS.md, section 7). */
#include "bfe_float.h"
#include "bfe_internal.h"
#include "bfe_tiles.h"

#include <string.h>

/* Scales of the queries (0), keys (1) or values (2) of a head, one a token. */
static float *scales(const bfe_config *config, const bfe_workspace *w, size_t which, size_t head) {
    return w->attention.scale + (which * config->heads + head) * config->tokens;
}

/* Quantises one token's queries, keys and values head by head, and puts them where they are multiplied. */
static void store_heads(const bfe_model *model, const bfe_workspace *w, size_t token, const float *product) {
    const bfe_config *const config = &model->config;
    const size_t heads = config->heads, size = config->d_model / heads, padded = bfe_pad_columns(size);
    const bfe_heads *const key = &w->attention.key, *const value = &w->attention.value;
    int8_t *const part = w->attention.project.part;
    for (size_t head = 0; head < heads; head++, product += size) {
        scales(config, w, 0, head)[token] =
            bfe_quantise_column(model, product, size, w->attention.query + (token * heads + head) * padded);
        scales(config, w, 1, head)[token] = model->kernels->quantise(product + heads * size, size, part);
        bfe_set_row(&key->one, key->first + head * key->stride, token, part);
        scales(config, w, 2, head)[token] = model->kernels->quantise(product + 2 * heads * size, size, part);
        bfe_set_column(&value->one, value->first + head * value->stride, token, part);
    }
}

void bfe_project(const bfe_job *job, uint32_t worker, const bfe_workspace *w) {
    const bfe_model *const model = job->model;
    const size_t d = model->config.d_model, padded = bfe_pad_columns(d);
    const float *const gain = bfe_section(model, BFE_KIND_NORM1, job->block);
    const float *const bias = bfe_section(model, BFE_KIND_QKV_BIAS, job->block);
    const bfe_matrix weight = bfe_matrix_of(model, BFE_KIND_QKV_WEIGHT, job->block);
    float *const norm = w->attention.project.norm, *const product = w->attention.project.product;
    int8_t *const quantised = w->attention.project.quantised;
    uint32_t first, end;
    bfe_share(&job->schedule, worker, model->config.tokens, &first, &end);
    *w->model_bytes += (uint64_t)(end - first) * (2 + 3) * d * sizeof *gain; /* norm, bias */

    for (uint32_t token = first; token < end;) {
        const uint32_t count = bfe_least(end - token, job->schedule.columns);
        for (uint32_t c = 0; c < count; c++) {
            model->kernels->layer_norm(w->residual + (token + c) * d, gain, gain + d, d, norm);
            w->attention.project.s[c] = bfe_quantise_column(model, norm, d, quantised + c * padded);
        }
        bfe_multiply(model, w, &weight, quantised, padded, w->attention.project.s, count, product, 3 * d,
                     w->attention.project.scratch);
        for (uint32_t c = 0; c < count; c++) {
            model->kernels->add(product + c * 3 * d, bias, 3 * d);
            store_heads(model, w, token + c, product + c * 3 * d);
        }
        token += count;
    }
}

/* One head of `count` query tokens over all tokens: its part of the outputs. */
static void attend_head(const bfe_model *model, const bfe_workspace *w, size_t head, uint32_t token, uint32_t count) {
    const bfe_config *const config = &model->config;
    const size_t d = config->d_model, tokens = config->tokens, size = d / config->heads;
    const size_t padded = bfe_pad_columns(size), padded_tokens = bfe_pad_columns(tokens);
    const size_t query_stride = config->heads * padded;
    const int8_t *const query = w->attention.query + token * query_stride + head * padded;
    bfe_matrix key = w->attention.key.one, value = w->attention.value.one;
    key.weight = w->attention.key.first + head * w->attention.key.stride;
    value.weight = w->attention.value.first + head * w->attention.value.stride;

    bfe_multiply(model, w, &key, query, query_stride, NULL, count, w->attention.attend.score, tokens,
                 w->attention.attend.scratch);
    for (uint32_t c = 0; c < count; c++) {
        const float scale = scales(config, w, 0, head)[token + c] * config->attention_scale;
        const int32_t total =
            model->kernels->softmax(w->attention.attend.score + c * tokens, scale, scales(config, w, 1, head),
                                    scales(config, w, 2, head), tokens, w->attention.attend.weight);
        const float weight_scale = bfe_quantise_column(model, w->attention.attend.weight, tokens,
                                                       w->attention.attend.mixing + c * padded_tokens);
        w->attention.attend.factor[c] = weight_scale / (float)total;
    }
    bfe_multiply(model, w, &value, w->attention.attend.mixing, padded_tokens, NULL, count, w->attention.attend.sum,
                 size, w->attention.attend.scratch);
    for (uint32_t c = 0; c < count; c++) {
        float *const output = w->attention.attend.output + c * d + head * size;
        for (size_t i = 0; i < size; i++)
            output[i] = (float)w->attention.attend.sum[c * size + i] * w->attention.attend.factor[c];
    }
}

void bfe_attend(const bfe_job *job, uint32_t worker, const bfe_workspace *w) {
    const bfe_model *const model = job->model;
    const size_t d = model->config.d_model, padded = bfe_pad_columns(d);
    const float *const bias = bfe_section(model, BFE_KIND_PROJ_BIAS, job->block);
    const bfe_matrix weight = bfe_matrix_of(model, BFE_KIND_PROJ_WEIGHT, job->block);
    float *const product = w->attention.attend.product;
    int8_t *const quantised = w->attention.attend.quantised;
    uint32_t first, end;
    bfe_share(&job->schedule, worker, model->config.tokens, &first, &end);
    *w->model_bytes += (uint64_t)(end - first) * d * sizeof *bias;

    for (uint32_t token = first; token < end;) {
        const uint32_t count = bfe_least(end - token, job->schedule.columns);
        for (size_t head = 0; head < model->config.heads; head++)
            attend_head(model, w, head, token, count);
        for (uint32_t c = 0; c < count; c++)
            w->attention.attend.s[c] =
                bfe_quantise_column(model, w->attention.attend.output + c * d, d, quantised + c * padded);
        bfe_multiply(model, w, &weight, quantised, padded, w->attention.attend.s, count, product, d,
                     w->attention.attend.scratch);
        for (uint32_t c = 0; c < count; c++) {
            model->kernels->add(product + c * d, bias, d);
            model->kernels->add(w->residual + (token + c) * d, product + c * d, d);
        }
        token += count;
    }
}
