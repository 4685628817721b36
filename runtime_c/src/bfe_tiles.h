/* Matrices in tiles (bfe_kernels.h says how they lie). */
#ifndef BFE_TILES_H
#define BFE_TILES_H

#include "bfe_kernels.h"

/* Bytes of a matrix of this shape and encoding in a layout, and from one of its rows (of its tiles' rows) to the next.
 */
uint64_t bfe_matrix_bytes(bfe_layout layout, uint32_t rows, uint32_t columns, uint16_t encoding);
uint32_t bfe_matrix_stride(bfe_layout layout, uint32_t columns, uint16_t encoding);

/* Writes the tiles of a matrix in rows: bfe_matrix_bytes(BFE_LAYOUT_TILES, ...) bytes. */
void bfe_tile_matrix(const bfe_matrix *rows, uint8_t *tiles);

/* Sets one row, or one column, of an int8 matrix in either layout; `weight` is where the matrix lies. */
void bfe_set_row(const bfe_matrix *matrix, int8_t *weight, size_t row, const int8_t *values);
void bfe_set_column(const bfe_matrix *matrix, int8_t *weight, size_t column, const int8_t *values);

#endif
