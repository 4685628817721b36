/* What the stages of bfe_run share: access to the model's sections, the schedule and the workspace. */
#ifndef BFE_INTERNAL_H
#define BFE_INTERNAL_H

#include "bfe_format.h"
#include "bfe_kernels.h"
#include "bfedge.h"

/* The contents of a required section; `block` is ignored outside blocks. Constant time. */
const void *bfe_section(const bfe_model *model, uint16_t kind, uint32_t block);

/* The matrix whose weight is this section, as the model's kernels want it. */
bfe_matrix bfe_matrix_of(const bfe_model *model, uint16_t weight_kind, uint32_t block);

/* How the work is divided. */
typedef struct bfe_schedule {
    uint32_t workers;
    uint32_t tokens;  /* of one worker, at most */
    uint32_t tile;    /* tokens that a worker takes through the experts together */
    uint32_t columns; /* tokens that go through a matrix together, at most */
    uint32_t pairs;   /* (token, expert) pairs that do */
} bfe_schedule;

/* Columns that go through a matrix together, at most: as many as kernels make use of at once. */
static inline uint32_t bfe_columns_at_once(bfe_layout layout) { return layout == BFE_LAYOUT_TILES ? 32 : 4; }

bfe_schedule bfe_schedule_of(const bfe_model *model, const bfe_options *options);

static inline uint32_t bfe_least(uint64_t a, uint64_t b) { return (uint32_t)(a < b ? a : b); }

/* The keys or the values of one head, as the int8 matrix that queries or weights are multiplied with. */
typedef struct bfe_heads {
    int8_t *first;  /* head h lies at first + h * stride */
    size_t stride;  /* in bytes */
    bfe_matrix one; /* of any head; `weight` is not set */
} bfe_heads;

/*
 * The workspace begins with a count of bytes for each worker and the residual, which live throughout. The steps, one
 * after the other, share the rest, but for what attention's two have in common. A worker's pieces of a step are below;
 * `columns` and `pairs` are what goes through a matrix together: of tokens, and of (token, expert) pairs. d16 and the
 * like are rounded up to BFE_COLUMN_BLOCK, with zeros behind the end.
 *
 * The piece that ends a step is one that is written to its end, so that what is used is what is stated.
 */
typedef struct bfe_embed_pieces {
    void *scratch;
    float *scale;  /* [columns] */
    int8_t *patch; /* [columns, patch_columns16] */
} bfe_embed_pieces;

/* Of all workers. */
typedef struct bfe_attention_pieces {
    int8_t *query;   /* [tokens, heads, head_size16] */
    bfe_heads key;   /* [tokens, head_size] each */
    bfe_heads value; /* [head_size, tokens] each */
    float *scale;    /* [3, heads, tokens] */
} bfe_attention_pieces;

typedef struct bfe_project_pieces {
    void *scratch;
    float *s;          /* [columns] */
    int8_t *quantised; /* [columns, d_model16] */
    float *norm;       /* [d_model] */
    int8_t *part;      /* [head_size] */
    float *product;    /* [columns, 3 * d_model] */
} bfe_project_pieces;

typedef struct bfe_attend_pieces {
    void *scratch;
    float *s;          /* [columns] */
    int32_t *score;    /* [columns, tokens] */
    float *weight;     /* [tokens] */
    int8_t *mixing;    /* [columns, tokens16]: the weights, quantised */
    float *factor;     /* [columns]: their scales */
    int32_t *sum;      /* [columns, head_size] */
    float *output;     /* [columns, d_model]: the heads, concatenated */
    int8_t *quantised; /* [columns, d_model16] */
    float *product;    /* [columns, d_model] */
} bfe_attend_pieces;

