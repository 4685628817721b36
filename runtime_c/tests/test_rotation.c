/* The rotations of every set of kernels, with folded shuffles, against Algorithm 1 as written, bit for bit. */
#include "bfedge.h"
#include "kernels.h"
#include "test.h"

#include <math.h>

enum { WIDEST = 2048, HALF = WIDEST / 2, DEEPEST = 11 };

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
    static float next[WIDEST];
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

/* Any finite values do. Some are zero, with either sign. */
static float random_value(int scale) {
    return test_random_below(9) == 0 ? test_random_float() * 0.0f : ldexpf(test_random_float(), scale);
}

/* Checks x, rotated, and what is left of it when the padding is gone. */
static void check(const bfe_kernels *set, float *x, const float *expected, size_t width, size_t bits, size_t layers) {
    static float in_order[WIDEST]; /* expected, elements with index < width in the order of their positions */
    static int stripped[WIDEST];
    const size_t padded = (size_t)1 << bits;
    size_t kept = 0;
    for (size_t i = 0; i < padded; i++) {
        const size_t at = rotate_right(i, layers, bits);
        CHECK_SET(set, test_same_bits(&x[at], &expected[i], 1));
        stripped[at] = i >= width;
    }
    for (size_t at = 0; at < padded; at++)
        if (!stripped[at])
            in_order[kept++] = x[at];
    CHECK(kept == width);
    bfe_compact_f32(x, width, padded, layers);
    CHECK(test_same_bits(x, in_order, width));
}

static void compare(size_t width, size_t bits, size_t layers, int scale) {
    static tables angles, folded;
    static float expected[WIDEST], input[WIDEST];
    const size_t padded = (size_t)1 << bits, angle_count = layers * (padded / 2);
    for (size_t i = 0; i < angle_count; i++) {
        angles.cosine[i] = test_random_float();
        angles.sine[i] = test_random_float();
    }
    fold(&angles, padded, bits, layers, &folded);
    for (size_t i = 0; i < padded; i++)
        expected[i] = input[i] = i < width ? random_value(scale) : 0.0f;
    literal(expected, padded, layers, &angles);

    for (uint32_t i = 0; kernels_to_test(i) != NULL; i++) {
        block x = new_guarded_block(padded * sizeof(float), BFE_ALIGNMENT);
        block cosine = new_block(angle_count * sizeof(float), BFE_ALIGNMENT);
        block sine = new_block(angle_count * sizeof(float), BFE_ALIGNMENT);
        memcpy(x.data, input, x.bytes);
        memcpy(cosine.data, folded.cosine, cosine.bytes);
        memcpy(sine.data, folded.sine, sine.bytes);
        kernels_to_test(i)->rotate(x.data, padded, layers, cosine.data, sine.data);
        CHECK_SET(kernels_to_test(i), is_intact(&x));
        check(kernels_to_test(i), x.data, expected, width, bits, layers);
        free_block(&x);
        free_block(&cosine);
        free_block(&sine);
    }
}

int main(void) {
    for (size_t width = 2; width <= WIDEST; width = width < 64 ? width + 1 : width * 4 / 3) {
        size_t bits = 1;
        while ((size_t)1 << bits < width)
            bits++;
        for (size_t layers = 1; layers <= bits; layers++) {
            compare(width, bits, layers, 0);
            compare((size_t)1 << bits, bits, layers, 0);
        }
        compare(width, bits, bits, 90);
        compare(width, bits, bits, -130);
    }
    return test_result();
}
