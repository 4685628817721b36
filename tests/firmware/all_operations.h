/* One number that depends on the bits of all operations on many pairs. */
#include "pairs.h"
static uint32_t sum = 1;
static void note(uint32_t word) { sum = (sum ^ word) * 16777619u + 1; }
static uint32_t compute(void) {
    for (uint32_t i = 0; i < 40000; i++) {
        uint32_t a, b;
        pair(i, &a, &b);
        volatile float x = value(a), y = value(b);
        const int64_t wide = (int64_t)((uint64_t)a << 32 | b) >> (b & 63);
        note(bits(x + y));
        note(bits(x - y));
        note(bits(x * y));
        note(bits(x / y));
        note((uint32_t)(x < y) | (uint32_t)(x <= y) << 1 | (uint32_t)(x == y) << 2 | (uint32_t)(x > y) << 3);
        note(bits((float)(int32_t)a));
        note(bits((float)b));
        note(bits((float)wide));
        note(bits((float)(uint64_t)wide));
        if ((a & 0x7f800000) < 0x4e800000)
            note((uint32_t)(int32_t)x);
    }
    return sum;
}
