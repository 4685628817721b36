/* Patch embedding (NUMERICS.md, section 4). */
#include "bfe_internal.h"
#include "bfe_kernels.h"

/* One patch as a column vector: row by row, pixel by pixel, channel by channel; 0..255 becomes -128..127. */
static void load_patch(const bfe_config *config, const uint8_t *top_left, int8_t *patch) {
    const size_t image_row = (size_t)config->image_width * config->channels;
    const size_t patch_row = (size_t)config->patch_size * config->channels;
    for (size_t y = 0; y < config->patch_size; y++)
        for (size_t x = 0; x < patch_row; x++)
            *patch++ = (int8_t)(top_left[y * image_row + x] - 128);
}

void bfe_embed(const bfe_model *model, const bfe_workspace *workspace, const uint8_t *image) {
    const bfe_config *const config = &model->config;
    const size_t d = config->d_model;
    const bfe_matrix weight = bfe_matrix_of(model, BFE_KIND_PATCH_WEIGHT, BFE_NO_BLOCK);
    const float *position = bfe_section(model, BFE_KIND_POSITION, BFE_NO_BLOCK);
    float *token = workspace->residual;
    const size_t patches = config->tokens - (config->pooling == BFE_POOL_CLASS ? 1 : 0);
    *workspace->model_bytes += (uint64_t)patches * weight.bytes + (uint64_t)config->tokens * d * sizeof *position;

    if (config->pooling == BFE_POOL_CLASS) {
        for (size_t i = 0; i < d; i++)
            token[i] = position[i];
        token += d;
        position += d;
    }
    const size_t patch_row = (size_t)config->patch_size * config->channels;
    const size_t image_rows = (size_t)config->patch_size * config->image_width * config->channels;
    for (size_t down = 0; down < config->image_height / config->patch_size; down++) {
        for (size_t right = 0; right < config->image_width / config->patch_size; right++) {
            load_patch(config, image + down * image_rows + right * patch_row, workspace->embed.patch);
            bfe_matvec(&weight, workspace->embed.patch, 1.0f, token); /* pixels are integers: their scale is 1 */
            bfe_add_f32(token, position, d);
            token += d;
            position += d;
        }
    }
}
