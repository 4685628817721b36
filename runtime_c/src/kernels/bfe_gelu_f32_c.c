#include "../bfe_float.h"
#include "../bfe_kernels.h"

enum { STEPS = 128, LAST = 640 }; /* steps a unit; beyond LAST / STEPS = 5 the table is 0 */

void bfe_gelu_f32_c(float *x, size_t count) {
    for (size_t at = 0; at < count; at++) {
        float u = bfe_from_bits(bfe_magnitude(x[at])) * (float)STEPS;
        u = u < (float)LAST ? u : (float)LAST; /* in this order NaN becomes LAST */
        const int32_t i = (int32_t)u;
        const float f = u - (float)i;
        const float low = (float)bfe_gelu_table[i], high = (float)bfe_gelu_table[i + 1];
        const float delta = (low + f * (high - low)) * 0x1p-18f;
        x[at] = (x[at] > 0.0f ? x[at] : 0.0f) - delta;
    }
}
