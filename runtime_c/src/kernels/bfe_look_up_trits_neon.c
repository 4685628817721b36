#include "bfe_trits_neon.h"

#ifdef BFE_HAS_NEON_KERNELS

#include "bfe_store_neon.h"

#include <arm_neon.h>
#include <string.h>

/*
 * Four trits have 81 values. For every four columns of the matrix, a table holds all 81 sums of the four values of q,
 * with signs, for up to 32 columns of q side by side: then a row's four trits are one index, and one load and addition
 * are 128 products. Four tables at a time fit in the first level of cache.
 *
 * Indices and sums of a strip of 32 rows are in the order in which they come out of the tiles: 16 * h + 4 * f + r is
 * row 8 * f + 4 * h + r, f, r < 4, h < 2.
 */
enum { TABLES = 4, ENTRIES = 81, STRIP = 32, TILE = 32, LANES = 8, ROWS = 1024 };

/* `width` columns of q, a multiple of LANES, 16 bits each, up to BFE_TABLE_COLUMNS: so wide is a table's entry. */
typedef struct workspace {
    size_t width;
    int16_t *tables; /* [TABLES][ENTRIES][width] */
    int16_t *q;      /* [up to BFE_MOST_TRITS][width] */
    int16_t *sums;   /* [up to ROWS][width]; |sum| <= 256 * 127 < 2^15 */
} workspace;

static size_t at_most(size_t value, size_t bound) { return value < bound ? value : bound; }

static inline void transpose(int16x8_t v[8]) {
    const int16x8x2_t a = vtrnq_s16(v[0], v[1]), b = vtrnq_s16(v[2], v[3]);
    const int16x8x2_t c = vtrnq_s16(v[4], v[5]), d = vtrnq_s16(v[6], v[7]);
    const int32x4x2_t ab0 = vtrnq_s32(vreinterpretq_s32_s16(a.val[0]), vreinterpretq_s32_s16(b.val[0]));
    const int32x4x2_t ab1 = vtrnq_s32(vreinterpretq_s32_s16(a.val[1]), vreinterpretq_s32_s16(b.val[1]));
    const int32x4x2_t cd0 = vtrnq_s32(vreinterpretq_s32_s16(c.val[0]), vreinterpretq_s32_s16(d.val[0]));
    const int32x4x2_t cd1 = vtrnq_s32(vreinterpretq_s32_s16(c.val[1]), vreinterpretq_s32_s16(d.val[1]));
#define LOW(x, y) vreinterpretq_s16_s64(vtrn1q_s64(vreinterpretq_s64_s32(x), vreinterpretq_s64_s32(y)))
#define HIGH(x, y) vreinterpretq_s16_s64(vtrn2q_s64(vreinterpretq_s64_s32(x), vreinterpretq_s64_s32(y)))
    v[0] = LOW(ab0.val[0], cd0.val[0]);
    v[1] = LOW(ab1.val[0], cd1.val[0]);
    v[2] = LOW(ab0.val[1], cd0.val[1]);
    v[3] = LOW(ab1.val[1], cd1.val[1]);
    v[4] = HIGH(ab0.val[0], cd0.val[0]);
    v[5] = HIGH(ab1.val[0], cd1.val[0]);
    v[6] = HIGH(ab0.val[1], cd0.val[1]);
    v[7] = HIGH(ab1.val[1], cd1.val[1]);
#undef LOW
#undef HIGH
}

/* q, `columns` of it, a multiple of LANES, with the `count` columns side by side; the last fills up the width. */
static void interleave(const workspace *w, const int8_t *q, size_t q_stride, size_t columns, size_t count) {
    for (size_t lane = 0; lane < w->width; lane += LANES) {
        const int8_t *from[LANES];
        for (size_t c = 0; c < LANES; c++)
            from[c] = q + at_most(lane + c, count - 1) * q_stride;
        for (size_t i = 0; i < columns; i += LANES) {
            int16x8_t v[LANES] = {vmovl_s8(vld1_s8(from[0] + i)), vmovl_s8(vld1_s8(from[1] + i)),
                                  vmovl_s8(vld1_s8(from[2] + i)), vmovl_s8(vld1_s8(from[3] + i)),
                                  vmovl_s8(vld1_s8(from[4] + i)), vmovl_s8(vld1_s8(from[5] + i)),
                                  vmovl_s8(vld1_s8(from[6] + i)), vmovl_s8(vld1_s8(from[7] + i))};
            int16_t *const to = w->q + i * w->width + lane;
            transpose(v);
            vst1q_s16(to, v[0]);
            vst1q_s16(to + w->width, v[1]);
            vst1q_s16(to + 2 * w->width, v[2]);
            vst1q_s16(to + 3 * w->width, v[3]);
            vst1q_s16(to + 4 * w->width, v[4]);
            vst1q_s16(to + 5 * w->width, v[5]);
            vst1q_s16(to + 6 * w->width, v[6]);
            vst1q_s16(to + 7 * w->width, v[7]);
        }
    }
}

