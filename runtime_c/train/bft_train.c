#include "bft_train.h"

#include <string.h>

/* The loops are written for the compiler to vectorise; on x86 under Linux it does so for three generations of
 * processors, and the loader chooses. */
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__OPTIMIZE__) && (!defined(__clang__) || __clang_major__ >= 14)
#define VECTORISED __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define VECTORISED
#endif
#if defined(__GNUC__)
#define INLINED static inline __attribute__((always_inline))
#else
#define INLINED static inline
#endif

static const float TINY = 7.8886091e-31f; /* 2^-100, as NUMERICS.md has it */

INLINED float round_even(float x) { /* for |x| < 2^22 */ return (x + 12582912.0f) - 12582912.0f; }

INLINED float exp_negative(float x) { /* e^x for x <= 0, to 1e-7 of its value */
    float t = x * 1.44269504f;
    t = t < -126.0f ? -126.0f : t;
    const float whole = round_even(t);
    const float f = t - whole;
    float p = 1.5403530e-4f;
    p = p * f + 1.33335581e-3f;
    p = p * f + 9.61812911e-3f;
    p = p * f + 5.55041087e-2f;
    p = p * f + 2.40226507e-1f;
    p = p * f + 6.93147181e-1f;
    p = p * f + 1.0f;
    const int32_t bits = ((int32_t)whole + 127) * (1 << 23);
    float power;
    memcpy(&power, &bits, sizeof power);
    return p * power;
}

/* The normal distribution's function at x, by Abramowitz and Stegun 7.1.26 (1.5e-7); *bell is e^(-x^2/2). */
INLINED float normal(float x, float *bell) {
    const float z = (x < 0 ? -x : x) * 0.70710678f;
    const float t = 1.0f / (1.0f + 0.3275911f * z);
    float p = 1.061405429f;
    p = p * t - 1.453152027f;
    p = p * t + 1.421413741f;
    p = p * t - 0.284496736f;
    p = p * t + 0.254829592f;
    *bell = exp_negative(-z * z);
    const float tail = 0.5f * p * t * *bell;
    return x < 0 ? tail : 1.0f - tail;
}

INLINED float quantise_row(const float *x, float *out, size_t columns) {
    int32_t largest = 0; /* of the magnitude's bits, whose order is that of the numbers */
    for (size_t i = 0; i < columns; i++) {
        int32_t bits;
        memcpy(&bits, &x[i], sizeof bits);
        bits &= 0x7FFFFFFF;
        largest = bits > largest ? bits : largest;
    }
    float m;
    memcpy(&m, &largest, sizeof m);
    m = m > TINY ? m : m <= TINY ? TINY : m; /* NaN stays */
    const float up = 127.0f / m, down = m / 127.0f;
    for (size_t i = 0; i < columns; i++) {
        out[i] = round_even(x[i] * up) * down;
    }
    return down;
}

/* The pairs that a rotation's first layer turns, apart: [2][padded / 2]. */
INLINED void take_pairs(const float *restrict x, size_t width, size_t padded, float *restrict pairs) {
    const size_t half = padded / 2, whole = width / 2;
    float *restrict second = pairs + half;
    for (size_t j = 0; j < whole; j++) {
        pairs[j] = x[2 * j];
        second[j] = x[2 * j + 1];
    }
    for (size_t j = whole; j < half; j++) {
        pairs[j] = 2 * j < width ? x[2 * j] : 0;
        second[j] = 0;
    }
}

/* The vector that the pairs make, without its padding: what the last shuffle leaves. */
INLINED void put_pairs(const float *restrict pairs, size_t width, size_t padded, float *restrict x) {
    const size_t half = padded / 2, whole = width / 2;
    const float *restrict second = pairs + half;
    for (size_t j = 0; j < whole; j++) {
        x[2 * j] = pairs[j];
        x[2 * j + 1] = second[j];
    }
    if (width % 2) {
        x[width - 1] = pairs[whole];
    }
}

