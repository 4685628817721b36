/* What sections a file has, in which order, and of which shape: all of it follows from the config (FORMAT.md). */
#ifndef BFE_SECTIONS_H
#define BFE_SECTIONS_H

#include "bfedge.h"

/* What a section's numbers are, as far as validation cares. */
typedef enum bfe_role {
    BFE_ROLE_OTHER,
    BFE_ROLE_WEIGHT, /* a matrix of int8 or trits; its scale is the next section */
    BFE_ROLE_SCALE,  /* one per row of the matrix before it if that is int8, else one */
    BFE_ROLE_FLOAT,
    BFE_ROLE_ANGLE
} bfe_role;

typedef struct bfe_spec {
    uint16_t kind;
    uint8_t role;      /* bfe_role */
    uint8_t encodings; /* the ones allowed: bit e for encoding e */
    uint8_t rows;      /* which dimension; bfe_spec_rows gives its value */
    uint8_t columns;
} bfe_spec;

/* One entry of the section table. */
typedef struct bfe_entry {
    uint16_t kind, block, encoding;
    uint32_t offset, bytes;
} bfe_entry;

/* Number of sections that every file of this config has. Optional ones follow them. */
uint32_t bfe_required_sections(const bfe_config *config);

/* The required section at this position, and its block. */
const bfe_spec *bfe_spec_at(const bfe_config *config, uint32_t position, uint16_t *block);

/* The position of a required section: the inverse of bfe_spec_at. */
uint32_t bfe_section_position(const bfe_config *config, uint16_t kind, uint32_t block);

uint32_t bfe_spec_rows(const bfe_spec *spec, const bfe_config *config);
uint32_t bfe_spec_columns(const bfe_spec *spec, const bfe_config *config);

/* Bytes of a [rows, columns] section; 0 for an unknown encoding. */
uint64_t bfe_section_bytes(uint16_t encoding, uint32_t rows, uint32_t columns);

bfe_entry bfe_read_entry(const uint8_t *file, uint32_t position);

/* The next power of two, for width 1 to 2^31, and its logarithm. */
uint32_t bfe_padded(uint32_t width);
uint32_t bfe_log2(uint32_t power_of_two);

#endif
