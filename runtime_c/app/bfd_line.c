#include "bfd_line.h"
#include "bfd_platform.h"
#include "bfe_crc32.h"

#include <string.h>

static int hex_digit(int c) {
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

static int next_byte(bfd_command *command) {
    int c = bfd_read();
    while (c == '\r' && (c = bfd_read()) != '\n')
        command->wrong = 1; /* only the one in front of the line feed may be there */
    if (c == '\n' || c < 0) {
        command->ended = 1;
        command->no_more = c < 0;
    } else if (c < ' ' || c > '~') {
        command->wrong = 1;
    }
    return c;
}

/* Eight digits and the end of the line, or the line is wrong. */
static void read_checksum(bfd_command *command) {
    uint32_t crc = 0;
    int digits = 0, c;
    while (c = next_byte(command), !command->ended) {
        const int digit = hex_digit(c);
        if (digit < 0)
            digits = 9;
        crc = crc << 4 | (uint32_t)(digit & 15);
        digits += digits <= 8 ? 1 : 0;
    }
    if (digits != 8 || crc != command->crc)
        command->wrong = 1;
}

/* The next byte of the command itself, -1 at its end. */
static int command_byte(bfd_command *command) {
    if (command->ended)
        return -1;
    const int c = next_byte(command);
    if (command->ended)
        return -1;
    if (c == '*') {
        read_checksum(command);
        return -1;
    }
    const uint8_t byte = (uint8_t)c;
    command->crc = bfe_crc32(command->crc, &byte, 1);
    return c;
}

void bfd_line_begin(bfd_command *command) { memset(command, 0, sizeof *command); }

static int first_of_word(bfd_command *command) {
    int c;
    do
        c = command_byte(command);
    while (c == ' ');
    return c;
}

size_t bfd_word(bfd_command *command, char *word, size_t capacity) {
    size_t length = 0;
    for (int c = first_of_word(command); c >= 0 && c != ' '; c = command_byte(command)) {
        if (length < capacity - 1)
            word[length] = (char)c;
        length++;
    }
    word[length < capacity ? length : capacity - 1] = '\0';
    return length;
}

size_t bfd_hex_word(bfd_command *command, uint8_t *bytes, size_t capacity) {
    size_t digits = 0;
    int good = 1, high = 0;
    for (int c = first_of_word(command); c >= 0 && c != ' '; c = command_byte(command), digits++) {
        const int digit = hex_digit(c);
        good = good && digit >= 0;
        if (digits % 2 == 0)
            high = digit;
        else if (good && digits / 2 < capacity)
            bytes[digits / 2] = (uint8_t)(high << 4 | digit);
    }
    return good && digits % 2 == 0 ? digits / 2 : SIZE_MAX;
}

int bfd_line_end(bfd_command *command) {
    for (int c = 0; c >= 0; c = command_byte(command))
        if (c > ' ')
            command->wrong = 1;
    return !command->wrong;
}

int bfd_number(const char *word, uint32_t *number) {
    uint64_t value = 0;
    const char *c = word;
    for (; *c >= '0' && *c <= '9' && value <= UINT32_MAX; c++)
        value = value * 10 + (uint64_t)(*c - '0');
    *number = (uint32_t)value;
    return c != word && *c == '\0' && value <= UINT32_MAX;
}

static void put(bfd_answer *answer, const char *text, size_t length) {
    answer->crc = bfe_crc32(answer->crc, (const uint8_t *)text, length);
    bfd_write(text, length);
}

static void put_string(bfd_answer *answer, const char *text) { put(answer, text, strlen(text)); }

/* Quoted. What JSON would want escaped, and what is not ASCII, becomes '?': compilers' versions and flags may hold it.
 */
static void put_quoted(bfd_answer *answer, const char *text) {
    put(answer, "\"", 1);
    for (; *text != '\0'; text++)
        put(answer, *text < ' ' || *text > '~' || *text == '"' || *text == '\\' ? "?" : text, 1);
    put(answer, "\"", 1);
}

static void put_decimal(bfd_answer *answer, uint64_t number) {
    char digits[20];
    size_t at = sizeof digits;
    do
        digits[--at] = (char)('0' + number % 10);
    while ((number /= 10) != 0);
    put(answer, digits + at, sizeof digits - at);
}

static void put_hex(bfd_answer *answer, uint32_t word) {
    char digits[8];
    for (size_t i = 0; i < sizeof digits; i++)
        digits[i] = "0123456789abcdef"[word >> (28 - 4 * i) & 15];
    put(answer, digits, sizeof digits);
}

static void put_name(bfd_answer *answer, const char *name) {
    if (answer->comma)
        put(answer, ",", 1);
    answer->comma = 1;
    put_quoted(answer, name);
    put(answer, ":", 1);
}

bfd_answer bfd_begin(uint32_t id, const char *type) {
    bfd_answer answer = {0, 1};
    put_string(&answer, "{\"bfedge\":1,\"id\":");
    put_decimal(&answer, id);
    bfd_put_text(&answer, "type", type);
    return answer;
}

void bfd_put_text(bfd_answer *answer, const char *name, const char *text) {
    put_name(answer, name);
    put_quoted(answer, text);
}

void bfd_put_number(bfd_answer *answer, const char *name, uint64_t number) {
    put_name(answer, name);
    if (number == BFD_UNKNOWN)
        put_string(answer, "null");
    else
        put_decimal(answer, number);
}

void bfd_put_version(bfd_answer *answer, const char *name, uint32_t major, uint32_t minor, const uint32_t *patch) {
    put_name(answer, name);
    put(answer, "\"", 1);
    put_decimal(answer, major);
    put(answer, ".", 1);
    put_decimal(answer, minor);
    if (patch != NULL) {
        put(answer, ".", 1);
        put_decimal(answer, *patch);
    }
    put(answer, "\"", 1);
}

void bfd_put_bool(bfd_answer *answer, const char *name, int truth) {
    put_name(answer, name);
    put_string(answer, truth ? "true" : "false");
}

void bfd_put_null(bfd_answer *answer, const char *name) { bfd_put_number(answer, name, BFD_UNKNOWN); }

void bfd_put_hex(bfd_answer *answer, const char *name, uint32_t word) {
    put_name(answer, name);
    put(answer, "\"", 1);
    put_hex(answer, word);
    put(answer, "\"", 1);
}

void bfd_put_floats(bfd_answer *answer, const char *name, const float *x, size_t n) {
    put_name(answer, name);
    put(answer, "\"", 1);
    for (size_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, x + i, sizeof bits);
        put_hex(answer, bits);
    }
    put(answer, "\"", 1);
}

void bfd_open_object(bfd_answer *answer, const char *name) {
    put_name(answer, name);
    put(answer, "{", 1);
    answer->comma = 0;
}

void bfd_close_object(bfd_answer *answer) {
    put(answer, "}", 1);
    answer->comma = 1;
}

void bfd_end(bfd_answer *answer) {
    const uint32_t crc = answer->crc;
    bfd_put_hex(answer, "check", crc);
    put(answer, "}\n", 2);
    bfd_flush();
}

void bfd_error(uint32_t id, const char *code, const char *message) {
    bfd_answer answer = bfd_begin(id, "error");
    bfd_put_text(&answer, "code", code);
    bfd_put_text(&answer, "message", message);
    bfd_end(&answer);
}

void bfd_illegal_instruction(const char *missing) {
    bfd_write("\n", 1); /* the other line is over */
    bfd_answer answer = bfd_begin(0, "error");
    bfd_put_text(&answer, "code", "illegal-instruction");
    bfd_put_text(&answer, "message", "built for a newer CPU than this one");
    if (missing != NULL)
        bfd_put_text(&answer, "missing", missing);
    bfd_put_text(&answer, "cpu", bfd_cpu());
    bfd_end(&answer);
}
