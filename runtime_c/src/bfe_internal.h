/* What the stages of bfe_run share: access to the model's sections, and the workspace. */
#ifndef BFE_INTERNAL_H
#define BFE_INTERNAL_H

#include "bfe_format.h"
#include "bfedge.h"

/* The contents of a required section; `block` is ignored outside blocks. Constant time. */
const void *bfe_section(const bfe_model *model, uint16_t kind, uint32_t block);

/* A weight and its scale. */
typedef struct bfe_matrix {
    const void *weight;
    const float *scale;
    uint32_t rows, columns;
    uint16_t encoding;
    uint32_t bytes; /* of weight and scale in the file */
} bfe_matrix;

/* The matrix whose weight is this section. */
bfe_matrix bfe_matrix_of(const bfe_model *model, uint16_t weight_kind, uint32_t block);

/* y[rows] = matrix * q * s (NUMERICS.md, section 3). */
void bfe_matvec(const bfe_matrix *matrix, const int8_t *q, float s, float *y);

/*
 * Where everything lies in the workspace. The residual lives throughout; the stages, one after the other, share the
 * rest, and so do the steps within a stage.
 */
typedef struct bfe_workspace {
    uint64_t *model_bytes; /* each stage adds what it reads of the file; not in the workspace */

    float *residual; /* [tokens, d_model] */

    struct {
        int8_t *patch; /* [patch_columns] */
    } embed;

    struct {
        int8_t *qkv;           /* [tokens, 3 * d_model]: queries, keys, values, heads within each */
        float *scale;          /* [tokens, 3 * heads], in the same order */
        struct {               /* of one token */
            float *norm;       /* [d_model] */
            int8_t *quantised; /* [d_model] */
            float *product;    /* [3 * d_model] */
        } project;
        struct {               /* of one query */
            float *score;      /* [tokens]: first the scores, then the weights that mix the values */
            int8_t *weight;    /* [tokens] */
            int32_t *sum;      /* [d_model / heads] */
            float *output;     /* [d_model]: the heads, concatenated */
            int8_t *quantised; /* [d_model] */
            float *product;    /* [d_model] */
        } attend;
    } attention;

    struct {                   /* of one tile of tokens */
        float *norm;           /* [tile, d_model] */
        float *sum;            /* [tile, d_ff]: the experts' weighted sum */
        float *gate;           /* [tile, top_k]: weights of the selected experts */
        uint16_t *selected;    /* [tile, top_k]: the selected experts, ascending */
        struct {               /* of one token */
            int8_t *quantised; /* [d_model] */
            float *logits;     /* [experts] */
        } route;
        struct {                              /* of one expert and token */
            float *theta_cosine, *theta_sine; /* [theta_layers, padded d_model / 2] */
            float *phi_cosine, *phi_sine;     /* [phi_layers, padded d_ff / 2] */
            float *input;                     /* [padded d_model] */
            int8_t *quantised;                /* [d_model] */
            float *hidden;                    /* [padded d_ff] */
        } expert;
        struct {               /* of one token */
            int8_t *quantised; /* [d_ff] */
            float *product;    /* [d_model] */
        } down;
    } experts;

    struct {
        float *norm;       /* [d_model] */
        float *pooled;     /* [d_model] */
        int8_t *quantised; /* [d_model] */
    } head;
} bfe_workspace;

/*
 * Bytes of the workspace for experts tiles of `tile` tokens. If `base` is not NULL, also points *workspace into it: one
 * function for both, so that the size that users are told is exact.
 */
uint64_t bfe_lay_out(const bfe_config *config, uint32_t tile, void *base, bfe_workspace *workspace);

/* The tile size that the options ask for, 1..tokens. */
uint32_t bfe_tile(const bfe_config *config, const bfe_options *options);

/* The stages of bfe_run, in order. */
void bfe_embed(const bfe_model *model, const bfe_workspace *workspace, const uint8_t *image);
void bfe_attention(const bfe_model *model, uint32_t block, const bfe_workspace *workspace);
void bfe_experts(const bfe_model *model, uint32_t block, uint32_t tile, const bfe_workspace *workspace);
void bfe_head(const bfe_model *model, const bfe_workspace *workspace, float *logits);

/* The top_k experts with the highest logits, ascending by index, and their weights (NUMERICS.md, section 8). */
void bfe_route(const float *logits, uint32_t experts, uint32_t top_k, uint16_t *selected, float *gate);

#endif
