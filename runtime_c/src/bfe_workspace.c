#include "bfe_internal.h"
#include "bfe_sections.h"
#include "bfe_tiles.h"

/* Columns that go through a matrix together: as many as the kernels pass over the weights with at once. */
enum { COLUMNS_IN_ROWS = 4, COLUMNS_IN_TILES = 32 };

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

/* What pieces are sized by. */
typedef struct sizes {
    const bfe_config *config;
    const bfe_schedule *schedule;
    bfe_layout layout;
    uint64_t tokens, heads, head_size, columns, pairs, patches;
    uint64_t d, d_ff, padded_d, padded_d_ff;
} sizes;

static sizes sizes_of(const bfe_model *model, const bfe_schedule *schedule) {
    const bfe_config *const config = &model->config;
    const uint32_t patches = config->tokens - (config->pooling == BFE_POOL_CLASS ? 1 : 0);
    sizes z;
    z.config = config;
    z.schedule = schedule;
    z.layout = model->kernels->layout;
    z.tokens = config->tokens;
    z.heads = config->heads;
    z.head_size = config->d_model / config->heads;
    z.columns = schedule->columns;
    z.pairs = schedule->pairs;
    z.patches = bfe_least((patches + schedule->workers - 1) / schedule->workers, schedule->columns);
    z.d = config->d_model;
    z.d_ff = config->d_ff;
    z.padded_d = bfe_padded(config->d_model);
    z.padded_d_ff = bfe_padded(config->d_ff);
    return z;
}

static void *take_scratch(const sizes *z, pieces *p, uint64_t rows, uint64_t columns) {
    return take(p, bfe_scratch_bytes(z->layout, (uint32_t)rows, (uint32_t)columns), 1);
}

static bfe_heads take_heads(const sizes *z, pieces *p, uint64_t rows, uint64_t columns) {
    bfe_heads heads;
    heads.one.weight = NULL;
    heads.one.scale = NULL;
    heads.one.rows = (uint32_t)rows;
    heads.one.columns = (uint32_t)columns;
    heads.one.stride = bfe_matrix_stride(z->layout, heads.one.columns, BFE_ENCODING_INT8);
    heads.one.encoding = BFE_ENCODING_INT8;
    heads.one.layout = (uint16_t)z->layout;
    heads.one.bytes = 0; /* none of the model's */
    const uint64_t bytes = bfe_matrix_bytes(z->layout, heads.one.rows, heads.one.columns, BFE_ENCODING_INT8);
    heads.stride = (size_t)bytes;
    heads.first = take(p, z->heads * bytes, 1);
    return heads;
}

static void lay_out_embed(const sizes *z, pieces *p, bfe_workspace *w) {
    w->embed.scratch = take_scratch(z, p, z->d, z->config->patch_columns);
    w->embed.scale = take(p, z->patches, sizeof(float));
    w->embed.patch = take(p, z->patches * bfe_pad_columns(z->config->patch_columns), sizeof(int8_t));
}

static void lay_out_shared_attention(const sizes *z, pieces *p, bfe_workspace *w) {
    w->attention.query = take(p, z->tokens * z->heads * bfe_pad_columns((size_t)z->head_size), sizeof(int8_t));
    w->attention.key = take_heads(z, p, z->tokens, z->head_size);
    w->attention.value = take_heads(z, p, z->head_size, z->tokens);
    w->attention.scale = take(p, 3 * z->heads * z->tokens, sizeof(float));
}

static void lay_out_project(const sizes *z, pieces *p, bfe_workspace *w) {
    w->attention.project.scratch = take_scratch(z, p, 3 * z->d, z->d);
    w->attention.project.s = take(p, z->columns, sizeof(float));
    w->attention.project.quantised = take(p, z->columns * bfe_pad_columns((size_t)z->d), sizeof(int8_t));
    w->attention.project.norm = take(p, z->d, sizeof(float));
    w->attention.project.part = take(p, z->head_size, sizeof(int8_t));
    w->attention.project.product = take(p, z->columns * 3 * z->d, sizeof(float));
}

