/* GELU, sine and cosine, softmax and additions of every set of kernels against NUMERICS.md, bit for bit. Products,
 * quantisation, LayerNorm and rotations have tests of their own. */
#include "kernels.h"
#include "test.h"

#include <math.h>
#include <stdlib.h>

enum { LONGEST = 16384, ANGLES = 33938 };

static block copy_of(const void *values, size_t bytes) {
    const block b = new_block(bytes, sizeof(float));
    memcpy(b.data, values, bytes);
    return b;
}

static block room_for(size_t count) { return new_guarded_block(count * sizeof(float), sizeof(float)); }

/* Whether `got` has these values and nothing beside it was written; then it is freed. */
static int has(block *got, const float *expected) {
    const int same = test_same_bits(got->data, expected, got->bytes / sizeof(float)) && is_intact(got);
    free_block(got);
    return same;
}

/* All lengths to 140, where loops have all kinds of ends, and a few longer ones. */
static size_t next_length(size_t count) { return count < 140 ? count + 1 : 2 * count + 1; }

/* Section 10, with libm. */
static float naive_gelu(float x) {
    float table[2], u = fabsf(x) * 128.0f;
    u = u < 640.0f ? u : 640.0f;
    const float i = truncf(u), f = u - i;
    for (int j = 0; j < 2; j++) {
        const double a = ((double)i + j) / 128;
        table[j] = (float)rint(0x1p18 * a * 0.5 * erfc(a / sqrt(2.0)));
    }
    const float delta = (table[0] + f * (table[1] - table[0])) * 0x1p-18f;
    return (x > 0.0f ? x : 0.0f) - delta;
}

static void compare_gelu(const float *x, size_t count) {
    static float expected[LONGEST];
    for (size_t i = 0; i < count; i++)
        expected[i] = naive_gelu(x[i]);
    for (uint32_t i = 0; kernels_to_test(i) != NULL; i++) {
        block y = room_for(count);
        memcpy(y.data, x, y.bytes);
        kernels_to_test(i)->gelu(y.data, count);
        CHECK_SET(kernels_to_test(i), has(&y, expected));
    }
}

static void test_gelu(void) {
    static const float special[] = {0.0f,    -0.0f, 0x1p-149f, -0x1p-149f, -0x1p-126f,     0x1p-100f,       -0x1p-100f,
                                    5.0f,    -5.0f, 1.0f,      -1.0f,      0x1.3fffffep2f, -0x1.3fffffep2f, 0x1p94f,
                                    -0x1p94f};
    static float x[LONGEST];
    for (int32_t first = -6 * 4096; first < 6 * 4096; first += 8192) {
        for (int32_t i = 0; i < 8192; i++)
            x[i] = (float)(first + i) / 4096.0f;
        compare_gelu(x, 8192);
    }
    for (size_t count = 1; count <= LONGEST; count = next_length(count)) {
        for (size_t i = 0; i < count; i++)
            x[i] = i % 7 == 3 ? special[i / 7 % (sizeof special / sizeof special[0])] : 6.0f * test_random_float();
        compare_gelu(x, count);
    }
    for (size_t i = 0; i < 300; i++)
        x[i] = i % 3 == 0 ? NAN : i % 3 == 1 ? INFINITY : -INFINITY; /* cannot come up, but must not be undefined */
    for (uint32_t i = 0; kernels_to_test(i) != NULL; i++)
        kernels_to_test(i)->gelu(x, 300);
}

/* Section 9, with libm. */
static void naive_sincos(uint16_t angle, float *cosine, float *sine) {
    const int exponent = angle >> 10 & 31, mantissa = angle & 0x3FF;
    float x = exponent == 0 ? ldexpf((float)mantissa, -24) : ldexpf((float)(1024 + mantissa), exponent - 25);
    x = angle >> 15 ? -x : x;
    const float k = rintf(x * 0x1.45f306p-1f), r = (x - k * 1.5703125f) - k * 0x1.fb5444p-12f, z = r * r;
    const float s = (((-0x1.98da66p-13f * z + 0x1.1105b4p-7f) * z + -0x1.555540p-3f) * z) * r + r;
    const float c = ((((0x1.9a0250p-16f * z + -0x1.6c0c8cp-10f) * z + 0x1.55554ap-5f) * z) * z - 0.5f * z) + 1.0f;
    const int quarter = (int)k & 3;
    *sine = quarter == 0 ? s : quarter == 1 ? c : quarter == 2 ? -s : -c;
    *cosine = quarter == 0 ? c : quarter == 1 ? -s : quarter == 2 ? -c : s;
}

static void compare_sincos(const uint16_t *angles, size_t count) {
    float *const cosines = malloc(count * sizeof(float)), *const sines = malloc(count * sizeof(float));
    for (size_t i = 0; i < count; i++)
        naive_sincos(angles[i], &cosines[i], &sines[i]);
    for (uint32_t i = 0; kernels_to_test(i) != NULL; i++) {
        block in = copy_of(angles, count * sizeof *angles), cosine = room_for(count), sine = room_for(count);
        kernels_to_test(i)->sincos(in.data, count, cosine.data, sine.data);
        CHECK_SET(kernels_to_test(i), has(&cosine, cosines));
        CHECK_SET(kernels_to_test(i), has(&sine, sines));
        free_block(&in);
    }
    free(cosines);
    free(sines);
}