/* One layer: pairs (in[j], in[half + j]) turn; out, read as [2][half] again, holds the next layer's pairs, because the
 * shuffle puts elements j and half + j of the turned vector side by side. */
INLINED void turn(const float *restrict in, size_t half, const float *restrict c, const float *restrict s,
                  float *restrict out) {
    const float *restrict second = in + half;
    for (size_t j = 0; j < half; j++) {
        out[2 * j] = c[j] * in[j] - s[j] * second[j];
        out[2 * j + 1] = s[j] * in[j] + c[j] * second[j];
    }
}

/* The gradient back through one layer, whose results are `turned`; the angles' gradient needs nothing else. */
INLINED void turn_back(const float *restrict turned, const float *restrict gradient, size_t half,
                       const float *restrict c, const float *restrict s, float *restrict angle_gradient,
                       float *restrict in_gradient) {
    float *restrict second = in_gradient + half;
    for (size_t j = 0; j < half; j++) {
        const float g1 = gradient[2 * j], g2 = gradient[2 * j + 1];
        angle_gradient[j] += g2 * turned[2 * j] - g1 * turned[2 * j + 1];
        in_gradient[j] = c[j] * g1 + s[j] * g2;
        second[j] = c[j] * g2 - s[j] * g1;
    }
}

/* All layers; level l of `levels` [layers + 1][padded] holds what goes into layer l. */
INLINED void turn_all(const bft_rotation *r, size_t expert, float *levels) {
    const size_t half = r->padded / 2;
    for (size_t layer = 0; layer < r->layers; layer++) {
        const size_t at = (expert * r->layers + layer) * half;
        turn(levels + layer * r->padded, half, r->cosine + at, r->sine + at, levels + (layer + 1) * r->padded);
    }
}

/* `gradient` [padded] belongs to the last level and ends as the first one's; `spare` [padded] is scratch. */
INLINED float *turn_all_back(const bft_rotation *r, size_t expert, const float *levels, float *gradient, float *spare,
                             float *angle_gradient) {
    const size_t half = r->padded / 2;
    for (size_t layer = r->layers; layer-- > 0;) {
        const size_t at = (expert * r->layers + layer) * half;
        turn_back(levels + (layer + 1) * r->padded, gradient, half, r->cosine + at, r->sine + at, angle_gradient + at,
                  spare);
        float *const swap = gradient;
        gradient = spare;
        spare = swap;
    }
    return gradient;
}

size_t bft_scratch_floats(size_t padded, size_t layers) { return padded * (layers + 6); }

VECTORISED void bft_fake_quantise(const float *x, float *out, float *scale, size_t columns, size_t first, size_t last) {
    for (size_t row = first; row < last; row++) {
        const float step = quantise_row(x + row * columns, out + row * columns, columns);
        if (scale) {
            scale[row] = step;
        }
    }
}

VECTORISED void bft_rotate_inputs(const bft_rotation *r, const float *h, const int64_t *expert, size_t top_k,
                                  int quantise, float *out, float *scratch, size_t first, size_t last) {
    const size_t width = r->width, padded = r->padded;
    float *const top = scratch + r->layers * padded;
    for (size_t token = first; token < last; token++) {
        take_pairs(h + token * width, width, padded, scratch);
        for (size_t rank = 0; rank < top_k; rank++) {
            float *const row = out + (token * top_k + rank) * width;
            turn_all(r, (size_t)expert[token * top_k + rank], scratch);
            put_pairs(top, width, padded, row);
            if (quantise) {
                quantise_row(row, row, width);
            }
        }
    }
}

