#include "bfe_functions_neon.h"

#ifdef BFE_HAS_NEON_KERNELS

#include "bfe_trits_neon.h"

/* From so many columns on, tables are faster than multiplying. They are made for 8, 16 or 32 columns. */
enum { FEWEST_FOR_TABLES = 7 };

static size_t at_most(size_t value, size_t bound) { return value < bound ? value : bound; }

void bfe_product_trits_neon(const bfe_matrix *matrix, const int8_t *q, size_t q_stride, const float *s, size_t count,
                            void *y, size_t y_stride, void *scratch) {
    for (size_t c = 0, n; c < count; c += n) {
        const int8_t *const from = q + c * q_stride;
        float *const to = (float *)y + c * y_stride;
        n = at_most(count - c, BFE_TABLE_COLUMNS);
        if (n >= FEWEST_FOR_TABLES) {
            bfe_look_up_trits_neon(matrix, from, q_stride, s + c, n, to, y_stride, scratch);
        } else {
            n = at_most(n, BFE_MULTIPLIED_COLUMNS);
            bfe_multiply_trits_neon(matrix, from, q_stride, s + c, n, to, y_stride);
        }
    }
}

#endif
