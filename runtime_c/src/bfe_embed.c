/* Patch embedding (NUMERICS.md, section 4). */
#include "bfe_internal.h"

#include <string.h>

/* Patch `index` as a column vector: row by row, pixel by pixel, channel by channel; 0..255 becomes -128..127. */
static void load_patch(const bfe_config *config, const uint8_t *image, uint32_t index, int8_t *patch) {
    const size_t across = config->image_width / config->patch_size;
    const size_t image_row = (size_t)config->image_width * config->channels;
    const size_t patch_row = (size_t)config->patch_size * config->channels;
    const uint8_t *const top_left =
        image + index / across * config->patch_size * image_row + index % across * patch_row;
    int8_t *to = patch;
    for (size_t y = 0; y < config->patch_size; y++)
        for (size_t x = 0; x < patch_row; x++)
            *to++ = (int8_t)(top_left[y * image_row + x] - 128);
    memset(to, 0, bfe_pad_columns(config->patch_columns) - config->patch_columns);
}

void bfe_embed(const bfe_job *job, uint32_t worker) {
    const bfe_model *const model = job->model;
    const bfe_config *const config = &model->config;
    const size_t d = config->d_model, patch_bytes = bfe_pad_columns(config->patch_columns);
    const bfe_matrix weight = bfe_matrix_of(model, BFE_KIND_PATCH_WEIGHT, BFE_NO_BLOCK);
    const float *const position = bfe_section(model, BFE_KIND_POSITION, BFE_NO_BLOCK);
    const uint32_t before = config->pooling == BFE_POOL_CLASS ? 1 : 0; /* tokens that are no patches */
    bfe_embed_pieces w;
    bfe_lay_out_embed(job, worker, &w);
    uint32_t first, end;

    if (worker == 0) {
        memcpy(job->residual, position, before * d * sizeof *position);
        bfe_count(job, worker, before * d * sizeof *position);
    }
    bfe_share(&job->schedule, worker, config->tokens - before, &first, &end);
    bfe_count(job, worker, (uint64_t)(end - first) * d * sizeof *position);
    for (uint32_t patch = first; patch < end;) {
        const uint32_t count = bfe_least(end - patch, job->schedule.columns);
        float *const tokens = job->residual + (before + patch) * d;
        for (uint32_t c = 0; c < count; c++) {
            load_patch(config, job->image, patch + c, w.patch + c * patch_bytes);
            w.scale[c] = 1.0f; /* pixels are integers */
        }
        bfe_multiply(job, worker, &weight, w.patch, patch_bytes, w.scale, count, tokens, d, w.scratch);
        model->kernels->add(tokens, position + (before + patch) * d, count * d);
        patch += count;
    }
}
