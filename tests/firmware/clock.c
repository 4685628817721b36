/* The nRF52840's clock on simulated registers, over many wraps of its counters. */
#include <stdint.h>
#include <stdio.h>

static uint64_t now; /* cycles */
static int has_counter, cache_writes;
static uint32_t cache;

/* DWT's counter and TIMER0 follow from `now`; the crystal has started; the other registers are memory. */
static volatile uint32_t *simulated(uint32_t address) {
    static uint32_t registers[0x1000], word;
    if (address == 0xE0001004)
        word = has_counter ? (uint32_t)++now : 0;
    else if (address == 0x40008540)
        word = (uint32_t)(now >> 11);
    else if (address == 0x40000100)
        word = 1;
    else if (address == 0xE000ED00)
        word = 0x410FC241;
    else if (address == 0x4001E540)
        return cache_writes++, &cache;
    else
        return &registers[address / 4 % 0x1000];
    return &word;
}

#define NRF52840_H
#define NRF_REGISTER(address) (*simulated(address))
void nrf52840_start_clock(void);
#include "platform.c"

int main(void) {
    long wrong = 0, readings = 0;
    uint64_t last = 0, step = 1;
    nrf52840_start_clock();
    wrong += bfd_ticks() != BFD_UNKNOWN || cache_writes != 0; /* an emulator has something else there */
    has_counter = 1;
    nrf52840_start_clock();
    wrong += cache != 1;
    for (now = 5; now < (uint64_t)9 << 43; now += (step = step * 6364136223846793005u + 1) >> (22 + readings % 40)) {
        const uint64_t before = now, got = bfd_ticks();
        wrong += got < before || got > before + 3 || got < last;
        last = got;
        readings++;
    }
    printf("%ld wrong of %ld, %s\n", wrong, readings, bfd_cpu());
    return 0;
}
