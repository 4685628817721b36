#include "bfe_product_tables.h"

const bfe_kernels bfe_kernels_tables = {
    .name = "tables",
    .layout = BFE_LAYOUT_ROWS,
    .product_int8 = bfe_product_int8_tables,
    .product_trits2 = bfe_product_trits2_tables,
    .product_trits3 = bfe_product_trits3_tables,
    .passes = bfe_passes_tables,
    .quantise = bfe_quantise_f32_c,
    .layer_norm = bfe_layer_norm_f32_c,
    .softmax = bfe_softmax_f32_c,
    .gelu = bfe_gelu_f32_c,
    .sincos = bfe_sincos_f16_c,
    .rotate = bfe_rotate_f32_c,
    .add = bfe_add_f32_c,
    .add_scaled = bfe_add_scaled_f32_c,
    .set_scaled = bfe_set_scaled_f32_c,
};
