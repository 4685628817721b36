/* For the tests of kernels: every set that this processor can run, and memory with watched ends. */
#ifndef KERNELS_H
#define KERNELS_H

#include "bfe_kernel_sets.h"

/* The sets of kernels to test, NULL after the last: all that this processor can run, or the one whose name is in the
 * environment variable BFEDGE_TEST_KERNELS. */
const bfe_kernels *kernels_to_test(uint32_t index);

typedef struct block {
    void *data; /* random bytes at first */
    size_t bytes;
    void *allocation;
} block;

/* Begins at a multiple of `alignment` and ends with its allocation, where sanitizers see what reads or writes behind
 * it. */
block new_block(size_t bytes, size_t alignment);

/* Lies between bytes that is_intact() checks: sees what writes beside it, also without a sanitizer. */
block new_guarded_block(size_t bytes, size_t alignment);
int is_intact(const block *guarded);

void free_block(block *b);

#endif
