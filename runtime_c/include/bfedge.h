/*
 * bfedge.h - run a packed ButterflyViT model (.bfe) on anything with a C99 compiler.
 *
 *     bfe_model model;
 *     bfe_diag diag;
 *     if (bfe_open(&model, file, file_size, &diag) != BFE_OK) { ... diag says what and where ... }
 *     void *prepared = bfe_prepared_size(&model, NULL) bytes, if there is memory for speed; else leave this out
 *     bfe_prepare(&model, NULL, prepared, bfe_prepared_size(&model, NULL));
 *     size_t need = bfe_workspace_size(&model, NULL);
 *     static uint8_t workspace[...] aligned to BFE_ALIGNMENT, at least `need` bytes
 *     bfe_run(&model, NULL, workspace, sizeof workspace, pixels, logits);
 *
 * What the library never does: allocate, print, recurse, keep state between calls, call libm. It reads the file and the
 * input, writes the workspace and the output, and nothing else. Any number of threads may run one bfe_model, each with
 * its own workspace.
 *
 * Results are the bits that NUMERICS.md defines, on every device. Compile with -ffp-contract=off (GCC does not
 * need it: the sources say so themselves) and without -ffast-math, which the sources refuse.
 *
 * The file format is FORMAT.md; "V7" and the like are its validation rules.
 */
#ifndef BFEDGE_H
#define BFEDGE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Marks the public functions while a shared library is being built; empty for everyone else. */
#if defined(BFE_BUILDING_SHARED) && defined(_WIN32)
#define BFE_API __declspec(dllexport)
#elif defined(BFE_BUILDING_SHARED)
#define BFE_API __attribute__((visibility("default")))
#else
#define BFE_API
#endif

/* Version of this library. Independent of the file format's version. */
#define BFE_VERSION_MAJOR 0
#define BFE_VERSION_MINOR 1
#define BFE_VERSION_PATCH 0

/* File format that this library reads: major must be equal; a higher minor is read. */
#define BFE_FORMAT_MAJOR 1
#define BFE_FORMAT_MINOR 0

/* Alignment in bytes that bfe_open asks of the file and bfe_run of the workspace. */
#define BFE_ALIGNMENT 16

/* Alignment in bytes that bfe_prepare asks of its memory. */
#define BFE_PREPARED_ALIGNMENT 64

/* Bytes of stack that no function of this library exceeds, its callees included, where it is compiled with -O2, -O3 or
 * -Os; a trace callback's own come on top. With weights that bfe_prepare has rearranged, vector registers that are
 * saved there make it more. */
#define BFE_STACK_BYTES 2048
#define BFE_PREPARED_STACK_BYTES 4096

/* Marks `bfe_diag.block`, `bfe_trace` and section table entries that belong to no transformer block. */
#define BFE_NO_BLOCK 0xFFFFu

/*
 * Every function that can fail returns one of these. Tens say who must act; numbers never change their meaning.
 */
typedef enum bfe_status {
    BFE_OK = 0,

    /* 1x: the file is bad. Get it again. */
    BFE_NOT_A_MODEL = 10,      /* does not start with the magic */
    BFE_TRUNCATED = 11,        /* shorter than it says it is */
    BFE_CORRUPT = 12,          /* checksum or contents are wrong; diag.rule says which rule */
    BFE_WRONG_BYTE_ORDER = 13, /* big-endian file, or this is a big-endian machine */

    /* 2x: the file may be fine; this library is too old or built without what it needs. */
    BFE_TOO_NEW = 20,     /* format major version above BFE_FORMAT_MAJOR */
    BFE_UNSUPPORTED = 21, /* a required feature, section kind, architecture, feed-forward or set of kernels that is
                             unknown here */

    /* 3x: the caller passed something wrong. */
    BFE_WORKSPACE_TOO_SMALL = 30, /* ask bfe_workspace_size, or bfe_prepared_size */
    BFE_MISALIGNED = 31,          /* file or workspace is not aligned to BFE_ALIGNMENT, or prepared memory not to
                                     BFE_PREPARED_ALIGNMENT */
    BFE_BAD_ARGUMENT = 32         /* NULL where a pointer is required, or an index out of range */
} bfe_status;

/* A short English phrase for a status, for example "truncated"; static storage. "unknown status" for other values. */
BFE_API const char *bfe_status_text(bfe_status status);

/*
 * Where validation failed. bfe_open fills it in on failure and clears it on success.
 */
