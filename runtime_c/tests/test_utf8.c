#include "bfe_utf8.h"
#include "test.h"

static size_t valid(const char *text) { return bfe_utf8_valid((const uint8_t *)text, strlen(text)); }

/* All code points, encoded here independently: legal ones and surrogates. */
static void test_every_character(void) {
    for (uint32_t code = 0x80; code < 0x110000; code++) {
        uint8_t text[4];
        size_t size = 0;
        if (code >= 0x10000) {
            text[size++] = (uint8_t)(0xF0 | code >> 18);
            text[size++] = (uint8_t)(0x80 | (code >> 12 & 63));
        } else if (code >= 0x800) {
            text[size++] = (uint8_t)(0xE0 | code >> 12);
        }
        if (code >= 0x800)
            text[size++] = (uint8_t)(0x80 | (code >> 6 & 63));
        else
            text[size++] = (uint8_t)(0xC0 | code >> 6);
        text[size++] = (uint8_t)(0x80 | (code & 63));

        const int surrogate = code >= 0xD800 && code < 0xE000;
        CHECK(bfe_utf8_valid(text, size) == (surrogate ? 0 : size));
        CHECK(bfe_utf8_valid(text, size - 1) == 0);
    }
}

int main(void) {
    test_every_character();
    CHECK(valid("") == 0);
    CHECK(valid("plain\ttext\n") == 11);
    CHECK(valid("ok\x80") == 2);     /* a continuation alone */
    CHECK(valid("ok\xC3(") == 2);    /* no continuation */
    CHECK(valid("ok\xC0\x80") == 2); /* overlong, two bytes */
    CHECK(valid("ok\xC1\xBF") == 2);
    CHECK(valid("ok\xE0\x9F\xBF") == 2);     /* overlong, three bytes */
    CHECK(valid("ok\xF0\x8F\xBF\xBF") == 2); /* overlong, four bytes */
    CHECK(valid("ok\xF4\x90\x80\x80") == 2); /* U+110000 */
    CHECK(valid("ok\xF5\x80\x80\x80") == 2);
    CHECK(valid("ok\xFF") == 2);
    return test_result();
}
