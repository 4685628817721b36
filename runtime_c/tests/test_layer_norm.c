#include "bfe_kernels.h"
#include "test.h"

#include <math.h>

enum { LONGEST = 16384 };

static float x[LONGEST], gain[LONGEST], bias[LONGEST], y[LONGEST], expected[LONGEST];

/* NUMERICS.md, section 5, with libm. */
static void naive(size_t n) {
    float m = 0x1p-100f;
    for (size_t i = 0; i < n; i++)
        m = fmaxf(m, fabsf(x[i]));
    int64_t s1 = 0, s2 = 0;
    for (size_t i = 0; i < n; i++) {
        const int64_t q = (int64_t)rintf(x[i] * (2047.0f / m));
        CHECK(q >= -2047 && q <= 2047);
        s1 += q;
        s2 += q * q;
    }
    int64_t v = (int64_t)n * s2 - s1 * s1;
    v = v > (int64_t)n ? v : (int64_t)n;
    CHECK(v >= 0 && v < (int64_t)1 << 51);
    const float s = m / 2047.0f;
    const float mean = ((float)s1 / (float)n) * s;
    const float var = (((float)v / (float)(n * n)) * s) * s;
    const float r = 1.0f / sqrtf(var + 1e-5f);
    for (size_t i = 0; i < n; i++)
        expected[i] = (((x[i] - mean) * r) * gain[i]) + bias[i];
}

/* How far the output is from a LayerNorm in binary64. */
static double error(size_t n) {
    double mean = 0, var = 0, worst = 0;
    for (size_t i = 0; i < n; i++)
        mean += (double)x[i] / (double)n;
    for (size_t i = 0; i < n; i++)
        var += ((double)x[i] - mean) * ((double)x[i] - mean) / (double)n;
    for (size_t i = 0; i < n; i++)
        worst = fmax(worst,
                     fabs(((double)x[i] - mean) / sqrt(var + 1e-5) * (double)gain[i] + (double)bias[i] - (double)y[i]));
    return worst;
}

static void compare(size_t n) {
    naive(n);
    bfe_layer_norm_f32(x, gain, bias, n, y);
    CHECK(test_same_bits(y, expected, n));
}

int main(void) {
    for (int scale = -60; scale <= 60; scale += 3) {
        for (int repeat = 0; repeat < 30; repeat++) {
            const size_t n = 1 + test_random_below(500);
            for (size_t i = 0; i < n; i++) {
                x[i] = ldexpf(test_random_float(), scale);
                gain[i] = test_random_float();
                bias[i] = test_random_float();
            }
            compare(n);
            if (scale == 0 && n > 100)
                CHECK(error(n) < 2e-3);
            bfe_layer_norm_f32(x, gain, bias, n, x); /* in place */
            CHECK(test_same_bits(x, expected, n));
        }
    }

    for (size_t i = 0; i < LONGEST; i++) {
        x[i] = i % 2 == 0 ? 1024.0f : -1024.0f; /* the largest variance and the longest row */
        gain[i] = 1024.0f;
        bias[i] = -1024.0f;
    }
    compare(LONGEST);
    for (size_t i = 0; i < LONGEST; i++)
        x[i] = 0.0f;
    compare(LONGEST);
    CHECK(y[0] == -1024.0f);
    for (size_t i = 0; i < LONGEST; i++)
        x[i] = i == 0 ? 0x1p80f : 0.0f; /* var reaches infinity, so r is 0 */
    compare(LONGEST);
    CHECK(y[0] == -1024.0f);

    for (size_t i = 0; i < LONGEST; i++)
        x[i] = i % 3 == 0 ? NAN : i % 3 == 1 ? INFINITY : -INFINITY; /* cannot come up, but must not be undefined */
    bfe_layer_norm_f32(x, gain, bias, LONGEST, y);
    return test_result();
}
