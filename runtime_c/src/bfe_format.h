/* The constants of the .bfe file format (FORMAT.md) and readers for its little-endian fields. */
#ifndef BFE_FORMAT_H
#define BFE_FORMAT_H

#include <stdint.h>

enum {
    BFE_HEADER_BYTES = 64,
    BFE_ENTRY_BYTES = 16,      /* of the section table */
    BFE_SECTION_ALIGNMENT = 16 /* sections, and the end of the file */
};

/* Where the header's fields are. */
enum {
    BFE_AT_MAGIC = 0,
    BFE_AT_BYTE_ORDER = 4,
    BFE_AT_MAJOR = 8,
    BFE_AT_HEADER_BYTES = 12,
    BFE_AT_FILE_BYTES = 16,
    BFE_AT_CRC = 20,
    BFE_AT_REQUIRED = 24,
    BFE_AT_SECTION_COUNT = 32,
    BFE_AT_RESERVED = 36
};

/* Where the fields of a section table entry are. */
enum {
    BFE_ENTRY_KIND = 0,
    BFE_ENTRY_BLOCK = 2,
    BFE_ENTRY_ENCODING = 4,
    BFE_ENTRY_RESERVED = 6,
    BFE_ENTRY_OFFSET = 8,
    BFE_ENTRY_SIZE = 12
};

/* Required features. */
enum {
    BFE_FEATURE_VISION_TRANSFORMER = 1,
    BFE_FEATURE_BUTTERFLY_EXPERTS = 2,
    BFE_FEATURE_TRITS2 = 4,
    BFE_FEATURE_TRITS3 = 8,
    BFE_FEATURE_ANGLE8 = 16,
    BFE_FEATURES_KNOWN = 31
};

enum {
    BFE_ENCODING_BYTES = 0,
    BFE_ENCODING_U32 = 1,
    BFE_ENCODING_F32 = 2,
    BFE_ENCODING_F16 = 3,
    BFE_ENCODING_INT8 = 4,
    BFE_ENCODING_TRITS2 = 5,
    BFE_ENCODING_TRITS3 = 6,
    BFE_ENCODING_ANGLE8 = 7
};

/* Section kinds, in file order. The scale of a matrix is always the kind after it. */
enum {
    BFE_KIND_CONFIG = 1,
    BFE_KIND_PATCH_WEIGHT = 2,
    BFE_KIND_PATCH_SCALE = 3,
    BFE_KIND_POSITION = 4,
    BFE_KIND_NORM1 = 16,
    BFE_KIND_QKV_WEIGHT = 17,
    BFE_KIND_QKV_SCALE = 18,
    BFE_KIND_QKV_BIAS = 19,
    BFE_KIND_PROJ_WEIGHT = 20,
    BFE_KIND_PROJ_SCALE = 21,
    BFE_KIND_PROJ_BIAS = 22,
    BFE_KIND_NORM2 = 23,
    BFE_KIND_ROUTER_WEIGHT = 24,
    BFE_KIND_ROUTER_SCALE = 25,
    BFE_KIND_THETA = 26,
    BFE_KIND_SUBSTRATE = 27,
    BFE_KIND_SUBSTRATE_SCALE = 28,
    BFE_KIND_PHI = 29,
    BFE_KIND_DOWN_WEIGHT = 30,
    BFE_KIND_DOWN_SCALE = 31,
    BFE_KIND_NORM = 48,
    BFE_KIND_HEAD_WEIGHT = 49,
    BFE_KIND_HEAD_SCALE = 50,
    BFE_KIND_HEAD_BIAS = 51,
    BFE_KIND_LABELS = 64,
    BFE_KIND_GOLDEN_INPUT = 65,
    BFE_KIND_GOLDEN_OUTPUT = 66,
    BFE_KIND_FIRST_OPTIONAL = 0x8000
};

/* Words of the config section. */
enum {
    BFE_CONFIG_ARCHITECTURE = 0,
    BFE_CONFIG_IMAGE_HEIGHT = 1,
    BFE_CONFIG_IMAGE_WIDTH = 2,
    BFE_CONFIG_CHANNELS = 3,
    BFE_CONFIG_PATCH_SIZE = 4,
    BFE_CONFIG_CLASSES = 5,
    BFE_CONFIG_D_MODEL = 6,
    BFE_CONFIG_D_FF = 7,
    BFE_CONFIG_LAYERS = 8,
    BFE_CONFIG_HEADS = 9,
    BFE_CONFIG_EXPERTS = 10,
    BFE_CONFIG_TOP_K = 11,
    BFE_CONFIG_THETA_LAYERS = 12,
    BFE_CONFIG_PHI_LAYERS = 13,
    BFE_CONFIG_POOLING = 14,
    BFE_CONFIG_FEED_FORWARD = 15,
    BFE_CONFIG_ATTENTION_SCALE = 16,
    BFE_CONFIG_WORDS = 17
};

static inline uint16_t bfe_read_u16(const uint8_t *at) { return (uint16_t)(at[0] | (uint16_t)(at[1] << 8)); }

static inline uint32_t bfe_read_u32(const uint8_t *at) {
    return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

static inline uint64_t bfe_round_up(uint64_t bytes) {
    return (bytes + BFE_SECTION_ALIGNMENT - 1) / BFE_SECTION_ALIGNMENT * BFE_SECTION_ALIGNMENT;
}

#endif
