/* In plain C. */
#include "bfe_product_tables.h"

typedef struct quad {
    int16_t q[4];
} quad;

typedef struct weights {
    int32_t w[4];
} weights;

static inline quad expand(const int8_t *q) {
    const quad expanded = {{q[0], q[1], q[2], q[3]}};
    return expanded;
}

static inline weights load(const int8_t *weight) {
    const weights four = {{weight[0], weight[1], weight[2], weight[3]}};
    return four;
}

static inline int32_t add_products(weights w, const quad *q, size_t c, int32_t sum) {
    const int16_t *const x = q[c].q;
    return sum + w.w[0] * x[0] + w.w[1] * x[1] + w.w[2] * x[2] + w.w[3] * x[3];
}

#include "bfe_product_int8_rows.h"

void bfe_product_int8_tables(const bfe_matrix *matrix, const int8_t *q, size_t q_stride, const float *s, size_t count,
                             void *y, size_t y_stride, void *scratch) {
    product(matrix, q, q_stride, s, count, y, y_stride, scratch);
}
