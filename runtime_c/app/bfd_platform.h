/*
 * What a board provides to the device program (bfedge_device.c): a port implements these functions, calls bfd_serve()
 * when it is ready, and is done. PROTOCOL.md says what goes over the line.
 *
 * The builder defines
 *   BFD_BOARD  the name of the board's profile, a string literal
 *   BFD_FLAGS  the compiler's flags, a string literal
 */
#ifndef BFD_PLATFORM_H
#define BFD_PLATFORM_H

#include <stddef.h>
#include <stdint.h>

#define BFD_UNKNOWN UINT64_MAX /* "this board can't tell"; becomes null on the line */

/* Sends `length` bytes to the host; returns when they are on their way. */
void bfd_write(const char *text, size_t length);

/* All that was written so far reaches the host. */
void bfd_flush(void);

/* The host's next byte, 0..255; waits for it. -1: there will be no more. */
int bfd_read(void);

/* Ticks of a free-running clock, at least 40 bits wide, or BFD_UNKNOWN on a board without one. */
uint64_t bfd_ticks(void);

/* The clock's ticks a second, or BFD_UNKNOWN; the unit is "cycles" of the processor or "ns". */
uint64_t bfd_ticks_per_second(void);
const char *bfd_tick_unit(void);

/* The processor as found at run time, printable ASCII without quotes and backslashes, at most 80 characters. */
const char *bfd_cpu(void);

/* The packed model: an address aligned to BFE_ALIGNMENT and its bytes. NULL if there is none. */
const void *bfd_model_file(size_t *size);

/*
 * Memory for the workspace, input image and logits: `bytes` bytes aligned to BFE_ALIGNMENT, the same ones at every
 * call (a later call may ask for more). NULL if there are not so many; *available is set either way, to the most
 * that a call could get or BFD_UNKNOWN.
 */
void *bfd_memory(size_t bytes, uint64_t *available);

/*
 * Once after a model was opened: a board that has memory to spare calls bfe_prepare, so that its processor's fastest
 * kernels can be used, and says how many bytes that took; one that has not returns 0.
 */
struct bfe_model;
uint64_t bfd_prepare(struct bfe_model *model);

/* Sets workers, parallel and parallel_context on a board that divides its work; leaves them 0 otherwise. */
struct bfe_options;
void bfd_divide(struct bfe_options *options);

/* Where the memory of bfd_memory lies: "sram", "psram" or "dram". */
const char *bfd_memory_kind(void);

/* The lowest and the highest address of the stack that bfd_serve runs on: what is between it and the lowest is painted,
 * and must be the stack's. The same address twice if a board can't tell; nothing is painted and measured then. */
const uint8_t *bfd_stack_low(void);
const uint8_t *bfd_stack_high(void);

/* Bytes of memory that nobody uses now, or BFD_UNKNOWN. */
uint64_t bfd_free_memory(void);

/*
 * The device program: answers the host until it says quit or bfd_read returns -1. Returns 0 if all that was asked for
 * was done and every golden case was equal, else 1.
 */
int bfd_serve(void);

/*
 * Around the stages of a profiled run the device program calls these two, which do nothing. An emulator that counts
 * instructions stops at their addresses.
 */
void bfd_mark_begin(void);
void bfd_mark_end(void);

#endif