typedef struct bfe_experts_pieces { /* of one tile of tokens */
    float *norm;                    /* [tile, d_model] */
    float *sum;                     /* [tile, d_ff]: the experts' weighted sum */
    float *gate;                    /* [tile, top_k]: weights of the selected experts */
    uint16_t *selected;             /* [tile, top_k]: the selected experts, ascending */
    uint16_t *order;                /* [tile * top_k]: the pairs, by expert and then by token */

    /* One after the other. */
    struct {
        void *scratch;
        float *s;          /* [columns] */
        int8_t *quantised; /* [columns, d_model16] */
        float *logits;     /* [columns, experts] */
    } route;
    struct {
        uint32_t *start; /* [experts + 1]: where each expert's pairs begin in `order` */
    } sort;
    struct {
        void *scratch;
        float *theta_cosine, *theta_sine; /* [theta_layers, padded d_model / 2] of one expert */
        float *phi_cosine, *phi_sine;     /* [phi_layers, padded d_ff / 2] of one expert */
        float *input;                     /* [padded d_model] */
        float *s;                         /* [pairs] */
        int8_t *quantised;                /* [pairs, d_model16] */
        float *hidden;                    /* [pairs, hidden_stride], of which padded d_ff are used */
        size_t hidden_stride;
    } expert;
    struct {
        void *scratch;
        float *s;          /* [columns] */
        int8_t *quantised; /* [columns, d_ff16] */
        float *product;    /* [columns, d_model] */
    } down;
} bfe_experts_pieces;

typedef struct bfe_head_pieces {
    void *scratch;
    float *norm;       /* [d_model] */
    float *pooled;     /* [d_model] */
    int8_t *quantised; /* [d_model16] */
} bfe_head_pieces;

/* One run of bfe_run. */
typedef struct bfe_job {
    const bfe_model *model;
    bfe_schedule schedule;
    uint8_t *workspace;
    float *residual; /* [tokens, d_model], in the workspace */
    const uint8_t *image;
    float *logits;
    uint32_t block;
} bfe_job;

/* Bytes of the workspace, and the residual in it. Sizes come from the same functions that hand out the pieces, so that
 * the size that users are told is exact. */
uint64_t bfe_workspace_bytes(const bfe_model *model, const bfe_schedule *schedule);
float *bfe_residual_in(const bfe_schedule *schedule, uint8_t *workspace);

void bfe_lay_out_embed(const bfe_job *job, uint32_t worker, bfe_embed_pieces *out);
void bfe_lay_out_attention(const bfe_job *job, bfe_attention_pieces *out);
void bfe_lay_out_project(const bfe_job *job, uint32_t worker, bfe_project_pieces *out);
void bfe_lay_out_attend(const bfe_job *job, uint32_t worker, bfe_attend_pieces *out);
void bfe_lay_out_experts(const bfe_job *job, uint32_t worker, bfe_experts_pieces *out);
void bfe_lay_out_head(const bfe_job *job, bfe_head_pieces *out);

/* Adds to what a worker has read of the model since the last stage. */
static inline void bfe_count(const bfe_job *job, uint32_t worker, uint64_t bytes) {
    ((uint64_t *)(void *)job->workspace)[worker] += bytes;
}

/* Items first..end - 1 of `count`, one worker's share of them. The last worker's is the largest. */
static inline void bfe_share(const bfe_schedule *schedule, uint32_t worker, uint32_t count, uint32_t *first,
                             uint32_t *end) {
    *first = (uint32_t)((uint64_t)count * worker / schedule->workers);
    *end = (uint32_t)((uint64_t)count * (worker + 1) / schedule->workers);
}

/* The steps of bfe_run, in order. Workers do their share of each; all have done so before the next begins. */
typedef void bfe_step(const bfe_job *job, uint32_t worker);
bfe_step bfe_embed;
bfe_step bfe_project; /* attention: queries, keys and values */
bfe_step bfe_attend;  /* attention: the rest */
bfe_step bfe_experts;
bfe_step bfe_head;

/* Quantises x[count] to q, with zeros up to BFE_COLUMN_BLOCK, and returns the scale. */
float bfe_quantise_column(const bfe_model *model, const float *x, size_t count, int8_t *q);

/* A product by the model's kernels, its bytes counted. */
void bfe_multiply(const bfe_job *job, uint32_t worker, const bfe_matrix *matrix, const int8_t *q, size_t q_stride,
                  const float *s, size_t count, void *y, size_t y_stride, void *scratch);

/* count rounded up to BFE_COLUMN_BLOCK. */
static inline size_t bfe_pad_columns(size_t count) {
    return (count + BFE_COLUMN_BLOCK - 1) / BFE_COLUMN_BLOCK * BFE_COLUMN_BLOCK;
}

/* The top_k experts with the highest logits, ascending by index, and their weights (NUMERICS.md, section 8). */
void bfe_route(const float *logits, uint32_t experts, uint32_t top_k, uint16_t *selected, float *gate);

#endif
