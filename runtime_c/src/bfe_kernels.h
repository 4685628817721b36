/*
 * The arithmetic of NUMERICS.md as kernels: one operation a function and a file,
 * kernels/bfe_<operation>_<type>_<instruction set>.c. A set of kernels is what one processor runs fastest; all sets
 * give the same bits. "c" is the definition, in plain C. Sections in brackets are NUMERICS.md's.
 *
 * Pointers never overlap unless said so. Floats need no more alignment than their own.
 */
#ifndef BFE_KERNELS_H
#define BFE_KERNELS_H

#include <stddef.h>
#include <stdint.h>

/* clang-format off */
/*
 * How the elements of a matrix lie in memory.
 *
 * ROWS   as in the file: row after row, `stride` bytes apart, in the encoding that FORMAT.md defines. A kernel reads
 *        nothing behind the row's last byte.
 * TILES  rearranged for vector instructions, aligned to BFE_TILES_ALIGNMENT. Rows are padded to a multiple of
 *        BFE_TILE_ROWS and columns to one of BFE_COLUMN_BLOCK, by any values: results do not depend on them. Tiles lie
 *        in the order of their rows, then of their columns.
 *        int8:  a tile is 16 rows by 4 columns, 64 bytes: byte 4 * r + c holds row r, column c.
 *        trits: a tile is 32 rows by 4 columns, 32 bytes: byte 4 * r + c, bits 2 f and 2 f + 1, hold row 8 * f + r,
 *               column c, r < 8 and f < 4, as trit + 1. Files in either encoding give the same tiles.
 */
/* clang-format on */
typedef enum bfe_layout { BFE_LAYOUT_ROWS = 0, BFE_LAYOUT_TILES = 1 } bfe_layout;

enum {
    BFE_TILES_ALIGNMENT = 64,
    BFE_TILE_ROWS = 32,
    BFE_COLUMN_BLOCK = 16,
    BFE_MOST_TRITS = 256 /* columns whose products with trits add up within 16 bits: 256 * 127 < 2^15 */
};

/* A weight and its scale. */
typedef struct bfe_matrix {
    const void *weight;
    const float *scale; /* [rows] for int8, [1] for trits; NULL where products stay integers */
    uint32_t rows, columns;
    uint32_t stride;   /* bytes from one row to the next; of TILES, from one 16 rows (int8) or 32 (trits) to the next */
    uint16_t encoding; /* BFE_ENCODING_INT8, _TRITS2 or _TRITS3 */
    uint16_t layout;   /* bfe_layout */
    uint32_t bytes;    /* that one pass over it reads */
} bfe_matrix;

/*
 * The product of a matrix and `count` >= 1 columns [3]:
 *
 *     y[c * y_stride + r] = float(weight[r] . q[c]) * (s[c] * scale[r])      r < rows, c < count
 *
 *   q        column c begins at q + c * q_stride and is zero from `columns` to the next multiple of BFE_COLUMN_BLOCK,
 *            so that a kernel may read that far; q and q_stride are multiples of BFE_ALIGNMENT. Values are -127..127,
 *            with int8 weights also -128 (pixels)
 *   s        one scale a column
 *   y        binary32; with matrix->scale NULL (int8 only), the sums themselves as int32_t, and s is not read.
 *            Nothing is written behind the last row of a column; y_stride >= rows counts elements
 *   scratch  bfe_scratch_bytes() bytes, aligned to BFE_ALIGNMENT
 */
typedef void bfe_product(const bfe_matrix *matrix, const int8_t *q, size_t q_stride, const float *s, size_t count,
                         void *y, size_t y_stride, void *scratch);

/* Bytes of scratch for products with a matrix in this layout, the same for all sets of kernels. */
size_t bfe_scratch_bytes(bfe_layout layout, uint32_t rows, uint32_t columns);

