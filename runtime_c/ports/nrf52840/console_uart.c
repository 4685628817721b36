/*
 * The line is UART0, 115200 baud, 8 data bits, no parity, 1 stop bit, on the pins that the Arduino Nano 33 BLE calls TX
 * (D1, P1.03) and RX (D0, P1.10). Registers: nRF52840 Product Specification, 6.33 UART.
 */
#include "bfd_platform.h"
#include "nrf52840.h"

#define UART_START_RX NRF_REGISTER(0x40002000)
#define UART_START_TX NRF_REGISTER(0x40002008)
#define UART_RX_READY NRF_REGISTER(0x40002108)
#define UART_TX_READY NRF_REGISTER(0x4000211C)
#define UART_ENABLE NRF_REGISTER(0x40002500)
#define UART_PIN_RTS NRF_REGISTER(0x40002508)
#define UART_PIN_TX NRF_REGISTER(0x4000250C)
#define UART_PIN_CTS NRF_REGISTER(0x40002510)
#define UART_PIN_RX NRF_REGISTER(0x40002514)
#define UART_RX NRF_REGISTER(0x40002518)
#define UART_TX NRF_REGISTER(0x4000251C)
#define UART_BAUD NRF_REGISTER(0x40002524)
#define UART_CONFIG NRF_REGISTER(0x4000256C)

#define PORT1_SET NRF_REGISTER(0x50000808)
#define PORT1_PIN_CONFIG ((volatile uint32_t *)0x50000A00)

enum { TX_PIN = 3, RX_PIN = 10, ON_PORT_1 = 1 << 5 };
enum { PIN_OUTPUT = 1 | 1 << 1 /* input buffer off */, PIN_INPUT_PULLED_UP = 3 << 2 };
enum { UART_ON = 4, BAUD_115200 = 0x01D7E000 };

#define NOT_CONNECTED 0xFFFFFFFF

/* The pins first, so that the line does not glitch (6.33.6). A bootloader may have used the UART, other pins and UARTE.
 */
void nrf52840_open_console(void) {
    UART_ENABLE = 0;
    PORT1_SET = 1 << TX_PIN;
    PORT1_PIN_CONFIG[TX_PIN] = PIN_OUTPUT;
    PORT1_PIN_CONFIG[RX_PIN] = PIN_INPUT_PULLED_UP;
    UART_PIN_TX = TX_PIN | ON_PORT_1;
    UART_PIN_RX = RX_PIN | ON_PORT_1;
    UART_PIN_RTS = NOT_CONNECTED;
    UART_PIN_CTS = NOT_CONNECTED;
    UART_BAUD = BAUD_115200;
    UART_CONFIG = 0;
    UART_ENABLE = UART_ON;
    UART_RX_READY = 0;
    UART_START_TX = 1;
    UART_START_RX = 1;
}

/* Waits for each byte to have gone, so bfd_flush has nothing left to do. */
void bfd_write(const char *text, size_t length) {
    for (size_t i = 0; i < length; i++) {
        UART_TX_READY = 0;
        UART_TX = (uint8_t)text[i];
        while (UART_TX_READY == 0) {
        }
    }
}

void bfd_flush(void) {}

/* The hardware keeps 6 bytes. The event is cleared before the byte is taken: the next byte sets it again. */
int bfd_read(void) {
    while (UART_RX_READY == 0) {
    }
    UART_RX_READY = 0;
    return (int)(UART_RX & 0xFF);
}

/* There is nothing to return to. */
void nrf52840_close_console(int status) { (void)status; }
