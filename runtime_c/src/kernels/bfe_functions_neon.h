/* The functions of the sets "neon" and "dotprod"; bfe_kernels.h says what they do. */
#ifndef BFE_FUNCTIONS_NEON_H
#define BFE_FUNCTIONS_NEON_H

#include "../bfe_kernels.h"

bfe_product bfe_product_int8_neon, bfe_product_trits_neon;
bfe_product bfe_product_int8_dotprod, bfe_product_trits_dotprod;

float bfe_quantise_f32_neon(const float *x, size_t count, int8_t *q);
void bfe_layer_norm_f32_neon(const float *x, const float *gain, const float *bias, size_t count, float *y);
int32_t bfe_softmax_f32_neon(const int32_t *product, float scale, const float *k_scale, const float *v_scale,
                             size_t count, float *weight);
void bfe_gelu_f32_neon(float *x, size_t count);
void bfe_sincos_f16_neon(const uint16_t *angles, size_t count, float *cosine, float *sine);
void bfe_rotate_f32_neon(float *x, size_t padded, size_t layers, const float *cosine, const float *sine);
void bfe_add_f32_neon(float *y, const float *x, size_t count);
void bfe_add_scaled_f32_neon(float *y, float factor, const float *x, size_t count);

#endif
