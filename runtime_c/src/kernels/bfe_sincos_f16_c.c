#include "../bfe_float.h"
#include "../bfe_kernels.h"

void bfe_sincos_f16_c(const uint16_t *angles, size_t count, float *cosine, float *sine) {
    for (size_t i = 0; i < count; i++) {
        const float x = bfe_widen_f16(angles[i]);
        const int32_t k = bfe_round(x * 0x1.45f306p-1f); /* quarter turns, -2..2 */
        const float turns = (float)k;
        const float r = (x - turns * 1.5703125f) - turns * 0x1.fb5444p-12f;
        const float z = r * r;
        const float s = ((-0x1.98da66p-13f * z + 0x1.1105b4p-7f) * z + -0x1.555540p-3f) * z * r + r;
        const float c = (((0x1.9a0250p-16f * z + -0x1.6c0c8cp-10f) * z + 0x1.55554ap-5f) * z * z - 0.5f * z) + 1.0f;

        const int odd = k & 1;
        const float sine_of = odd ? c : s, cosine_of = odd ? s : c;
        const uint32_t quarter = (uint32_t)k & 3;
        sine[i] = quarter >= 2 ? -sine_of : sine_of;
        cosine[i] = quarter == 1 || quarter == 2 ? -cosine_of : cosine_of;
    }
}
