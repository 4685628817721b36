/* The end of products on aarch64: sums of a matrix's rows from `first` on become y, as bfe_product says. `sum` holds 16
 * rows (int8) or 32 (trits) a column, also those behind the matrix's last. */
#ifndef BFE_STORE_NEON_H
#define BFE_STORE_NEON_H

#include "../bfe_kernels.h"

void bfe_store_int8_neon(const bfe_matrix *matrix, size_t first, const int32_t *sum, const float *s, size_t count,
                         void *y, size_t y_stride);
void bfe_store_trits_neon(const bfe_matrix *matrix, size_t first, const int32_t *sum, const float *s, size_t count,
                          void *y, size_t y_stride);

/* For sums in parts, of trits: y holds the sums of the earlier parts as integers. */
void bfe_store_part_neon(const bfe_matrix *matrix, size_t first, const int32_t *sum, size_t count, void *y,
                         size_t y_stride);
void bfe_add_parts_neon(const bfe_matrix *matrix, size_t first, int32_t *sum, size_t count, const void *y,
                        size_t y_stride);

#endif
