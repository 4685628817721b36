/*
 * The processor's name and the clock of an nRF52840.
 *
 * The clock is DWT's cycle counter: 32 bits, so it wraps every 67 s at 64 MHz. TIMER0 tells how often it has: at
 * 16 MHz / 2^9 it ticks exactly once every 2048 cycles, because both are divided from the same 64 MHz, and its 32 bits
 * last 38 hours. Their difference never comes near half a wrap, so the 64-bit count is the number nearest to TIMER0 *
 * 2048 whose low 32 bits are DWT's. It needs no interrupt, and a bfe_run may take hours.
 */
#include "bfd_platform.h"
#include "nrf52840.h"

#define CPUID NRF_REGISTER(0xE000ED00)
#define DEMCR NRF_REGISTER(0xE000EDFC) /* switches on what is there for debugging, DWT too */
#define DWT_CONTROL NRF_REGISTER(0xE0001000)
#define DWT_CYCLES NRF_REGISTER(0xE0001004)

#define CLOCK_START_CRYSTAL NRF_REGISTER(0x40000000)
#define CLOCK_CRYSTAL_STARTED NRF_REGISTER(0x40000100)

#define FLASH_CACHE NRF_REGISTER(0x4001E540) /* NVMC.ICACHECNF: of instructions and constants fetched from flash */

#define TIMER0_START NRF_REGISTER(0x40008000)
#define TIMER0_STOP NRF_REGISTER(0x40008004)
#define TIMER0_CLEAR NRF_REGISTER(0x4000800C)
#define TIMER0_CAPTURE NRF_REGISTER(0x40008040)
#define TIMER0_MODE NRF_REGISTER(0x40008504)
#define TIMER0_BITS NRF_REGISTER(0x40008508)
#define TIMER0_PRESCALER NRF_REGISTER(0x40008510)
#define TIMER0_CAPTURED NRF_REGISTER(0x40008540)

enum { DEMCR_TRACE = 1 << 24, TIMER_IS_TIMER = 0, TIMER_32_BITS = 3 };
enum { PRESCALER = 9, CYCLES_PER_TICK = 4 << PRESCALER };

static int has_clock;

/* QEMU's Cortex-M4 has no DWT, and other things where the nRF52840 has TIMER0: nothing is touched then. */
static int starts_counting(void) {
    DEMCR |= DEMCR_TRACE;
    DWT_CYCLES = 0;
    DWT_CONTROL |= 1;
    const uint32_t before = DWT_CYCLES;
    for (int i = 0; i < 16; i++)
        __asm__ volatile("nop");
    return DWT_CYCLES != before;
}

void nrf52840_start_clock(void) {
    has_clock = starts_counting();
    if (!has_clock)
        return;
    FLASH_CACHE = 1;
    CLOCK_CRYSTAL_STARTED = 0;
    CLOCK_START_CRYSTAL = 1;
    while (CLOCK_CRYSTAL_STARTED == 0) {
    }
    TIMER0_STOP = 1;
    TIMER0_MODE = TIMER_IS_TIMER;
    TIMER0_BITS = TIMER_32_BITS;
    TIMER0_PRESCALER = PRESCALER;
    TIMER0_CLEAR = 1;
    DWT_CYCLES = 0;
    TIMER0_START = 1;
}

uint64_t bfd_ticks(void) {
    static uint64_t wraps, last; /* of TIMER0 */
    if (!has_clock)
        return BFD_UNKNOWN;
    const uint32_t cycles = DWT_CYCLES;
    TIMER0_CAPTURE = 1;
    const uint64_t timer = TIMER0_CAPTURED;
    wraps += timer < last ? 1 : 0;
    last = timer;
    const uint64_t near = ((wraps << 32) + timer) * CYCLES_PER_TICK;
    return near + (uint64_t)(int64_t)(int32_t)(cycles - (uint32_t)near);
}

uint64_t bfd_ticks_per_second(void) { return 64000000; }

const char *bfd_tick_unit(void) { return "cycles"; }

/* ARM's Cortex-M4 says 0x41?FC24?: implementer, variant, architecture, part, revision. */
const char *bfd_cpu(void) {
    static char name[] = "Cortex-M4 r0p0";
    const uint32_t id = CPUID;
    if ((id & 0xFF00FFF0) != 0x4100C240)
        return "not a Cortex-M4";
    name[sizeof name - 4] = (char)('0' + (id >> 20 & 15) % 10);
    name[sizeof name - 2] = (char)('0' + (id & 15) % 10);
    return name;
}
