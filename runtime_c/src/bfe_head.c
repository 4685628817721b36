/* Pooling and classification (NUMERICS.md, section 12). */
#include "bfe_float.h"
#include "bfe_internal.h"

void bfe_head(const bfe_job *job, uint32_t worker) {
    const bfe_model *const model = job->model;
    const bfe_config *const config = &model->config;
    const bfe_kernels *const kernels = model->kernels;
    const size_t d = config->d_model;
    const float *const gain = bfe_section(model, BFE_KIND_NORM, BFE_NO_BLOCK);
    const float *const bias = bfe_section(model, BFE_KIND_HEAD_BIAS, BFE_NO_BLOCK);
    const bfe_matrix weight = bfe_matrix_of(model, BFE_KIND_HEAD_WEIGHT, BFE_NO_BLOCK);
    bfe_head_pieces w;
    bfe_lay_out_head(job, &w);
    float *const norm = w.norm, *const pooled = w.pooled;
    const uint64_t norms = config->pooling == BFE_POOL_CLASS ? 1 : config->tokens;
    if (worker != 0) /* the sum over tokens has one order */
        return;
    bfe_count(job, worker, norms * 2 * d * sizeof *gain + config->classes * sizeof *bias);

    if (config->pooling == BFE_POOL_CLASS) {
        kernels->layer_norm(job->residual, gain, gain + d, d, pooled);
    } else {
        for (size_t i = 0; i < d; i++)
            pooled[i] = 0.0f;
        for (size_t t = 0; t < config->tokens; t++) {
            kernels->layer_norm(job->residual + t * d, gain, gain + d, d, norm);
            kernels->add(pooled, norm, d);
        }
        const float share = 1.0f / (float)config->tokens;
        for (size_t i = 0; i < d; i++)
            pooled[i] = pooled[i] * share;
    }
    const float s = bfe_quantise_column(model, pooled, d, w.quantised);
    bfe_multiply(job, worker, &weight, w.quantised, bfe_pad_columns(d), &s, 1, job->logits, config->classes, w.scratch);
    kernels->add(job->logits, bias, config->classes);
}