typedef struct bfe_kernels {
    const char *name;                                            /* lower case, no spaces */
    bfe_layout layout;                                           /* of the matrices that the products take */
    bfe_product *product_int8, *product_trits2, *product_trits3; /* with TILES, the last two are one */

    /* How often the product of a matrix and `count` columns reads the whole matrix. NULL with TILES, where it is once:
     * parts of it are read again only while they are in the nearest cache. */
    size_t (*passes)(const bfe_matrix *matrix, size_t count);

    /* Quantises x to int8 and returns the scale [2]. */
    float (*quantise)(const float *x, size_t count, int8_t *q);

    /* LayerNorm over `count` values [5]. x and y may be the same. */
    void (*layer_norm)(const float *x, const float *gain, const float *bias, size_t count, float *y);

    /* The weights of a softmax times a scale each, before their quantisation [7]: with t_j = float(product[j]) *
     * (scale * k_scale[j]), weight[j] = float(E_j) * v_scale[j]. Returns the sum of E. */
    int32_t (*softmax)(const int32_t *product, float scale, const float *k_scale, const float *v_scale, size_t count,
                       float *weight);

    /* GELU in place [10]. */
    void (*gelu)(float *x, size_t count);

    /* Cosine and sine of angles that rule V17 allows [9]. */
    void (*sincos)(const uint16_t *angles, size_t count, float *cosine, float *sine);

    /* Rotates x[padded] in place by `layers` layers of Givens rotations, padded / 2 angles each [9]. */
    void (*rotate)(float *x, size_t padded, size_t layers, const float *cosine, const float *sine);

    /* y[i] = y[i] + x[i] */
    void (*add)(float *y, const float *x, size_t count);

    /* y[i] = y[i] + factor * x[i] */
    void (*add_scaled)(float *y, float factor, const float *x, size_t count);

    /* y[i] = +0.0 + factor * x[i]: the first of such sums */
    void (*set_scaled)(float *y, float factor, const float *x, size_t count);
} bfe_kernels;

/* The definition: plain C, in place. */
extern const bfe_kernels bfe_kernels_c;
/* Products in place by tables of partial sums, in plain C: for processors without vectors. */
extern const bfe_kernels bfe_kernels_tables;
/* The same, with the 16-bit multiply-accumulate instructions of Cortex-M4 and ARMv6. */
#ifdef __ARM_FEATURE_SIMD32
extern const bfe_kernels bfe_kernels_dsp;
#endif
/* Tiles in plain C: the definition of what the ones below do. */
extern const bfe_kernels bfe_kernels_tiles;
/* Older compilers than these do not know the instructions. */
#if defined(__x86_64__) && (defined(__clang__) || (defined(__GNUC__) && __GNUC__ >= 8))
#define BFE_HAS_X86_KERNELS 1
extern const bfe_kernels bfe_kernels_avx2;
extern const bfe_kernels bfe_kernels_avx512vnni; /* AVX-512 F, BW, DQ, VL and VNNI */
#endif
#if defined(__aarch64__) && !defined(__AARCH64EB__) && (defined(__clang__) || (defined(__GNUC__) && __GNUC__ >= 10))
#define BFE_HAS_NEON_KERNELS 1
extern const bfe_kernels bfe_kernels_neon;
extern const bfe_kernels bfe_kernels_dotprod;
#endif

/* The functions of the set "c", for others to use where they gain nothing. */
void bfe_product_int8_c(const bfe_matrix *matrix, const int8_t *q, size_t q_stride, const float *s, size_t count,
                        void *y, size_t y_stride, void *scratch);
void bfe_product_trits2_c(const bfe_matrix *matrix, const int8_t *q, size_t q_stride, const float *s, size_t count,
                          void *y, size_t y_stride, void *scratch);
void bfe_product_trits3_c(const bfe_matrix *matrix, const int8_t *q, size_t q_stride, const float *s, size_t count,
                          void *y, size_t y_stride, void *scratch);
float bfe_quantise_f32_c(const float *x, size_t count, int8_t *q);
void bfe_layer_norm_f32_c(const float *x, const float *gain, const float *bias, size_t count, float *y);
int32_t bfe_softmax_f32_c(const int32_t *product, float scale, const float *k_scale, const float *v_scale, size_t count,
                          float *weight);
void bfe_gelu_f32_c(float *x, size_t count);
void bfe_sincos_f16_c(const uint16_t *angles, size_t count, float *cosine, float *sine);
void bfe_rotate_f32_c(float *x, size_t padded, size_t layers, const float *cosine, const float *sine);
void bfe_add_f32_c(float *y, const float *x, size_t count);
void bfe_add_scaled_f32_c(float *y, float factor, const float *x, size_t count);
void bfe_set_scaled_f32_c(float *y, float factor, const float *x, size_t count);

/* What is the same in all sets. */

/* Moves the `width` elements of a rotation's output that are not padding to the front of x[padded], in order [9]. */
void bfe_compact_f32(float *x, size_t width, size_t padded, size_t layers);

/* The correctly rounded square root of x >= 0. */
float bfe_sqrt_f32(float x);

/* 2^t for t <= 0, times 2^15, rounded: 0..32768 [6]. */
int32_t bfe_exp2fix_f32(float t);

/* The value of a binary16. */
float bfe_widen_f16(uint16_t half);

/* The binary16 that each 8-bit angle stands for [9]. */
void bfe_angles_f16(const int8_t *codes, size_t count, uint16_t *angles);

/* 2^18 * delta(i / 128), i = 0..641, of GELU [10]. */
extern const uint16_t bfe_gelu_table[642];

#endif