VECTORISED void bft_rotate_inputs_backward(const bft_rotation *r, const float *h, const int64_t *expert, size_t top_k,
                                           const float *out_gradient, float *h_gradient, float *angle_gradient,
                                           float *scratch, size_t first, size_t last) {
    const size_t width = r->width, padded = r->padded;
    float *const gradient = scratch + (r->layers + 1) * padded, *const spare = gradient + padded;
    float *const sum = spare + padded;
    for (size_t token = first; token < last; token++) {
        take_pairs(h + token * width, width, padded, scratch);
        memset(sum, 0, padded * sizeof *sum);
        for (size_t rank = 0; rank < top_k; rank++) {
            const size_t pair = token * top_k + rank;
            turn_all(r, (size_t)expert[pair], scratch);
            take_pairs(out_gradient + pair * width, width, padded, gradient);
            const float *const back = turn_all_back(r, (size_t)expert[pair], scratch, gradient, spare, angle_gradient);
            for (size_t i = 0; i < padded; i++) {
                sum[i] += back[i];
            }
        }
        put_pairs(sum, width, padded, h_gradient + token * width);
    }
}

VECTORISED void bft_mix_outputs(const bft_rotation *r, const float *y, const int64_t *expert, const float *weight,
                                size_t top_k, int quantise, float *out, float *scratch, size_t first, size_t last) {
    const size_t width = r->width, padded = r->padded;
    float *const top = scratch + r->layers * padded, *const u = top + padded, *const sum = u + padded;
    for (size_t token = first; token < last; token++) {
        memset(sum, 0, padded * sizeof *sum);
        for (size_t rank = 0; rank < top_k; rank++) {
            const size_t pair = token * top_k + rank;
            const float *const in = y + pair * width;
            for (size_t i = 0; i < width; i++) {
                float bell;
                u[i] = in[i] * normal(in[i], &bell);
            }
            take_pairs(u, width, padded, scratch);
            turn_all(r, (size_t)expert[pair], scratch);
            const float w = weight[pair];
            for (size_t i = 0; i < padded; i++) {
                sum[i] += w * top[i];
            }
        }
        float *const row = out + token * width;
        put_pairs(sum, width, padded, row);
        if (quantise) {
            quantise_row(row, row, width);
        }
    }
}

VECTORISED void bft_mix_outputs_backward(const bft_rotation *r, const float *y, const int64_t *expert,
                                         const float *weight, size_t top_k, const float *out_gradient,
                                         float *y_gradient, float *weight_gradient, float *angle_gradient,
                                         float *scratch, size_t first, size_t last) {
    const size_t width = r->width, padded = r->padded;
    const float *const top = scratch + r->layers * padded;
    float *const gradient = scratch + (r->layers + 1) * padded, *const spare = gradient + padded;
    float *const of_token = spare + padded, *const u = of_token + padded, *const slope = u + padded;
    for (size_t token = first; token < last; token++) {
        take_pairs(out_gradient + token * width, width, padded, of_token);
        for (size_t rank = 0; rank < top_k; rank++) {
            const size_t pair = token * top_k + rank;
            const float *const in = y + pair * width;
            float *const out = y_gradient + pair * width;
            for (size_t i = 0; i < width; i++) {
                float bell;
                const float share = normal(in[i], &bell);
                u[i] = in[i] * share;
                slope[i] = share + in[i] * bell * 0.39894228f;
            }
            take_pairs(u, width, padded, scratch);
            turn_all(r, (size_t)expert[pair], scratch);
            const float w = weight[pair];
            float product[16] = {0}; /* sixteen sums, so that the compiler may vectorise */
            for (size_t i = 0; i < padded; i++) {
                gradient[i] = w * of_token[i];
            }
            for (size_t i = 0; i + 16 <= padded; i += 16) {
                for (size_t k = 0; k < 16; k++) {
                    product[k] += of_token[i + k] * top[i + k];
                }
            }
            for (size_t i = padded - padded % 16; i < padded; i++) {
                product[0] += of_token[i] * top[i];
            }
            float total = 0;
            for (size_t k = 0; k < 16; k++) {
                total += product[k];
            }
            weight_gradient[pair] = total;
            const float *const back = turn_all_back(r, (size_t)expert[pair], scratch, gradient, spare, angle_gradient);
            put_pairs(back, width, padded, out);
            for (size_t i = 0; i < width; i++) {
                out[i] *= slope[i];
            }
        }
    }
}
