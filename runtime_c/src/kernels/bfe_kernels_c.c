#include "../bfe_kernels.h"

static size_t passes(const bfe_matrix *matrix, size_t count) {
    (void)matrix;
    return count;
}

const bfe_kernels bfe_kernels_c = {
    .name = "c",
    .layout = BFE_LAYOUT_ROWS,
    .product_int8 = bfe_product_int8_c,
    .product_trits2 = bfe_product_trits2_c,
    .product_trits3 = bfe_product_trits3_c,
    .passes = passes,
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
