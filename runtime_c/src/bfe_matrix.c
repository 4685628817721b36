#include "bfe_internal.h"
#include "bfe_sections.h"
#include "bfe_tiles.h"

#include <string.h>

bfe_matrix bfe_matrix_of(const bfe_model *model, uint16_t weight_kind, uint32_t block) {
    const uint32_t position = bfe_section_position(&model->config, weight_kind, block);
    const bfe_entry entry = bfe_read_entry(model->file, position);
    uint16_t spec_block;
    const bfe_spec *const spec = bfe_spec_at(&model->config, position, &spec_block);

    bfe_matrix matrix;
    matrix.weight = model->file + entry.offset;
    matrix.scale = bfe_section(model, (uint16_t)(weight_kind + 1), block);
    matrix.rows = bfe_spec_rows(spec, &model->config);
    matrix.columns = bfe_spec_columns(spec, &model->config);
    matrix.encoding = entry.encoding;
    matrix.layout = BFE_LAYOUT_ROWS;
    matrix.bytes = entry.bytes;
    if (model->prepared != NULL) {
        uint64_t offset;
        memcpy(&offset, model->prepared + position * sizeof offset, sizeof offset);
        matrix.weight = model->prepared + offset;
        matrix.layout = BFE_LAYOUT_TILES;
        matrix.bytes = (uint32_t)bfe_matrix_bytes(BFE_LAYOUT_TILES, matrix.rows, matrix.columns, matrix.encoding);
    }
    matrix.stride = bfe_matrix_stride((bfe_layout)matrix.layout, matrix.columns, matrix.encoding);
    matrix.bytes += bfe_read_entry(model->file, position + 1).bytes;
    return matrix;
}

float bfe_quantise_column(const bfe_model *model, const float *x, size_t count, int8_t *q) {
    memset(q + count, 0, bfe_pad_columns(count) - count);
    return model->kernels->quantise(x, count, q);
}

void bfe_multiply(const bfe_job *job, uint32_t worker, const bfe_matrix *matrix, const int8_t *q, size_t q_stride,
                  const float *s, size_t count, void *y, size_t y_stride, void *scratch) {
    const bfe_kernels *const kernels = job->model->kernels;
    bfe_product *const product = matrix->encoding == BFE_ENCODING_INT8     ? kernels->product_int8
                                 : matrix->encoding == BFE_ENCODING_TRITS2 ? kernels->product_trits2
                                                                           : kernels->product_trits3;
    const size_t passes = kernels->layout == BFE_LAYOUT_TILES ? 1 : kernels->passes(matrix, count);
    bfe_count(job, worker, passes * (uint64_t)matrix->bytes);
    product(matrix, q, q_stride, s, count, y, y_stride, scratch);
}
