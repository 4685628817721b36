/* Dot products of tiles with up to four columns by SDOT. */
#ifndef BFE_TILE_DOTPROD_NEON_H
#define BFE_TILE_DOTPROD_NEON_H

#include "../bfe_kernels.h"

#include <arm_neon.h>

/* Functions with this may be compiled for a processor without dot products: nothing calls them there. */
#ifdef __ARM_FEATURE_DOTPROD
#define BFE_DOTPROD
#else
#define BFE_DOTPROD __attribute__((target("arch=armv8.2-a+dotprod")))
#endif

enum { BFE_DOT_COLUMNS = 4 };

/* sum[c * sum_stride + r] = start[c] + the int8 tiles' row r < 16 times column c < count <= 4. */
void bfe_tile_int8_dotprod(const int8_t *tile, size_t columns, const int8_t *q, size_t q_stride, size_t count,
                           const int32_t *start, int32_t *sum, size_t sum_stride);

/* sum[32 * c + r] = the trit tiles' row r < 32 times column c < count <= 4, whose values add up to sum_of_q[c]. */
void bfe_tile_trits_dotprod(const uint8_t *tile, size_t columns, const int8_t *q, size_t q_stride, size_t count,
                            const int32_t *sum_of_q, int32_t *sum);

#endif