typedef struct bfe_diag {
    uint32_t rule;   /* FORMAT.md's rule number: 6 means V6; 0 if no rule is concerned */
    uint32_t offset; /* byte offset in the file of what is wrong */
    uint16_t kind;   /* section kind, 0 if none is concerned */
    uint16_t block;  /* transformer block, BFE_NO_BLOCK if none is concerned */
    uint32_t detail; /* V4: the major version; V5: the bytes the file says it has; V7: the unknown bits; V11: the kind
                        found; else 0 */
} bfe_diag;

typedef enum bfe_pooling { BFE_POOL_MEAN = 0, BFE_POOL_CLASS = 1 } bfe_pooling;

/* The file's config section, and what follows from it. All counts; no units. */
typedef struct bfe_config {
    uint32_t image_height, image_width, channels, patch_size, classes;
    uint32_t d_model, d_ff, layers, heads, experts, top_k;
    uint32_t theta_layers, phi_layers; /* Givens layers of the input and output rotations */
    uint32_t pooling;                  /* bfe_pooling */
    uint32_t feed_forward;             /* 1: butterfly experts */
    float attention_scale;             /* log2(e) / sqrt(d_model / heads) */

    uint32_t tokens;        /* patches, plus one with a class token */
    uint32_t patch_columns; /* patch_size^2 * channels */
} bfe_config;

/*
 * An open model: pointers into the caller's file, which must stay mapped and unchanged as long as the model is used,
 * and into the memory of bfe_prepare. No resources are held, so there is nothing to close, and a bfe_model may be
 * copied. Treat the fields as read-only.
 */
typedef struct bfe_model {
    bfe_config config;
    const uint8_t *file;
    uint32_t file_bytes;
    uint32_t section_count;
    uint32_t golden_count;             /* golden cases in the file, 0 if it carries none */
    const struct bfe_kernels *kernels; /* what multiplies, see bfe_prepare */
    const uint8_t *prepared;           /* NULL if weights are used as they lie in the file */
} bfe_model;

/*
 * Checks the whole file against rules V1 to V18 and, if all hold, makes *model refer to it.
 *
 *   model   out; left zeroed on failure
 *   file    aligned to BFE_ALIGNMENT; owned by the caller; never written
 *   size    bytes at `file`
 *   diag    out, may be NULL
 *
 * Reads every byte of the file at least once (checksum, trit codes, finite floats): milliseconds for megabytes.
 * Returns BFE_OK, a 1x or 2x status, BFE_MISALIGNED or BFE_BAD_ARGUMENT.
 */
BFE_API bfe_status bfe_open(bfe_model *model, const void *file, size_t size, bfe_diag *diag);

/*
 * Sets of kernels: the same arithmetic for different processors. After bfe_open a model is used as it lies in the file,
 * which takes no memory and suits microcontrollers. Processors with vector instructions are many times faster on
 * weights that are rearranged for them, once, in memory of the caller: bfe_prepare. The results' bits are the same.
 *
 *   in place        "dsp" (Cortex-M4, ARMv6), "tables" (plain C for speed), "c" (plain C as NUMERICS.md reads)
 *   with memory     "avx512vnni", "avx2", "dotprod" (ARMv8.2), "neon" (ARMv8.0), "tiles" (plain C)
 *
 * bfe_kernels_name gives the names of those that this processor can run, fastest first; NULL after the last.
 */
BFE_API const char *bfe_kernels_name(uint32_t index);

/* Name of the kernels that the model uses now; "none" if model is NULL or not open. */
BFE_API const char *bfe_kernels_used(const bfe_model *model);

/* Bytes that bfe_prepare needs: 0 for kernels that work in place, for names it does not know, and if model is NULL. */
BFE_API size_t bfe_prepared_size(const bfe_model *model, const char *kernels);

/* clang-format off */
/*
 * Chooses the model's kernels, and writes its weights to `memory` as they need them. May be called again, but not with
 * memory that a copy of the model is running with.
 *
 *   model    from bfe_open
 *   kernels  a name; NULL for the fastest of this processor
 *   memory   aligned to BFE_PREPARED_ALIGNMENT; owned by the caller, and kept as long as the model is used. Kernels that
 *            work in place do not use it
 *   size     bytes, at least bfe_prepared_size(model, kernels)
 *
 * Returns BFE_OK; and without a change BFE_UNSUPPORTED for kernels that this library or processor does not have,
 * BFE_WORKSPACE_TOO_SMALL, BFE_MISALIGNED or BFE_BAD_ARGUMENT.
 */
