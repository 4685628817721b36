/* Two ways to multiply trit tiles with columns on aarch64 without dot products. Both write y as bfe_product says. */
#ifndef BFE_TRITS_NEON_H
#define BFE_TRITS_NEON_H

#include "../bfe_kernels.h"

enum { BFE_MULTIPLIED_COLUMNS = 2, BFE_TABLE_COLUMNS = 32 };

/* Multiplies: for few columns, 1 or 2 at a time. */
void bfe_multiply_trits_neon(const bfe_matrix *matrix, const int8_t *q, size_t q_stride, const float *s, size_t count,
                             float *y, size_t y_stride);

/* Looks sums of four products up, in tables made for 1 to BFE_TABLE_COLUMNS columns ("four Russians"). */
void bfe_look_up_trits_neon(const bfe_matrix *matrix, const int8_t *q, size_t q_stride, const float *s, size_t count,
                            float *y, size_t y_stride, void *scratch);

#endif
