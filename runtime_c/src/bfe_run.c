#include "bfe_internal.h"

/* Shows a finished stage to the caller, and starts counting for the next. */
static void trace(const bfe_options *options, bfe_stage stage, uint32_t block, const float *values, size_t count,
                  uint64_t *model_bytes) {
    if (options != NULL && options->trace != NULL) {
        const bfe_event event = {stage, block, values, count, *model_bytes};
        options->trace(options->trace_context, &event);
    }
    *model_bytes = 0;
}

bfe_status bfe_run(const bfe_model *model, const bfe_options *options, void *workspace, size_t workspace_size,
                   const uint8_t *image, float *logits) {
    if (model == NULL || model->file == NULL || workspace == NULL || image == NULL || logits == NULL)
        return BFE_BAD_ARGUMENT;
    if ((uintptr_t)workspace % BFE_ALIGNMENT != 0)
        return BFE_MISALIGNED;
    const size_t needed = bfe_workspace_size(model, options);
    if (needed == 0 || workspace_size < needed)
        return BFE_WORKSPACE_TOO_SMALL;

    const bfe_config *const config = &model->config;
    const size_t residual_count = (size_t)config->tokens * config->d_model;
    const uint32_t tile = bfe_tile(config, options);
    bfe_workspace w;
    (void)bfe_lay_out(config, tile, workspace, &w);
    uint64_t model_bytes = 0;
    w.model_bytes = &model_bytes;

    bfe_embed(model, &w, image);
    trace(options, BFE_STAGE_EMBED, BFE_NO_BLOCK, w.residual, residual_count, &model_bytes);
    for (uint32_t block = 0; block < config->layers; block++) {
        bfe_attention(model, block, &w);
        trace(options, BFE_STAGE_ATTENTION, block, w.residual, residual_count, &model_bytes);
        bfe_experts(model, block, tile, &w);
        trace(options, BFE_STAGE_EXPERTS, block, w.residual, residual_count, &model_bytes);
    }
    bfe_head(model, &w, logits);
    trace(options, BFE_STAGE_LOGITS, BFE_NO_BLOCK, logits, config->classes, &model_bytes);
    return BFE_OK;
}
