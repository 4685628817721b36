/* Chooses kernels, and rearranges the matrices for them. */
#include "bfe_internal.h"
#include "bfe_kernel_sets.h"
#include "bfe_sections.h"
#include "bfe_tiles.h"

#include <string.h>

const char *bfe_kernels_name(uint32_t index) {
    const bfe_kernels *const set = bfe_kernels_at(index);
    return set != NULL ? set->name : NULL;
}

static const bfe_kernels *find(const char *name) {
    const bfe_kernels *set;
    for (uint32_t i = 0; (set = bfe_kernels_at(i)) != NULL; i++)
        if (name == NULL || strcmp(name, set->name) == 0)
            return set;
    return NULL;
}

static uint64_t align(uint64_t bytes) {
    return (bytes + BFE_PREPARED_ALIGNMENT - 1) / BFE_PREPARED_ALIGNMENT * BFE_PREPARED_ALIGNMENT;
}

/* Tiles of all matrices, in the file's order, behind a table of where those of each section are; 0 if it has none. Only
 * counts if `memory` is NULL. */
static uint64_t write_tiles(const bfe_model *model, uint8_t *memory) {
    uint64_t end = align(bfe_required_sections(&model->config) * sizeof end);
    for (uint32_t position = 0; position < bfe_required_sections(&model->config); position++) {
        const bfe_entry entry = bfe_read_entry(model->file, position);
        uint16_t block;
        const bfe_spec *const spec = bfe_spec_at(&model->config, position, &block);
        const int is_matrix = spec->role == BFE_ROLE_WEIGHT;
        const uint64_t offset = is_matrix ? end : 0;
        if (memory != NULL)
            memcpy(memory + position * sizeof offset, &offset, sizeof offset);
        if (!is_matrix)
            continue;
        const bfe_matrix rows = bfe_matrix_of(model, entry.kind, entry.block);
        if (memory != NULL)
            bfe_tile_matrix(&rows, memory + offset);
        end = align(end + bfe_matrix_bytes(BFE_LAYOUT_TILES, rows.rows, rows.columns, rows.encoding));
    }
    return end;
}

size_t bfe_prepared_size(const bfe_model *model, const char *kernels) {
    const bfe_kernels *const set = find(kernels);
    if (model == NULL || model->file == NULL || set == NULL || set->layout == BFE_LAYOUT_ROWS)
        return 0;
    bfe_model in_place = *model;
    in_place.prepared = NULL;
    const uint64_t bytes = write_tiles(&in_place, NULL);
    return (uint64_t)(size_t)bytes == bytes ? (size_t)bytes : 0;
}

bfe_status bfe_prepare(bfe_model *model, const char *kernels, void *memory, size_t size) {
    const bfe_kernels *const set = find(kernels);
    if (model == NULL || model->file == NULL)
        return BFE_BAD_ARGUMENT;
    if (set == NULL)
        return BFE_UNSUPPORTED;
    bfe_model prepared = *model;
    prepared.kernels = set;
    prepared.prepared = NULL;
    if (set->layout == BFE_LAYOUT_TILES) {
        const size_t needed = bfe_prepared_size(model, kernels);
        if (needed == 0 || size < needed)
            return BFE_WORKSPACE_TOO_SMALL;
        if (memory == NULL)
            return BFE_BAD_ARGUMENT;
        if ((uintptr_t)memory % BFE_PREPARED_ALIGNMENT != 0)
            return BFE_MISALIGNED;
        (void)write_tiles(&prepared, memory);
        prepared.prepared = memory;
    }
    *model = prepared;
    return BFE_OK;
}
