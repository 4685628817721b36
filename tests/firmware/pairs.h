/* Pairs of binary32 bit patterns that try arithmetic at its edges. */
#ifndef PAIRS_H
#define PAIRS_H
#include <stdint.h>
#include <string.h>
static uint64_t state = 88172645463325252u;
static uint32_t next(void) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)(state >> 16);
}
static uint32_t bits(float x) {
    uint32_t b;
    memcpy(&b, &x, 4);
    return (b & 0x7fffffff) > 0x7f800000 ? 0x7fc00000 : b;
}
static float value(uint32_t b) {
    float x;
    memcpy(&x, &b, 4);
    return x;
}
static const uint32_t special[] = {
    0,          1,          2,          3,          0x400000,   0x7fffff,   0x800000,
    0x800001,   0xffffff,   0x1000000,  0x33800000, 0x3effffff, 0x3f000000, 0x3f7fffff,
    0x3f800000, 0x3f800001, 0x3f800002, 0x3fffffff, 0x40000000, 0x4b7fffff, 0x4b800000,
    0x4b800001, 0x7effffff, 0x7f000000, 0x7f7ffffe, 0x7f7fffff, 0x7f800000, 0x7fc00000,
};
enum { SPECIALS = sizeof special / sizeof special[0] };
/* Random ones, close ones, subnormal ones, ones whose product is near the ends of the range, few bits; then all pairs
   of special ones with all signs. */
static void pair(uint32_t i, uint32_t *a, uint32_t *b) {
    uint32_t x = next(), y = next(), z = next();
    switch (i & 7) {
    case 0:
        y = (y & 0x807fffff) | (x & 0x7f800000);
        break;
    case 1:
        x &= 0x80ffffff;
        break;
    case 2:
        x &= 0x807fffff;
        y &= 0x80ffffff;
        break;
    case 3:
        y = x ^ (y & 0x80000007);
        break;
    case 4:
        x = (x & 0x807fffff) | ((50 + (z >> 8) % 60) << 23);
        y = (y & 0x807fffff) | ((50 + (z >> 20) % 60) << 23);
        break;
    case 5:
        x = (x & 0xff800000) | (uint32_t)1 << (z & 31);
        y &= 0xfff00000;
        break;
    case 6:
        y = (y & 0x807fffff) | (((x >> 23 & 255) + (z & 31) - 16) & 255) << 23;
        break;
    default:
        break;
    }
    if (i < 4 * SPECIALS * SPECIALS) {
        x = special[i / 4 % SPECIALS] | (i & 1) << 31;
        y = special[i / 4 / SPECIALS] | (i >> 1 & 1) << 31;
    }
    *a = x;
    *b = y;
}

#endif
