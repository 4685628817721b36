/*
 * The device program's platform on top of any Arduino core: the line is a Stream, the model an array in flash, the
 * memory an array in RAM. Where nobody calls bfedge_serve, the linker drops all of it.
 */
#include "bfedge.h"
#include "bfedge_device.h"
#include "bfedge_model.h"

extern "C" {
#include "bfd_platform.h"
}

/* What of the stack below bfedge_serve is painted and measured: only where the core runs a sketch in a thread whose
 * stack is known to be larger, 8 KiB on the ESP32 and 32 KiB on mbed. Elsewhere data may lie there: nothing is painted,
 * and the stack is reported as unknown. */
#if defined(ARDUINO_ARCH_MBED) || defined(ARDUINO_ARCH_ESP32)
static const size_t STACK_BYTES = 4096;
#else
static const size_t STACK_BYTES = 0;
#endif

alignas(BFE_ALIGNMENT) static uint8_t arena[BFEDGE_ARENA_BYTES];
static Stream *stream;
static const uint8_t *stack_high;

static uint8_t output[64]; /* a USB packet: byte by byte would be a packet each */
static size_t output_length;

/* A host that has gone away accepts nothing more; what it misses, it asks for again. */
static void send_output() {
    const unsigned long patience_ms = 1000, start = millis();
    for (size_t sent = 0; sent < output_length && millis() - start < patience_ms;)
        sent += stream->write(output + sent, output_length - sent);
    output_length = 0;
}

void bfd_write(const char *text, size_t length) {
    for (size_t i = 0; i < length; i++) {
        output[output_length++] = static_cast<uint8_t>(text[i]);
        if (output_length == sizeof output)
            send_output();
    }
}

void bfd_flush(void) {
    send_output();
    stream->flush();
}

int bfd_read(void) {
    while (stream->available() <= 0)
        yield();
    return stream->read();
}

/* Cycles where the core is mbed's (Nano 33 BLE): its processors have a counter. Elsewhere, and where the counter stands
 * still, microseconds. */
#if defined(ARDUINO_ARCH_MBED) && (defined(__ARM_ARCH_7EM__) || defined(__ARM_ARCH_7M__))
extern "C" uint32_t SystemCoreClock;

static uint32_t cycles() { return *reinterpret_cast<volatile uint32_t *>(0xE0001004); }

static uint32_t cycles_per_second() { return SystemCoreClock; }

static bool counts_cycles() {
    static int answer = -1;
    if (answer < 0) {
        *reinterpret_cast<volatile uint32_t *>(0xE000EDFC) |= 1ul << 24; /* DEMCR: trace on */
        *reinterpret_cast<volatile uint32_t *>(0xE0001000) |= 1;         /* DWT: count */
        const uint32_t before = cycles();
        for (volatile int i = 0; i < 16; i = i + 1) {
        }
        answer = cycles() != before;
    }
    return answer != 0;
}
#else
static bool counts_cycles() { return false; }
static uint32_t cycles() { return 0; }
static uint32_t cycles_per_second() { return 0; }
#endif

/* Both counters have 32 bits. micros() lasts 71 minutes between two calls, and says how often the cycle counter, which
 * wraps every minute or so, has wrapped since the last one. A processor that sleeps counts no cycles, but nobody sleeps
 * inside a run. */
uint64_t bfd_ticks(void) {
    static uint32_t last_micros, last_cycles;
    static uint64_t ticks;
    const uint32_t now = micros(), cycle = cycles();
    const uint64_t passed = static_cast<uint32_t>(now - last_micros);
    if (counts_cycles()) {
        const uint64_t low = static_cast<uint32_t>(cycle - last_cycles);
        const uint64_t expected = passed * (cycles_per_second() / 1000000) + 0x80000000ul;
        ticks += low + (expected > low ? (expected - low) >> 32 << 32 : 0);
    } else {
        ticks += passed * 1000;
    }
    last_micros = now;
    last_cycles = cycle;
    return ticks;
}

uint64_t bfd_ticks_per_second(void) { return counts_cycles() ? cycles_per_second() : 1000000000ul; }

const char *bfd_tick_unit(void) { return counts_cycles() ? "cycles" : "ns"; }

const char *bfd_cpu(void) {
#if defined(__ARM_ARCH_PROFILE) && __ARM_ARCH_PROFILE == 'M'
    switch (*reinterpret_cast<volatile uint32_t *>(0xE000ED00) >> 4 & 0xFFF) { /* CPUID: part */
    case 0xC60:
        return "Cortex-M0+";
    case 0xC23:
        return "Cortex-M3";
    case 0xC24:
        return "Cortex-M4";
    case 0xC27:
        return "Cortex-M7";
    case 0xD21:
        return "Cortex-M33";
    default:
        break;
    }
#endif
    return "unknown to this Arduino library";
}

const void *bfd_model_file(size_t *size) {
    *size = BFEDGE_MODEL_BYTES;
    return bfedge_model;
}

void *bfd_memory(size_t bytes, uint64_t *available) {
    *available = sizeof arena;
    return bytes <= sizeof arena ? arena : nullptr;
}

uint64_t bfd_prepare(struct bfe_model *model) {
    (void)model; /* the weights are used where they lie */
    return 0;
}

void bfd_divide(struct bfe_options *options) { (void)options; }

const char *bfd_memory_kind(void) { return "sram"; }

const uint8_t *bfd_stack_low(void) { return stack_high - STACK_BYTES; }

const uint8_t *bfd_stack_high(void) { return stack_high; }

uint64_t bfd_free_memory(void) { return BFD_UNKNOWN; }

void bfedge_serve(Stream &line) {
    stream = &line;
    stack_high = static_cast<const uint8_t *>(__builtin_frame_address(0));
    (void)bfd_serve();
    bfd_flush();
}
