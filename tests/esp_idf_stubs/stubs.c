/*
 * What the device program asks of ESP-IDF, on this machine. The environment says how the board is:
 *   STUB_PARTITION        file with what lies in the model's partition; none: there is no such partition
 *   STUB_PARTITION_BYTES  its size; the rest is erased flash
 *   STUB_SRAM, STUB_PSRAM bytes of heap
 *   STUB_USB              the host is at the USB port: it is stdin and stdout, and what goes to the UART is on stderr.
 *                         Else the UART is stdin and stdout, and what goes to USB is on stderr
 */
#define _POSIX_C_SOURCE 200809L

#include "driver/uart.h"
#include "driver/usb_serial_jtag.h"
#include "esp_chip_info.h"
#include "esp_cpu.h"
#include "esp_heap_caps.h"
#include "esp_log.h"
#include "esp_partition.h"
#include "esp_rom_sys.h"
#include "esp_task.h"
#include "esp_timer.h"
#include "freertos/idf_additions.h"

#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { PAGE = 65536 };

void app_main(void);

static size_t number(const char *name, size_t otherwise) {
    const char *const text = getenv(name);
    return text != NULL ? strtoul(text, NULL, 0) : otherwise;
}

/* The line */

static int host_is_at_usb(void) { return getenv("STUB_USB") != NULL; }

static int take(void *buf, uint32_t length, TickType_t ticks) {
    struct pollfd input = {STDIN_FILENO, POLLIN, 0};
    if (poll(&input, 1, (int)ticks * (1000 / configTICK_RATE_HZ)) <= 0)
        return 0;
    const ssize_t got = read(STDIN_FILENO, buf, length);
    if (got <= 0)
        exit(0); /* the host has gone */
    return (int)got;
}

static int put(int file, const void *src, size_t size) {
    for (size_t sent = 0; sent < size;) {
        const ssize_t now = write(file, (const char *)src + sent, size - sent);
        if (now <= 0)
            exit(1);
        sent += (size_t)now;
    }
    return (int)size;
}

esp_err_t uart_driver_install(uart_port_t uart_num, int rx_buffer_size, int tx_buffer_size, int queue_size,
                              QueueHandle_t *uart_queue, int intr_alloc_flags) {
    (void)queue_size, (void)uart_queue, (void)intr_alloc_flags;
    return uart_num == UART_NUM_0 && rx_buffer_size > 128 && (tx_buffer_size == 0 || tx_buffer_size > 128) ? ESP_OK
                                                                                                           : ESP_FAIL;
}
esp_err_t uart_param_config(uart_port_t uart_num, const uart_config_t *config) {
    return uart_num == UART_NUM_0 && config->baud_rate == 115200 ? ESP_OK : ESP_FAIL;
}
esp_err_t uart_wait_tx_done(uart_port_t uart_num, TickType_t ticks) { return (void)uart_num, (void)ticks, ESP_OK; }
int uart_write_bytes(uart_port_t uart_num, const void *src, size_t size) {
    (void)uart_num;
    return put(host_is_at_usb() ? STDERR_FILENO : STDOUT_FILENO, src, size);
}
int uart_read_bytes(uart_port_t uart_num, void *buf, uint32_t length, TickType_t ticks) {
    (void)uart_num;
    return host_is_at_usb() ? 0 : take(buf, length, ticks);
}

static size_t usb_buffer;
esp_err_t usb_serial_jtag_driver_install(usb_serial_jtag_driver_config_t *config) {
    usb_buffer = config->tx_buffer_size;
    return config->rx_buffer_size > 64 && usb_buffer > 0 ? ESP_OK : ESP_FAIL;
}
static int usb_is_busy;
/* After the first command, a program that reads again must have waited until its answer had gone. */
int usb_serial_jtag_read_bytes(void *buf, uint32_t length, TickType_t ticks) {
    static int has_read;
    if (host_is_at_usb() && has_read && usb_is_busy)
        exit(2);
    const int got = host_is_at_usb() ? take(buf, length, ticks) : 0;
    has_read |= got > 0;
    return got;
}
int usb_serial_jtag_write_bytes(const void *src, size_t size, TickType_t ticks) {
    (void)ticks;
    usb_is_busy = 1;
    return size > usb_buffer ? 0 : put(host_is_at_usb() ? STDOUT_FILENO : STDERR_FILENO, src, size);
}
/* Where no host listens, it would wait in vain. */
esp_err_t usb_serial_jtag_wait_tx_done(TickType_t ticks) {
    if (!host_is_at_usb() || ticks == 0)
        exit(2);
    usb_is_busy = 0;
    return ESP_OK;
}

