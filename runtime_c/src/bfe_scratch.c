#include "bfe_kernels.h"

static size_t round_up(size_t value, size_t to) { return (value + to - 1) / to * to; }

static size_t at_most(size_t value, size_t bound) { return value < bound ? value : bound; }

/*
 * TILES: tables of 81 partial sums of four columns, 32 at a time; vectors transposed; sums of up to 1024 rows of
 * them, or of 2048 of half as many; and to align all that. Or, what needs less, tiles of 32 rows expanded to bytes.
 * ROWS: four tables of the 243 sums that a byte of trits can stand for, of two columns in a word; their sums, all rows.
 */
size_t bfe_scratch_bytes(bfe_layout layout, uint32_t rows, uint32_t columns) {
    const size_t padded_rows = round_up(rows, BFE_TILE_ROWS), padded_columns = round_up(columns, BFE_COLUMN_BLOCK);
    if (layout == BFE_LAYOUT_TILES)
        return 4 * 81 * 32 * sizeof(int16_t) + at_most(padded_columns, BFE_MOST_TRITS) * 32 * sizeof(int16_t) +
               at_most(padded_rows, 1024) * 32 * sizeof(int16_t) + BFE_TILES_ALIGNMENT;
    return (4 * 243 + rows) * sizeof(uint32_t);
}
