/* Every matrix product against its definition, for all small row lengths and the longest one. */
#include "bfe_kernels.h"
#include "test.h"

enum { ROWS = 5, LONGEST = 16384 };

static int8_t weight[ROWS][LONGEST];
static uint8_t packed[ROWS * LONGEST];
static int8_t q[LONGEST];

static void pack(size_t columns, size_t per_byte, uint32_t base) {
    const size_t stride = (columns + per_byte - 1) / per_byte;
    for (size_t r = 0; r < ROWS; r++) {
        for (size_t b = 0; b < stride; b++) {
            uint32_t byte = 0;
            for (size_t j = per_byte; j-- > 0;) {
                const size_t i = b * per_byte + j;
                byte = byte * base + (uint32_t)((i < columns ? weight[r][i] : 0) + 1);
            }
            packed[r * stride + b] = (uint8_t)byte;
        }
    }
}

static void expect(const float *y, size_t columns, float s, const float *scale) {
    for (size_t r = 0; r < ROWS; r++) {
        int64_t sum = 0;
        for (size_t i = 0; i < columns; i++)
            sum += (int64_t)weight[r][i] * q[i];
        const float expected = (float)sum * (s * scale[r]);
        CHECK(test_same_bits(&y[r], &expected, 1));
    }
}

static void test_int8(size_t columns, float s) {
    float scale[ROWS], y[ROWS];
    for (size_t r = 0; r < ROWS; r++) {
        scale[r] = 1e-3f + test_random_float() * test_random_float();
        for (size_t i = 0; i < columns; i++)
            packed[r * columns + i] = (uint8_t)weight[r][i];
    }
    bfe_matvec_int8((const int8_t *)packed, scale, ROWS, columns, q, s, y);
    expect(y, columns, s, scale);
}

static void test_trits(size_t columns, float s) {
    float scale[ROWS], y[ROWS];
    for (size_t r = 0; r < ROWS; r++)
        scale[r] = 0.0371f;
    pack(columns, 4, 4);
    bfe_matvec_trits2(packed, scale[0], ROWS, columns, q, s, y);
    expect(y, columns, s, scale);
    pack(columns, 5, 3);
    bfe_matvec_trits3(packed, scale[0], ROWS, columns, q, s, y);
    expect(y, columns, s, scale);
}

/* `extreme`: 0 random, 1 all largest, 2 largest with opposite signs. */
static void fill(size_t columns, int largest, int extreme) {
    for (size_t i = 0; i < columns; i++) {
        q[i] = extreme == 0 ? test_random_int8() : 127;
        for (size_t r = 0; r < ROWS; r++) {
            const int random = (int)test_random_below(2u * (uint32_t)largest + 1) - largest;
            weight[r][i] = (int8_t)(extreme == 0 ? random : extreme == 1 ? largest : -largest);
        }
    }
}

static void test_weighted_sum(size_t rows, size_t stride, size_t count) {
    int32_t sum[64];
    int8_t values[64 * 64], weights[64];
    for (size_t i = 0; i < rows * stride; i++)
        values[i] = test_random_int8();
    for (size_t j = 0; j < rows; j++)
        weights[j] = test_random_int8();
    bfe_weighted_sum_int8(weights, values, rows, stride, count, sum);
    for (size_t i = 0; i < count; i++) {
        int32_t expected = 0;
        for (size_t j = 0; j < rows; j++)
            expected += weights[j] * values[j * stride + i];
        CHECK(sum[i] == expected);
    }
}

int main(void) {
    for (size_t columns = 1; columns <= LONGEST; columns = columns < 150 ? columns + 1 : columns + 8117) {
        for (int extreme = 0; extreme < 3; extreme++) {
            const float s = 0.01f + test_random_float() * 0.001f;
            fill(columns, 127, extreme);
            test_int8(columns, s);
            fill(columns, 1, extreme);
            test_trits(columns, s);
        }
    }
    for (size_t count = 1; count <= 40; count++)
        test_weighted_sum(1 + test_random_below(64), count + test_random_below(24), count);
    return test_result();
}
