#define _POSIX_C_SOURCE 200809L
#include "console.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

void console_write(const uint8_t *bytes, size_t length) { fwrite(bytes, 1, length, stdout); }

int console_read(void) {
    fflush(stdout);
    return getchar();
}

unsigned long console_micros(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (unsigned long)now.tv_sec * 1000000ul + (unsigned long)now.tv_nsec / 1000;
}

void console_exit(int status) { exit(status); }
