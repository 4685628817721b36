/*
 * The arithmetic of NUMERICS.md, one operation a function and a file (kernels/bfe_<operation>_<type>_c.c).
 * Pointers never overlap unless said so. Sections in brackets are NUMERICS.md's.
 */
#ifndef BFE_KERNELS_H
#define BFE_KERNELS_H

#include <stddef.h>
#include <stdint.h>

/* Quantises x to int8 and returns the scale [2]. */
float bfe_quantise_f32(const float *x, size_t count, int8_t *q);

/* Exact sum of products. */
int32_t bfe_dot_int8(const int8_t *a, const int8_t *b, size_t count);

/* sum[i] = sum over j of weight[j] * rows[j * stride + i], exactly. */
void bfe_weighted_sum_int8(const int8_t *weight, const int8_t *rows, size_t row_count, size_t stride, size_t count,
                           int32_t *sum);

/* y[r] = float(weight[r] . q) * (s * scale[r]) [3] */
void bfe_matvec_int8(const int8_t *weight, const float *scale, size_t rows, size_t columns, const int8_t *q, float s,
                     float *y);

/* y[r] = float(weight[r] . q) * (s * scale) for trits, packed as in FORMAT.md [3] */
void bfe_matvec_trits2(const uint8_t *weight, float scale, size_t rows, size_t columns, const int8_t *q, float s,
                       float *y);
void bfe_matvec_trits3(const uint8_t *weight, float scale, size_t rows, size_t columns, const int8_t *q, float s,
                       float *y);

/* y[i] = y[i] + x[i] */
void bfe_add_f32(float *y, const float *x, size_t count);

/* y[i] = y[i] + factor * x[i] */
void bfe_add_scaled_f32(float *y, float factor, const float *x, size_t count);

/* LayerNorm over `count` values [5]. x and y may be the same. */
void bfe_layer_norm_f32(const float *x, const float *gain, const float *bias, size_t count, float *y);

/* The correctly rounded square root of x >= 0. */
float bfe_sqrt_f32(float x);

/* 2^t for t <= 0, times 2^15, rounded: 0..32768 [6]. */
int32_t bfe_exp2fix_f32(float t);

/* GELU in place [10]. */
void bfe_gelu_f32(float *x, size_t count);

/* The value of a binary16. */
float bfe_widen_f16(uint16_t half);

/* Cosine and sine of angles that rule V17 allows [9]. */
void bfe_sincos_f16(const uint16_t *angles, size_t count, float *cosine, float *sine);

/* Rotates x[padded] in place by `layers` layers of Givens rotations, padded / 2 angles each [9]. */
void bfe_rotate_f32(float *x, size_t padded, size_t layers, const float *cosine, const float *sine);

/* Moves the `width` elements of a rotation's output that are not padding to the front of x[padded], in order [9]. */
void bfe_compact_f32(float *x, size_t width, size_t padded, size_t layers);

#endif
