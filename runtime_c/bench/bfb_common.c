/* What the benchmarked pieces share: memory, kernels and matrices. */
#include "bfb_bench.h"
#include "bfe_format.h"
#include "bfe_kernel_sets.h"
#include "bfe_tiles.h"

#include <string.h>

void *bfb_take(bfb_memory *memory, size_t bytes) {
    void *const piece = memory->base ? memory->base + memory->used : NULL;
    memory->used += (bytes + BFE_TILES_ALIGNMENT - 1) / BFE_TILES_ALIGNMENT * BFE_TILES_ALIGNMENT;
    return piece;
}

void *bfb_copy(bfb_memory *memory, const void *from, size_t bytes) {
    void *const piece = bfb_take(memory, bytes);
    if (piece)
        memcpy(piece, from, bytes);
    return piece;
}

const bfe_kernels *bfb_kernels(const char *name) {
    for (uint32_t i = 0;; i++) {
        const bfe_kernels *const set = bfe_kernels_at(i);
        if (!set || !name[0] || strcmp(set->name, name) == 0)
            return set;
    }
}

bfb_matrix bfb_load(bfb_memory *memory, const bfe_kernels *kernels, const bfb_weight *weight) {
    bfb_matrix m;
    bfe_matrix rows;
    rows.weight = weight->weight;
    rows.rows = weight->rows;
    rows.columns = weight->columns;
    rows.encoding = (uint16_t)weight->encoding;
    rows.layout = BFE_LAYOUT_ROWS;
    rows.stride = bfe_matrix_stride(BFE_LAYOUT_ROWS, rows.columns, rows.encoding);
    rows.bytes = 0; /* not counted here */
    rows.scale = bfb_copy(memory, weight->scale, (rows.encoding == BFE_ENCODING_INT8 ? rows.rows : 1) * sizeof(float));
    m.matrix = rows;
    m.matrix.layout = (uint16_t)kernels->layout;
    m.matrix.stride = bfe_matrix_stride(kernels->layout, rows.columns, rows.encoding);
    const uint64_t bytes = bfe_matrix_bytes(kernels->layout, rows.rows, rows.columns, rows.encoding);
    uint8_t *const stored = bfb_take(memory, (size_t)bytes);
    m.matrix.weight = stored;
    if (stored && kernels->layout == BFE_LAYOUT_TILES)
        bfe_tile_matrix(&rows, stored);
    else if (stored)
        memcpy(stored, rows.weight, (size_t)bytes);
    m.product = rows.encoding == BFE_ENCODING_INT8     ? kernels->product_int8
                : rows.encoding == BFE_ENCODING_TRITS2 ? kernels->product_trits2
                                                       : kernels->product_trits3;
    return m;
}

void bfb_nothing(const void *memory) { (void)memory; }
