#include "bfe_avx512vnni.h"

#ifdef BFE_HAS_X86_KERNELS

const bfe_kernels bfe_kernels_avx512vnni = {
    .name = "avx512vnni",
    .layout = BFE_LAYOUT_TILES,
    .product_int8 = bfe_product_int8_avx512vnni,
    .product_trits2 = bfe_product_trits_avx512vnni,
    .product_trits3 = bfe_product_trits_avx512vnni,
    .quantise = bfe_quantise_f32_avx512vnni,
    .layer_norm = bfe_layer_norm_f32_avx512vnni,
    .softmax = bfe_softmax_f32_avx512vnni,
    .gelu = bfe_gelu_f32_avx512vnni,
    .sincos = bfe_sincos_f16_avx512vnni,
    .rotate = bfe_rotate_f32_avx512vnni,
    .add = bfe_add_f32_avx512vnni,
    .add_scaled = bfe_add_scaled_f32_avx512vnni,
    .set_scaled = bfe_set_scaled_f32_avx512vnni,
};

#endif
