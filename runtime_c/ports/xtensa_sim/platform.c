/*
 * Stands in for an ESP32-S3 in QEMU: the machine `sim`, whose simcall instruction reads and writes the emulator's own
 * stdin and stdout. There is no clock, because an emulator has no cycles.
 */
#include "bfd_firmware.h"
#include "bfd_line.h"
#include "bfd_platform.h"

enum { SIM_EXIT = 1, SIM_READ = 3, SIM_WRITE = 4, SIM_TRY_AGAIN = 11 };
enum { SIM_STDIN = 0, SIM_STDOUT = 1 };
enum { CAUSE_ILLEGAL_INSTRUCTION = 0 };

extern uint32_t bfd_bss_begin[], bfd_bss_end[];

void xtensa_start(void);
void xtensa_fault(uint32_t cause);

static char output[256];
static size_t output_length;
static uint8_t input[64];
static size_t input_at, input_end;

/* The result, and an error's number. */
static int32_t call(int32_t operation, int32_t file, void *bytes, size_t size, int32_t *error) {
    register int32_t a2 __asm__("a2") = operation;
    register int32_t a3 __asm__("a3") = file;
    register void *a4 __asm__("a4") = bytes;
    register size_t a5 __asm__("a5") = size;
    __asm__ volatile("simcall" : "+r"(a2), "+r"(a3) : "r"(a4), "r"(a5) : "memory");
    *error = a3;
    return a2;
}

/* What the host does not take is lost; there is nobody to tell. */
void bfd_flush(void) {
    int32_t error;
    if (output_length != 0)
        (void)call(SIM_WRITE, SIM_STDOUT, output, output_length, &error);
    output_length = 0;
}

void bfd_write(const char *text, size_t length) {
    for (size_t i = 0; i < length; i++) {
        output[output_length++] = text[i];
        if (output_length == sizeof output || text[i] == '\n')
            bfd_flush();
    }
}

/* Waits in QEMU if the line is its stdin, and here if it is a character device (-serial). */
int bfd_read(void) {
    if (input_at == input_end) {
        int32_t error, got;
        do
            got = call(SIM_READ, SIM_STDIN, input, sizeof input, &error);
        while (got < 0 && error == SIM_TRY_AGAIN);
        if (got <= 0)
            return -1;
        input_at = 0;
        input_end = (size_t)got;
    }
    return input[input_at++];
}

uint64_t bfd_ticks(void) { return BFD_UNKNOWN; }

uint64_t bfd_ticks_per_second(void) { return BFD_UNKNOWN; }

const char *bfd_tick_unit(void) { return "cycles"; }

const char *bfd_cpu(void) { return "Xtensa (QEMU, call0, floats in software)"; }

__attribute__((noreturn)) static void end(int32_t status) {
    int32_t error;
    bfd_flush();
    for (;;)
        (void)call(SIM_EXIT, status, NULL, 0, &error);
}

void xtensa_start(void) {
    for (uint32_t *word = bfd_bss_begin; word < bfd_bss_end; word++)
        *word = 0;
    end(bfd_serve());
}

/* Ends with 128 + the number of the signal that a program on Linux would have got. */
void xtensa_fault(uint32_t cause) {
    if (cause == CAUSE_ILLEGAL_INSTRUCTION)
        bfd_illegal_instruction(NULL);
    end(cause == CAUSE_ILLEGAL_INSTRUCTION ? 132 : 139);
}
