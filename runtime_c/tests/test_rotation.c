/* Rotations with folded shuffles against Algorithm 1 as written, bit for bit. */
#include "bfe_kernels.h"
#include "test.h"

enum { WIDEST = 64, HALF = WIDEST / 2, DEEPEST = 6 };

typedef struct tables {
    float cosine[DEEPEST * HALF], sine[DEEPEST * HALF];
} tables;

static size_t rotate_right(size_t index, size_t count, size_t bits) {
    for (; count > 0; count--)
        index = index >> 1 | (index & 1) << (bits - 1);
    return index;
}

/* Algorithm 1: rotate the pairs (2j, 2j + 1), shuffle, repeat. */
static void literal(float *x, size_t padded, size_t layers, const tables *angles) {
    float next[WIDEST];
    for (size_t layer = 0; layer < layers; layer++) {
        for (size_t j = 0; j < padded / 2; j++) {
            const float c = angles->cosine[layer * (padded / 2) + j], s = angles->sine[layer * (padded / 2) + j];
            const float a = x[2 * j], b = x[2 * j + 1];
            x[2 * j] = c * a - s * b;
            x[2 * j + 1] = s * a + c * b;
        }
        for (size_t j = 0; j < padded / 2; j++) {
            next[2 * j] = x[j];
            next[2 * j + 1] = x[j + padded / 2];
        }
        memcpy(x, next, padded * sizeof *x);
    }
}

/* The same angles in the order of the file: angle p of a layer with distance D belongs to the pair at b + j with
 * b = 2D * (p div D), j = p mod D. */
static void fold(const tables *from, size_t padded, size_t bits, size_t layers, tables *to) {
    for (size_t layer = 0; layer < layers; layer++) {
        const size_t distance = layer == 0 ? 1 : padded >> layer;
        for (size_t j = 0; j < padded / 2; j++) {
            const size_t first = rotate_right(2 * j, layer, bits);
            CHECK(rotate_right(2 * j + 1, layer, bits) == first + distance);
            const size_t p = first / (2 * distance) * distance + first % distance;
            to->cosine[layer * (padded / 2) + p] = from->cosine[layer * (padded / 2) + j];
            to->sine[layer * (padded / 2) + p] = from->sine[layer * (padded / 2) + j];
        }
    }
}

static void compare(size_t width, size_t bits, size_t layers) {
    const size_t padded = (size_t)1 << bits;
    tables angles, folded;
    for (size_t i = 0; i < layers * (padded / 2); i++) {
        angles.cosine[i] = test_random_float();
        angles.sine[i] = test_random_float();
    }
    fold(&angles, padded, bits, layers, &folded);

    float expected[WIDEST] = {0}, x[WIDEST] = {0};
    for (size_t i = 0; i < width; i++)
        expected[i] = x[i] = test_random_float();
    literal(expected, padded, layers, &angles);
    bfe_rotate_f32(x, padded, layers, folded.cosine, folded.sine);

    int stripped[WIDEST] = {0};
    float in_order[WIDEST]; /* expected, elements with index < width in the order of their positions */
    size_t kept = 0;
    for (size_t i = 0; i < padded; i++) {
        const size_t at = rotate_right(i, layers, bits);
        CHECK(test_same_bits(&x[at], &expected[i], 1));
        stripped[at] = i >= width;
    }
    for (size_t at = 0; at < padded; at++)
        if (!stripped[at])
            in_order[kept++] = x[at];
    CHECK(kept == width);
    bfe_compact_f32(x, width, padded, layers);
    CHECK(test_same_bits(x, in_order, width));
}

int main(void) {
    for (size_t width = 2; width <= WIDEST; width++) {
        size_t bits = 1;
        while ((size_t)1 << bits < width)
            bits++;
        for (size_t layers = 1; layers <= bits; layers++)
            for (int repeat = 0; repeat < 5; repeat++)
                compare(width, bits, layers);
    }
    return test_result();
}
