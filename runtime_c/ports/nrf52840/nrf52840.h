/* Between the files of this port. One of console_uart.c and console_semihosting.c is linked. */
#ifndef NRF52840_H
#define NRF52840_H

#include <stdint.h>

#define NRF_REGISTER(address) (*(volatile uint32_t *)(address))

/* Starts the clock that bfd_ticks reads, and the crystal that makes it and the UART accurate. */
void nrf52840_start_clock(void);

void nrf52840_open_console(void);

/* The program is over: with `status` if it ended by itself, 128 + the signal's number on Linux if it crashed. Returns
 * on a board with nothing to return to. */
void nrf52840_close_console(int status);

#endif
