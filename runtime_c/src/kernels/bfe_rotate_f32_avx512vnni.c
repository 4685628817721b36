#include "bfe_avx512vnni.h"

#ifdef BFE_HAS_X86_KERNELS

/* The angles of one layer, or of the rest of one. */
typedef struct angles {
    const float *cosine, *sine;
} angles;

BFE_AVX512VNNI_INLINE angles later(angles at, size_t pairs) {
    const angles result = {at.cosine + pairs, at.sine + pairs};
    return result;
}

/* Rotates 16 pairs. */
BFE_AVX512VNNI_INLINE void turn(__m512 *first, __m512 *second, angles at) {
    const __m512 a = *first, b = *second, c = _mm512_loadu_ps(at.cosine), s = _mm512_loadu_ps(at.sine);
    *first = _mm512_sub_ps(_mm512_mul_ps(c, a), _mm512_mul_ps(s, b));
    *second = _mm512_add_ps(_mm512_mul_ps(s, a), _mm512_mul_ps(c, b));
}

/* The 16 pairs at distance 1, 2, 4 or 8 within 32 elements, u before v. */
BFE_AVX512VNNI_INLINE void turn_within(__m512 *u, __m512 *v, const int32_t distance, angles at) {
    const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m512i low = _mm512_and_si512(lane, _mm512_set1_epi32(distance - 1)), high = _mm512_xor_si512(lane, low);
    /* Of pair p the first element is at p + (p with its low bits cleared), the second `distance` behind. */
    const __m512i at_first = _mm512_add_epi32(lane, high),
                  at_second = _mm512_add_epi32(at_first, _mm512_set1_epi32(distance));
    __m512 first = _mm512_permutex2var_ps(*u, at_first, *v), second = _mm512_permutex2var_ps(*u, at_second, *v);
    turn(&first, &second, at);
    /* Element i is of pair (i with its bit `distance` taken out), the second one if that bit is set. */
    const __m512i is_second = _mm512_and_si512(lane, _mm512_set1_epi32(distance));
    const __m512i pair = _mm512_add_epi32(low, _mm512_srli_epi32(_mm512_xor_si512(high, is_second), 1));
    const __m512i of_u =
        _mm512_mask_add_epi32(pair, _mm512_test_epi32_mask(is_second, is_second), pair, _mm512_set1_epi32(16));
    const __m512i of_v = _mm512_add_epi32(of_u, _mm512_set1_epi32(8));
    *u = _mm512_permutex2var_ps(first, of_u, second);
    *v = _mm512_permutex2var_ps(first, of_v, second);
}

/* Layer 0, at distance 1. */
BFE_AVX512VNNI static void turn_neighbours(float *x, size_t padded, angles at) {
    for (size_t i = 0; i < padded; i += 32) {
        __m512 u = _mm512_loadu_ps(x + i), v = _mm512_loadu_ps(x + i + 16);
        turn_within(&u, &v, 1, later(at, i / 2));
        _mm512_storeu_ps(x + i, u);
        _mm512_storeu_ps(x + i + 16, v);
    }
}

/* Layers 0 and 1 in one pass: neighbours, then pairs at distance padded / 2. */
BFE_AVX512VNNI static void turn_neighbours_and_halves(float *x, size_t padded, angles at) {
    const size_t distance = padded / 2;
    const angles next = later(at, distance);
    for (size_t i = 0; i < distance; i += 32) {
        __m512 u0 = _mm512_loadu_ps(x + i), v0 = _mm512_loadu_ps(x + i + 16);
        __m512 u1 = _mm512_loadu_ps(x + i + distance), v1 = _mm512_loadu_ps(x + i + distance + 16);
        turn_within(&u0, &v0, 1, later(at, i / 2));
        turn_within(&u1, &v1, 1, later(at, (i + distance) / 2));
        turn(&u0, &u1, later(next, i));
        turn(&v0, &v1, later(next, i + 16));
        _mm512_storeu_ps(x + i, u0);
        _mm512_storeu_ps(x + i + 16, v0);
        _mm512_storeu_ps(x + i + distance, u1);
        _mm512_storeu_ps(x + i + distance + 16, v1);
    }
}

/* One layer at distance 16 or more. */
BFE_AVX512VNNI static void turn_apart(float *x, size_t padded, size_t distance, angles at) {
    for (size_t base = 0; base < padded; base += 2 * distance) {
        for (size_t i = base; i < base + distance; i += 16, at = later(at, 16)) {
            __m512 a = _mm512_loadu_ps(x + i), b = _mm512_loadu_ps(x + i + distance);
            turn(&a, &b, at);
            _mm512_storeu_ps(x + i, a);
            _mm512_storeu_ps(x + i + distance, b);
        }
    }
}

/* Two layers in one pass: at distance 2 * half, then at half, which is 16 or more. */
BFE_AVX512VNNI static void turn_apart_twice(float *x, size_t padded, size_t half, angles at) {
    const angles next = later(at, padded / 2);
    for (size_t base = 0; base < padded; base += 4 * half) {
        for (size_t i = base; i < base + half; i += 16) {
            __m512 a = _mm512_loadu_ps(x + i), b = _mm512_loadu_ps(x + i + half);
            __m512 c = _mm512_loadu_ps(x + i + 2 * half), d = _mm512_loadu_ps(x + i + 3 * half);
            const size_t pair = i - base / 2;
            turn(&a, &c, later(at, pair));
            turn(&b, &d, later(at, pair + half));
            turn(&a, &b, later(next, pair));
            turn(&c, &d, later(next, pair + half));
            _mm512_storeu_ps(x + i, a);
            _mm512_storeu_ps(x + i + half, b);
            _mm512_storeu_ps(x + i + 2 * half, c);
            _mm512_storeu_ps(x + i + 3 * half, d);
        }
    }
}

/* The last layers, up to three, in one pass: at distance 8, 4 and 2. */
BFE_AVX512VNNI static void turn_close(float *x, size_t padded, size_t layers, angles at) {
    for (size_t i = 0; i < padded; i += 32, at = later(at, 16)) {
        __m512 u = _mm512_loadu_ps(x + i), v = _mm512_loadu_ps(x + i + 16);
        turn_within(&u, &v, 8, at);
        if (layers > 1)
            turn_within(&u, &v, 4, later(at, padded / 2));
        if (layers > 2)
            turn_within(&u, &v, 2, later(at, padded));
        _mm512_storeu_ps(x + i, u);
        _mm512_storeu_ps(x + i + 16, v);
    }
}

BFE_AVX512VNNI void bfe_rotate_f32_avx512vnni(float *x, size_t padded, size_t layers, const float *cosine,
                                              const float *sine) {
    angles at = {cosine, sine};
    if (padded < 64) {
        bfe_rotate_f32_c(x, padded, layers, cosine, sine);
        return;
    }
    if (layers < 2) {
        if (layers == 1)
            turn_neighbours(x, padded, at);
        return;
    }
    turn_neighbours_and_halves(x, padded, at);
    at = later(at, padded);
    for (size_t layer = 2; layer < layers;) {
        const size_t distance = padded >> layer;
        if (distance < 16) {
            turn_close(x, padded, layers - layer, at);
            return;
        }
        if (distance >= 32 && layer + 1 < layers) {
            turn_apart_twice(x, padded, distance / 2, at);
            layer += 2;
            at = later(at, padded);
        } else {
            turn_apart(x, padded, distance, at);
            layer++;
            at = later(at, padded / 2);
        }
    }
}

#endif
