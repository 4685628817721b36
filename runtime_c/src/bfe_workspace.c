#include "bfe_internal.h"
#include "bfe_sections.h"
#include "bfe_tiles.h"

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

static void find_sizes(const bfe_model *model, const bfe_schedule *schedule, sizes *z) {
    const bfe_config *const config = &model->config;
    const uint32_t patches = config->tokens - (config->pooling == BFE_POOL_CLASS ? 1 : 0);
    z->config = config;
    z->schedule = schedule;
    z->layout = model->kernels->layout;
    z->tokens = config->tokens;
    z->heads = config->heads;
    z->head_size = config->d_model / config->heads;
    z->columns = schedule->columns;
    z->pairs = schedule->pairs;
    z->patches = bfe_least((patches + schedule->workers - 1) / schedule->workers, schedule->columns);
    z->d = config->d_model;
    z->d_ff = config->d_ff;
    z->padded_d = bfe_padded(config->d_model);
    z->padded_d_ff = bfe_padded(config->d_ff);
}

static void *take_scratch(const sizes *z, pieces *p, uint64_t rows, uint64_t columns) {
    return take(p, bfe_scratch_bytes(z->layout, (uint32_t)rows, (uint32_t)columns), 1);
}

static void take_heads(const sizes *z, pieces *p, uint64_t rows, uint64_t columns, bfe_heads *heads) {
    heads->one.weight = NULL;
    heads->one.scale = NULL;
    heads->one.rows = (uint32_t)rows;
    heads->one.columns = (uint32_t)columns;
    heads->one.stride = bfe_matrix_stride(z->layout, heads->one.columns, BFE_ENCODING_INT8);
    heads->one.encoding = BFE_ENCODING_INT8;
    heads->one.layout = (uint16_t)z->layout;
    heads->one.bytes = 0; /* none of the model's */
    const uint64_t bytes = bfe_matrix_bytes(z->layout, heads->one.rows, heads->one.columns, BFE_ENCODING_INT8);
    heads->stride = (size_t)bytes;
    /* Tiles are aligned to more than the workspace is. */
    const uint64_t slack = z->layout == BFE_LAYOUT_TILES ? BFE_TILES_ALIGNMENT - BFE_ALIGNMENT : 0;
    uint8_t *const piece = take(p, z->heads * bytes + slack, 1);
    heads->first = (int8_t *)piece;
    if (slack != 0 && (uintptr_t)piece % BFE_TILES_ALIGNMENT != 0)
        heads->first += BFE_TILES_ALIGNMENT - (uintptr_t)piece % BFE_TILES_ALIGNMENT;
}

static void embed_pieces(const sizes *z, pieces *p, void *out) {
    bfe_embed_pieces *const w = out;
    w->scratch = take_scratch(z, p, z->d, z->config->patch_columns);
    w->scale = take(p, z->patches, sizeof(float));
    w->patch = take(p, z->patches * bfe_pad_columns(z->config->patch_columns), sizeof(int8_t));
}

static void attention_pieces(const sizes *z, pieces *p, bfe_attention_pieces *a) {
    a->query = take(p, z->tokens * z->heads * bfe_pad_columns((size_t)z->head_size), sizeof(int8_t));
    take_heads(z, p, z->tokens, z->head_size, &a->key);
    take_heads(z, p, z->head_size, z->tokens, &a->value);
    a->scale = take(p, 3 * z->heads * z->tokens, sizeof(float));
}

static void project_pieces(const sizes *z, pieces *p, void *out) {
    bfe_project_pieces *const w = out;
    w->scratch = take_scratch(z, p, 3 * z->d, z->d);
    w->s = take(p, z->columns, sizeof(float));
    w->quantised = take(p, z->columns * bfe_pad_columns((size_t)z->d), sizeof(int8_t));
    w->norm = take(p, z->d, sizeof(float));
    w->part = take(p, z->head_size, sizeof(int8_t));
    w->product = take(p, z->columns * 3 * z->d, sizeof(float));
}