/* clang-format on */
BFE_API bfe_status bfe_prepare(bfe_model *model, const char *kernels, void *memory, size_t size);

/* The stages of bfe_run, in order. */
typedef enum bfe_stage {
    BFE_STAGE_EMBED = 0,     /* residual after patch embedding, [tokens, d_model] */
    BFE_STAGE_ATTENTION = 1, /* residual after a block's attention, [tokens, d_model] */
    BFE_STAGE_EXPERTS = 2,   /* residual after a block's experts, [tokens, d_model] */
    BFE_STAGE_LOGITS = 3     /* logits, [classes] */
} bfe_stage;

/* A finished stage. */
typedef struct bfe_event {
    bfe_stage stage;
    uint32_t block;       /* 0-based; BFE_NO_BLOCK for EMBED and LOGITS */
    const float *values;  /* the stage's result, row-major; valid only during the call */
    size_t count;         /* of values */
    uint64_t model_bytes; /* bytes of weights and tables that the stage read, from the file or from what bfe_prepare has
                             written, every pass over them counted */
} bfe_event;

/* Called by bfe_run after each stage. */
typedef void (*bfe_trace)(void *context, const bfe_event *event);

/*
 * Runs task(argument, 0), ..., task(argument, count - 1), in any order, at once if it can, and returns when all are
 * done. On POSIX systems bfe_pool.h has one that does so on threads.
 */
typedef void (*bfe_parallel)(void *context, void (*task)(void *argument, uint32_t index), void *argument,
                             uint32_t count);

/* Options of bfe_run and bfe_workspace_size; NULL or all zero gives the defaults. The result's bits do not depend on
   any of them. */
typedef struct bfe_options {
    /* Tokens that go through the experts together, 1..tokens; 0 (or more) means all. Fewer need less workspace, expand
       the rotation tables more often, and pass over the weights more often. */
    uint32_t tile_tokens;
    bfe_trace trace;     /* may be NULL */
    void *trace_context; /* passed through to trace */

    /* Parts that the tokens are divided into, each with a workspace of its own; at most BFE_MOST_WORKERS. 0 and 1: no
       division. */
    uint32_t workers;
    bfe_parallel parallel;  /* runs the parts; NULL runs them one after the other */
    void *parallel_context; /* passed through to parallel */
} bfe_options;

enum { BFE_MOST_WORKERS = 64 };

/*
 * Bytes of workspace that bfe_run needs for this model, its kernels and these options: exact, not a bound. 0 if model
 * is NULL or the size does not fit a size_t.
 */
BFE_API size_t bfe_workspace_size(const bfe_model *model, const bfe_options *options);

/*
 * The most tokens at once, for options.tile_tokens, that a workspace of `size` bytes allows; options->tile_tokens is
 * not read, and options may be NULL. 0 if it is too small even for one, or model is NULL.
 */
BFE_API uint32_t bfe_largest_tile(const bfe_model *model, const bfe_options *options, size_t size);

/*
 * Computes the logits of one image.
 *
 *   model           from bfe_open
 *   options         NULL for the defaults
 *   workspace       aligned to BFE_ALIGNMENT; contents are undefined before and after
 *   workspace_size  bytes, at least bfe_workspace_size(model, options)
 *   image           uint8 pixels [image_height, image_width, channels], row-major
 *   logits          out, [classes] binary32
 *
 * Returns BFE_OK, BFE_WORKSPACE_TOO_SMALL, BFE_MISALIGNED or BFE_BAD_ARGUMENT; the logits are written only with BFE_OK.
 */
BFE_API bfe_status bfe_run(const bfe_model *model, const bfe_options *options, void *workspace, size_t workspace_size,
                           const uint8_t *image, float *logits);

/* Bytes of one input image: image_height * image_width * channels. 0 if model is NULL. */
BFE_API size_t bfe_input_size(const bfe_model *model);

/*
 * Golden case `index` of model->golden_count: *input and *expected point into the file, to bfe_input_size() pixels and
 * `classes` logits. Returns BFE_OK or BFE_BAD_ARGUMENT.
 */
BFE_API bfe_status bfe_golden(const bfe_model *model, uint32_t index, const uint8_t **input, const float **expected);

/*
 * Name of class `index`, not zero-terminated: *text points into the file, *length is in bytes.
 * Returns BFE_OK, or BFE_BAD_ARGUMENT if there is no such class or the file carries no labels.
 */
BFE_API bfe_status bfe_label(const bfe_model *model, uint32_t index, const char **text, size_t *length);

#ifdef __cplusplus
}
#endif

#endif
