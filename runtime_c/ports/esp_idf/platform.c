/*
 * bfedge-device for the ESP32-S3 on ESP-IDF 5.1 and later: the model lies in the flash partition `model`, mapped and
 * used in place; the line is UART0 and the chip's own USB port, whichever the host speaks on.
 */
#include "bfd_platform.h"
#include "bfe_format.h"
#include "bfedge.h"

#include "driver/uart.h"
#include "driver/usb_serial_jtag.h"
#include "esp_chip_info.h"
#include "esp_cpu.h"
#include "esp_heap_caps.h"
#include "esp_idf_version.h"
#include "esp_log.h"
#include "esp_partition.h"
#include "esp_rom_sys.h"
#include "esp_task.h"
#include "esp_timer.h"
#include "freertos/FreeRTOS.h"
#include "freertos/idf_additions.h"
#include "freertos/task.h"
#include "sdkconfig.h"

#include <stdio.h>

enum {
    MODEL_SUBTYPE = 0x40, /* of the partition, as partitions.csv has it */
    DRIVER_BYTES = 4096,  /* what a driver keeps while nobody reads */
    PIECE_BYTES = 256,    /* the USB driver refuses more at once than its buffer holds */
    STACK_GUARD = 64,     /* the lowest bytes of a stack: FreeRTOS looks there for its own pattern */
    USB_PATIENCE_MS = 1000
};

/* Boards have a socket for the UART's bridge, one for the chip's USB, or both: the answer goes where the command came
   from, and what is said before the first command goes to both. */
static enum { TO_BOTH, TO_UART, TO_USB } listener = TO_BOTH;
static int has_usb;

static char output[PIECE_BYTES];
static size_t output_length;

static const void *model;
static size_t model_bytes;
static char cpu[64];

static void send(void) {
    if (listener != TO_USB)
        (void)uart_write_bytes(UART_NUM_0, output, output_length);
    /* Nobody may have opened the USB port: the first words must not wait for it. */
    if (has_usb && listener != TO_UART)
        (void)usb_serial_jtag_write_bytes(output, output_length,
                                          listener == TO_USB ? pdMS_TO_TICKS(USB_PATIENCE_MS) : 0);
    output_length = 0;
}

void bfd_write(const char *text, size_t length) {
    for (size_t i = 0; i < length; i++) {
        if (output_length == sizeof output)
            send();
        output[output_length++] = text[i];
    }
}

/* What listens is empty at the end, so that its interrupts are not in what is measured next. Before ESP-IDF 5.4 the USB
   driver has no way to wait for that; before the first command nobody may have opened the port, and nobody waits. */
void bfd_flush(void) {
    if (output_length != 0)
        send();
    (void)uart_wait_tx_done(UART_NUM_0, portMAX_DELAY);
#if ESP_IDF_VERSION >= ESP_IDF_VERSION_VAL(5, 4, 0)
    if (listener == TO_USB)
        (void)usb_serial_jtag_wait_tx_done(pdMS_TO_TICKS(USB_PATIENCE_MS));
#endif
}

/* Waits for one tick at the link that spoke last and not at all at the other one, in turns. */
int bfd_read(void) {
    static uint8_t input[PIECE_BYTES];
    static int at, end;
    while (at == end) {
        int got = has_usb ? usb_serial_jtag_read_bytes(input, sizeof input, listener == TO_USB ? 1 : 0) : 0;
        if (got > 0) {
            listener = TO_USB;
        } else {
            got = uart_read_bytes(UART_NUM_0, input, sizeof input, listener == TO_USB ? 0 : 1);
            if (got > 0)
                listener = TO_UART;
        }
        at = 0;
        end = got > 0 ? got : 0;
    }
    return input[at++];
}

/*
 * The cycle counter has 32 bits and is round after 18 s at 240 MHz; the system's timer counts microseconds and never
 * is. Both run from the same crystal and do not drift apart, so the timer says which round the counter is in. The
 * counter is the core's own: the main task stays on its core.
 */
uint64_t bfd_ticks(void) {
    static uint32_t ahead; /* cycles that the counter was ahead of the timer at the first reading */
    static int started;
    const uint32_t count = esp_cpu_get_cycle_count();
    const uint64_t rough = (uint64_t)esp_timer_get_time() * esp_rom_get_cpu_ticks_per_us();
    if (!started) {
        ahead = count - (uint32_t)rough;
        started = 1;
    }
    return rough + (uint64_t)(int64_t)(int32_t)(count - ahead - (uint32_t)rough);
}

uint64_t bfd_ticks_per_second(void) { return (uint64_t)esp_rom_get_cpu_ticks_per_us() * 1000000u; }

const char *bfd_tick_unit(void) { return "cycles"; }

