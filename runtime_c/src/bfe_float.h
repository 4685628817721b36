/*
 * Binary32, one rounded operation at a time (NUMERICS.md, section 1). Every file that computes with floats includes
 * this before it does, so that a compiler or a flag that would change bits fails to compile instead.
 */
#ifndef BFE_FLOAT_H
#define BFE_FLOAT_H

#include <float.h>
#include <stdint.h>
#include <string.h>

#ifdef __FAST_MATH__
#error "bfedge must not be compiled with -ffast-math: its results would differ from other devices'"
#endif
#if defined(__ASSOCIATIVE_MATH__) || defined(__RECIPROCAL_MATH__) || defined(__NO_SIGNED_ZEROS__)
#error "bfedge must not be compiled with parts of -ffast-math: its results would differ from other devices'"
#endif
/* 16 says that _Float16 is evaluated as itself; float is too, then. */
#if !defined(FLT_EVAL_METHOD) || (FLT_EVAL_METHOD != 0 && FLT_EVAL_METHOD != 16)
#error "bfedge needs float operations rounded to float: on 32-bit x86, compile with -msse2 -mfpmath=sse"
#endif
#if FLT_RADIX != 2 || FLT_MANT_DIG != 24 || FLT_MAX_EXP != 128
#error "bfedge needs float to be IEEE 754 binary32"
#endif

/*
 * a * b + c stays two operations, also under a build system whose flags are not ours: GCC fuses them unless told not
 * to. Clang, which may fuse too, obeys its pragma unless the command line says -ffp-contract=fast; nothing in a source
 * file can prevent or detect that, but the golden cases do.
 */
#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#elif defined(__GNUC__)
#pragma GCC optimize("fp-contract=off")
#endif

/* The least maximum that a vector is quantised with: 2^-100. Makes an all-zero vector an ordinary case. */
#define BFE_TINY 0x1p-100f

static inline uint32_t bfe_bits(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static inline float bfe_from_bits(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* |x|, as bits. Magnitudes are ordered like their bits, and integers are what compilers find the maximum of quickly. */
static inline uint32_t bfe_magnitude(float x) { return bfe_bits(x) & 0x7FFFFFFF; }

/*
 * Nearest integer, ties to even, for |x| <= 2^22: adding 1.5 * 2^23 leaves no fraction bits, so the addition rounds,
 * and the low bits of the sum are the integer. Any other x, even NaN, gives some integer within +-2^22.
 */
static inline int32_t bfe_round(float x) { return (int32_t)(bfe_bits(x + 12582912.0f) & 0x7FFFFF) - 0x400000; }

#endif
