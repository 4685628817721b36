/* All the test framework there is: CHECK, a random generator, and `return test_result();` at the end of main. */
#ifndef TEST_H
#define TEST_H

#include <stdint.h>
#include <stdio.h>
#include <string.h>

static int test_failures;
static uint32_t test_random_state = 2463534242u;

#define CHECK(condition) test_check((condition) ? 1 : 0, #condition, __FILE__, __LINE__)

static inline void test_check(int holds, const char *condition, const char *file, int line) {
    if (!holds && test_failures++ < 20)
        fprintf(stderr, "%s:%d: %s does not hold\n", file, line, condition);
}

/* Says also which set of kernels failed. */
#define CHECK_SET(set, condition) test_check_set((condition) ? 1 : 0, #condition, (set)->name, __FILE__, __LINE__)

static inline void test_check_set(int holds, const char *condition, const char *set, const char *file, int line) {
    if (!holds && test_failures++ < 20)
        fprintf(stderr, "%s:%d: %s does not hold for kernels %s\n", file, line, condition, set);
}

static inline int test_result(void) {
    if (test_failures != 0)
        fprintf(stderr, "%d checks failed\n", test_failures);
    return test_failures != 0;
}

/* xorshift32 */
static inline uint32_t test_random(void) {
    test_random_state ^= test_random_state << 13;
    test_random_state ^= test_random_state >> 17;
    test_random_state ^= test_random_state << 5;
    return test_random_state;
}

static inline uint32_t test_random_below(uint32_t bound) { return test_random() % bound; }

/* -1..1 */
static inline float test_random_float(void) { return (float)((int32_t)test_random_below(2000001) - 1000000) / 1e6f; }

static inline int8_t test_random_int8(void) { return (int8_t)((int32_t)test_random_below(255) - 127); }

static inline int test_same_bits(const float *a, const float *b, size_t count) {
    return memcmp(a, b, count * sizeof *a) == 0;
}

#endif
