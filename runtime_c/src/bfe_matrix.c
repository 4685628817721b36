#include "bfe_internal.h"
#include "bfe_kernels.h"
#include "bfe_sections.h"

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
    matrix.bytes = entry.bytes + bfe_read_entry(model->file, position + 1).bytes;
    return matrix;
}

void bfe_matvec(const bfe_matrix *matrix, const int8_t *q, float s, float *y) {
    switch (matrix->encoding) {
    case BFE_ENCODING_INT8:
        bfe_matvec_int8(matrix->weight, matrix->scale, matrix->rows, matrix->columns, q, s, y);
        break;
    case BFE_ENCODING_TRITS2:
        bfe_matvec_trits2(matrix->weight, matrix->scale[0], matrix->rows, matrix->columns, q, s, y);
        break;
    default: /* rule V11 leaves nothing else */
        bfe_matvec_trits3(matrix->weight, matrix->scale[0], matrix->rows, matrix->columns, q, s, y);
        break;
    }
}
