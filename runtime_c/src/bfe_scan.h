/* Searches for illegal values in the contents of sections. Each returns the index of the first one, or the count. */
#ifndef BFE_SCAN_H
#define BFE_SCAN_H

#include <stdint.h>

/* In bytes, for a weight of this encoding and row length. */
uint32_t bfe_scan_weight(const uint8_t *weight, uint32_t bytes, uint16_t encoding, uint32_t columns);

/* In floats. Legal are those whose bits lie in lowest..highest after `mask`: non-negative floats are ordered like their
 * bits, and infinity and the NaNs come last. */
uint32_t bfe_scan_f32(const uint8_t *floats, uint32_t count, uint32_t mask, uint32_t lowest, uint32_t highest);

/* In angles. Legal are those whose magnitude has bits up to `highest`. */
uint32_t bfe_scan_f16(const uint8_t *angles, uint32_t count, uint16_t highest);

#endif
