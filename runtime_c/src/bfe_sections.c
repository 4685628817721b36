#include "bfe_sections.h"
#include "bfe_format.h"

/* The dimensions that shapes are made of. */
enum { ONE, TWO, D, D3, F, PATCH, TOKENS, EXPERTS, CLASSES, THETA, PHI, WORDS };

#define ONLY(encoding) (1u << (encoding))
#define U32 ONLY(BFE_ENCODING_U32)
#define F32 ONLY(BFE_ENCODING_F32)
#define INT8 ONLY(BFE_ENCODING_INT8)
#define TRITS (ONLY(BFE_ENCODING_TRITS2) | ONLY(BFE_ENCODING_TRITS3))
#define ANGLES (ONLY(BFE_ENCODING_F16) | ONLY(BFE_ENCODING_ANGLE8))

static const bfe_spec before_blocks[] = {
    {BFE_KIND_CONFIG, BFE_ROLE_OTHER, U32, ONE, WORDS},
    {BFE_KIND_PATCH_WEIGHT, BFE_ROLE_WEIGHT, INT8, D, PATCH},
    {BFE_KIND_PATCH_SCALE, BFE_ROLE_SCALE, F32, D, ONE},
    {BFE_KIND_POSITION, BFE_ROLE_FLOAT, F32, TOKENS, D},
};

static const bfe_spec in_block[] = {
    {BFE_KIND_NORM1, BFE_ROLE_FLOAT, F32, TWO, D},
    {BFE_KIND_QKV_WEIGHT, BFE_ROLE_WEIGHT, INT8 | TRITS, D3, D},
    {BFE_KIND_QKV_SCALE, BFE_ROLE_SCALE, F32, D3, ONE},
    {BFE_KIND_QKV_BIAS, BFE_ROLE_FLOAT, F32, D3, ONE},
    {BFE_KIND_PROJ_WEIGHT, BFE_ROLE_WEIGHT, INT8 | TRITS, D, D},
    {BFE_KIND_PROJ_SCALE, BFE_ROLE_SCALE, F32, D, ONE},
    {BFE_KIND_PROJ_BIAS, BFE_ROLE_FLOAT, F32, D, ONE},
    {BFE_KIND_NORM2, BFE_ROLE_FLOAT, F32, TWO, D},
    {BFE_KIND_ROUTER_WEIGHT, BFE_ROLE_WEIGHT, INT8, EXPERTS, D},
    {BFE_KIND_ROUTER_SCALE, BFE_ROLE_SCALE, F32, EXPERTS, ONE},
    {BFE_KIND_THETA, BFE_ROLE_ANGLE, ANGLES, EXPERTS, THETA},
    {BFE_KIND_SUBSTRATE, BFE_ROLE_WEIGHT, TRITS, F, D},
    {BFE_KIND_SUBSTRATE_SCALE, BFE_ROLE_SCALE, F32, F, ONE},
    {BFE_KIND_PHI, BFE_ROLE_ANGLE, ANGLES, EXPERTS, PHI},
    {BFE_KIND_DOWN_WEIGHT, BFE_ROLE_WEIGHT, INT8 | TRITS, D, F},
    {BFE_KIND_DOWN_SCALE, BFE_ROLE_SCALE, F32, D, ONE},
};

static const bfe_spec after_blocks[] = {
    {BFE_KIND_NORM, BFE_ROLE_FLOAT, F32, TWO, D},
    {BFE_KIND_HEAD_WEIGHT, BFE_ROLE_WEIGHT, INT8, CLASSES, D},
    {BFE_KIND_HEAD_SCALE, BFE_ROLE_SCALE, F32, CLASSES, ONE},
    {BFE_KIND_HEAD_BIAS, BFE_ROLE_FLOAT, F32, CLASSES, ONE},
};

enum {
    BEFORE = sizeof before_blocks / sizeof before_blocks[0],
    IN_BLOCK = sizeof in_block / sizeof in_block[0],
    AFTER = sizeof after_blocks / sizeof after_blocks[0]
};

