#include "Arduino.h"
#include "console.h"

ConsoleSerial Serial;

size_t Print::print(unsigned long number) {
    char digits[24];
    size_t at = sizeof digits;
    digits[--at] = '\0';
    do
        digits[--at] = static_cast<char>('0' + number % 10);
    while ((number /= 10) != 0);
    return print(digits + at);
}

/* Like USB, it takes less than it is given at times. */
size_t ConsoleSerial::write(const uint8_t *bytes, size_t length) {
    const size_t most = 48;
    const size_t taken = length < most ? length : most;
    console_write(bytes, taken);
    return taken;
}

int ConsoleSerial::available() {
    if (held < 0)
        held = console_read();
    if (held < 0)
        console_exit(3); /* the sketch waits for a host that has left */
    return 1;
}

int ConsoleSerial::read() {
    const int byte = held;
    held = -1;
    return byte;
}

unsigned long micros() { return console_micros(); }
unsigned long millis() { return console_micros() / 1000; }
void yield() {}

/* A sketch that waits has nothing left to do here: 0 after a loop's work, 4 where it gave up. */
static bool looped;
void delay(unsigned long) { console_exit(looped ? 0 : 4); }

/* What a C++ library brings. */
extern "C" void __cxa_pure_virtual() { console_exit(5); }

int main() {
    setup();
    looped = true;
    loop();
    console_exit(0);
}
