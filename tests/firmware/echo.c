/* Sends back what comes, with the console of the port nrf52840 on a Cortex-M0. */
#include "bfd_platform.h"
#include "nrf52840.h"
static void start(void) {
    nrf52840_open_console();
    bfd_write("ready\n", 6);
    for (;;) {
        const char c = (char)bfd_read();
        bfd_write(&c, 1);
    }
}
__attribute__((section(".vectors"), used)) static const struct {
    void *stack;
    void (*reset)(void);
} vectors = {(void *)0x20004000, start};