uint32_t bfe_required_sections(const bfe_config *config) { return BEFORE + IN_BLOCK * config->layers + AFTER; }

const bfe_spec *bfe_spec_at(const bfe_config *config, uint32_t position, uint16_t *block) {
    *block = BFE_NO_BLOCK;
    if (position < BEFORE)
        return &before_blocks[position];
    position -= BEFORE;
    if (position < IN_BLOCK * config->layers) {
        *block = (uint16_t)(position / IN_BLOCK);
        return &in_block[position % IN_BLOCK];
    }
    return &after_blocks[position - IN_BLOCK * config->layers];
}

uint32_t bfe_section_position(const bfe_config *config, uint16_t kind, uint32_t block) {
    if (kind < BFE_KIND_NORM1)
        return (uint32_t)(kind - BFE_KIND_CONFIG);
    if (kind < BFE_KIND_NORM)
        return BEFORE + IN_BLOCK * block + (uint32_t)(kind - BFE_KIND_NORM1);
    return BEFORE + IN_BLOCK * config->layers + (uint32_t)(kind - BFE_KIND_NORM);
}

static uint32_t dimension(uint8_t which, const bfe_config *config) {
    switch (which) {
    case TWO:
        return 2;
    case D:
        return config->d_model;
    case D3:
        return 3 * config->d_model;
    case F:
        return config->d_ff;
    case PATCH:
        return config->patch_columns;
    case TOKENS:
        return config->tokens;
    case EXPERTS:
        return config->experts;
    case CLASSES:
        return config->classes;
    case THETA:
        return config->theta_layers * (bfe_padded(config->d_model) / 2);
    case PHI:
        return config->phi_layers * (bfe_padded(config->d_ff) / 2);
    case WORDS:
        return BFE_CONFIG_WORDS;
    default:
        return 1;
    }
}

uint32_t bfe_spec_rows(const bfe_spec *spec, const bfe_config *config) { return dimension(spec->rows, config); }
uint32_t bfe_spec_columns(const bfe_spec *spec, const bfe_config *config) { return dimension(spec->columns, config); }

uint64_t bfe_section_bytes(uint16_t encoding, uint32_t rows, uint32_t columns) {
    switch (encoding) {
    case BFE_ENCODING_BYTES:
    case BFE_ENCODING_INT8:
    case BFE_ENCODING_ANGLE8:
        return (uint64_t)rows * columns;
    case BFE_ENCODING_U32:
    case BFE_ENCODING_F32:
        return (uint64_t)rows * columns * 4;
    case BFE_ENCODING_F16:
        return (uint64_t)rows * columns * 2;
    case BFE_ENCODING_TRITS2:
        return (uint64_t)rows * ((columns + 3) / 4);
    case BFE_ENCODING_TRITS3:
        return (uint64_t)rows * ((columns + 4) / 5);
    default:
        return 0;
    }
}

bfe_entry bfe_read_entry(const uint8_t *file, uint32_t position) {
    const uint8_t *at = file + BFE_HEADER_BYTES + (size_t)position * BFE_ENTRY_BYTES;
    bfe_entry entry;
    entry.kind = bfe_read_u16(at + BFE_ENTRY_KIND);
    entry.block = bfe_read_u16(at + BFE_ENTRY_BLOCK);
    entry.encoding = bfe_read_u16(at + BFE_ENTRY_ENCODING);
    entry.offset = bfe_read_u32(at + BFE_ENTRY_OFFSET);
    entry.bytes = bfe_read_u32(at + BFE_ENTRY_SIZE);
    return entry;
}

uint32_t bfe_padded(uint32_t width) {
    uint32_t padded = 1;
    while (padded < width)
        padded *= 2;
    return padded;
}

uint32_t bfe_log2(uint32_t power_of_two) {
    uint32_t log = 0;
    while (power_of_two >>= 1)
        log++;
    return log;
}