/* Entry 27 * a + 9 * b + 3 * c + d is (a - 1) * q[0] + (b - 1) * q[1] + (c - 1) * q[2] + (d - 1) * q[3]. */
static void fill_table(const int16_t *q, size_t width, int16_t *table) {
    for (size_t lane = 0; lane < width; lane += LANES) {
        const int16x8_t q0 = vld1q_s16(q + lane), q1 = vld1q_s16(q + width + lane);
        const int16x8_t q2 = vld1q_s16(q + 2 * width + lane), q3 = vld1q_s16(q + 3 * width + lane);
        int16_t *to = table + lane;
        int16x8_t sum0 = vnegq_s16(q0);
        for (int a = 0; a < 3; a++, sum0 = vaddq_s16(sum0, q0)) {
            int16x8_t sum1 = vsubq_s16(sum0, q1);
            for (int b = 0; b < 3; b++, sum1 = vaddq_s16(sum1, q1)) {
                int16x8_t sum2 = vsubq_s16(sum1, q2);
                for (int c = 0; c < 3; c++, sum2 = vaddq_s16(sum2, q2), to += 3 * width) {
                    vst1q_s16(to, vsubq_s16(sum2, q3));
                    vst1q_s16(to + width, sum2);
                    vst1q_s16(to + 2 * width, vaddq_s16(sum2, q3));
                }
            }
        }
    }
}

/* The indices of 32 rows of one tile. */
static inline void decode(const uint8_t *tile, uint8_t *index) {
    const uint8x16_t two_codes = vdupq_n_u8(0x33), one_pair = vdupq_n_u8(0x0F);
    const uint8x16_t by_3 = vreinterpretq_u8_u16(vdupq_n_u16(0x0103)); /* the first of two bytes */
    const uint8x16_t by_9 = vreinterpretq_u8_u16(vdupq_n_u16(0x0109));
    const uint8x16_t a = vld1q_u8(tile), b = vld1q_u8(tile + TILE / 2);
    const uint8x16_t even_a = vandq_u8(a, two_codes), odd_a = vandq_u8(vshrq_n_u8(a, 2), two_codes);
    const uint8x16_t even_b = vandq_u8(b, two_codes), odd_b = vandq_u8(vshrq_n_u8(b, 2), two_codes);
    /* Pairs of columns, 3 * a + b, in four bits each: of fields 0 and 2, and of 1 and 3. */
    const uint8x16_t even = vpaddq_u8(vmulq_u8(even_a, by_3), vmulq_u8(even_b, by_3));
    const uint8x16_t odd = vpaddq_u8(vmulq_u8(odd_a, by_3), vmulq_u8(odd_b, by_3));
    const uint8x16_t f0 = vmulq_u8(vandq_u8(even, one_pair), by_9), f1 = vmulq_u8(vandq_u8(odd, one_pair), by_9);
    const uint8x16_t f2 = vmulq_u8(vshrq_n_u8(even, 4), by_9), f3 = vmulq_u8(vshrq_n_u8(odd, 4), by_9);
    vst1q_u8(index, vpaddq_u8(f0, f1));
    vst1q_u8(index + STRIP / 2, vpaddq_u8(f2, f3));
}

/* Adds what the tables hold for a strip of 32 rows. A function for each width; with the tables' addresses given, it
 * adds nothing else to them than the indices. */
#define DEFINE_ADD(name, width, vectors, load, store, add)                                                             \
    static __attribute__((noinline)) void name(const int16_t *table0, const int16_t *table1, const int16_t *table2,    \
                                               const int16_t *table3, const uint8_t *index, int16_t *sums) {           \
        for (size_t i = 0; i < STRIP; i++, sums += (width)) {                                                          \
            const vectors t0 = load(table0 + index[i] * (size_t)(width));                                              \
            const vectors t1 = load(table1 + index[i + STRIP] * (size_t)(width));                                      \
            const vectors t2 = load(table2 + index[i + 2 * STRIP] * (size_t)(width));                                  \
            const vectors t3 = load(table3 + index[i + 3 * STRIP] * (size_t)(width));                                  \
            store(sums, add(add(load(sums), add(t0, t1)), add(t2, t3)));                                               \
        }                                                                                                              \
    }

static inline int16x8x2_t add2(int16x8x2_t a, int16x8x2_t b) {
    return (int16x8x2_t){{vaddq_s16(a.val[0], b.val[0]), vaddq_s16(a.val[1], b.val[1])}};
}

static inline int16x8x4_t add4(int16x8x4_t a, int16x8x4_t b) {
    return (int16x8x4_t){{vaddq_s16(a.val[0], b.val[0]), vaddq_s16(a.val[1], b.val[1]), vaddq_s16(a.val[2], b.val[2]),
                          vaddq_s16(a.val[3], b.val[3])}};
}