static void attend_pieces(const sizes *z, pieces *p, void *out) {
    bfe_attend_pieces *const w = out;
    const uint64_t most = z->tokens > z->d ? z->tokens : z->d; /* rows, and columns, of the three matrices */
    w->scratch = take_scratch(z, p, most, most);
    w->s = take(p, z->columns, sizeof(float));
    w->score = take(p, z->columns * z->tokens, sizeof(int32_t));
    w->weight = take(p, z->tokens, sizeof(float));
    w->mixing = take(p, z->columns * bfe_pad_columns((size_t)z->tokens), sizeof(int8_t));
    w->factor = take(p, z->columns, sizeof(float));
    w->sum = take(p, z->columns * z->head_size, sizeof(int32_t));
    w->output = take(p, z->columns * z->d, sizeof(float));
    w->quantised = take(p, z->columns * bfe_pad_columns((size_t)z->d), sizeof(int8_t));
    w->product = take(p, z->columns * z->d, sizeof(float));
}

static void experts_pieces(const sizes *z, pieces *p, void *out) {
    bfe_experts_pieces *const w = out;
    const bfe_config *const config = z->config;
    const uint64_t tile = z->schedule->tile;
    w->norm = take(p, tile * z->d, sizeof(float));
    w->sum = take(p, tile * z->d_ff, sizeof(float));
    w->gate = take(p, tile * config->top_k, sizeof(float));
    w->selected = take(p, tile * config->top_k, sizeof(uint16_t));
    w->order = take(p, tile * config->top_k, sizeof(uint16_t));

    const uint64_t steps = p->end;
    w->route.scratch = take_scratch(z, p, config->experts, z->d);
    w->route.s = take(p, z->columns, sizeof(float));
    w->route.quantised = take(p, z->columns * bfe_pad_columns((size_t)z->d), sizeof(int8_t));
    w->route.logits = take(p, z->columns * config->experts, sizeof(float));

    p->end = steps;
    w->sort.start = take(p, config->experts + 1, sizeof(uint32_t));

    p->end = steps;
    w->expert.scratch = take_scratch(z, p, z->d_ff, z->d);
    w->expert.theta_cosine = take(p, config->theta_layers * (z->padded_d / 2), sizeof(float));
    w->expert.theta_sine = take(p, config->theta_layers * (z->padded_d / 2), sizeof(float));
    w->expert.phi_cosine = take(p, config->phi_layers * (z->padded_d_ff / 2), sizeof(float));
    w->expert.phi_sine = take(p, config->phi_layers * (z->padded_d_ff / 2), sizeof(float));
    w->expert.input = take(p, z->padded_d, sizeof(float));
    w->expert.s = take(p, z->pairs, sizeof(float));
    w->expert.quantised = take(p, z->pairs * bfe_pad_columns((size_t)z->d), sizeof(int8_t));
    /* Columns a power of two apart would fall on the same lines of a cache, and push each other out of it. */
    w->expert.hidden_stride = (size_t)z->padded_d_ff + (z->layout == BFE_LAYOUT_TILES ? BFE_COLUMN_BLOCK : 0);
    w->expert.hidden = take(p, (z->pairs - 1) * w->expert.hidden_stride + z->padded_d_ff, sizeof(float));

    p->end = steps;
    w->down.scratch = take_scratch(z, p, z->d, z->d_ff);
    w->down.s = take(p, z->columns, sizeof(float));
    w->down.quantised = take(p, z->columns * bfe_pad_columns((size_t)z->d_ff), sizeof(int8_t));
    w->down.product = take(p, z->columns * z->d, sizeof(float));
}

static void head_pieces(const sizes *z, pieces *p, void *out) {
    bfe_head_pieces *const w = out;
    w->scratch = take_scratch(z, p, z->config->classes, z->d);
    w->norm = take(p, z->d, sizeof(float));
    w->pooled = take(p, z->d, sizeof(float));
    w->quantised = take(p, bfe_pad_columns((size_t)z->d), sizeof(int8_t));
}

float *bfe_residual_in(const bfe_schedule *schedule, uint8_t *workspace) {
    pieces p = {workspace, 0, 0};
    (void)take(&p, schedule->workers, sizeof(uint64_t)); /* bfe_count's */
    return take(&p, 0, sizeof(float));
}

/* The pieces that live throughout. */
static pieces begin(const sizes *z, uint8_t *base) {
    pieces p = {base, 0, 0};
    (void)take(&p, z->schedule->workers, sizeof(uint64_t));
    (void)take(&p, z->tokens * z->d, sizeof(float));
    return p;
}

