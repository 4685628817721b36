#include "bfe_avx2.h"

#ifdef BFE_HAS_X86_KERNELS

/* The angles of one layer, or of the rest of one. */
typedef struct angles {
    const float *cosine, *sine;
} angles;

BFE_AVX2_INLINE angles later(angles at, size_t pairs) {
    const angles result = {at.cosine + pairs, at.sine + pairs};
    return result;
}

/* Rotates 8 pairs by 8 angles. */
BFE_AVX2_INLINE void turn(__m256 *first, __m256 *second, __m256 c, __m256 s) {
    const __m256 a = *first, b = *second;
    *first = _mm256_sub_ps(_mm256_mul_ps(c, a), _mm256_mul_ps(s, b));
    *second = _mm256_add_ps(_mm256_mul_ps(s, a), _mm256_mul_ps(c, b));
}

BFE_AVX2_INLINE void turn_at(__m256 *first, __m256 *second, angles at) {
    turn(first, second, _mm256_loadu_ps(at.cosine), _mm256_loadu_ps(at.sine));
}

/* 8 angles in the order in which unpacking the halves of two vectors leaves their pairs: 0 1 4 5, 2 3 6 7. */
BFE_AVX2_INLINE __m256 unpacked(const float *x) {
    return _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_loadu_pd((const double *)(const void *)x), 0xD8));
}

/* The 8 pairs at distance 1, 2 or 4 within 16 elements, u before v. */
BFE_AVX2_INLINE void turn_at_1(__m256 *u, __m256 *v, angles at) {
    __m256 even = _mm256_shuffle_ps(*u, *v, 0x88), odd = _mm256_shuffle_ps(*u, *v, 0xDD);
    turn(&even, &odd, unpacked(at.cosine), unpacked(at.sine));
    *u = _mm256_unpacklo_ps(even, odd);
    *v = _mm256_unpackhi_ps(even, odd);
}

BFE_AVX2_INLINE void turn_at_2(__m256 *u, __m256 *v, angles at) {
    __m256 first = _mm256_shuffle_ps(*u, *v, 0x44), second = _mm256_shuffle_ps(*u, *v, 0xEE);
    turn(&first, &second, unpacked(at.cosine), unpacked(at.sine));
    *u = _mm256_shuffle_ps(first, second, 0x44);
    *v = _mm256_shuffle_ps(first, second, 0xEE);
}

BFE_AVX2_INLINE void turn_at_4(__m256 *u, __m256 *v, angles at) {
    __m256 first = _mm256_permute2f128_ps(*u, *v, 0x20), second = _mm256_permute2f128_ps(*u, *v, 0x31);
    turn_at(&first, &second, at);
    *u = _mm256_permute2f128_ps(first, second, 0x20);
    *v = _mm256_permute2f128_ps(first, second, 0x31);
}

/* Layer 0, at distance 1. */
BFE_AVX2 static void turn_neighbours(float *x, size_t padded, angles at) {
    for (size_t i = 0; i < padded; i += 16) {
        __m256 u = _mm256_loadu_ps(x + i), v = _mm256_loadu_ps(x + i + 8);
        turn_at_1(&u, &v, later(at, i / 2));
        _mm256_storeu_ps(x + i, u);
        _mm256_storeu_ps(x + i + 8, v);
    }
}

/* Layers 0 and 1 in one pass: neighbours, then pairs at distance padded / 2. */
BFE_AVX2 static void turn_neighbours_and_halves(float *x, size_t padded, angles at) {
    const size_t distance = padded / 2;
    const angles next = later(at, distance);
    for (size_t i = 0; i < distance; i += 16) {
        __m256 u0 = _mm256_loadu_ps(x + i), v0 = _mm256_loadu_ps(x + i + 8);
        __m256 u1 = _mm256_loadu_ps(x + i + distance), v1 = _mm256_loadu_ps(x + i + distance + 8);
        turn_at_1(&u0, &v0, later(at, i / 2));
        turn_at_1(&u1, &v1, later(at, (i + distance) / 2));
        turn_at(&u0, &u1, later(next, i));
        turn_at(&v0, &v1, later(next, i + 8));
        _mm256_storeu_ps(x + i, u0);
        _mm256_storeu_ps(x + i + 8, v0);
        _mm256_storeu_ps(x + i + distance, u1);
        _mm256_storeu_ps(x + i + distance + 8, v1);
    }
}

/* One layer at distance 8 or more. */
BFE_AVX2 static void turn_apart(float *x, size_t padded, size_t distance, angles at) {
    for (size_t base = 0; base < padded; base += 2 * distance) {
        for (size_t i = base; i < base + distance; i += 8, at = later(at, 8)) {
            __m256 a = _mm256_loadu_ps(x + i), b = _mm256_loadu_ps(x + i + distance);
            turn_at(&a, &b, at);
            _mm256_storeu_ps(x + i, a);
            _mm256_storeu_ps(x + i + distance, b);
        }
    }
}

/* Two layers in one pass: at distance 2 * half, then at half, which is 8 or more. */
BFE_AVX2 static void turn_apart_twice(float *x, size_t padded, size_t half, angles at) {
    const angles next = later(at, padded / 2);
    for (size_t base = 0; base < padded; base += 4 * half) {
        for (size_t i = base; i < base + half; i += 8) {
            __m256 a = _mm256_loadu_ps(x + i), b = _mm256_loadu_ps(x + i + half);
            __m256 c = _mm256_loadu_ps(x + i + 2 * half), d = _mm256_loadu_ps(x + i + 3 * half);
            const size_t pair = i - base / 2;
            turn_at(&a, &c, later(at, pair));
            turn_at(&b, &d, later(at, pair + half));
            turn_at(&a, &b, later(next, pair));
            turn_at(&c, &d, later(next, pair + half));
            _mm256_storeu_ps(x + i, a);
            _mm256_storeu_ps(x + i + half, b);
            _mm256_storeu_ps(x + i + 2 * half, c);
            _mm256_storeu_ps(x + i + 3 * half, d);
        }
    }
}

/* The last layer or two in one pass: at distance 4, and at 2. */
BFE_AVX2 static void turn_close(float *x, size_t padded, size_t layers, angles at) {
    for (size_t i = 0; i < padded; i += 16, at = later(at, 8)) {
        __m256 u = _mm256_loadu_ps(x + i), v = _mm256_loadu_ps(x + i + 8);
        turn_at_4(&u, &v, at);
        if (layers > 1)
            turn_at_2(&u, &v, later(at, padded / 2));
        _mm256_storeu_ps(x + i, u);
        _mm256_storeu_ps(x + i + 8, v);
    }
}

BFE_AVX2 void bfe_rotate_f32_avx2(float *x, size_t padded, size_t layers, const float *cosine, const float *sine) {
    angles at = {cosine, sine};
    if (padded < 32) {
        bfe_rotate_f32_c(x, padded, layers, cosine, sine);
        return;
    }
    if (layers == 0)
        return;
    if (layers == 1) {
        turn_neighbours(x, padded, at);
        return;
    }
    turn_neighbours_and_halves(x, padded, at);
    at = later(at, padded);
    for (size_t layer = 2; layer < layers;) {
        const size_t distance = padded >> layer;
        if (distance < 8) {
            turn_close(x, padded, layers - layer, at);
            return;
        }
        if (distance >= 16 && layer + 1 < layers) {
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
