#include "../bfe_float.h"
#include "../bfe_kernels.h"

void bfe_compact_f32(float *x, size_t width, size_t padded, size_t layers) {
    if (width == padded)
        return;
    size_t bits = 0;
    while ((size_t)1 << bits < padded)
        bits++;

    size_t kept = 0;
    for (size_t at = 0; at < padded; at++) {
        /* Where Algorithm 1 would have left this element: the index bits rotated left once a layer. */
        const size_t index = (at << layers | at >> (bits - layers)) & (padded - 1);
        if (index < width)
            x[kept++] = x[at];
    }
}
