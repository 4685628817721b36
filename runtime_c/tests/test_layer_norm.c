/* The LayerNorm of every set of kernels against NUMERICS.md, section 5, bit for bit. */
#include "kernels.h"
#include "test.h"

#include <math.h>

enum { LONGEST = 16384 };

static float x[LONGEST], gain[LONGEST], bias[LONGEST], expected[LONGEST];

/* With libm. */
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

/* How far that is from a LayerNorm in binary64. */
static double error(size_t n) {
    double mean = 0, var = 0, worst = 0;
    for (size_t i = 0; i < n; i++)
        mean += (double)x[i] / (double)n;
    for (size_t i = 0; i < n; i++)
        var += ((double)x[i] - mean) * ((double)x[i] - mean) / (double)n;
    for (size_t i = 0; i < n; i++)
        worst = fmax(worst, fabs(((double)x[i] - mean) / sqrt(var + 1e-5) * (double)gain[i] + (double)bias[i] -
                                 (double)expected[i]));
    return worst;
}

static block copy_of(const float *values, size_t n) {
    const block b = new_block(n * sizeof(float), sizeof(float));
    memcpy(b.data, values, b.bytes);
    return b;
}

/* All vectors end where their memory ends, and begin anywhere. */
static void compare(size_t n) {
    naive(n);
    for (uint32_t i = 0; kernels_to_test(i) != NULL; i++) {
        const bfe_kernels *const set = kernels_to_test(i);
        block in = copy_of(x, n), gains = copy_of(gain, n), biases = copy_of(bias, n);
        block out = new_guarded_block(n * sizeof(float), sizeof(float));
        set->layer_norm(in.data, gains.data, biases.data, n, out.data);
        CHECK_SET(set, test_same_bits(out.data, expected, n) && is_intact(&out));
        set->layer_norm(in.data, gains.data, biases.data, n, in.data); /* in place */
        CHECK_SET(set, test_same_bits(in.data, expected, n));
        free_block(&in);
        free_block(&gains);
        free_block(&biases);
        free_block(&out);
    }
}

static void compare_random(size_t n, int scale) {
    for (size_t i = 0; i < n; i++) {
        x[i] = ldexpf(test_random_float(), scale);
        gain[i] = test_random_float();
        bias[i] = test_random_float();
    }
    compare(n);
    if (scale == 0 && n > 100)
        CHECK(error(n) < 2e-3);
}

int main(void) {
    for (int scale = -60; scale <= 60; scale += 3)
        for (int repeat = 0; repeat < 20; repeat++)
            compare_random(1 + test_random_below(500), scale);
    for (size_t n = 1; n <= LONGEST; n = n < 140 ? n + 1 : 2 * n + 1)
        compare_random(n, (int)(n % 7) - 3);

    for (size_t i = 0; i < LONGEST; i++) {
        x[i] = i % 2 == 0 ? 1024.0f : -1024.0f; /* the largest variance and the longest row */
        gain[i] = 1024.0f;
        bias[i] = -1024.0f;
    }
    for (size_t n = 1; n <= LONGEST; n *= 2)
        compare(n);
    for (size_t i = 0; i < LONGEST; i++)
        x[i] = 1024.0f; /* the largest mean, and no variance */
    compare(LONGEST);
    for (size_t i = 0; i < LONGEST; i++)
        x[i] = i % 2 == 0 ? 0x1p94f : -0x1p-140f; /* no model has more (section 13) */
    compare(LONGEST);
    for (size_t i = 0; i < LONGEST; i++)
        x[i] = 0.0f;
    compare(LONGEST);
    CHECK(expected[0] == -1024.0f);
    for (size_t i = 0; i < LONGEST; i++)
        x[i] = i == 0 ? 0x1p80f : 0.0f; /* var reaches infinity, so r is 0 */
    compare(LONGEST);
    CHECK(expected[0] == -1024.0f);

    for (size_t i = 0; i < LONGEST; i++)
        x[i] = i % 3 == 0 ? NAN : i % 3 == 1 ? INFINITY : -INFINITY; /* cannot come up, but must not be undefined */
    for (uint32_t i = 0; kernels_to_test(i) != NULL; i++)
        kernels_to_test(i)->layer_norm(x, gain, bias, LONGEST, expected);
    return test_result();
}
