/*
 * From reset to bfd_serve on a Cortex-M4F, whether the chip itself, a bootloader or QEMU starts the program.
 *
 * No interrupt is ever enabled: the program polls, so its stack and its instruction counts are those of the program.
 * The stack is the lowest thing in RAM (memory.ld): running over it reaches what the memory protection unit forbids,
 * and faults, instead of changing data.
 */
#include "bfd_firmware.h"
#include "bfd_line.h"
#include "bfd_platform.h"
#include "nrf52840.h"

/* ARMv7-M's system control block and memory protection unit (Architecture Reference Manual, B3.2 and B3.5). */
#define VTOR NRF_REGISTER(0xE000ED08)
#define AIRCR NRF_REGISTER(0xE000ED0C)
#define CFSR NRF_REGISTER(0xE000ED28)
#define CPACR NRF_REGISTER(0xE000ED88)
#define MPU_CONTROL NRF_REGISTER(0xE000ED94)
#define MPU_REGION NRF_REGISTER(0xE000ED98)
#define MPU_ADDRESS NRF_REGISTER(0xE000ED9C)
#define MPU_SIZE_AND_RIGHTS NRF_REGISTER(0xE000EDA0)
#define SYSTICK_CONTROL NRF_REGISTER(0xE000E010)
#define NVIC_DISABLE ((volatile uint32_t *)0xE000E180) /* a bit an interrupt */
#define NVIC_NOT_PENDING ((volatile uint32_t *)0xE000E280)

enum { NVIC_WORDS = 2 }; /* 48 interrupts */
enum { MPU_REGIONS = 8, MPU_ON = 1, MPU_ELSE_AS_USUAL = 1 << 2 };
enum { REGION_ON = 1, REGION_256_KIB = 17 << 1, REGION_FORBIDDEN = 0 << 24 | 1 << 28 };
enum { GUARD_BYTES = 256 * 1024 };
enum { AIRCR_KEY = 0x05FA0000, AIRCR_RESET = 1 << 2 };
enum { CFSR_UNDEFINED_INSTRUCTION = 1 << 16, CFSR_NO_COPROCESSOR = 1 << 19 };

extern uint32_t bfd_data_begin[], bfd_data_end[], bfd_bss_begin[], bfd_bss_end[];
extern const uint32_t bfd_data_image[];

void bfd_reset(void);
void nrf52840_start(void);
void nrf52840_fault(void);
static void on_fault(void);

/* Entries 0 to 15: the first stack pointer, reset, the faults and system calls. */
__attribute__((section(".vectors"), used)) static const struct {
    uint8_t *stack;
    void (*handlers[15])(void);
} vectors = {bfd_stack_end,
             {bfd_reset, on_fault, on_fault, on_fault, on_fault, on_fault, NULL, NULL, NULL, NULL, on_fault, on_fault,
              NULL, on_fault, on_fault}};

/* A bootloader may have left interrupts on and the other stack pointer in use. */
__attribute__((naked, noreturn)) void bfd_reset(void) {
    __asm__ volatile("cpsid i\n"
                     "movs r0, #0\n"
                     "msr control, r0\n"
                     "isb\n"
                     "ldr r0, =bfd_stack_end\n"
                     "mov sp, r0\n"
                     "bl nrf52840_start\n");
}

static void guard_stack(void) {
    MPU_CONTROL = 0;
    for (uint32_t region = 0; region < MPU_REGIONS; region++) {
        MPU_REGION = region;
        MPU_SIZE_AND_RIGHTS = 0;
    }
    MPU_ADDRESS = (uint32_t)(uintptr_t)bfd_stack_begin - GUARD_BYTES;
    MPU_SIZE_AND_RIGHTS = REGION_FORBIDDEN | REGION_256_KIB | REGION_ON;
    MPU_CONTROL = MPU_ON | MPU_ELSE_AS_USUAL;
    __asm__ volatile("dsb\n"
                     "isb\n" ::
                         : "memory");
}

__attribute__((noreturn, used)) void nrf52840_start(void) {
    SYSTICK_CONTROL = 0;
    for (int i = 0; i < NVIC_WORDS; i++) {
        NVIC_DISABLE[i] = UINT32_MAX;
        NVIC_NOT_PENDING[i] = UINT32_MAX;
    }
    VTOR = (uint32_t)(uintptr_t)&vectors;
    CPACR |= 0xFu << 20; /* the FPU, for everyone */
    __asm__ volatile("dsb\n"
                     "isb\n"
                     "cpsie i\n" /* faults come through either way; nothing else is enabled */
                     "vmsr fpscr, %0\n" ::"r"(0)
                     : "memory"); /* round to nearest, subnormals kept */
    for (uint32_t i = 0; bfd_data_begin + i < bfd_data_end; i++)
        bfd_data_begin[i] = bfd_data_image[i];
    for (uint32_t *word = bfd_bss_begin; word < bfd_bss_end; word++)
        *word = 0;
    guard_stack();
    nrf52840_start_clock();
    nrf52840_open_console();
    for (;;) {
        const int status = bfd_serve();
        bfd_flush();
        nrf52840_close_console(status);
    }
}

/* The stack may be what has gone wrong, so this starts over on an empty one. */
__attribute__((naked, noreturn)) static void on_fault(void) {
    __asm__ volatile("ldr r0, =bfd_stack_end\n"
                     "mov sp, r0\n"
                     "bl nrf52840_fault\n");
}

/* Says what the host should know, and starts again. */
__attribute__((noreturn, used)) void nrf52840_fault(void) {
    const uint32_t cause = CFSR;
    const int is_illegal = (cause & (CFSR_UNDEFINED_INSTRUCTION | CFSR_NO_COPROCESSOR)) != 0;
    if (is_illegal)
        bfd_illegal_instruction(NULL);
    bfd_flush();
    nrf52840_close_console(is_illegal ? 132 : 139);
    AIRCR = AIRCR_KEY | AIRCR_RESET;
    for (;;) {
    }
}
