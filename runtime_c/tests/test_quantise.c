/* The quantisation of every set of kernels against NUMERICS.md, section 2, bit for bit. */
#include "kernels.h"
#include "test.h"

#include <float.h>
#include <math.h>

enum { LONGEST = 16384 };

/* With libm. */
static float naive(const float *x, size_t count, int8_t *q) {
    float m = 0x1p-100f;
    for (size_t i = 0; i < count; i++)
        m = fmaxf(m, fabsf(x[i]));
    for (size_t i = 0; i < count; i++) {
        const float rounded = rintf(x[i] * (127.0f / m));
        CHECK(rounded >= -127.0f && rounded <= 127.0f);
        q[i] = (int8_t)rounded;
    }
    return m / 127.0f;
}

/* Both vectors end where their memory ends, and begin anywhere. */
static void compare(const float *values, size_t count) {
    static int8_t expected_q[LONGEST];
    const float expected = naive(values, count, expected_q);
    for (uint32_t i = 0; kernels_to_test(i) != NULL; i++) {
        block memory = new_block(count * sizeof(float), sizeof(float)), q = new_guarded_block(count, 1);
        memcpy(memory.data, values, memory.bytes);
        const float s = kernels_to_test(i)->quantise(memory.data, count, q.data);
        CHECK_SET(kernels_to_test(i), test_same_bits(&s, &expected, 1));
        CHECK_SET(kernels_to_test(i), memcmp(q.data, expected_q, count) == 0 && is_intact(&q));
        free_block(&memory);
        free_block(&q);
    }
}

static void test_random_vectors(void) {
    static float x[LONGEST];
    for (int scale = -126; scale <= 100; scale++) {
        for (int repeat = 0; repeat < 10; repeat++) {
            const size_t count = 1 + test_random_below(300);
            for (size_t i = 0; i < count; i++)
                x[i] = ldexpf(test_random_float(), scale);
            compare(x, count);
        }
    }
    for (size_t count = 1; count <= LONGEST; count = count < 140 ? count + 1 : 2 * count + 1) {
        for (size_t i = 0; i < count; i++)
            x[i] = test_random_float();
        x[test_random_below((uint32_t)count)] = 3.0f; /* the largest, anywhere */
        compare(x, count);
        x[count - 1] = -4.0f;
        compare(x, count);
        for (size_t i = 0; i < count; i++)
            x[i] = i % 2 == 0 ? 0x1p94f : -0x1p94f; /* no model has more (section 13) */
        compare(x, count);
    }
}

/* Exactly half-way values: m = 127, so that the factor is 1. Ties go to even. */
static void test_ties(void) {
    float x[255];
    int8_t q[255];
    for (size_t i = 0; i < 254; i++)
        x[i] = (float)i - 126.5f;
    x[254] = 127.0f;
    compare(x, 255);
    (void)naive(x, 255, q);
    CHECK(q[0] == -126 && q[1] == -126 && q[126] == 0 && q[127] == 0 && q[128] == 2);
}

int main(void) {
    test_random_vectors();
    test_ties();

    float x[300] = {0};
    compare(x, 300);
    x[0] = -0.0f, x[1] = -FLT_MIN, x[2] = 0x1p-149f, x[3] = -0x1p-101f;
    compare(x, 4);
    x[0] = 0x1p90f, x[1] = -0x1p90f, x[2] = 1.0f;
    compare(x, 3);

    for (size_t i = 0; i < 300; i++)
        x[i] = i % 3 == 0 ? NAN : i % 3 == 1 ? INFINITY : -INFINITY; /* cannot come up, but must not be undefined */
    for (uint32_t i = 0; kernels_to_test(i) != NULL; i++) {
        int8_t q[300];
        (void)kernels_to_test(i)->quantise(x, 300, q);
    }
    return test_result();
}
