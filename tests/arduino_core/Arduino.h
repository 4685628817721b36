/* As much of an Arduino core as the library's tests need; on the host, and on QEMU's Cortex-M4 by semihosting. */
#ifndef ARDUINO_H
#define ARDUINO_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

class Print {
  public:
    virtual size_t write(uint8_t byte) = 0;
    virtual size_t write(const uint8_t *bytes, size_t length) = 0;
    virtual void flush() {}
    size_t print(const char *text) { return write(reinterpret_cast<const uint8_t *>(text), strlen(text)); }
    size_t print(unsigned long number);
    size_t print(unsigned int number) { return print(static_cast<unsigned long>(number)); }
    template <typename T> size_t println(T value) { return print(value) + print("\r\n"); }
};

class Stream : public Print {
  public:
    virtual int available() = 0;
    virtual int read() = 0;
};

class ConsoleSerial : public Stream {
  public:
    void begin(unsigned long) {}
    explicit operator bool() const { return true; }
    size_t write(uint8_t byte) override { return write(&byte, 1); }
    size_t write(const uint8_t *bytes, size_t length) override;
    int available() override;
    int read() override;

  private:
    int held = -1;
};

extern ConsoleSerial Serial;

unsigned long micros();
unsigned long millis();
void delay(unsigned long milliseconds);
void yield();

void setup();
void loop();

#endif
