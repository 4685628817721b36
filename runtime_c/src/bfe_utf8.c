#include "bfe_utf8.h"

/* Length of the character at `text`, 0 if it is invalid or cut off (RFC 3629: no overlong forms, no surrogates, at most
 * U+10FFFF). */
static size_t character(const uint8_t *text, size_t size) {
    const uint8_t first = text[0];
    if (first < 0x80)
        return 1;
    if (first < 0xC2 || first > 0xF4)
        return 0;

    const size_t length = first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
    if (size < length)
        return 0;
    for (size_t i = 1; i < length; i++)
        if ((text[i] & 0xC0) != 0x80)
            return 0;

    /* What remains illegal shows in the second byte. */
    if ((first == 0xE0 && text[1] < 0xA0) || (first == 0xED && text[1] > 0x9F) || (first == 0xF0 && text[1] < 0x90) ||
        (first == 0xF4 && text[1] > 0x8F))
        return 0;
    return length;
}

size_t bfe_utf8_valid(const uint8_t *text, size_t size) {
    size_t at = 0;
    while (at < size) {
        const size_t length = character(text + at, size - at);
        if (length == 0)
            break;
        at += length;
    }
    return at;
}
