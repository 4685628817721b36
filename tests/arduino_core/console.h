/* What differs between the machines that the stand-in runs on. */
#ifndef CONSOLE_H
#define CONSOLE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

void console_write(const uint8_t *bytes, size_t length);
int console_read(void); /* a byte, or -1 at the end of the input */
unsigned long console_micros(void);
__attribute__((noreturn)) void console_exit(int status);

#ifdef __cplusplus
}
#endif

#endif
