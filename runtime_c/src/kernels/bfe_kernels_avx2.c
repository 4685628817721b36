#include "bfe_avx2.h"

#ifdef BFE_HAS_X86_KERNELS

const bfe_kernels bfe_kernels_avx2 = {
    .name = "avx2",
    .layout = BFE_LAYOUT_TILES,
    .product_int8 = bfe_product_int8_avx2,
    .product_trits2 = bfe_product_trits_avx2,
    .product_trits3 = bfe_product_trits_avx2,
    .quantise = bfe_quantise_f32_avx2,
    .layer_norm = bfe_layer_norm_f32_avx2,
    .softmax = bfe_softmax_f32_avx2,
    .gelu = bfe_gelu_f32_avx2,
    .sincos = bfe_sincos_f16_avx2,
    .rotate = bfe_rotate_f32_avx2,
    .add = bfe_add_f32_avx2,
    .add_scaled = bfe_add_scaled_f32_avx2,
    .set_scaled = bfe_set_scaled_f32_avx2,
};

#endif
