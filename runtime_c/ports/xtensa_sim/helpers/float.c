/*
 * Binary32 operations that GCC calls by these names and that Debian's libgcc for the lx106 leaves out: IEEE 754, to
 * nearest, ties to even, with subnormals. NaNs come out as one quiet NaN.
 *
 * Inside, a number that is not zero is significand * 2^(exponent - 157): the significand's highest bit is bit 30, so
 * that it has 7 bits more than a float keeps, the lowest of them set if anything was lost below it ("sticky"). The
 * exponent counts like the one in a float, and may leave its range.
 */
#include "wide.h"

enum { MOST = 255 /* of the exponent: infinities and NaNs */, EXTRA_BITS = 7 };

#define SIGN 0x80000000u
#define INFINITE 0x7F800000u
#define NOT_A_NUMBER 0x7FC00000u
#define LEAST_NORMAL 0x00800000u

typedef struct number {
    uint32_t significand;
    int32_t exponent;
} number;

typedef union word {
    float value;
    uint32_t bits;
} word;

float __addsf3(float a, float b);
float __subsf3(float a, float b);
float __mulsf3(float a, float b);
float __floatsisf(int32_t x);
float __floatunsisf(uint32_t x);

static float as_float(uint32_t bits) {
    const word w = {.bits = bits};
    return w.value;
}

static uint32_t bits_of(float value) {
    const word w = {.value = value};
    return w.bits;
}

static uint32_t shift_right(uint32_t x, int32_t count) {
    if (count > 31)
        return x != 0;
    return x >> count | ((x & (((uint32_t)1 << count) - 1)) != 0);
}

/* Of a magnitude that is neither zero nor infinite nor a NaN. */
static number unpack(uint32_t magnitude) {
    number x = {magnitude << EXTRA_BITS, 1};
    if (magnitude >= LEAST_NORMAL) {
        x.exponent = (int32_t)(magnitude >> 23);
        x.significand = ((magnitude & (LEAST_NORMAL - 1)) | LEAST_NORMAL) << EXTRA_BITS;
    } else {
        const int shift = __builtin_clz(x.significand) - 1;
        x.significand <<= shift;
        x.exponent -= shift;
    }
    return x;
}

/* Rounds. The significand brings its highest bit along, which adds one to the exponent, and so does a carry into it. */
static float pack(uint32_t sign, number x) {
    if (x.exponent >= MOST)
        return as_float(sign | INFINITE);
    if (x.exponent < 1) { /* subnormal: less than the lowest exponent can't be said */
        x.significand = shift_right(x.significand, 1 - x.exponent);
        x.exponent = 1;
    }
    const uint32_t rest = x.significand & ((1u << EXTRA_BITS) - 1), half = 1u << (EXTRA_BITS - 1);
    uint32_t kept = x.significand >> EXTRA_BITS;
    kept += rest > half || (rest == half && kept % 2 == 1) ? 1 : 0;
    return as_float(sign | (((uint32_t)(x.exponent - 1) << 23) + kept));
}

static float add(uint32_t a, uint32_t b) {
    if ((a & ~SIGN) < (b & ~SIGN)) {
        const uint32_t swapped = a;
        a = b;
        b = swapped;
    }
    const uint32_t larger = a & ~SIGN, smaller = b & ~SIGN, sign = a & SIGN;
    const int is_sum = sign == (b & SIGN);
    if (larger > INFINITE || (smaller == INFINITE && !is_sum))
        return as_float(NOT_A_NUMBER);
    if (larger == 0)
        return as_float(a & b); /* -0 only of two of them */
    if (larger == INFINITE || smaller == 0)
        return as_float(a);

    number x = unpack(larger);
    const number y = unpack(smaller);
    const uint32_t aligned = shift_right(y.significand, x.exponent - y.exponent);
    if (is_sum) {
        x.significand += aligned;
        if (x.significand >> 31) {
            x.significand = shift_right(x.significand, 1);
            x.exponent++;
        }
    } else {
        x.significand -= aligned;
        if (x.significand == 0)
            return 0;
        const int shift = __builtin_clz(x.significand) - 1;
        x.significand <<= shift; /* by more than 1 only if nothing was lost */
        x.exponent -= shift;
    }
    return pack(sign, x);
}

float __addsf3(float a, float b) { return add(bits_of(a), bits_of(b)); }

float __subsf3(float a, float b) { return add(bits_of(a), bits_of(b) ^ SIGN); }

float __mulsf3(float a, float b) {
    const uint32_t sign = (bits_of(a) ^ bits_of(b)) & SIGN, p = bits_of(a) & ~SIGN, q = bits_of(b) & ~SIGN;
    const int is_infinite = p == INFINITE || q == INFINITE, is_zero = p == 0 || q == 0;
    if (p > INFINITE || q > INFINITE || (is_infinite && is_zero))
        return as_float(NOT_A_NUMBER);
    if (is_infinite || is_zero)
        return as_float(sign | (is_infinite ? INFINITE : 0));

    const number x = unpack(p), y = unpack(q);
    number product = {0, x.exponent + y.exponent - 127};
    uint32_t low;
    wide_multiply(x.significand << 1, y.significand, &product.significand, &low);
    if (product.significand >> 30) {
        product.exponent++;
    } else {
        product.significand = product.significand << 1 | low >> 31;
        low <<= 1;
    }
    product.significand |= low != 0;
    return pack(sign, product);
}

float __floatunsisf(uint32_t x) {
    if (x == 0)
        return 0;
    const int shift = __builtin_clz(x);
    const number n = {shift_right(x << shift, 1), 127 + 31 - shift};
    return pack(0, n);
}

float __floatsisf(int32_t x) {
    const float magnitude = __floatunsisf(x < 0 ? -(uint32_t)x : (uint32_t)x);
    return x < 0 ? as_float(bits_of(magnitude) | SIGN) : magnitude;
}