DEFINE_ADD(add_8, 8, int16x8_t, vld1q_s16, vst1q_s16, vaddq_s16)
DEFINE_ADD(add_16, 16, int16x8x2_t, vld1q_s16_x2, vst1q_s16_x2, add2)
DEFINE_ADD(add_32, 32, int16x8x4_t, vld1q_s16_x4, vst1q_s16_x4, add4)

/* Sets the sums of `rows` rows, a multiple of 32, over up to BFE_MOST_TRITS columns. */
static void add_up(const workspace *w, const uint8_t *tiles, size_t stride, size_t rows, size_t columns) {
    memset(w->sums, 0, rows * w->width * sizeof *w->sums);
    for (size_t i = 0; i < columns; i += BFE_COLUMN_BLOCK, tiles += TABLES * TILE) {
        const int16_t *table[TABLES];
        for (size_t t = 0; t < TABLES; t++) {
            table[t] = w->tables + t * ENTRIES * w->width;
            fill_table(w->q + (i + 4 * t) * w->width, w->width, w->tables + t * ENTRIES * w->width);
        }
        for (size_t row = 0; row < rows; row += STRIP) {
            uint8_t index[TABLES * STRIP];
            int16_t *const sums = w->sums + row * w->width;
            for (size_t t = 0; t < TABLES; t++)
                decode(tiles + row / STRIP * stride + t * TILE, index + t * STRIP);
            if (w->width == 32)
                add_32(table[0], table[1], table[2], table[3], index, sums);
            else if (w->width == 16)
                add_16(table[0], table[1], table[2], table[3], index, sums);
            else
                add_8(table[0], table[1], table[2], table[3], index, sums);
        }
    }
}

/* A strip's sums in the order of its rows: sum[32 * c + r]. */
static void deinterleave(const workspace *w, const int16_t *sums, int32_t *sum) {
    const size_t width = w->width;
    for (size_t lane = 0; lane < width; lane += LANES) {
        for (size_t f = 0; f < 4; f++) {
            const int16_t *const from = sums + 8 * f * width + lane;
            int16x8_t v[LANES] = {vld1q_s16(from),
                                  vld1q_s16(from + width),
                                  vld1q_s16(from + 2 * width),
                                  vld1q_s16(from + 3 * width),
                                  vld1q_s16(from + 4 * width),
                                  vld1q_s16(from + 5 * width),
                                  vld1q_s16(from + 6 * width),
                                  vld1q_s16(from + 7 * width)};
            int32_t *const to = sum + lane * STRIP + 8 * f;
            transpose(v);
#define STORE(c)                                                                                                       \
    do {                                                                                                               \
        vst1q_s32(to + (c) * STRIP, vmovl_s16(vget_low_s16(v[c])));                                                    \
        vst1q_s32(to + (c) * STRIP + 4, vmovl_high_s16(v[c]));                                                         \
    } while (0)
            STORE(0);
            STORE(1);
            STORE(2);
            STORE(3);
            STORE(4);
            STORE(5);
            STORE(6);
            STORE(7);
#undef STORE
        }
    }
}

void bfe_look_up_trits_neon(const bfe_matrix *matrix, const int8_t *q, size_t q_stride, const float *s, size_t count,
                            float *y, size_t y_stride, void *scratch) {
    const size_t columns = (matrix->columns + BFE_COLUMN_BLOCK - 1) / BFE_COLUMN_BLOCK * BFE_COLUMN_BLOCK;
    workspace w;
    w.width = count > 16 ? 32 : count > 8 ? 16 : 8;
    w.tables = scratch;
    w.q = w.tables + TABLES * ENTRIES * w.width;
    w.sums = w.q + at_most(columns, BFE_MOST_TRITS) * w.width;
    int32_t *const sum = scratch; /* [width][STRIP], when the tables have been used */

    for (size_t first = 0; first < matrix->rows; first += ROWS) {
        const size_t rows = (at_most(matrix->rows - first, ROWS) + STRIP - 1) / STRIP * STRIP;
        const uint8_t *const tiles = (const uint8_t *)matrix->weight + first / STRIP * matrix->stride;
        for (size_t i = 0; i < columns; i += BFE_MOST_TRITS) {
            const size_t part = at_most(columns - i, BFE_MOST_TRITS);
            interleave(&w, q + i, q_stride, part, count);
            add_up(&w, tiles + i / 4 * TILE, matrix->stride, rows, part);
            for (size_t row = 0; row < rows; row += STRIP) {
                deinterleave(&w, w.sums + row * w.width, sum);
                if (i > 0)
                    bfe_add_parts_neon(matrix, first + row, sum, count, y, y_stride);
                if (i + part < columns)
                    bfe_store_part_neon(matrix, first + row, sum, count, y, y_stride);
                else
                    bfe_store_trits_neon(matrix, first + row, sum, s, count, y, y_stride);
            }
        }
    }
}

#endif
