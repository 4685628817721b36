/*
 * Runs each kernel of a set once, on the same data everywhere, so that the instructions it executes can be counted:
 *
 *     count_kernels NAME
 *
 * Prints what it runs, a line each, in order. QEMU's plugin counts from bfd_mark_begin to bfd_mark_end, callgrind what
 * happens in bfd_counted. tests/instructions.py builds this and keeps the counts.
 */
#include "bfe_format.h"
#include "bfe_kernel_sets.h"
#include "bfe_tiles.h"
#include "test.h"

#include <stdlib.h>

enum { MOST_ROWS = 1024, MOST_COLUMNS = 256, MOST_COUNT = 32, LENGTH = 1024, SCRATCH_BYTES = 1 << 17 };

#define NOT_INLINED __attribute__((noinline))
#define ALIGNED __attribute__((aligned(BFE_TILES_ALIGNMENT)))

static const bfe_kernels *set;

static ALIGNED uint8_t rows_of_matrix[MOST_ROWS * MOST_COLUMNS], tiles[MOST_ROWS * MOST_COLUMNS];
static ALIGNED int8_t q[MOST_COLUMNS * MOST_COUNT];
static ALIGNED float y[MOST_ROWS * MOST_COUNT], row_scale[MOST_ROWS], column_scale[MOST_COUNT];
static ALIGNED uint8_t scratch[SCRATCH_BYTES];

static ALIGNED float x[LENGTH], gain[LENGTH], bias[LENGTH], cosine[4 * LENGTH], sine[4 * LENGTH];
static ALIGNED int32_t scores[LENGTH];
static ALIGNED uint16_t angles[LENGTH];

static bfe_matrix matrix;
static bfe_product *product;
static size_t q_stride, columns_at_once;

static volatile int mark; /* keeps compilers from dropping the calls, and from jumping where they should call */
NOT_INLINED void bfd_mark_begin(void);
NOT_INLINED void bfd_mark_end(void);
NOT_INLINED void bfd_counted(void (*run)(void));

void bfd_mark_begin(void) { mark = 1; }
void bfd_mark_end(void) { mark = 0; }

void bfd_counted(void (*run)(void)) {
    run();
    mark = 2;
}

static void count(const char *what, void (*run)(void)) {
    printf("%s\n", what);
    bfd_mark_begin();
    bfd_counted(run);
    bfd_mark_end();
}

static void run_product(void) { product(&matrix, q, q_stride, column_scale, columns_at_once, y, matrix.rows, scratch); }

static void set_random_floats(float *values, size_t length, float low, float high) {
    for (size_t i = 0; i < length; i++)
        values[i] = low + (high - low) * (0.5f + 0.5f * test_random_float());
}

static uint8_t random_weights(uint16_t encoding) {
    if (encoding == BFE_ENCODING_INT8)
        return (uint8_t)test_random_int8();
    if (encoding == BFE_ENCODING_TRITS3)
        return (uint8_t)test_random_below(243);
    uint32_t codes = 0;
    for (int i = 0; i < 4; i++)
        codes = 4 * codes + test_random_below(3);
    return (uint8_t)codes;
}

/* With `scale` NULL products stay integers. */
static void set_matrix(uint32_t rows, uint32_t columns, uint16_t encoding, const float *scale) {
    matrix = (bfe_matrix){.weight = rows_of_matrix, .scale = scale, .rows = rows, .columns = columns};
    matrix.encoding = encoding;
    matrix.layout = BFE_LAYOUT_ROWS;
    matrix.stride = bfe_matrix_stride(BFE_LAYOUT_ROWS, columns, encoding);
    const size_t bytes = (size_t)bfe_matrix_bytes(BFE_LAYOUT_ROWS, rows, columns, encoding);
    for (size_t i = 0; i < bytes; i++)
        rows_of_matrix[i] = random_weights(encoding);
    if (set->layout == BFE_LAYOUT_TILES) {
        bfe_tile_matrix(&matrix, tiles);
        matrix.weight = tiles;
        matrix.layout = BFE_LAYOUT_TILES;
        matrix.stride = bfe_matrix_stride(BFE_LAYOUT_TILES, columns, encoding);
    }
    product = encoding == BFE_ENCODING_INT8     ? set->product_int8
              : encoding == BFE_ENCODING_TRITS2 ? set->product_trits2
                                                : set->product_trits3;
    if (bfe_scratch_bytes(set->layout, rows, columns) > sizeof scratch)
        abort();
}

