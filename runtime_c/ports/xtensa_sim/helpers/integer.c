/*
 * Integer operations that GCC calls by these names and that Debian's libgcc for the lx106 leaves out: the ESP8266 has
 * them in its ROM. Division by zero gives something and ends.
 */
#include "wide.h"

uint32_t __udivsi3(uint32_t dividend, uint32_t divisor);
uint32_t __umodsi3(uint32_t dividend, uint32_t divisor);
int32_t __divsi3(int32_t dividend, int32_t divisor);
int32_t __modsi3(int32_t dividend, int32_t divisor);
uint64_t __muldi3(uint64_t a, uint64_t b);
uint64_t __udivdi3(uint64_t dividend, uint64_t divisor);
uint64_t __umoddi3(uint64_t dividend, uint64_t divisor);

/* A bit of the quotient at a time, from the highest. */
static uint32_t divide(uint32_t dividend, uint32_t divisor, uint32_t *rest) {
    uint32_t quotient = 0;
    *rest = dividend;
    if (divisor > dividend || divisor == 0)
        return 0;
    for (int shift = __builtin_clz(divisor) - __builtin_clz(dividend); shift >= 0; shift--) {
        if (*rest >> shift >= divisor) {
            *rest -= divisor << shift;
            quotient |= (uint32_t)1 << shift;
        }
    }
    return quotient;
}

static uint64_t divide_wide(uint64_t dividend, uint64_t divisor, uint64_t *rest) {
    uint64_t quotient = 0;
    *rest = dividend;
    if (divisor > dividend || divisor == 0)
        return 0;
    for (int shift = __builtin_clzll(divisor) - __builtin_clzll(dividend); shift >= 0; shift--) {
        if (*rest >> shift >= divisor) {
            *rest -= divisor << shift;
            quotient |= (uint64_t)1 << shift;
        }
    }
    return quotient;
}

static uint32_t magnitude(int32_t x) { return x < 0 ? -(uint32_t)x : (uint32_t)x; }

uint32_t __udivsi3(uint32_t dividend, uint32_t divisor) {
    uint32_t rest;
    return divide(dividend, divisor, &rest);
}

uint32_t __umodsi3(uint32_t dividend, uint32_t divisor) {
    uint32_t rest;
    (void)divide(dividend, divisor, &rest);
    return rest;
}

int32_t __divsi3(int32_t dividend, int32_t divisor) {
    const uint32_t quotient = __udivsi3(magnitude(dividend), magnitude(divisor));
    return (int32_t)((dividend < 0) != (divisor < 0) ? -quotient : quotient);
}

int32_t __modsi3(int32_t dividend, int32_t divisor) {
    const uint32_t rest = __umodsi3(magnitude(dividend), magnitude(divisor));
    return (int32_t)(dividend < 0 ? -rest : rest);
}

uint64_t __muldi3(uint64_t a, uint64_t b) {
    const uint32_t a_low = (uint32_t)a, a_high = (uint32_t)(a >> 32), b_low = (uint32_t)b, b_high = (uint32_t)(b >> 32);
    uint32_t high, low;
    wide_multiply(a_low, b_low, &high, &low);
    high += a_low * b_high + a_high * b_low;
    return (uint64_t)high << 32 | low;
}

uint64_t __udivdi3(uint64_t dividend, uint64_t divisor) {
    uint64_t rest;
    return divide_wide(dividend, divisor, &rest);
}

uint64_t __umoddi3(uint64_t dividend, uint64_t divisor) {
    uint64_t rest;
    (void)divide_wide(dividend, divisor, &rest);
    return rest;
}