static void lay_out_attend(const sizes *z, pieces *p, bfe_workspace *w) {
    const uint64_t most = z->tokens > z->d ? z->tokens : z->d; /* rows, and columns, of the three matrices */
    w->attention.attend.scratch = take_scratch(z, p, most, most);
    w->attention.attend.s = take(p, z->columns, sizeof(float));
    w->attention.attend.score = take(p, z->columns * z->tokens, sizeof(int32_t));
    w->attention.attend.weight = take(p, z->tokens, sizeof(float));
    w->attention.attend.mixing = take(p, z->columns * bfe_pad_columns((size_t)z->tokens), sizeof(int8_t));
    w->attention.attend.factor = take(p, z->columns, sizeof(float));
    w->attention.attend.sum = take(p, z->columns * z->head_size, sizeof(int32_t));
    w->attention.attend.output = take(p, z->columns * z->d, sizeof(float));
    w->attention.attend.quantised = take(p, z->columns * bfe_pad_columns((size_t)z->d), sizeof(int8_t));
    w->attention.attend.product = take(p, z->columns * z->d, sizeof(float));
}

static void lay_out_experts(const sizes *z, pieces *p, bfe_workspace *w) {
    const bfe_config *const config = z->config;
    const uint64_t tile = z->schedule->tile;
    w->experts.norm = take(p, tile * z->d, sizeof(float));
    w->experts.sum = take(p, tile * z->d_ff, sizeof(float));
    w->experts.gate = take(p, tile * config->top_k, sizeof(float));
    w->experts.selected = take(p, tile * config->top_k, sizeof(uint16_t));
    w->experts.order = take(p, tile * config->top_k, sizeof(uint16_t));

    const uint64_t steps = p->end;
    w->experts.route.scratch = take_scratch(z, p, config->experts, z->d);
    w->experts.route.s = take(p, z->columns, sizeof(float));
    w->experts.route.quantised = take(p, z->columns * bfe_pad_columns((size_t)z->d), sizeof(int8_t));
    w->experts.route.logits = take(p, z->columns * config->experts, sizeof(float));

    p->end = steps;
    w->experts.start = take(p, config->experts + 1, sizeof(uint32_t));

    p->end = steps;
    w->experts.expert.scratch = take_scratch(z, p, z->d_ff, z->d);
    w->experts.expert.theta_cosine = take(p, config->theta_layers * (z->padded_d / 2), sizeof(float));
    w->experts.expert.theta_sine = take(p, config->theta_layers * (z->padded_d / 2), sizeof(float));
    w->experts.expert.phi_cosine = take(p, config->phi_layers * (z->padded_d_ff / 2), sizeof(float));
    w->experts.expert.phi_sine = take(p, config->phi_layers * (z->padded_d_ff / 2), sizeof(float));
    w->experts.expert.input = take(p, z->padded_d, sizeof(float));
    w->experts.expert.s = take(p, z->pairs, sizeof(float));
    w->experts.expert.quantised = take(p, z->pairs * bfe_pad_columns((size_t)z->d), sizeof(int8_t));
    w->experts.expert.hidden = take(p, z->pairs * z->padded_d_ff, sizeof(float));

    p->end = steps;
    w->experts.down.scratch = take_scratch(z, p, z->d, z->d_ff);
    w->experts.down.s = take(p, z->columns, sizeof(float));
    w->experts.down.quantised = take(p, z->columns * bfe_pad_columns((size_t)z->d_ff), sizeof(int8_t));
    w->experts.down.product = take(p, z->columns * z->d, sizeof(float));
}

static void lay_out_head(const sizes *z, pieces *p, bfe_workspace *w) {
    w->head.scratch = take_scratch(z, p, z->config->classes, z->d);
    w->head.norm = take(p, z->d, sizeof(float));
    w->head.pooled = take(p, z->d, sizeof(float));
    w->head.quantised = take(p, bfe_pad_columns((size_t)z->d), sizeof(int8_t));
}

