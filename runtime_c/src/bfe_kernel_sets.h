/* Which sets of kernels this library has, and which of them this processor can run. */
#ifndef BFE_KERNEL_SETS_H
#define BFE_KERNEL_SETS_H

#include "bfe_kernels.h"

/* The sets that this processor can run, the fastest first; NULL after the last. */
const bfe_kernels *bfe_kernels_at(uint32_t index);

/* The fastest set that takes matrices as they lie in the file. */
extern const bfe_kernels *const bfe_kernels_in_place;

#endif
