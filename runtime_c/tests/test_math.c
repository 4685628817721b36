/* The elementary functions of NUMERICS.md, in the definition's kernels, against libm. */
#include "bfe_crc32.h"
#include "bfe_kernels.h"
#include "test.h"

#include <math.h>

static float from_bits(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static uint32_t crc_of(uint32_t crc, float x) {
    uint8_t bytes[4];
    memcpy(bytes, &x, sizeof bytes);
    return bfe_crc32(crc, bytes, sizeof bytes);
}

static void test_sqrt_of(uint32_t bits) {
    const float x = from_bits(bits), got = bfe_sqrt_f32(x), expected = sqrtf(x);
    CHECK(test_same_bits(&got, &expected, 1));
}

static void test_sqrt(void) {
    for (uint32_t exponent = 0; exponent < 255; exponent++) { /* 0: subnormals */
        for (uint32_t i = 0; i < 64; i++) {
            test_sqrt_of(exponent << 23 | i);
            test_sqrt_of(exponent << 23 | (0x7FFFFF - i));
        }
        for (uint32_t i = 0; i < 3000; i++)
            test_sqrt_of(exponent << 23 | (test_random() & 0x7FFFFF));
    }
    for (uint32_t i = 1; i < 5000; i++) { /* squares, and their neighbours */
        const float square = (float)(i * i);
        CHECK(i > 4096 || bfe_sqrt_f32(square) == (float)i);
        CHECK(bfe_sqrt_f32(nextafterf(square, 0.0f)) == sqrtf(nextafterf(square, 0.0f)));
    }
    test_sqrt_of(0x7F800000); /* infinity */
}

static void test_exp2fix_of(float t) { CHECK(fabs((double)bfe_exp2fix_f32(t) - ldexp(exp2((double)t), 15)) <= 0.7); }

static void test_exp2fix(void) {
    int32_t previous = 0;
    for (int32_t i = -20 * 4096; i <= 0; i++) {
        const float t = (float)i / 4096.0f;
        test_exp2fix_of(t);
        CHECK(bfe_exp2fix_f32(t) >= previous); /* softmax keeps the order of its scores */
        previous = bfe_exp2fix_f32(t);
    }
    for (int i = 0; i < 200000; i++)
        test_exp2fix_of(-17.5f * fabsf(test_random_float()));
    test_exp2fix_of(-0x1p-30f);
    test_exp2fix_of(-0x1p-149f);
    CHECK(bfe_exp2fix_f32(0.0f) == 32768);
    CHECK(bfe_exp2fix_f32(-0.0f) == 32768);
    CHECK(bfe_exp2fix_f32(-1.0f) == 16384);
    CHECK(bfe_exp2fix_f32(-17.0f) == 0);
    CHECK(bfe_exp2fix_f32(-1e30f) == 0);
    CHECK(bfe_exp2fix_f32(-INFINITY) == 0);
    CHECK(bfe_exp2fix_f32(NAN) == 0); /* cannot come up, but must not be undefined */
}

static void test_gelu_of(float x) {
    float y = x;
    bfe_gelu_f32_c(&y, 1);
    const double exact = 0.5 * (double)x * (1.0 + erf((double)x / sqrt(2.0)));
    CHECK(fabs((double)y - exact) <= 1e-5);
}

static void test_gelu(void) {
    for (int32_t i = -8 * 4096; i <= 8 * 4096; i++)
        test_gelu_of((float)i / 4096.0f);
    for (int i = 0; i < 200000; i++)
        test_gelu_of(6.0f * test_random_float());
    for (int scale = 3; scale < 120; scale++) {
        float both[2] = {ldexpf(1.1f, scale), ldexpf(-1.1f, scale)};
        bfe_gelu_f32_c(both, 2);
        CHECK(both[0] == ldexpf(1.1f, scale) && both[1] == 0.0f);
    }
    float odd[3] = {NAN, INFINITY, -INFINITY}; /* cannot come up, but must not be undefined */
    bfe_gelu_f32_c(odd, 3);
}

static void test_widen_f16(void) {
    for (uint32_t half = 0; half < 65536; half++) {
        const int exponent = (int)(half >> 10 & 31);
        const int mantissa = (int)(half & 0x3FF);
        const float got = bfe_widen_f16((uint16_t)half);
        float magnitude =
            exponent == 0 ? ldexpf((float)mantissa, -24) : ldexpf((float)(1024 + mantissa), exponent - 25);
        if (exponent == 31)
            magnitude = mantissa == 0 ? INFINITY : NAN;
        CHECK(isnan(magnitude) ? isnan(got) : got == (half >> 15 ? -magnitude : magnitude));
        CHECK(isnan(magnitude) || (signbit(got) != 0) == (half >> 15 != 0));
    }
}

static void test_angles_f16(void) {
    int8_t codes[256];
    uint16_t angles[257];
    angles[256] = 0xABCD;
    for (int32_t code = -128; code <= 127; code++)
        codes[code + 128] = (int8_t)code;
    bfe_angles_f16(codes, 256, angles);
    CHECK(angles[256] == 0xABCD);
    for (int32_t code = -128; code <= 127; code++) {
        const uint16_t half = angles[code + 128];
        const double exact = ldexp(3.14159265358979323846 * code, -7);
        const double error = fabs((double)bfe_widen_f16(half) - exact);
        CHECK(error < fabs((double)bfe_widen_f16((uint16_t)(half + 1)) - exact));
        CHECK(half == 0 || error < fabs((double)bfe_widen_f16((uint16_t)(half - 1)) - exact));
    }
    CHECK(angles[0] == 0xC248 && angles[127] == 0xA648 && angles[128] == 0 && angles[129] == 0x2648);
}

static void test_sincos(void) {
    int count = 0;
    for (uint32_t half = 0; half < 65536; half++) {
        if ((half & 0x7FFF) > 0x4248)
            continue;
        const uint16_t angle = (uint16_t)half;
        float cosine, sine;
        bfe_sincos_f16_c(&angle, 1, &cosine, &sine);
        CHECK(fabs((double)cosine - cos((double)bfe_widen_f16(angle))) <= 1e-7);
        CHECK(fabs((double)sine - sin((double)bfe_widen_f16(angle))) <= 1e-7);
        count++;
    }
    CHECK(count == 33938);
}

/* Every bit: checksums over many arguments, confirmed by the NumPy reference. */
static void test_known_bits(void) {
    uint32_t exp2fix_crc = 0, gelu_crc = 0, cosine_crc = 0, sine_crc = 0;
    for (int32_t i = -18 * 4096; i <= 0; i++) {
        const uint32_t e = (uint32_t)bfe_exp2fix_f32((float)i / 4096.0f);
        const uint8_t bytes[2] = {(uint8_t)(e & 255), (uint8_t)(e >> 8)};
        exp2fix_crc = bfe_crc32(exp2fix_crc, bytes, sizeof bytes);
    }
    for (int32_t i = -6 * 4096; i <= 6 * 4096; i++) {
        float y = (float)i / 4096.0f;
        bfe_gelu_f32_c(&y, 1);
        gelu_crc = crc_of(gelu_crc, y);
    }
    for (uint32_t half = 0; half < 65536; half++) {
        if ((half & 0x7FFF) > 0x4248 || half == 0x8000) /* the sign of the sine of -0 is nobody's concern */
            continue;
        const uint16_t angle = (uint16_t)half;
        float cosine, sine;
        bfe_sincos_f16_c(&angle, 1, &cosine, &sine);
        cosine_crc = crc_of(cosine_crc, cosine);
        sine_crc = crc_of(sine_crc, sine);
    }
    CHECK(exp2fix_crc == 0xB703E5D9);
    CHECK(gelu_crc == 0xA674E72D);
    CHECK(cosine_crc == 0xE0B8CAB9);
    CHECK(sine_crc == 0x6E4661A2);
}

int main(void) {
    test_known_bits();
    test_sqrt();
    test_exp2fix();
    test_gelu();
    test_widen_f16();
    test_angles_f16();
    test_sincos();
    return test_result();
}
