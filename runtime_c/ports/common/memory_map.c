/* The memory of a program that has no system below it: all of it is laid out when it is linked. */
#include "bfd_firmware.h"
#include "bfd_platform.h"

const void *bfd_model_file(size_t *size) {
    *size = (size_t)((uintptr_t)bfd_packed_model_end - (uintptr_t)bfd_packed_model);
    return *size != 0 ? bfd_packed_model : NULL;
}

void *bfd_memory(size_t bytes, uint64_t *available) {
    *available = (uintptr_t)bfd_arena_end - (uintptr_t)bfd_arena;
    return bytes <= *available ? bfd_arena : NULL;
}

uint64_t bfd_prepare(struct bfe_model *model) {
    (void)model; /* the weights are used where they lie */
    return 0;
}

void bfd_divide(struct bfe_options *options) { (void)options; }

const char *bfd_memory_kind(void) { return "sram"; }

const uint8_t *bfd_stack_low(void) { return bfd_stack_begin; }

const uint8_t *bfd_stack_high(void) { return bfd_stack_end; }

uint64_t bfd_free_memory(void) { return (uintptr_t)bfd_unused_end - (uintptr_t)bfd_unused_begin; }
