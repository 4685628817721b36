/* Two multiplications and their additions in one instruction, SMLAD: of Cortex-M4 and ARMv6. */
#include "bfe_product_tables.h"

#ifdef __ARM_FEATURE_SIMD32

/* Of four bytes the first and third as 16-bit halves, and the second and fourth. */
typedef struct quad {
    uint32_t even, odd;
} quad;
typedef quad weights;

static inline quad load(const int8_t *bytes) {
    quad x;
    uint32_t word;
    memcpy(&word, bytes, sizeof word);
    __asm__("sxtb16 %0, %1" : "=r"(x.even) : "r"(word));
    __asm__("sxtb16 %0, %1, ror #8" : "=r"(x.odd) : "r"(word));
    return x;
}

static inline quad expand(const int8_t *q) { return load(q); }

static inline __attribute__((always_inline)) int32_t add_products(weights w, const quad *q, size_t c, int32_t sum) {
    uint32_t even = q[c].even, odd = q[c].odd;
#if defined(__thumb2__) && defined(__OPTIMIZE__) /* both in one instruction, which compilers do not find */
    __asm__("ldrd %0, %1, [%2, %3]"
            : "=&r"(even), "=r"(odd)
            : "r"(q), "i"(c * sizeof *q), "m"(*(const quad(*)[BFE_COLUMNS])q));
#endif
    __asm__("smlad %0, %1, %2, %0" : "+r"(sum) : "r"(w.even), "r"(even));
    __asm__("smlad %0, %1, %2, %0" : "+r"(sum) : "r"(w.odd), "r"(odd));
    return sum;
}

#include "bfe_product_int8_rows.h"

void bfe_product_int8_dsp(const bfe_matrix *matrix, const int8_t *q, size_t q_stride, const float *s, size_t count,
                          void *y, size_t y_stride, void *scratch) {
    product(matrix, q, q_stride, s, count, y, y_stride, scratch);
}

#endif
