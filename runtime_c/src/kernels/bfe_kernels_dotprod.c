#include "bfe_functions_neon.h"

#ifdef BFE_HAS_NEON_KERNELS

const bfe_kernels bfe_kernels_dotprod = {
    .name = "dotprod",
    .layout = BFE_LAYOUT_TILES,
    .product_int8 = bfe_product_int8_dotprod,
    .product_trits2 = bfe_product_trits_dotprod,
    .product_trits3 = bfe_product_trits_dotprod,
    .quantise = bfe_quantise_f32_neon,
    .layer_norm = bfe_layer_norm_f32_neon,
    .softmax = bfe_softmax_f32_neon,
    .gelu = bfe_gelu_f32_neon,
    .sincos = bfe_sincos_f16_neon,
    .rotate = bfe_rotate_f32_neon,
    .add = bfe_add_f32_neon,
    .add_scaled = bfe_add_scaled_f32_neon,
    .set_scaled = bfe_set_scaled_f32_c,
};

#endif
