#include "bfe_internal.h"
#include "bfe_kernel_sets.h"
#include "bfe_sections.h"
#include "bfe_validate.h"

#include <string.h>

const char *bfe_status_text(bfe_status status) {
    switch (status) {
    case BFE_OK:
        return "ok";
    case BFE_NOT_A_MODEL:
        return "not a model";
    case BFE_TRUNCATED:
        return "truncated";
    case BFE_CORRUPT:
        return "corrupt";
    case BFE_WRONG_BYTE_ORDER:
        return "wrong byte order";
    case BFE_TOO_NEW:
        return "format version too new";
    case BFE_UNSUPPORTED:
        return "unsupported feature";
    case BFE_WORKSPACE_TOO_SMALL:
        return "workspace too small";
    case BFE_MISALIGNED:
        return "misaligned";
    case BFE_BAD_ARGUMENT:
        return "bad argument";
    }
    return "unknown status";
}

/* An optional section's entry; all zero if the file has none. At most three known ones follow the required sections. */
static bfe_entry optional_section(const bfe_model *model, uint16_t kind) {
    const bfe_entry none = {0, 0, 0, 0, 0};
    const uint32_t first = bfe_required_sections(&model->config);
    for (uint32_t i = first; i < model->section_count && i < first + 3; i++) {
        const bfe_entry entry = bfe_read_entry(model->file, i);
        if (entry.kind == kind)
            return entry;
    }
    return none;
}

const char *bfe_kernels_used(const bfe_model *model) {
    return model != NULL && model->kernels != NULL ? model->kernels->name : "none";
}

bfe_status bfe_open(bfe_model *model, const void *file, size_t size, bfe_diag *diag) {
    bfe_diag ignored;
    if (diag == NULL)
        diag = &ignored;
    memset(diag, 0, sizeof *diag);
    diag->block = BFE_NO_BLOCK;
    if (model == NULL)
        return BFE_BAD_ARGUMENT;
    memset(model, 0, sizeof *model);
    if (file == NULL)
        return BFE_BAD_ARGUMENT;
    if ((uintptr_t)file % BFE_ALIGNMENT != 0)
        return BFE_MISALIGNED;

    bfe_config config;
    const bfe_status status = bfe_validate(file, size, &config, diag);
    if (status != BFE_OK)
        return status;
    model->config = config;
    model->file = file;
    model->file_bytes = (uint32_t)size;
    model->section_count = bfe_read_u32(model->file + BFE_AT_SECTION_COUNT);
    model->kernels = bfe_kernels_in_place;
    model->golden_count = optional_section(model, BFE_KIND_GOLDEN_OUTPUT).bytes / (4 * config.classes);
    return BFE_OK;
}

const void *bfe_section(const bfe_model *model, uint16_t kind, uint32_t block) {
    return model->file + bfe_read_entry(model->file, bfe_section_position(&model->config, kind, block)).offset;
}

size_t bfe_input_size(const bfe_model *model) {
    if (model == NULL)
        return 0;
    return (size_t)model->config.image_height * model->config.image_width * model->config.channels;
}

bfe_status bfe_golden(const bfe_model *model, uint32_t index, const uint8_t **input, const float **expected) {
    if (model == NULL || input == NULL || expected == NULL || index >= model->golden_count)
        return BFE_BAD_ARGUMENT;
    const uint8_t *const inputs = model->file + optional_section(model, BFE_KIND_GOLDEN_INPUT).offset;
    const void *const outputs = model->file + optional_section(model, BFE_KIND_GOLDEN_OUTPUT).offset;
    *input = inputs + index * bfe_input_size(model);
    *expected = (const float *)outputs + (size_t)index * model->config.classes;
    return BFE_OK;
}

bfe_status bfe_label(const bfe_model *model, uint32_t index, const char **text, size_t *length) {
    if (model == NULL || text == NULL || length == NULL || index >= model->config.classes)
        return BFE_BAD_ARGUMENT;
    const bfe_entry entry = optional_section(model, BFE_KIND_LABELS);
    if (entry.kind == 0)
        return BFE_BAD_ARGUMENT;

    const uint8_t *at = model->file + entry.offset;
    const uint8_t *const end = at + entry.bytes;
    for (; index > 0; index--) /* V18: there are classes - 1 line feeds */
        at = (const uint8_t *)memchr(at, '\n', (size_t)(end - at)) + 1;
    const uint8_t *const stop = memchr(at, '\n', (size_t)(end - at));
    *text = (const char *)at;
    *length = (size_t)((stop != NULL ? stop : end) - at);
    return BFE_OK;
}