static void count_product(const char *type, size_t count_of_columns) {
    char what[64];
    columns_at_once = count_of_columns;
    q_stride = ((size_t)matrix.columns + BFE_COLUMN_BLOCK - 1) / BFE_COLUMN_BLOCK * BFE_COLUMN_BLOCK;
    memset(q, 0, sizeof q);
    for (size_t c = 0; c < columns_at_once; c++)
        for (size_t i = 0; i < matrix.columns; i++)
            q[c * q_stride + i] = test_random_int8();
    (void)snprintf(what, sizeof what, "product %s %ux%u, %zu column%s", type, (unsigned)matrix.rows,
                   (unsigned)matrix.columns, columns_at_once, columns_at_once == 1 ? "" : "s");
    count(what, run_product);
}

static void count_products(void) {
    static const size_t counts[] = {1, 4, 32};
    set_random_floats(row_scale, MOST_ROWS, 0.001f, 0.01f);
    set_random_floats(column_scale, MOST_COUNT, 0.001f, 0.01f);
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        set_matrix(1024, 256, BFE_ENCODING_TRITS2, row_scale);
        count_product(set->product_trits2 == set->product_trits3 ? "trits" : "trits2", counts[i]);
        if (set->product_trits2 != set->product_trits3) {
            set_matrix(1024, 256, BFE_ENCODING_TRITS3, row_scale);
            count_product("trits3", counts[i]);
        }
        set_matrix(768, 256, BFE_ENCODING_INT8, row_scale);
        count_product("int8", counts[i]);
    }
    /* Of attention: queries with keys, and softmax's weights with values. */
    set_matrix(65, 64, BFE_ENCODING_INT8, NULL);
    count_product("int8 to int32", 32);
    set_matrix(64, 65, BFE_ENCODING_INT8, NULL);
    count_product("int8 to int32", 32);
}

static void run_quantise(void) { (void)set->quantise(x, 256, q); }
static void run_layer_norm(void) { set->layer_norm(x, gain, bias, 256, y); }
static void run_softmax(void) { (void)set->softmax(scores, 0.001f, gain, bias, 65, y); }
static void run_gelu(void) { set->gelu(x, 1024); }
static void run_sincos(void) { set->sincos(angles, 1024, cosine, sine); }
static void run_rotate_2_layers(void) { set->rotate(x, 1024, 2, cosine, sine); }
static void run_rotate_8_layers(void) { set->rotate(x, 256, 8, cosine, sine); }
static void run_add(void) { set->add(y, x, 256); }
static void run_add_scaled(void) { set->add_scaled(y, 0.3f, x, 1024); }

static void count_vectors(void) {
    static const struct {
        const char *what;
        void (*run)(void);
    } operations[] = {{"quantise 256", run_quantise},
                      {"layer_norm 256", run_layer_norm},
                      {"softmax 65", run_softmax},
                      {"gelu 1024", run_gelu},
                      {"sincos 1024", run_sincos},
                      {"rotate 1024, 2 layers", run_rotate_2_layers},
                      {"rotate 256, 8 layers", run_rotate_8_layers},
                      {"add 256", run_add},
                      {"add_scaled 1024", run_add_scaled}};
    for (size_t i = 0; i < sizeof operations / sizeof operations[0]; i++) {
        set_random_floats(x, LENGTH, -4.0f, 4.0f);
        set_random_floats(y, LENGTH, -4.0f, 4.0f);
        set_random_floats(gain, LENGTH, 0.5f, 1.5f);
        set_random_floats(bias, LENGTH, 0.5f, 1.5f);
        set_random_floats(cosine, 4 * LENGTH, -1.0f, 1.0f);
        set_random_floats(sine, 4 * LENGTH, -1.0f, 1.0f);
        for (size_t j = 0; j < LENGTH; j++) {
            scores[j] = (int32_t)test_random_below(20001) - 10000;
            angles[j] = (uint16_t)(test_random_below(0x4249) | test_random_below(2) << 15);
        }
        count(operations[i].what, operations[i].run);
    }
}

int main(int argc, char **argv) {
    for (uint32_t i = 0; argc == 2 && (set = bfe_kernels_at(i)) != NULL; i++) {
        if (strcmp(set->name, argv[1]) == 0) {
            count_products();
            count_vectors();
            return 0;
        }
    }
    fprintf(stderr, "usage: count_kernels NAME, of kernels that this processor has\n");
    return 1;
}
