#include "../bfe_kernels.h"

void bfe_product_int8_tiles(const bfe_matrix *matrix, const int8_t *q, size_t q_stride, const float *s, size_t count,
                            void *y, size_t y_stride, void *scratch);
void bfe_product_trits_tiles(const bfe_matrix *matrix, const int8_t *q, size_t q_stride, const float *s, size_t count,
                             void *y, size_t y_stride, void *scratch);

const bfe_kernels bfe_kernels_tiles = {
    .name = "tiles",
    .layout = BFE_LAYOUT_TILES,
    .product_int8 = bfe_product_int8_tiles,
    .product_trits2 = bfe_product_trits_tiles,
    .product_trits3 = bfe_product_trits_tiles,
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
