/* Pooling and classification (NUMERICS.md, section 12). */
#include "bfe_float.h"
#include "bfe_internal.h"
#include "bfe_kernels.h"

void bfe_head(const bfe_model *model, const bfe_workspace *workspace, float *logits) {
    const bfe_config *const config = &model->config;
    const size_t d = config->d_model;
    const float *const gain = bfe_section(model, BFE_KIND_NORM, BFE_NO_BLOCK);
    const float *const bias = bfe_section(model, BFE_KIND_HEAD_BIAS, BFE_NO_BLOCK);
    const bfe_matrix weight = bfe_matrix_of(model, BFE_KIND_HEAD_WEIGHT, BFE_NO_BLOCK);
    float *const norm = workspace->head.norm, *const pooled = workspace->head.pooled;
    const uint64_t norms = config->pooling == BFE_POOL_CLASS ? 1 : config->tokens;
    *workspace->model_bytes += norms * 2 * d * sizeof *gain + weight.bytes + config->classes * sizeof *bias;

    if (config->pooling == BFE_POOL_CLASS) {
        bfe_layer_norm_f32(workspace->residual, gain, gain + d, d, pooled);
    } else {
        for (size_t i = 0; i < d; i++)
            pooled[i] = 0.0f;
        for (size_t t = 0; t < config->tokens; t++) {
            bfe_layer_norm_f32(workspace->residual + t * d, gain, gain + d, d, norm);
            bfe_add_f32(pooled, norm, d);
        }
        const float share = 1.0f / (float)config->tokens;
        for (size_t i = 0; i < d; i++)
            pooled[i] = pooled[i] * share;
    }
    const float s = bfe_quantise_f32(pooled, d, workspace->head.quantised);
    bfe_matvec(&weight, workspace->head.quantised, s, logits);
    bfe_add_f32(logits, bias, config->classes);
}