/* The partition */

static esp_partition_t partition = {.type = ESP_PARTITION_TYPE_DATA, .subtype = 0x40, .label = "model"};
static uint8_t *flash;

const esp_partition_t *esp_partition_find_first(esp_partition_type_t type, esp_partition_subtype_t subtype,
                                                const char *label) {
    const char *const path = getenv("STUB_PARTITION");
    if (path == NULL || type != partition.type || subtype != partition.subtype || strcmp(label, partition.label) != 0)
        return NULL;
    FILE *const file = fopen(path, "rb");
    partition.size = (uint32_t)number("STUB_PARTITION_BYTES", 32 * PAGE);
    void *memory = NULL;
    if (file == NULL || posix_memalign(&memory, PAGE, partition.size) != 0)
        exit(1);
    flash = memory;
    memset(flash, 0xFF, partition.size);
    if (fread(flash, 1, partition.size, file) == 0)
        exit(1);
    fclose(file);
    return &partition;
}
esp_err_t esp_partition_read(const esp_partition_t *p, size_t src_offset, void *dst, size_t size) {
    if (src_offset + size > p->size)
        return ESP_FAIL;
    memcpy(dst, flash + src_offset, size);
    return ESP_OK;
}
esp_err_t esp_partition_mmap(const esp_partition_t *p, size_t offset, size_t size, esp_partition_mmap_memory_t memory,
                             const void **out_ptr, esp_partition_mmap_handle_t *out_handle) {
    if (size == 0 || offset + size > p->size || memory != ESP_PARTITION_MMAP_DATA)
        return ESP_FAIL;
    *out_ptr = flash + offset;
    *out_handle = 1;
    return ESP_OK;
}

/* The heap: each block has its size and kind before it, and lies 4 bytes off what malloc gives, as on the chip */

typedef struct block {
    size_t size;
    int is_external;
} block;
enum { HEAD = 36 };
static size_t used[2];

static size_t left(int is_external) {
    return number(is_external ? "STUB_PSRAM" : "STUB_SRAM", is_external ? 0 : 200000) - used[is_external];
}
void *heap_caps_malloc(size_t size, uint32_t caps) {
    const block b = {size, (caps & MALLOC_CAP_SPIRAM) != 0};
    char *const memory = size <= left(b.is_external) ? malloc(size + HEAD) : NULL;
    if (memory == NULL)
        return NULL;
    used[b.is_external] += size;
    memcpy(memory, &b, sizeof b);
    return memory + HEAD;
}
void heap_caps_free(void *ptr) {
    block b;
    if (ptr == NULL)
        return;
    memcpy(&b, (char *)ptr - HEAD, sizeof b);
    used[b.is_external] -= b.size;
    free((char *)ptr - HEAD);
}
size_t heap_caps_get_largest_free_block(uint32_t caps) { return left((caps & MALLOC_CAP_SPIRAM) != 0); }
size_t heap_caps_get_free_size(uint32_t caps) { return (void)caps, left(0) + left(1); }

/* The clock: cycles since the start if somebody sets them, the counter being ahead of the timer by some */

uint64_t stub_cycles;
enum { MHZ = 240 };

static uint64_t cycles(void) {
    struct timespec now;
    if (stub_cycles != 0)
        return stub_cycles;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * MHZ * 1000000u + (uint64_t)now.tv_nsec * MHZ / 1000u;
}
esp_cpu_cycle_count_t esp_cpu_get_cycle_count(void) { return (uint32_t)(cycles() + 3000000000u); }
int64_t esp_timer_get_time(void) { return (int64_t)(cycles() / MHZ); }
uint32_t esp_rom_get_cpu_ticks_per_us(void) { return MHZ; }

/* The rest */

void esp_chip_info(esp_chip_info_t *info) { *info = (esp_chip_info_t){CHIP_ESP32S3, 0, 2, 2}; }
void esp_log_level_set(const char *tag, esp_log_level_t level) { (void)tag, (void)level; }

static void *stack;
uint8_t *pxTaskGetStackStart(TaskHandle_t task) { return (void)task, stack; }

static void *main_task(void *unused) {
    app_main();
    return unused;
}

int main(void) {
    pthread_t thread;
    pthread_attr_t attributes;
    if (posix_memalign(&stack, PAGE, ESP_TASK_MAIN_STACK) != 0 || pthread_attr_init(&attributes) != 0 ||
        pthread_attr_setstack(&attributes, stack, ESP_TASK_MAIN_STACK) != 0 ||
        pthread_create(&thread, &attributes, main_task, NULL) != 0)
        return 1;
    return pthread_join(thread, NULL);
}
