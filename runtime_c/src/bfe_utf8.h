#ifndef BFE_UTF8_H
#define BFE_UTF8_H

#include <stddef.h>
#include <stdint.h>

/* Number of bytes at the start of `text` that are whole, valid UTF-8 characters; `size` if all of it is. */
size_t bfe_utf8_valid(const uint8_t *text, size_t size);

#endif
