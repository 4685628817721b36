/*
 * What `bfedge bench` times besides whole models: one product, our experts' stage alone, and the layers that it is
 * compared with, all on the runtime's own kernels. Built with the runtime's sources into a library for this machine.
 *
 * Each has three functions. *_prepare() copies its operands into `memory` in the layout that the kernels take and
 * returns the bytes that it needs there; with `memory` NULL it only counts. It returns 0 if this processor has no such
 * set of kernels. `memory` is aligned to 64 bytes. *_run() computes once, from the same inputs every time. *_result()
 * is where the result then lies.
 *
 * Matrices are given as in the packed file, row after row; vectors one after the other.
 */
#ifndef BFB_BENCH_H
#define BFB_BENCH_H

#include "bfe_kernels.h"
#include "bfedge.h"

/* Memory that is handed out piece by piece; with base NULL the pieces are only counted. */
typedef struct bfb_memory {
    uint8_t *base;
    size_t used;
} bfb_memory;

void *bfb_take(bfb_memory *memory, size_t bytes);

/* The same, filled with a copy. */
void *bfb_copy(bfb_memory *memory, const void *from, size_t bytes);

/* A matrix as a caller gives it. */
typedef struct bfb_weight {
    const void *weight;
    const float *scale; /* [rows] for int8, [1] for trits */
    uint32_t rows, columns;
    uint32_t encoding;
} bfb_weight;

/* The set of kernels with this name, NULL if this processor has none; an empty name is the fastest set. */
const bfe_kernels *bfb_kernels(const char *name);

/* A matrix in the layout that the kernels take, and its product. */
typedef struct bfb_matrix {
    bfe_matrix matrix;
    bfe_product *product;
} bfb_matrix;

bfb_matrix bfb_load(bfb_memory *memory, const bfe_kernels *kernels, const bfb_weight *weight);

/* Does nothing: what calling costs. */
void bfb_nothing(const void *memory);

/* One product: y[count, rows] of q[count, columns] with the scales s[count]. */
size_t bfb_product_prepare(void *memory, const char *kernels, const bfb_weight *weight, const int8_t *q, const float *s,
                           uint32_t count);
void bfb_product_run(void *memory);
const float *bfb_product_result(const void *memory);

/* What the layers have in common: the residual z[tokens, d_model], and the norm before the layer. */
typedef struct bfb_input {
    const float *z, *gain, *bias;
    uint32_t tokens, d_model;
} bfb_input;

/*
 * A dense layer: z + down(gelu(up(norm(z)))). With `copies` above 1, every token goes through `up` and GELU that many
 * times, and the mean of the copies through `down`: the work of as many selected experts without their routing and
 * rotations.
 */
size_t bfb_dense_prepare(void *memory, const char *kernels, const bfb_input *input, const bfb_weight *up,
                         const bfb_weight *down, uint32_t copies);
void bfb_dense_run(void *memory);
const float *bfb_dense_result(const void *memory);

/*
 * A standard mixture of experts: z + sum over the selected experts of gate * down_e(gelu(up_e(norm(z)))). Every expert
 * has its own two matrices; the tokens of one expert go through them together. up[experts] and down[experts].
 */
size_t bfb_standard_prepare(void *memory, const char *kernels, const bfb_input *input, const bfb_weight *router,
                            const bfb_weight *up, const bfb_weight *down, uint32_t top_k);
void bfb_standard_run(void *memory);
const float *bfb_standard_result(const void *memory);

/* The experts' stage of one block of a model, which stays open and prepared meanwhile, from the residual
 * z[tokens, d_model]. */
size_t bfb_experts_prepare(void *memory, const bfe_model *model, uint32_t block, const float *z);
void bfb_experts_run(void *memory);
const float *bfb_experts_result(const void *memory);

#endif
