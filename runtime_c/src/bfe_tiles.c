#include "bfe_tiles.h"
#include "bfe_format.h"
#include "bfe_sections.h"

#include <string.h>

enum { INT8_ROWS = 16, TRIT_ROWS = 32, TILE_COLUMNS = 4, INT8_TILE = 64, TRITS_TILE = 32 }; /* the last two in bytes */

static uint32_t round_up(uint32_t value, uint32_t to) { return (value + to - 1) / to * to; }

uint32_t bfe_matrix_stride(bfe_layout layout, uint32_t columns, uint16_t encoding) {
    const uint32_t padded = round_up(columns, BFE_COLUMN_BLOCK);
    if (layout == BFE_LAYOUT_TILES)
        return padded / TILE_COLUMNS * (encoding == BFE_ENCODING_INT8 ? INT8_TILE : TRITS_TILE);
    return (uint32_t)bfe_section_bytes(encoding, 1, columns);
}

uint64_t bfe_matrix_bytes(bfe_layout layout, uint32_t rows, uint32_t columns, uint16_t encoding) {
    const uint64_t stride = bfe_matrix_stride(layout, columns, encoding);
    if (layout == BFE_LAYOUT_ROWS)
        return rows * stride;
    return round_up(rows, BFE_TILE_ROWS) / (encoding == BFE_ENCODING_INT8 ? INT8_ROWS : TRIT_ROWS) * stride;
}

/* The trits of four columns from `column` on, a multiple of four, as codes in four bytes; 1, a trit of 0, behind the
 * end. */
static void read_codes(const bfe_matrix *rows, const uint8_t *row, uint32_t column, uint8_t *codes) {
    static const uint8_t powers[] = {1, 3, 9, 27, 81};
    for (uint32_t c = 0; c < TILE_COLUMNS; c++) {
        const uint32_t i = column + c;
        if (i >= rows->columns)
            codes[c] = 1;
        else if (rows->encoding == BFE_ENCODING_TRITS2)
            codes[c] = row[i / 4] >> 2 * (i % 4) & 3;
        else
            codes[c] = (uint8_t)(row[i / 5] / powers[i % 5] % 3);
    }
}

static void tile_trits(const bfe_matrix *rows, uint8_t *tiles) {
    const uint32_t stride = bfe_matrix_stride(BFE_LAYOUT_TILES, rows->columns, rows->encoding);
    const uint8_t *const weight = rows->weight;
    const size_t bytes = (size_t)bfe_matrix_bytes(BFE_LAYOUT_TILES, rows->rows, rows->columns, rows->encoding);
    memset(tiles, 0x55, bytes); /* trits of 0 */
    for (uint32_t r = 0; r < rows->rows; r++) {
        const uint32_t shift = r % TRIT_ROWS / 8 * 2;
        uint8_t *to = tiles + (size_t)(r / TRIT_ROWS) * stride + (size_t)(r % 8) * TILE_COLUMNS;
        for (uint32_t column = 0; column < rows->columns; column += TILE_COLUMNS, to += TRITS_TILE) {
            uint8_t codes[TILE_COLUMNS];
            read_codes(rows, weight + (size_t)r * rows->stride, column, codes);
            for (int i = 0; i < TILE_COLUMNS; i++)
                to[i] = (uint8_t)((to[i] & ~(3 << shift)) | codes[i] << shift);
        }
    }
}

void bfe_tile_matrix(const bfe_matrix *rows, uint8_t *tiles) {
    if (rows->encoding != BFE_ENCODING_INT8) {
        tile_trits(rows, tiles);
        return;
    }
    bfe_matrix matrix = *rows;
    matrix.layout = BFE_LAYOUT_TILES;
    matrix.stride = bfe_matrix_stride(BFE_LAYOUT_TILES, rows->columns, BFE_ENCODING_INT8);
    memset(tiles, 0, (size_t)bfe_matrix_bytes(BFE_LAYOUT_TILES, rows->rows, rows->columns, BFE_ENCODING_INT8));
    for (size_t r = 0; r < rows->rows; r++)
        bfe_set_row(&matrix, (int8_t *)tiles, r, (const int8_t *)rows->weight + r * rows->stride);
}

void bfe_set_row(const bfe_matrix *matrix, int8_t *weight, size_t row, const int8_t *values) {
    if (matrix->layout == BFE_LAYOUT_ROWS) {
        memcpy(weight + row * matrix->stride, values, matrix->columns);
        return;
    }
    int8_t *to = weight + row / INT8_ROWS * matrix->stride + row % INT8_ROWS * TILE_COLUMNS;
    const size_t whole = matrix->columns / TILE_COLUMNS;
    for (size_t i = 0; i < whole; i++)
        memcpy(to + i * INT8_TILE, values + i * TILE_COLUMNS, TILE_COLUMNS);
    memcpy(to + whole * INT8_TILE, values + whole * TILE_COLUMNS, matrix->columns % TILE_COLUMNS);
}

void bfe_set_column(const bfe_matrix *matrix, int8_t *weight, size_t column, const int8_t *values) {
    const int is_tiled = matrix->layout == BFE_LAYOUT_TILES;
    const size_t first = is_tiled ? column / TILE_COLUMNS * INT8_TILE + column % TILE_COLUMNS : column;
    const size_t group = is_tiled ? INT8_ROWS : matrix->rows;
    const size_t step = is_tiled ? TILE_COLUMNS : matrix->stride;
    for (size_t r = 0; r < matrix->rows; r += group) {
        const size_t count = matrix->rows - r < group ? matrix->rows - r : group;
        int8_t *const to = weight + first + r / group * matrix->stride;
        for (size_t i = 0; i < count; i++)
            to[i * step] = values[r + i];
    }
}
