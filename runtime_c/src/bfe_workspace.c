#include "bfe_internal.h"
#include "bfe_sections.h"

/* Hands out consecutive aligned pieces of the workspace; only counts if `base` is NULL. With every dimension at its
 * bound (FORMAT.md, V10) the whole stays far below 2^64. */
typedef struct pieces {
    uint8_t *base;
    uint64_t end;  /* of what is handed out now */
    uint64_t most; /* that it has ever been */
} pieces;

static void *take(pieces *p, uint64_t count, uint64_t element_bytes) {
    void *const piece = p->base != NULL ? p->base + p->end : NULL;
    p->end += (count * element_bytes + BFE_ALIGNMENT - 1) / BFE_ALIGNMENT * BFE_ALIGNMENT;
    p->most = p->end > p->most ? p->end : p->most;
    return piece;
}

static void lay_out_embed(const bfe_config *config, pieces *p, bfe_workspace *w) {
    w->embed.patch = take(p, config->patch_columns, sizeof(int8_t));
}

static void lay_out_attention(const bfe_config *config, pieces *p, bfe_workspace *w) {
    const uint64_t d = config->d_model, tokens = config->tokens;
    w->attention.qkv = take(p, tokens * 3 * d, sizeof(int8_t));
    w->attention.scale = take(p, tokens * 3 * config->heads, sizeof(float));

    const uint64_t steps = p->end;
    w->attention.project.norm = take(p, d, sizeof(float));
    w->attention.project.quantised = take(p, d, sizeof(int8_t));
    w->attention.project.product = take(p, 3 * d, sizeof(float));

    p->end = steps;
    w->attention.attend.score = take(p, tokens, sizeof(float));
    w->attention.attend.weight = take(p, tokens, sizeof(int8_t));
    w->attention.attend.sum = take(p, d / config->heads, sizeof(int32_t));
    w->attention.attend.output = take(p, d, sizeof(float));
    w->attention.attend.quantised = take(p, d, sizeof(int8_t));
    w->attention.attend.product = take(p, d, sizeof(float));
}

static void lay_out_experts(const bfe_config *config, uint64_t tile, pieces *p, bfe_workspace *w) {
    const uint64_t d = config->d_model, d_ff = config->d_ff;
    const uint64_t padded_d = bfe_padded(config->d_model), padded_d_ff = bfe_padded(config->d_ff);
    w->experts.norm = take(p, tile * d, sizeof(float));
    w->experts.sum = take(p, tile * d_ff, sizeof(float));
    w->experts.gate = take(p, tile * config->top_k, sizeof(float));
    w->experts.selected = take(p, tile * config->top_k, sizeof(uint16_t));

    const uint64_t steps = p->end;
    w->experts.route.quantised = take(p, d, sizeof(int8_t));
    w->experts.route.logits = take(p, config->experts, sizeof(float));

    p->end = steps;
    w->experts.expert.theta_cosine = take(p, config->theta_layers * (padded_d / 2), sizeof(float));
    w->experts.expert.theta_sine = take(p, config->theta_layers * (padded_d / 2), sizeof(float));
    w->experts.expert.phi_cosine = take(p, config->phi_layers * (padded_d_ff / 2), sizeof(float));
    w->experts.expert.phi_sine = take(p, config->phi_layers * (padded_d_ff / 2), sizeof(float));
    w->experts.expert.input = take(p, padded_d, sizeof(float));
    w->experts.expert.quantised = take(p, d, sizeof(int8_t));
    w->experts.expert.hidden = take(p, padded_d_ff, sizeof(float));

    p->end = steps;
    w->experts.down.quantised = take(p, d_ff, sizeof(int8_t));
    w->experts.down.product = take(p, d, sizeof(float));
}

static void lay_out_head(const bfe_config *config, pieces *p, bfe_workspace *w) {
    w->head.norm = take(p, config->d_model, sizeof(float));
    w->head.pooled = take(p, config->d_model, sizeof(float));
    w->head.quantised = take(p, config->d_model, sizeof(int8_t));
}

uint64_t bfe_lay_out(const bfe_config *config, uint32_t tile, void *base, bfe_workspace *workspace) {
    pieces p = {base, 0, 0};
    workspace->residual = take(&p, (uint64_t)config->tokens * config->d_model, sizeof(float));

    const uint64_t stages = p.end;
    lay_out_embed(config, &p, workspace);
    p.end = stages;
    lay_out_attention(config, &p, workspace);
    p.end = stages;
    lay_out_experts(config, tile, &p, workspace);
    p.end = stages;
    lay_out_head(config, &p, workspace);
    return p.most;
}

uint32_t bfe_tile(const bfe_config *config, const bfe_options *options) {
    const uint32_t tile = options != NULL ? options->tile_tokens : 0;
    return tile == 0 || tile > config->tokens ? config->tokens : tile;
}

size_t bfe_workspace_size(const bfe_model *model, const bfe_options *options) {
    if (model == NULL || model->file == NULL)
        return 0;
    bfe_workspace unused;
    const uint64_t bytes = bfe_lay_out(&model->config, bfe_tile(&model->config, options), NULL, &unused);
    return (uint64_t)(size_t)bytes == bytes ? (size_t)bytes : 0;
}
