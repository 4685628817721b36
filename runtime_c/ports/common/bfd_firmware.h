/* Between the files of a bare-metal port: where its linker script and the builder have laid things out. */
#ifndef BFD_FIRMWARE_H
#define BFD_FIRMWARE_H

#include <stdint.h>

/* From the linker script. */
extern uint8_t bfd_stack_begin[], bfd_stack_end[];
extern uint8_t bfd_unused_begin[], bfd_unused_end[]; /* memory that nothing was placed in */

/* From the file that the builder generates: the packed model, and the memory for workspace, image and logits. */
extern const uint8_t bfd_packed_model[], bfd_packed_model_end[];
extern uint8_t bfd_arena[], bfd_arena_end[];

#endif
