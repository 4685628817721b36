#include "bfe_kernel_sets.h"

#ifdef BFE_HAS_X86_KERNELS
#include <cpuid.h>
#endif
#if defined(BFE_HAS_NEON_KERNELS) && defined(__linux__)
#include <sys/auxv.h>
#endif

/* May be given on the command line: a test compares with plain C. */
#ifndef BFE_KERNELS_IN_PLACE
#ifdef __ARM_FEATURE_SIMD32
#define BFE_KERNELS_IN_PLACE bfe_kernels_dsp
#else
#define BFE_KERNELS_IN_PLACE bfe_kernels_tables
#endif
#endif
const bfe_kernels *const bfe_kernels_in_place = &BFE_KERNELS_IN_PLACE;

#ifdef BFE_HAS_X86_KERNELS

/* Bits of the register XCR0: what the system saves when it switches tasks. Registers that it does not save must not be
 * used. */
enum { SAVES_AVX = 0x06, SAVES_AVX512 = 0xE6 };

/* Of leaf 7, register C. GCC has a name for it, and others too, but not the same one. */
enum { HAS_AVX512_VNNI = 1 << 11 };

typedef struct processor {
    unsigned states, basic, extended, extended_c;
} processor;

static processor ask_processor(void) {
    processor p = {0, 0, 0, 0};
    unsigned ignored, other;
    if (__get_cpuid(1, &ignored, &other, &p.basic, &ignored) && (p.basic & bit_OSXSAVE))
        __asm__ volatile("xgetbv" : "=a"(p.states), "=d"(ignored) : "c"(0));
    (void)__get_cpuid_count(7, 0, &ignored, &p.extended, &p.extended_c, &ignored);
    return p;
}

static int has_avx2(void) {
    const processor p = ask_processor();
    return (p.states & SAVES_AVX) == SAVES_AVX && (p.basic & bit_F16C) && (p.extended & bit_AVX2);
}

static int has_avx512vnni(void) {
    const unsigned needed = bit_AVX512F | bit_AVX512BW | bit_AVX512DQ | bit_AVX512VL;
    const processor p = ask_processor();
    return (p.states & SAVES_AVX512) == SAVES_AVX512 && (p.extended & needed) == needed &&
           (p.extended_c & HAS_AVX512_VNNI);
}

#endif

#ifdef BFE_HAS_NEON_KERNELS

static int has_dotprod(void) {
#if defined(__linux__)
    return (getauxval(AT_HWCAP) & 1ul << 20) != 0; /* HWCAP_ASIMDDP */
#elif defined(__ARM_FEATURE_DOTPROD)
    return 1;
#else
    return 0;
#endif
}

#endif

static int always(void) { return 1; }

/* Fastest first. The plain C ones come after those in place, which are faster. */
static const struct {
    const bfe_kernels *set;
    int (*is_usable)(void);
} known[] = {
#ifdef BFE_HAS_X86_KERNELS
#ifdef __OPTIMIZE__ /* without, its loops over many vectors take more stack than a program may have */
    {&bfe_kernels_avx512vnni, has_avx512vnni},
#endif
    {&bfe_kernels_avx2, has_avx2},
#endif
#ifdef BFE_HAS_NEON_KERNELS
    {&bfe_kernels_dotprod, has_dotprod},
    {&bfe_kernels_neon, always},
#endif
#ifdef __ARM_FEATURE_SIMD32
    {&bfe_kernels_dsp, always},
#endif
    {&bfe_kernels_tables, always},
    {&bfe_kernels_tiles, always},
    {&bfe_kernels_c, always},
};

const bfe_kernels *bfe_kernels_at(uint32_t index) {
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (known[i].is_usable() && index-- == 0)
            return known[i].set;
    return NULL;
}
