/*
 * Products with int8 weights in place, four columns at a time: each weight is loaded once for four products, and the
 * activations are expanded in advance to what multiplying takes. How, the including file defines:
 *
 *     quad      four elements of a column of activations, expanded, in 8 bytes
 *     weights   four weights, expanded
 *     quad expand(const int8_t *q)
 *     weights load(const int8_t *weight)      not aligned
 *     int32_t add_products(weights w, const quad *q, size_t c, int32_t sum)      adds the four products of w and q[c]
 *
 * |sum| <= 16384 * 127 * 128 < 2^28.
 */

/* Columns of the matrix whose activations fit into the scratch at once. */
enum { MOST_EXPANDED = BFE_TABLES * BFE_TABLE_ENTRIES * sizeof(uint32_t) / (BFE_COLUMNS * sizeof(quad)) * 4 };

/* Part of a product's columns: from element `first` on `whole`, a multiple of four, and then 0..3. Sums wait in y for
 * the next part. */
typedef struct part {
    size_t first, whole, rest;
    int is_first, is_last;
} part;

/* What is left of a row behind its last four. */
static weights load_last(const int8_t *weight, size_t count) {
    int8_t last[4] = {0, 0, 0, 0};
    for (size_t i = 0; i < count; i++)
        last[i] = weight[i];
    return load(last);
}

BFE_LOOP void multiply_four(const bfe_matrix *matrix, const part *p, const bfe_columns *x, const quad *q) {
    const int8_t *row = (const int8_t *)matrix->weight + p->first;
    const float *scale = p->is_last ? matrix->scale : NULL;
    const float s0 = x->s[0], s1 = x->s[1], s2 = x->s[2], s3 = x->s[3];
    float *y = x->y[0];
    const ptrdiff_t to1 = x->y[1] - y, to2 = x->y[2] - y, to3 = x->y[3] - y;
    const quad *const q_end = q + p->whole;
    const size_t rest = p->rest, stride = matrix->stride;
    const int is_first = p->is_first;
    for (float *const y_end = y + matrix->rows; y != y_end; y++, row += stride) {
        const int8_t *w = row;
        const quad *at = q;
        int32_t *const y_sum = (int32_t *)y;
        int32_t sum0 = 0, sum1 = 0, sum2 = 0, sum3 = 0;
        if (!is_first)
            sum0 = y_sum[0], sum1 = y_sum[to1], sum2 = y_sum[to2], sum3 = y_sum[to3];
        for (; at != q_end; w += 4, at += BFE_COLUMNS) {
            const weights four = load(w);
            sum0 = add_products(four, at, 0, sum0);
            sum1 = add_products(four, at, 1, sum1);
            sum2 = add_products(four, at, 2, sum2);
            sum3 = add_products(four, at, 3, sum3);
        }
        if (rest != 0) {
            const weights last = load_last(w, rest);
            sum0 = add_products(last, at, 0, sum0);
            sum1 = add_products(last, at, 1, sum1);
            sum2 = add_products(last, at, 2, sum2);
            sum3 = add_products(last, at, 3, sum3);
        }
        if (scale == NULL) {
            y_sum[0] = sum0, y_sum[to1] = sum1, y_sum[to2] = sum2, y_sum[to3] = sum3;
        } else {
            const float row_scale = *scale++;
            y[0] = (float)sum0 * (s0 * row_scale);
            y[to1] = (float)sum1 * (s1 * row_scale);
            y[to2] = (float)sum2 * (s2 * row_scale);
            y[to3] = (float)sum3 * (s3 * row_scale);
        }
    }
}

/* The same for a single column. */
BFE_LOOP void multiply_one(const bfe_matrix *matrix, const part *p, const bfe_columns *x, const quad *q) {
    const int8_t *row = (const int8_t *)matrix->weight + p->first;
    const float *const scale = p->is_last ? matrix->scale : NULL;
    for (size_t r = 0; r < matrix->rows; r++, row += matrix->stride) {
        const int8_t *w = row;
        const quad *at = q;
        int32_t *const y = (int32_t *)x->y[0] + r;
        int32_t sum = p->is_first ? 0 : *y;
        for (const int8_t *const end = row + p->whole; w != end; w += 4)
            sum = add_products(load(w), at++, 0, sum);
        if (p->rest != 0)
            sum = add_products(load_last(w, p->rest), at, 0, sum);
        if (scale == NULL)
            *y = sum;
        else
            x->y[0][r] = (float)sum * (x->s[0] * scale[r]);
    }
}

/* Four elements after four, the columns side by side; or a single column. */
BFE_LOOP void expand_columns(const bfe_columns *x, size_t columns, const part *p, quad *to) {
    for (size_t i = p->first; i < p->first + p->whole + p->rest; i += 4)
        for (size_t c = 0; c < columns; c++)
            *to++ = expand(x->q[c] + i);
}

static void product(const bfe_matrix *matrix, const int8_t *q, size_t q_stride, const float *s, size_t count, float *y,
                    size_t y_stride, quad *scratch) {
    for (size_t c = 0, taken; c < count; c += taken) {
        const bfe_columns x = bfe_columns_from(c, count, q, q_stride, matrix->scale == NULL ? NULL : s, y, y_stride);
        taken = count - c < 3 ? 1 : BFE_COLUMNS; /* two by themselves take no more than four */
        for (size_t first = 0; first < matrix->columns; first += MOST_EXPANDED) {
            const size_t rest = matrix->columns - first;
            const size_t size = rest < MOST_EXPANDED ? rest : MOST_EXPANDED;
            const part p = {first, size / 4 * 4, size % 4, first == 0, rest == size};
            expand_columns(&x, taken, &p, scratch);
            (taken == 1 ? multiply_one : multiply_four)(matrix, &p, &x, scratch);
        }
    }
}
