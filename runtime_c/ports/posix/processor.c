#include "bfd_processor.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>

#ifdef __linux__
#include <sys/auxv.h>
#endif
#if defined(__x86_64__) || defined(__i386__)
#include <cpuid.h>
#endif

#if defined(__linux__) && defined(__aarch64__)

/* Bits of AT_HWCAP, from Linux's arch/arm64/include/uapi/asm/hwcap.h. */
enum {
    HAS_CRC32 = 1 << 7,
    HAS_ATOMICS = 1 << 8,
    HAS_HALF = 1 << 10,
    HAS_ID_REGISTERS = 1 << 11,
    HAS_DOTPROD = 1 << 20
};

const char *bfd_missing_feature(void) {
    const unsigned long has = getauxval(AT_HWCAP);
    (void)has;
#ifdef __ARM_FEATURE_DOTPROD
    if (!(has & HAS_DOTPROD))
        return "dot products (asimddp)";
#endif
#ifdef __ARM_FEATURE_FP16_VECTOR_ARITHMETIC
    if (!(has & HAS_HALF))
        return "half-precision arithmetic (asimdhp)";
#endif
#ifdef __ARM_FEATURE_ATOMICS
    if (!(has & HAS_ATOMICS))
        return "atomics";
#endif
#ifdef __ARM_FEATURE_CRC32
    if (!(has & HAS_CRC32))
        return "crc32";
#endif
    return NULL;
}

/* The kernel lets programs read the main ID register. */
const char *bfd_processor_name(void) {
    static const struct {
        uint32_t part;
        const char *name;
    } known[] = {{0xD03, "Cortex-A53"}, {0xD07, "Cortex-A57"}, {0xD08, "Cortex-A72"}, {0xD0B, "Cortex-A76"}};
    static char unknown[32];
    if (!(getauxval(AT_HWCAP) & HAS_ID_REGISTERS))
        return "aarch64";
    uint64_t id;
    __asm__("mrs %0, midr_el1" : "=r"(id));
    const uint32_t implementer = (uint32_t)(id >> 24 & 0xFF), part = (uint32_t)(id >> 4 & 0xFFF);
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (implementer == 0x41 && part == known[i].part)
            return known[i].name;
    snprintf(unknown, sizeof unknown, "aarch64 0x%02x part 0x%03x", (unsigned)implementer, (unsigned)part);
    return unknown;
}

#else

#if defined(__linux__) && defined(__arm__)

const char *bfd_missing_feature(void) {
    const char *const platform = (const char *)(uintptr_t)getauxval(AT_PLATFORM); /* "v6l", "v7l" ... */
    const int version = platform != NULL && platform[0] == 'v' ? platform[1] - '0' : 0;
    if (version > 0 && version < __ARM_ARCH)
        return "a newer ARM architecture";
#ifdef __ARM_NEON
    if (!(getauxval(AT_HWCAP) & 1 << 12))
        return "NEON";
#endif
    return NULL;
}

#elif defined(__x86_64__) || defined(__i386__)

/* Bits of the register XCR0: what the system saves when it switches tasks. */
enum { SAVES_AVX = 0x06, SAVES_AVX512 = 0xE6 };

/* Asked of the processor itself: __builtin_cpu_supports knows of nothing in zig's C library. */
const char *bfd_missing_feature(void) {
    unsigned basic = 0, extended = 0, states = 0, ignored, other;
    if (__get_cpuid(1, &ignored, &other, &basic, &ignored) && (basic & bit_OSXSAVE))
        __asm__ volatile("xgetbv" : "=a"(states), "=d"(ignored) : "c"(0));
    (void)__get_cpuid_count(7, 0, &ignored, &extended, &other, &ignored);
    /* Registers that the system does not save must not be used. */
    const unsigned has_avx = (states & SAVES_AVX) == SAVES_AVX, has_avx512 = (states & SAVES_AVX512) == SAVES_AVX512;
    (void)has_avx, (void)has_avx512;
#ifdef __AVX512F__
    if (!has_avx512 || !(extended & bit_AVX512F))
        return "AVX-512";
#endif
#ifdef __AVX2__
    if (!has_avx || !(extended & bit_AVX2))
        return "AVX2";
#endif
#ifdef __FMA__
    if (!has_avx || !(basic & bit_FMA))
        return "FMA";
#endif
#ifdef __SSE4_2__
    if (!(basic & bit_SSE4_2))
        return "SSE 4.2";
#endif
    return NULL;
}

#else

const char *bfd_missing_feature(void) { return NULL; }

#endif

/* What /proc/cpuinfo calls the processor. */
static int read_cpuinfo(char *name, size_t size) {
    static const char *const keys[] = {"model name", "Model", "cpu model"};
    char line[256];
    FILE *const file = fopen("/proc/cpuinfo", "r");
    int found = 0;
    while (file != NULL && !found && fgets(line, sizeof line, file) != NULL) {
        const char *const value = strstr(line, ": ");
        for (size_t i = 0; value != NULL && !found && i < sizeof keys / sizeof keys[0]; i++) {
            if (strncmp(line, keys[i], strlen(keys[i])) == 0) {
                line[strcspn(line, "\n")] = '\0';
                snprintf(name, size, "%.*s", (int)size - 1, value + 2);
                found = 1;
            }
        }
    }
    if (file != NULL)
        fclose(file);
    return found;
}

const char *bfd_processor_name(void) {
    static char name[81];
    struct utsname system;
    if (name[0] == '\0' && !read_cpuinfo(name, sizeof name))
        snprintf(name, sizeof name, "%.80s", uname(&system) == 0 ? system.machine : "unknown");
    return name;
}

#endif