const char *bfd_cpu(void) { return cpu; }

const void *bfd_model_file(size_t *size) {
    *size = model_bytes;
    return model;
}

/* Where memory is looked for, the faster first. */
static const struct place {
    const char *kind;
    uint32_t capabilities;
} places[] = {{"sram", MALLOC_CAP_INTERNAL | MALLOC_CAP_8BIT}, {"psram", MALLOC_CAP_SPIRAM | MALLOC_CAP_8BIT}};

enum { PLACES = sizeof places / sizeof places[0], SLACK = BFE_ALIGNMENT - 1 };

static const char *memory_kind;

void *bfd_memory(size_t bytes, uint64_t *available) {
    static uint64_t most; /* before anything was taken */
    static void *allocation;
    static size_t size;
    for (int i = 0; i < PLACES && allocation == NULL; i++) {
        const size_t block = heap_caps_get_largest_free_block(places[i].capabilities);
        if (block > SLACK && block - SLACK > most) {
            most = block - SLACK;
            memory_kind = places[i].kind;
        }
    }
    *available = most;
    if (bytes > size) {
        heap_caps_free(allocation);
        allocation = NULL;
        for (int i = 0; i < PLACES && allocation == NULL && bytes <= most; i++) {
            allocation = heap_caps_malloc(bytes + SLACK, places[i].capabilities);
            memory_kind = places[i].kind;
        }
        size = allocation != NULL ? bytes : 0;
    }
    return allocation != NULL
               ? (uint8_t *)allocation + (BFE_ALIGNMENT - (uintptr_t)allocation % BFE_ALIGNMENT) % BFE_ALIGNMENT
               : NULL;
}

uint64_t bfd_prepare(struct bfe_model *opened) {
    (void)opened; /* the weights are used where they lie */
    return 0;
}

void bfd_divide(struct bfe_options *options) { (void)options; }

const char *bfd_memory_kind(void) { return memory_kind != NULL ? memory_kind : places[0].kind; }

const uint8_t *bfd_stack_low(void) { return (const uint8_t *)pxTaskGetStackStart(NULL) + STACK_GUARD; }

const uint8_t *bfd_stack_high(void) { return (const uint8_t *)pxTaskGetStackStart(NULL) + ESP_TASK_MAIN_STACK; }

uint64_t bfd_free_memory(void) { return heap_caps_get_free_size(MALLOC_CAP_8BIT); }

/* The partition is larger than the file in it, which says itself how long it is. What says nonsense is not a model; the
   whole partition is shown to the runtime then, which says what is wrong. */
static void map_model(void) {
    const esp_partition_t *const partition =
        esp_partition_find_first(ESP_PARTITION_TYPE_DATA, (esp_partition_subtype_t)MODEL_SUBTYPE, "model");
    uint32_t claimed = 0;
    esp_partition_mmap_handle_t handle;
    if (partition == NULL || esp_partition_read(partition, BFE_AT_FILE_BYTES, &claimed, sizeof claimed) != ESP_OK)
        return;
    model_bytes = claimed >= BFE_HEADER_BYTES && claimed <= partition->size ? claimed : partition->size;
    if (esp_partition_mmap(partition, 0, model_bytes, ESP_PARTITION_MMAP_DATA, &model, &handle) != ESP_OK)
        model = NULL;
}

static void open_line(void) {
    const uart_config_t uart = {
        .baud_rate = CONFIG_ESP_CONSOLE_UART_BAUDRATE,
        .data_bits = UART_DATA_8_BITS,
        .parity = UART_PARITY_DISABLE,
        .stop_bits = UART_STOP_BITS_1,
        .flow_ctrl = UART_HW_FLOWCTRL_DISABLE,
        .source_clk = UART_SCLK_DEFAULT,
    };
    usb_serial_jtag_driver_config_t usb = {.tx_buffer_size = DRIVER_BYTES, .rx_buffer_size = DRIVER_BYTES};
    ESP_ERROR_CHECK(uart_driver_install(UART_NUM_0, DRIVER_BYTES, 0, 0, NULL, 0));
    ESP_ERROR_CHECK(uart_param_config(UART_NUM_0, &uart));
    has_usb = usb_serial_jtag_driver_install(&usb) == ESP_OK;
}

void app_main(void) {
    esp_chip_info_t chip;
    esp_chip_info(&chip);
    (void)snprintf(cpu, sizeof cpu, "ESP32-S3 revision %u.%u, %u cores", (unsigned)chip.revision / 100,
                   (unsigned)chip.revision % 100, (unsigned)chip.cores);
    map_model();
    open_line();
    esp_log_level_set("*", ESP_LOG_NONE); /* nothing of the system's between the answers from here on */
    for (;;)
        (void)bfd_serve();
}