static void test_sincos(void) {
    static uint16_t angles[ANGLES];
    size_t count = 0;
    for (uint32_t half = 0; half < 65536; half++)
        if ((half & 0x7FFF) <= 0x4248 && half != 0x8000) /* the sign of the sine of -0 is nobody's concern */
            angles[count++] = (uint16_t)half;
    CHECK(count == ANGLES - 1);
    compare_sincos(angles, count);
    for (size_t n = 1; n <= 4096; n = next_length(n)) /* with other neighbours each time */
        compare_sincos(angles + test_random_below((uint32_t)(count - n)), n);

    for (uint32_t i = 0; kernels_to_test(i) != NULL; i++) {
        const uint16_t minus_zero = 0x8000;
        float cosine, sine;
        kernels_to_test(i)->sincos(&minus_zero, 1, &cosine, &sine);
        CHECK_SET(kernels_to_test(i), cosine == 1.0f && sine == 0.0f);
    }
}

/* Section 6, with libm. */
static int32_t naive_exp2fix(float t) {
    t = fmaxf(t, -17.0f);
    const float n = floorf(t), f = t - n;
    const float p = (((0x1.bd07c2p-7f * f + 0x1.a99434p-5f) * f + 0x1.ee7afap-3f) * f + 0x1.62d354p-1f) * f + 1.0f;
    return (int32_t)rintf(p * ldexpf(1.0f, (int)n + 15));
}

static float score[LONGEST], k_scale[LONGEST], v_scale[LONGEST];
static int32_t product[LONGEST];

/* Section 7, of one query. */
static void compare_softmax(float scale, size_t count) {
    static float expected[LONGEST];
    float highest = -INFINITY;
    int32_t total = 0;
    for (size_t j = 0; j < count; j++) {
        score[j] = (float)product[j] * (scale * k_scale[j]);
        highest = fmaxf(highest, score[j]);
    }
    for (size_t j = 0; j < count; j++) {
        const int32_t e = naive_exp2fix(score[j] - highest);
        total += e;
        expected[j] = (float)e * v_scale[j];
    }
    for (uint32_t i = 0; kernels_to_test(i) != NULL; i++) {
        const bfe_kernels *const set = kernels_to_test(i);
        block in = copy_of(product, count * sizeof *product), weight = room_for(count);
        block k = copy_of(k_scale, count * sizeof(float)), v = copy_of(v_scale, count * sizeof(float));
        CHECK_SET(set, set->softmax(in.data, scale, k.data, v.data, count, weight.data) == total);
        CHECK_SET(set, has(&weight, expected));
        free_block(&in);
        free_block(&k);
        free_block(&v);
    }
}

static void test_softmax(void) {
    for (size_t count = 1; count <= LONGEST; count = next_length(count)) {
        for (int spread = 1; spread <= 28; spread += count < 140 ? 9 : 3) { /* scores from equal to far apart */
            for (size_t j = 0; j < count; j++) {
                product[j] = (int32_t)test_random_below(2u << spread) - (1 << spread);
                k_scale[j] = 0.01f + 0.005f * test_random_float();
                v_scale[j] = 0.01f + 0.005f * test_random_float();
            }
            compare_softmax(0.007f, count);
        }
        for (size_t j = 0; j < count; j++)
            product[j] = -12345; /* none is positive */
        compare_softmax(0.001f, count);
        for (size_t j = 0; j < count; j++) {
            product[j] = j % 3 == 0 ? 1 << 28 : j % 3 == 1 ? -(1 << 28) : 0;
            k_scale[j] = 0x1p42f;
            v_scale[j] = j % 2 == 0 ? 0x1p42f : 0x1p-107f;
        }
        compare_softmax(0x1p52f, count); /* scores of 2^122, the largest (section 13) */
        for (size_t j = 0; j < count; j++)
            k_scale[j] = v_scale[j] = 0x1p-107f; /* the smallest scales */
        compare_softmax(0x1p-107f, count);
    }
}

/* Any finite value whose sums and products are finite: section 13 promises as much. */
static float any_float(void) {
    const int kind = (int)test_random_below(8);
    if (kind == 0)
        return 0.0f * test_random_float();
    return ldexpf(test_random_float(), kind == 1 ? 94 : kind == 2 ? -130 : kind == 3 ? 20 : 0);
}

static void test_add(size_t count, float factor) {
    static float x[LONGEST], y[LONGEST], sum[LONGEST], scaled[LONGEST], set[LONGEST];
    for (size_t i = 0; i < count; i++) {
        x[i] = any_float();
        y[i] = test_random_below(4) == 0 ? -x[i] : any_float();
        sum[i] = y[i] + x[i];
        const float step = factor * x[i];
        scaled[i] = y[i] + step;
        set[i] = 0.0f + step;
    }
    for (uint32_t i = 0; kernels_to_test(i) != NULL; i++) {
        block other = copy_of(x, count * sizeof(float)), to = room_for(count), scaled_to = room_for(count);
        block set_to = room_for(count);
        memcpy(to.data, y, to.bytes);
        memcpy(scaled_to.data, y, scaled_to.bytes);
        kernels_to_test(i)->add(to.data, other.data, count);
        kernels_to_test(i)->add_scaled(scaled_to.data, factor, other.data, count);
        kernels_to_test(i)->set_scaled(set_to.data, factor, other.data, count);
        CHECK_SET(kernels_to_test(i), has(&set_to, set));
        CHECK_SET(kernels_to_test(i), has(&to, sum));
        CHECK_SET(kernels_to_test(i), has(&scaled_to, scaled));
        free_block(&other);
    }
}

int main(void) {
    test_gelu();
    test_sincos();
    test_softmax();
    for (size_t count = 1; count <= LONGEST; count = next_length(count)) {
        test_add(count, 1.0f / 3.0f);
        test_add(count, 1.0f);
        test_add(count, 0.7f * test_random_float());
    }
    return test_result();
}
