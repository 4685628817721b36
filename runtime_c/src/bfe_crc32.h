#ifndef BFE_CRC32_H
#define BFE_CRC32_H

#include <stddef.h>
#include <stdint.h>

/* CRC-32 (IEEE 802.3) of `size` more bytes after those that gave `crc`; start with 0. */
uint32_t bfe_crc32(uint32_t crc, const uint8_t *bytes, size_t size);

#endif
