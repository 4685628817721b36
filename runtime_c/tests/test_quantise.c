#include "bfe_kernels.h"
#include "test.h"

#include <float.h>
#include <math.h>

enum { MOST = 300 };

/* NUMERICS.md, section 2, with libm. */
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

static void compare(const float *x, size_t count) {
    int8_t q[MOST], expected_q[MOST];
    const float s = bfe_quantise_f32(x, count, q);
    const float expected = naive(x, count, expected_q);
    CHECK(test_same_bits(&s, &expected, 1));
    CHECK(memcmp(q, expected_q, count) == 0);
}

int main(void) {
    float x[MOST];
    for (int scale = -126; scale <= 100; scale++) {
        for (int repeat = 0; repeat < 20; repeat++) {
            const size_t count = 1 + test_random_below(MOST);
            for (size_t i = 0; i < count; i++)
                x[i] = ldexpf(test_random_float(), scale);
            compare(x, count);
        }
    }

    /* Exactly half-way values: m = 127, so that the factor is 1. Ties go to even. */
    for (size_t i = 0; i < 254; i++)
        x[i] = (float)i - 126.5f;
    x[254] = 127.0f;
    compare(x, 255);
    int8_t q[MOST];
    (void)bfe_quantise_f32(x, 255, q);
    CHECK(q[0] == -126 && q[1] == -126 && q[126] == 0 && q[127] == 0 && q[128] == 2);

    memset(x, 0, sizeof x);
    CHECK(bfe_quantise_f32(x, MOST, q) == 0x1p-100f / 127.0f && q[0] == 0);
    x[0] = -0.0f, x[1] = -FLT_MIN, x[2] = 0x1p-149f, x[3] = -0x1p-101f;
    compare(x, 4);
    x[0] = 0x1p90f, x[1] = -0x1p90f, x[2] = 1.0f;
    compare(x, 3);

    x[0] = NAN, x[1] = INFINITY, x[2] = -INFINITY; /* cannot come up, but must not be undefined */
    (void)bfe_quantise_f32(x, 3, q);
    return test_result();
}