/* The pieces of a step, of which each worker has its own, one behind the other and all alike. */
typedef void step_pieces(const sizes *z, pieces *p, void *out);

static uint64_t worker_bytes(const sizes *z, const pieces *before, step_pieces *of_step, void *out) {
    pieces p = {NULL, before->end, before->end};
    of_step(z, &p, out);
    return p.most - before->end;
}

static void lay_out_worker(const sizes *z, const pieces *before, step_pieces *of_step, uint32_t worker, void *out) {
    pieces p = *before;
    p.end += worker * worker_bytes(z, before, of_step, out);
    of_step(z, &p, out);
}

/* The larger of `most` and the end of this step's pieces. */
static uint64_t end_of(const sizes *z, const pieces *before, step_pieces *of_step, uint32_t workers, void *out,
                       uint64_t most) {
    const uint64_t end = before->end + workers * worker_bytes(z, before, of_step, out);
    return end > most ? end : most;
}

uint64_t bfe_workspace_bytes(const bfe_model *model, const bfe_schedule *schedule) {
    union {
        bfe_embed_pieces embed;
        bfe_project_pieces project;
        bfe_attend_pieces attend;
        bfe_experts_pieces experts;
        bfe_head_pieces head;
    } unused;
    sizes z;
    find_sizes(model, schedule, &z);
    const uint32_t workers = schedule->workers;
    pieces p = begin(&z, NULL);
    uint64_t most = end_of(&z, &p, embed_pieces, workers, &unused, 0);
    most = end_of(&z, &p, experts_pieces, workers, &unused, most);
    most = end_of(&z, &p, head_pieces, 1, &unused, most);
    bfe_attention_pieces shared;
    attention_pieces(&z, &p, &shared);
    most = end_of(&z, &p, project_pieces, workers, &unused, most);
    return end_of(&z, &p, attend_pieces, workers, &unused, most);
}

void bfe_lay_out_embed(const bfe_job *job, uint32_t worker, bfe_embed_pieces *out) {
    sizes z;
    find_sizes(job->model, &job->schedule, &z);
    const pieces p = begin(&z, job->workspace);
    lay_out_worker(&z, &p, embed_pieces, worker, out);
}

void bfe_lay_out_attention(const bfe_job *job, bfe_attention_pieces *out) {
    sizes z;
    find_sizes(job->model, &job->schedule, &z);
    pieces p = begin(&z, job->workspace);
    attention_pieces(&z, &p, out);
}

void bfe_lay_out_project(const bfe_job *job, uint32_t worker, bfe_project_pieces *out) {
    sizes z;
    find_sizes(job->model, &job->schedule, &z);
    pieces p = begin(&z, job->workspace);
    bfe_attention_pieces shared;
    attention_pieces(&z, &p, &shared);
    lay_out_worker(&z, &p, project_pieces, worker, out);
}

void bfe_lay_out_attend(const bfe_job *job, uint32_t worker, bfe_attend_pieces *out) {
    sizes z;
    find_sizes(job->model, &job->schedule, &z);
    pieces p = begin(&z, job->workspace);
    bfe_attention_pieces shared;
    attention_pieces(&z, &p, &shared);
    lay_out_worker(&z, &p, attend_pieces, worker, out);
}

void bfe_lay_out_experts(const bfe_job *job, uint32_t worker, bfe_experts_pieces *out) {
    sizes z;
    find_sizes(job->model, &job->schedule, &z);
    const pieces p = begin(&z, job->workspace);
    lay_out_worker(&z, &p, experts_pieces, worker, out);
}

void bfe_lay_out_head(const bfe_job *job, bfe_head_pieces *out) {
    sizes z;
    find_sizes(job->model, &job->schedule, &z);
    const pieces p = begin(&z, job->workspace);
    lay_out_worker(&z, &p, head_pieces, 0, out); /* only the first worker has work here */
}

bfe_schedule bfe_schedule_of(const bfe_model *model, const bfe_options *options) {
    const uint32_t tokens = model->config.tokens;
    const uint32_t wanted = options != NULL ? options->workers : 0, tile = options != NULL ? options->tile_tokens : 0;
    const uint32_t columns = bfe_columns_at_once(model->kernels->layout);
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
    const bfe_schedule schedule = bfe_schedule_of(model, options);
    const uint64_t bytes = bfe_workspace_bytes(model, &schedule);
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
