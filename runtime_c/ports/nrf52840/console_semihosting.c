/*
 * The line goes through the debugger, or through QEMU: ARM's "Semihosting for AArch32 and AArch64". Every call stops
 * the processor, so both directions are buffered.
 */
#include "bfd_platform.h"
#include "nrf52840.h"

enum { SYS_OPEN = 0x01, SYS_WRITE = 0x05, SYS_READ = 0x06, SYS_EXIT_EXTENDED = 0x20 };
enum { MODE_READ = 0, MODE_WRITE = 4 };
enum { APPLICATION_EXIT = 0x20026 };

static uint32_t input_file, output_file;
static char output[256];
static size_t output_length;
static uint8_t input[64];
static size_t input_at, input_end;

static uint32_t call(uint32_t operation, const uint32_t *arguments) {
    register uint32_t r0 __asm__("r0") = operation;
    register const uint32_t *r1 __asm__("r1") = arguments;
    __asm__ volatile("bkpt 0xAB" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}

static uint32_t address(const void *pointer) { return (uint32_t)(uintptr_t)pointer; }

static uint32_t open_terminal(uint32_t mode) {
    static const char name[] = ":tt";
    const uint32_t arguments[] = {address(name), mode, sizeof name - 1};
    return call(SYS_OPEN, arguments);
}

void nrf52840_open_console(void) {
    input_file = open_terminal(MODE_READ);
    output_file = open_terminal(MODE_WRITE);
}

/* What the host does not take is lost; there is nobody to tell. */
void bfd_flush(void) {
    const uint32_t arguments[] = {output_file, address(output), (uint32_t)output_length};
    if (output_length != 0)
        (void)call(SYS_WRITE, arguments);
    output_length = 0;
}

void bfd_write(const char *text, size_t length) {
    for (size_t i = 0; i < length; i++) {
        output[output_length++] = text[i];
        if (output_length == sizeof output || text[i] == '\n')
            bfd_flush();
    }
}

/* SYS_READ waits for at least one byte, and answers how many bytes of the buffer it has not filled. */
int bfd_read(void) {
    if (input_at == input_end) {
        const uint32_t arguments[] = {input_file, address(input), sizeof input};
        const uint32_t unfilled = call(SYS_READ, arguments);
        if (unfilled >= sizeof input)
            return -1;
        input_at = 0;
        input_end = sizeof input - unfilled;
    }
    return input[input_at++];
}

void nrf52840_close_console(int status) {
    const uint32_t arguments[] = {APPLICATION_EXIT, (uint32_t)status};
    (void)call(SYS_EXIT_EXTENDED, arguments);
}
