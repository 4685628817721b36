/* Attention (NUMERICS.md, section 7). */
#include "bfe_float.h"
#include "bfe_internal.h"
#include "bfe_tiles.h"

#include <string.h>

/* Scales of the queries (0), keys (1) or values (2) of a head, one a token. */
static float *scales(const bfe_config *config, const bfe_attention_pieces *a, size_t which, size_t head) {
    return a->scale + (which * config->heads + head) * config->tokens;
}

/* Quantises one token's queries, keys and values head by head, and puts them where they are multiplied. */
static void store_heads(const bfe_model *model, const bfe_attention_pieces *a, int8_t *part, size_t token,
                        const float *product) {
    const bfe_config *const config = &model->config;
    const size_t heads = config->heads, size = config->d_model / heads, padded = bfe_pad_columns(size);
    const bfe_heads *const key = &a->key, *const value = &a->value;
    for (size_t head = 0; head < heads; head++, product += size) {
        scales(config, a, 0, head)[token] =
            bfe_quantise_column(model, product, size, a->query + (token * heads + head) * padded);
        scales(config, a, 1, head)[token] = model->kernels->quantise(product + heads * size, size, part);
        bfe_set_row(&key->one, key->first + head * key->stride, token, part);
        scales(config, a, 2, head)[token] = model->kernels->quantise(product + 2 * heads * size, size, part);
        bfe_set_column(&value->one, value->first + head * value->stride, token, part);
    }
}

void bfe_project(const bfe_job *job, uint32_t worker) {
    const bfe_model *const model = job->model;
    const size_t d = model->config.d_model, padded = bfe_pad_columns(d);
    const float *const gain = bfe_section(model, BFE_KIND_NORM1, job->block);
    const float *const bias = bfe_section(model, BFE_KIND_QKV_BIAS, job->block);
    const bfe_matrix weight = bfe_matrix_of(model, BFE_KIND_QKV_WEIGHT, job->block);
    bfe_attention_pieces a;
    bfe_lay_out_attention(job, &a);
    bfe_project_pieces w;
    bfe_lay_out_project(job, worker, &w);
    uint32_t first, end;
    bfe_share(&job->schedule, worker, model->config.tokens, &first, &end);
    bfe_count(job, worker, (uint64_t)(end - first) * (2 + 3) * d * sizeof *gain); /* norm, bias */

    for (uint32_t token = first; token < end;) {
        const uint32_t count = bfe_least(end - token, job->schedule.columns);
        for (uint32_t c = 0; c < count; c++) {
            model->kernels->layer_norm(job->residual + (token + c) * d, gain, gain + d, d, w.norm);
            w.s[c] = bfe_quantise_column(model, w.norm, d, w.quantised + c * padded);
        }
        bfe_multiply(job, worker, &weight, w.quantised, padded, w.s, count, w.product, 3 * d, w.scratch);
        for (uint32_t c = 0; c < count; c++) {
            model->kernels->add(w.product + c * 3 * d, bias, 3 * d);
            store_heads(model, &a, w.part, token + c, w.product + c * 3 * d);
        }
        token += count;
    }
}

/* One head of `count` query tokens over all tokens: its part of the outputs. */
static void attend_head(const bfe_job *job, uint32_t worker, const bfe_attention_pieces *a, const bfe_attend_pieces *w,
                        size_t head, uint32_t token, uint32_t count) {
    const bfe_model *const model = job->model;
    const bfe_config *const config = &model->config;
    const size_t d = config->d_model, tokens = config->tokens, size = d / config->heads;
    const size_t padded = bfe_pad_columns(size), padded_tokens = bfe_pad_columns(tokens);
    const size_t query_stride = config->heads * padded;
    const int8_t *const query = a->query + token * query_stride + head * padded;
    bfe_matrix key = a->key.one, value = a->value.one;
    key.weight = a->key.first + head * a->key.stride;
    value.weight = a->value.first + head * a->value.stride;

    bfe_multiply(job, worker, &key, query, query_stride, NULL, count, w->score, tokens, w->scratch);
    for (uint32_t c = 0; c < count; c++) {
        const float scale = scales(config, a, 0, head)[token + c] * config->attention_scale;
        const int32_t total = model->kernels->softmax(w->score + c * tokens, scale, scales(config, a, 1, head),
                                                      scales(config, a, 2, head), tokens, w->weight);
        const float weight_scale = bfe_quantise_column(model, w->weight, tokens, w->mixing + c * padded_tokens);
        w->factor[c] = weight_scale / (float)total;
    }
    bfe_multiply(job, worker, &value, w->mixing, padded_tokens, NULL, count, w->sum, size, w->scratch);
    for (uint32_t c = 0; c < count; c++) {
        float *const output = w->output + c * d + head * size;
        for (size_t i = 0; i < size; i++)
            output[i] = (float)w->sum[c * size + i] * w->factor[c];
    }
}

void bfe_attend(const bfe_job *job, uint32_t worker) {
    const bfe_model *const model = job->model;
    const size_t d = model->config.d_model, padded = bfe_pad_columns(d);
    const float *const bias = bfe_section(model, BFE_KIND_PROJ_BIAS, job->block);
    const bfe_matrix weight = bfe_matrix_of(model, BFE_KIND_PROJ_WEIGHT, job->block);
    bfe_attention_pieces a;
    bfe_lay_out_attention(job, &a);
    bfe_attend_pieces w;
    bfe_lay_out_attend(job, worker, &w);
    uint32_t first, end;
    bfe_share(&job->schedule, worker, model->config.tokens, &first, &end);
    bfe_count(job, worker, (uint64_t)(end - first) * d * sizeof *bias);

    for (uint32_t token = first; token < end;) {
        const uint32_t count = bfe_least(end - token, job->schedule.columns);
        for (size_t head = 0; head < model->config.heads; head++)
            attend_head(job, worker, &a, &w, head, token, count);
        for (uint32_t c = 0; c < count; c++)
            w.s[c] = bfe_quantise_column(model, w.output + c * d, d, w.quantised + c * padded);
        bfe_multiply(job, worker, &weight, w.quantised, padded, w.s, count, w.product, d, w.scratch);
        for (uint32_t c = 0; c < count; c++) {
            model->kernels->add(w.product + c * d, bias, d);
            model->kernels->add(job->residual + (token + c) * d, w.product + c * d, d);
        }
        token += count;
    }
}