/* Lays out the pieces of each worker, one worker behind the other, all of them alike; leaves *w with those of `worker`.
 */
static void for_workers(const sizes *z, pieces *p, uint32_t worker, bfe_workspace *w,
                        void (*lay_out)(const sizes *z, pieces *p, bfe_workspace *w)) {
    const uint64_t first = p->end;
    pieces one = {p->base, first, first};
    lay_out(z, &one, w);
    const uint64_t bytes = one.most - first;
    const uint64_t all = first + z->schedule->workers * bytes;
    p->most = all > p->most ? all : p->most;
    if (worker != 0) {
        one.end = first + worker * bytes;
        lay_out(z, &one, w);
    }
}

uint64_t bfe_lay_out(const bfe_model *model, const bfe_schedule *schedule, uint32_t worker, void *base,
                     bfe_workspace *workspace) {
    const sizes z = sizes_of(model, schedule);
    pieces p = {base, 0, 0};
    uint64_t *const counts = take(&p, schedule->workers, sizeof(uint64_t));
    workspace->model_bytes = counts != NULL ? counts + worker : NULL;
    workspace->residual = take(&p, z.tokens * z.d, sizeof(float));

    const uint64_t stages = p.end;
    for_workers(&z, &p, worker, workspace, lay_out_embed);
    p.end = stages;
    lay_out_shared_attention(&z, &p, workspace);
    for_workers(&z, &p, worker, workspace, lay_out_project);
    for_workers(&z, &p, worker, workspace, lay_out_attend);
    p.end = stages;
    for_workers(&z, &p, worker, workspace, lay_out_experts);
    p.end = stages;
    lay_out_head(&z, &p, workspace); /* only the first worker has work here */
    return p.most;
}

bfe_schedule bfe_schedule_of(const bfe_model *model, const bfe_options *options) {
    const uint32_t tokens = model->config.tokens;
    const uint32_t wanted = options != NULL ? options->workers : 0, tile = options != NULL ? options->tile_tokens : 0;
    const uint32_t columns = model->kernels->layout == BFE_LAYOUT_TILES ? COLUMNS_IN_TILES : COLUMNS_IN_ROWS;
    bfe_schedule schedule;
    schedule.workers = bfe_least(wanted == 0 ? 1 : wanted, bfe_least(tokens, BFE_MOST_WORKERS));
    schedule.tokens = (tokens + schedule.workers - 1) / schedule.workers;
    schedule.tile = tile == 0 ? schedule.tokens : bfe_least(tile, schedule.tokens);
    schedule.columns = bfe_least(columns, schedule.tile);
    schedule.pairs = bfe_least(columns, (uint64_t)schedule.tile * model->config.top_k);
    return schedule;
}

size_t bfe_workspace_size(const bfe_model *model, const bfe_options *options) {
    if (model == NULL || model->file == NULL)
        return 0;
    bfe_workspace unused;
    const bfe_schedule schedule = bfe_schedule_of(model, options);
    const uint64_t bytes = bfe_lay_out(model, &schedule, 0, NULL, &unused);
    return (uint64_t)(size_t)bytes == bytes ? (size_t)bytes : 0;
}

uint32_t bfe_largest_tile(const bfe_model *model, const bfe_options *options, size_t size) {
    bfe_options tried = {0};
    if (model == NULL || model->file == NULL)
        return 0;
    if (options != NULL)
        tried = *options;
    uint32_t fits = 0, too_many = model->config.tokens + 1;
    while (too_many - fits > 1) { /* the workspace grows with the tile */
        tried.tile_tokens = fits + (too_many - fits) / 2;
        const size_t needed = bfe_workspace_size(model, &tried);
        if (needed != 0 && needed <= size)
            fits = tried.tile_tokens;
        else
            too_many = tried.tile_tokens;
    }
    return fits;
}
