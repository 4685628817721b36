/* QEMU's Cortex-M4 (mps2-an386): start, and semihosting for everything else. */
#include "console.h"

extern uint32_t data_image[], data_begin[], data_end[], bss_begin[], bss_end[], stack_end[];

uint32_t SystemCoreClock = 25000000; /* mbed's core has this variable */

int main(void);
void reset(void);
static void fault(void);

__attribute__((section(".vectors"), used)) static const struct {
    uint32_t *stack;
    void (*handlers[15])(void);
} vectors = {stack_end, {reset, fault, fault, fault, fault, fault}};

static long semihost(long operation, const void *argument) {
    register long r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = argument;
    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}

static long open_console(uint32_t mode) {
    static const char name[] = ":tt";
    const uint32_t block[3] = {(uint32_t)(uintptr_t)name, mode, sizeof name - 1};
    return semihost(0x01, block);
}

void console_write(const uint8_t *bytes, size_t length) {
    static long handle = -1;
    if (handle < 0)
        handle = open_console(4);
    const uint32_t block[3] = {(uint32_t)handle, (uint32_t)(uintptr_t)bytes, length};
    (void)semihost(0x05, block);
}

int console_read(void) {
    static long handle = -1;
    uint8_t byte;
    if (handle < 0)
        handle = open_console(0);
    const uint32_t block[3] = {(uint32_t)handle, (uint32_t)(uintptr_t)&byte, 1};
    return semihost(0x06, block) == 0 ? byte : -1;
}

unsigned long console_micros(void) { return (unsigned long)semihost(0x10, NULL) * 10000; }

void console_exit(int status) {
    const uint32_t block[2] = {0x20026, (uint32_t)status};
    (void)semihost(0x20, block);
    for (;;) {
    }
}

static void fault(void) { console_exit(139); }

void reset(void) {
    *(volatile uint32_t *)0xE000ED88 |= 0xFu << 20; /* CPACR: the FPU */
    __asm__ volatile("dsb\nisb" ::: "memory");
    for (uint32_t i = 0; data_begin + i < data_end; i++)
        data_begin[i] = data_image[i];
    for (uint32_t *word = bss_begin; word < bss_end; word++)
        *word = 0;
    /* What C++ constructs before main. */
    extern void (*const constructors_begin[])(void), (*const constructors_end[])(void);
    for (void (*const *constructor)(void) = constructors_begin; constructor < constructors_end; constructor++)
        (*constructor)();
    (void)main();
    console_exit(0);
}
