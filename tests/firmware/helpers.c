/* Counts the results of ports/xtensa_sim/helpers, renamed to soft_*, that differ from this machine's. */
#include "pairs.h"
#include <stdio.h>
float soft_add(float, float), soft_sub(float, float), soft_mul(float, float), soft_int(int32_t), soft_uint(uint32_t);
uint32_t soft_udiv(uint32_t, uint32_t), soft_umod(uint32_t, uint32_t);
int32_t soft_div(int32_t, int32_t), soft_mod(int32_t, int32_t);
uint64_t soft_wide_mul(uint64_t, uint64_t), soft_wide_div(uint64_t, uint64_t), soft_wide_mod(uint64_t, uint64_t);
static int differs(float got, float expected) { return bits(got) != bits(expected); }
int main(void) {
    long wrong = 0;
    for (uint32_t i = 0; i < 4000000; i++) {
        uint32_t a, b;
        pair(i, &a, &b);
        const float x = value(a), y = value(b);
        const uint32_t d = b >> (a & 31);
        const uint64_t wide = (uint64_t)a << 32 | b, divisor = wide >> (a & 63);
        int bad = differs(soft_add(x, y), x + y) || differs(soft_sub(x, y), x - y) || differs(soft_mul(x, y), x * y) ||
                  differs(soft_int((int32_t)a), (float)(int32_t)a) || differs(soft_uint(a), (float)a) ||
                  soft_wide_mul(wide, ~wide >> 3) != wide * (~wide >> 3);
        if (d != 0)
            bad = bad || soft_udiv(a, d) != a / d || soft_umod(a, d) != a % d;
        if (d != 0 && !(a == 0x80000000u && d == 0xffffffffu))
            bad = bad || soft_div((int32_t)a, (int32_t)d) != (int32_t)a / (int32_t)d ||
                  soft_mod((int32_t)a, (int32_t)d) != (int32_t)a % (int32_t)d;
        if (divisor != 0)
            bad =
                bad || soft_wide_div(wide, divisor) != wide / divisor || soft_wide_mod(wide, divisor) != wide % divisor;
        if (bad && wrong++ < 5)
            printf("%08x %08x\n", (unsigned)a, (unsigned)b);
    }
    printf("%ld wrong\n", wrong);
    return 0;
}
