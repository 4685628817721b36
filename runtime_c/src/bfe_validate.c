/*
 * FORMAT.md's rules V1 to V18, one function each, in their order. A rule may rely on those before it and on nothing
 * else: the checksum proves nothing about intent, so every count and offset is checked as if an attacker had chosen it.
 * No float is computed with; floats are judged by their bits.
 */
#include "bfe_validate.h"
#include "bfe_crc32.h"
#include "bfe_format.h"
#include "bfe_scan.h"
#include "bfe_sections.h"
#include "bfe_utf8.h"

#include <string.h>

enum { MAX_TOKENS = 4096, MAX_PATCH_COLUMNS = 16384 };

/* Floats, as bits. */
enum {
    F32_SMALLEST = 1,
    F32_1024 = 0x44800000,
    F32_LARGEST = 0x7F7FFFFF,
    F32_MAGNITUDE = 0x7FFFFFFF, /* mask: all but the sign */
    F16_HALF_TURN = 0x4248      /* 3.140625 */
};

typedef struct file_check {
    const uint8_t *file;
    size_t size;
    bfe_diag *diag;
    uint32_t sections; /* from V8 on */
    bfe_config config; /* from V10 on */
    /* From V11 on: where things are in the section table; 0 for an optional section that is absent. */
    uint32_t required, labels, golden_input, golden_output;
} file_check;

static bfe_status fail(file_check *c, bfe_status status, uint64_t offset) {
    c->diag->offset = (uint32_t)offset;
    return status;
}

static bfe_status fail_in(file_check *c, bfe_status status, uint64_t offset, uint16_t kind, uint16_t block) {
    c->diag->kind = kind;
    c->diag->block = block;
    return fail(c, status, offset);
}

static uint64_t entry_at(uint32_t position) { return BFE_HEADER_BYTES + (uint64_t)position * BFE_ENTRY_BYTES; }

static bfe_status v1_magic(file_check *c) {
    static const uint8_t magic[4] = {0x89, 'B', 'F', 'E'};
    if (c->size < sizeof magic || memcmp(c->file, magic, sizeof magic) != 0)
        return fail(c, BFE_NOT_A_MODEL, BFE_AT_MAGIC);
    return BFE_OK;
}

static bfe_status v2_header(file_check *c) {
    return c->size < BFE_HEADER_BYTES ? fail(c, BFE_TRUNCATED, c->size) : BFE_OK;
}

static bfe_status v3_byte_order(file_check *c) {
    const uint32_t mark = bfe_read_u32(c->file + BFE_AT_BYTE_ORDER);
    if (mark == 0x04030201)
        return fail(c, BFE_WRONG_BYTE_ORDER, BFE_AT_BYTE_ORDER);
    if (mark != 0x01020304)
        return fail(c, BFE_CORRUPT, BFE_AT_BYTE_ORDER);

    uint32_t native; /* sections are used in place, so the machine has to agree with the file */
    memcpy(&native, c->file + BFE_AT_BYTE_ORDER, sizeof native);
    return native == mark ? BFE_OK : fail(c, BFE_WRONG_BYTE_ORDER, BFE_AT_BYTE_ORDER);
}

static bfe_status v4_version(file_check *c) {
    const uint32_t major = bfe_read_u16(c->file + BFE_AT_MAJOR);
    if (major == BFE_FORMAT_MAJOR)
        return BFE_OK;
    c->diag->detail = major;
    return fail(c, major > BFE_FORMAT_MAJOR ? BFE_TOO_NEW : BFE_CORRUPT, BFE_AT_MAJOR);
}

static bfe_status v5_length(file_check *c) {
    const uint32_t claimed = bfe_read_u32(c->file + BFE_AT_FILE_BYTES);
    if (claimed == c->size)
        return BFE_OK;
    c->diag->detail = claimed;
    return fail(c, claimed > c->size ? BFE_TRUNCATED : BFE_CORRUPT, BFE_AT_FILE_BYTES);
}

static bfe_status v6_checksum(file_check *c) {
    const size_t after = BFE_AT_CRC + sizeof(uint32_t);
    uint32_t crc = bfe_crc32(0, c->file, BFE_AT_CRC);
    crc = bfe_crc32(crc, c->file + after, c->size - after);
    return crc == bfe_read_u32(c->file + BFE_AT_CRC) ? BFE_OK : fail(c, BFE_CORRUPT, BFE_AT_CRC);
}

static bfe_status v7_features(file_check *c) {
    const uint32_t unknown = bfe_read_u32(c->file + BFE_AT_REQUIRED) & ~(uint32_t)BFE_FEATURES_KNOWN;
    if (unknown == 0)
        return BFE_OK;
    c->diag->detail = unknown;
    return fail(c, BFE_UNSUPPORTED, BFE_AT_REQUIRED);
}

static bfe_status v8_header(file_check *c) {
    if (bfe_read_u32(c->file + BFE_AT_HEADER_BYTES) != BFE_HEADER_BYTES)
        return fail(c, BFE_CORRUPT, BFE_AT_HEADER_BYTES);
    for (uint32_t at = BFE_AT_RESERVED; at < BFE_HEADER_BYTES; at++)
        if (c->file[at] != 0)
            return fail(c, BFE_CORRUPT, at);

    c->sections = bfe_read_u32(c->file + BFE_AT_SECTION_COUNT);
    if (entry_at(c->sections) > c->size)
        return fail(c, BFE_CORRUPT, BFE_AT_SECTION_COUNT);
    for (uint32_t i = 0; i < c->sections; i++)
        if (bfe_read_u16(c->file + entry_at(i) + BFE_ENTRY_RESERVED) != 0)
            return fail(c, BFE_CORRUPT, entry_at(i) + BFE_ENTRY_RESERVED);
    return BFE_OK;
}

/* Where config has to be; whether the table agrees is for V12 to say. */
static uint64_t config_offset(const file_check *c) { return bfe_round_up(entry_at(c->sections)); }

static bfe_status v9_config_section(file_check *c) {
    const uint32_t bytes = BFE_CONFIG_WORDS * sizeof(uint32_t);
    if (c->sections == 0)
        return fail(c, BFE_CORRUPT, BFE_AT_SECTION_COUNT);

    const bfe_entry entry = bfe_read_entry(c->file, 0);
    if (entry.kind != BFE_KIND_CONFIG || entry.block != BFE_NO_BLOCK || entry.encoding != BFE_ENCODING_U32 ||
        entry.bytes != bytes || config_offset(c) + bytes > c->size)
        return fail_in(c, BFE_CORRUPT, entry_at(0), BFE_KIND_CONFIG, BFE_NO_BLOCK);
    return BFE_OK;
}

static uint32_t config_word(const file_check *c, uint32_t word) {
    return bfe_read_u32(c->file + config_offset(c) + word * sizeof(uint32_t));
}

static bfe_status fail_config(file_check *c, bfe_status status, uint32_t word) {
    return fail_in(c, status, config_offset(c) + word * sizeof(uint32_t), BFE_KIND_CONFIG, BFE_NO_BLOCK);
}

static void fill_config(const file_check *c, bfe_config *config) {
    config->image_height = config_word(c, BFE_CONFIG_IMAGE_HEIGHT);
    config->image_width = config_word(c, BFE_CONFIG_IMAGE_WIDTH);
    config->channels = config_word(c, BFE_CONFIG_CHANNELS);
    config->patch_size = config_word(c, BFE_CONFIG_PATCH_SIZE);
    config->classes = config_word(c, BFE_CONFIG_CLASSES);
    config->d_model = config_word(c, BFE_CONFIG_D_MODEL);
    config->d_ff = config_word(c, BFE_CONFIG_D_FF);
    config->layers = config_word(c, BFE_CONFIG_LAYERS);
    config->heads = config_word(c, BFE_CONFIG_HEADS);
    config->experts = config_word(c, BFE_CONFIG_EXPERTS);
    config->top_k = config_word(c, BFE_CONFIG_TOP_K);
    config->theta_layers = config_word(c, BFE_CONFIG_THETA_LAYERS);
    config->phi_layers = config_word(c, BFE_CONFIG_PHI_LAYERS);
    config->pooling = config_word(c, BFE_CONFIG_POOLING);
    config->feed_forward = config_word(c, BFE_CONFIG_FEED_FORWARD);
    const uint32_t attention_scale = config_word(c, BFE_CONFIG_ATTENTION_SCALE);
    memcpy(&config->attention_scale, &attention_scale, sizeof attention_scale);

    /* With the words within their own bounds, neither of these can overflow. */
    config->tokens = config->image_height / config->patch_size * (config->image_width / config->patch_size) +
                     (config->pooling == BFE_POOL_CLASS ? 1 : 0);
    config->patch_columns = config->patch_size * config->patch_size * config->channels;
}

static bfe_status v10_config_fields(file_check *c) {
    static const struct {
        uint32_t low, high;
    } bounds[BFE_CONFIG_WORDS] = {
        [BFE_CONFIG_ARCHITECTURE] = {1, 1},
        [BFE_CONFIG_IMAGE_HEIGHT] = {1, 4096},
        [BFE_CONFIG_IMAGE_WIDTH] = {1, 4096},
        [BFE_CONFIG_CHANNELS] = {1, 16},
        [BFE_CONFIG_PATCH_SIZE] = {1, 64},
        [BFE_CONFIG_CLASSES] = {1, 65536},
        [BFE_CONFIG_D_MODEL] = {2, 16384},
        [BFE_CONFIG_D_FF] = {2, 16384},
        [BFE_CONFIG_LAYERS] = {1, 256},
        [BFE_CONFIG_HEADS] = {1, 16384},
        [BFE_CONFIG_EXPERTS] = {1, 4096},
        [BFE_CONFIG_TOP_K] = {1, 16},
        [BFE_CONFIG_THETA_LAYERS] = {1, 14},
        [BFE_CONFIG_PHI_LAYERS] = {1, 14},
        [BFE_CONFIG_POOLING] = {0, 1},
        [BFE_CONFIG_FEED_FORWARD] = {1, 1},
        [BFE_CONFIG_ATTENTION_SCALE] = {F32_SMALLEST, F32_1024},
    };
    if (config_word(c, BFE_CONFIG_ARCHITECTURE) != 1) /* these two first: they give the others their meaning */
        return fail_config(c, BFE_UNSUPPORTED, BFE_CONFIG_ARCHITECTURE);
    if (config_word(c, BFE_CONFIG_FEED_FORWARD) != 1)
        return fail_config(c, BFE_UNSUPPORTED, BFE_CONFIG_FEED_FORWARD);
    for (uint32_t word = 0; word < BFE_CONFIG_WORDS; word++)
        if (config_word(c, word) < bounds[word].low || config_word(c, word) > bounds[word].high)
            return fail_config(c, BFE_CORRUPT, word);

    bfe_config *const config = &c->config;
    fill_config(c, config);
    if (config->image_height % config->patch_size != 0)
        return fail_config(c, BFE_CORRUPT, BFE_CONFIG_IMAGE_HEIGHT);
    if (config->image_width % config->patch_size != 0)
        return fail_config(c, BFE_CORRUPT, BFE_CONFIG_IMAGE_WIDTH);
    if (config->tokens > MAX_TOKENS)
        return fail_config(c, BFE_CORRUPT, BFE_CONFIG_IMAGE_HEIGHT);
    if (config->patch_columns > MAX_PATCH_COLUMNS)
        return fail_config(c, BFE_CORRUPT, BFE_CONFIG_PATCH_SIZE);
    if (config->d_model % config->heads != 0)
        return fail_config(c, BFE_CORRUPT, BFE_CONFIG_HEADS);
    if (config->top_k > config->experts)
        return fail_config(c, BFE_CORRUPT, BFE_CONFIG_TOP_K);
    if (config->theta_layers > bfe_log2(bfe_padded(config->d_model)))
        return fail_config(c, BFE_CORRUPT, BFE_CONFIG_THETA_LAYERS);
    if (config->phi_layers > bfe_log2(bfe_padded(config->d_ff)))
        return fail_config(c, BFE_CORRUPT, BFE_CONFIG_PHI_LAYERS);
    return BFE_OK;
}

static int is_known_kind(uint16_t kind) {
    return (kind >= BFE_KIND_CONFIG && kind <= BFE_KIND_POSITION) ||
           (kind >= BFE_KIND_NORM1 && kind <= BFE_KIND_DOWN_SCALE) ||
           (kind >= BFE_KIND_NORM && kind <= BFE_KIND_HEAD_BIAS) ||
           (kind >= BFE_KIND_LABELS && kind <= BFE_KIND_GOLDEN_OUTPUT) || kind >= BFE_KIND_FIRST_OPTIONAL;
}

/* `kind` and `block` say what should have been at this position of the section table. */
static bfe_status fail_sections(file_check *c, uint32_t position, uint16_t kind, uint16_t block) {
    bfe_status status = BFE_CORRUPT;
    if (position < c->sections) {
        const uint16_t found = bfe_read_entry(c->file, position).kind;
        c->diag->detail = found;
        status = is_known_kind(found) ? BFE_CORRUPT : BFE_UNSUPPORTED;
    }
    return fail_in(c, status, entry_at(position), kind, block);
}

/* An optional section at *position: steps over it and puts where it is into *found; 0 if it is there but wrong. */
static int take_optional(const file_check *c, uint32_t *position, uint16_t kind, uint16_t encoding, uint64_t unit,
                         uint32_t *found) {
    if (*position >= c->sections)
        return 1;
    const bfe_entry entry = bfe_read_entry(c->file, *position);
    if (entry.kind != kind)
        return 1;
    if (entry.block != BFE_NO_BLOCK || entry.encoding != encoding || entry.bytes % unit != 0)
        return 0;
    *found = (*position)++;
    return 1;
}

static bfe_status v11_sections(file_check *c) {
    const bfe_config *const config = &c->config;
    uint32_t at = 0;
    uint16_t previous_encoding = BFE_ENCODING_BYTES;
    c->required = bfe_required_sections(config);
    for (; at < c->required; at++) {
        uint16_t block;
        const bfe_spec *const spec = bfe_spec_at(config, at, &block);
        if (at >= c->sections)
            return fail_sections(c, at, spec->kind, block);

        const bfe_entry entry = bfe_read_entry(c->file, at);
        if (entry.kind != spec->kind || entry.block != block || entry.encoding > BFE_ENCODING_ANGLE8 ||
            (spec->encodings >> entry.encoding & 1) == 0)
            return fail_sections(c, at, spec->kind, block);
        const int one_scale = spec->role == BFE_ROLE_SCALE && previous_encoding != BFE_ENCODING_INT8;
        const uint32_t rows = one_scale ? 1 : bfe_spec_rows(spec, config);
        if (entry.bytes != bfe_section_bytes(entry.encoding, rows, bfe_spec_columns(spec, config)))
            return fail_sections(c, at, spec->kind, block);
        previous_encoding = entry.encoding;
    }

    const uint64_t image = (uint64_t)config->image_height * config->image_width * config->channels;
    if (!take_optional(c, &at, BFE_KIND_LABELS, BFE_ENCODING_BYTES, 1, &c->labels))
        return fail_sections(c, at, BFE_KIND_LABELS, BFE_NO_BLOCK);
    if (!take_optional(c, &at, BFE_KIND_GOLDEN_INPUT, BFE_ENCODING_BYTES, image, &c->golden_input))
        return fail_sections(c, at, BFE_KIND_GOLDEN_INPUT, BFE_NO_BLOCK);
    if (!take_optional(c, &at, BFE_KIND_GOLDEN_OUTPUT, BFE_ENCODING_F32, 4 * (uint64_t)config->classes,
                       &c->golden_output))
        return fail_sections(c, at, BFE_KIND_GOLDEN_OUTPUT, BFE_NO_BLOCK);

    for (uint32_t above = BFE_KIND_FIRST_OPTIONAL; at < c->sections; at++) {
        const bfe_entry entry = bfe_read_entry(c->file, at);
        if (entry.kind < above || entry.block != BFE_NO_BLOCK)
            return fail_sections(c, at, entry.kind, BFE_NO_BLOCK);
        above = entry.kind + 1u;
    }
    return BFE_OK;
}

static bfe_status v12_offsets(file_check *c) {
    uint64_t end = entry_at(c->sections);
    for (uint32_t i = 0; i < c->sections; i++) {
        const bfe_entry entry = bfe_read_entry(c->file, i);
        if (entry.offset != bfe_round_up(end) || entry.offset > c->size || entry.bytes > c->size - entry.offset)
            return fail_in(c, BFE_CORRUPT, entry_at(i) + BFE_ENTRY_OFFSET, entry.kind, entry.block);
        end = (uint64_t)entry.offset + entry.bytes;
    }
    return bfe_round_up(end) == c->size ? BFE_OK : fail(c, BFE_CORRUPT, end);
}

static bfe_status v13_padding(file_check *c) {
    uint64_t at = entry_at(c->sections);
    for (uint32_t i = 0; i <= c->sections; i++) { /* before section i; the last time before the end of the file */
        for (; at < bfe_round_up(at); at++)
            if (c->file[at] != 0)
                return fail(c, BFE_CORRUPT, at);
        if (i < c->sections)
            at += bfe_read_entry(c->file, i).bytes;
    }
    return BFE_OK;
}

static bfe_status v14_features(file_check *c) {
    uint32_t used = BFE_FEATURE_VISION_TRANSFORMER | BFE_FEATURE_BUTTERFLY_EXPERTS;
    for (uint32_t i = 0; i < c->required; i++) {
        const bfe_entry entry = bfe_read_entry(c->file, i);
        used |= entry.encoding == BFE_ENCODING_TRITS2 ? BFE_FEATURE_TRITS2 : 0u;
        used |= entry.encoding == BFE_ENCODING_TRITS3 ? BFE_FEATURE_TRITS3 : 0u;
        used |= entry.encoding == BFE_ENCODING_ANGLE8 ? BFE_FEATURE_ANGLE8 : 0u;
    }
    const uint32_t required = bfe_read_u32(c->file + BFE_AT_REQUIRED);
    return required == used ? BFE_OK : fail(c, BFE_CORRUPT, BFE_AT_REQUIRED);
}

static bfe_status v15_weights(file_check *c) {
    for (uint32_t i = 0; i < c->required; i++) {
        uint16_t block;
        const bfe_spec *const spec = bfe_spec_at(&c->config, i, &block);
        if (spec->role != BFE_ROLE_WEIGHT)
            continue;
        const bfe_entry entry = bfe_read_entry(c->file, i);
        const uint32_t columns = bfe_spec_columns(spec, &c->config);
        const uint32_t bad = bfe_scan_weight(c->file + entry.offset, entry.bytes, entry.encoding, columns);
        if (bad < entry.bytes)
            return fail_in(c, BFE_CORRUPT, (uint64_t)entry.offset + bad, entry.kind, entry.block);
    }
    return BFE_OK;
}

static bfe_status v16_floats(file_check *c) {
    for (uint32_t i = 0; i < c->sections; i++) {
        const bfe_entry entry = bfe_read_entry(c->file, i);
        const uint8_t *const floats = c->file + entry.offset;
        const uint32_t count = entry.bytes / 4;
        uint32_t bad = count;
        uint16_t block;
        if (i == c->golden_output && i != 0) { /* results, not parameters: finite is enough */
            bad = bfe_scan_f32(floats, count, F32_MAGNITUDE, 0, F32_LARGEST);
        } else if (i < c->required) {
            const uint8_t role = bfe_spec_at(&c->config, i, &block)->role;
            if (role == BFE_ROLE_FLOAT)
                bad = bfe_scan_f32(floats, count, F32_MAGNITUDE, 0, F32_1024);
            else if (role == BFE_ROLE_SCALE) /* unmasked, so the sign bit makes it too large */
                bad = bfe_scan_f32(floats, count, UINT32_MAX, F32_SMALLEST, F32_1024);
        }
        if (bad < count)
            return fail_in(c, BFE_CORRUPT, entry.offset + 4 * (uint64_t)bad, entry.kind, entry.block);
    }
    return BFE_OK;
}

static bfe_status v17_angles(file_check *c) {
    for (uint32_t i = 0; i < c->required; i++) {
        uint16_t block;
        const bfe_entry entry = bfe_read_entry(c->file, i);
        if (bfe_spec_at(&c->config, i, &block)->role != BFE_ROLE_ANGLE || entry.encoding != BFE_ENCODING_F16)
            continue;
        const uint32_t bad = bfe_scan_f16(c->file + entry.offset, entry.bytes / 2, F16_HALF_TURN);
        if (bad < entry.bytes / 2)
            return fail_in(c, BFE_CORRUPT, entry.offset + 2 * (uint64_t)bad, entry.kind, entry.block);
    }
    return BFE_OK;
}

static bfe_status v18_labels_and_golden(file_check *c) {
    if (c->labels != 0) {
        const bfe_entry entry = bfe_read_entry(c->file, c->labels);
        const uint8_t *const text = c->file + entry.offset;
        const size_t valid = bfe_utf8_valid(text, entry.bytes);
        if (valid < entry.bytes)
            return fail_in(c, BFE_CORRUPT, entry.offset + valid, entry.kind, entry.block);
        uint32_t labels = 1;
        for (uint32_t i = 0; i < entry.bytes; i++)
            labels += text[i] == '\n';
        if (labels != c->config.classes)
            return fail_in(c, BFE_CORRUPT, entry.offset, entry.kind, entry.block);
    }
    if (c->golden_input == 0 && c->golden_output == 0)
        return BFE_OK;

    /* An absent section leaves its position 0, which is config's: never a golden section's. */
    const uint32_t present = c->golden_input != 0 ? c->golden_input : c->golden_output;
    const bfe_entry input = bfe_read_entry(c->file, c->golden_input);
    const bfe_entry output = bfe_read_entry(c->file, c->golden_output);
    const uint32_t inputs = input.bytes / (c->config.image_height * c->config.image_width * c->config.channels);
    const uint32_t outputs = output.bytes / (4 * c->config.classes);
    if (c->golden_input == 0 || c->golden_output == 0 || inputs == 0 || inputs != outputs) {
        const bfe_entry entry = bfe_read_entry(c->file, present);
        return fail_in(c, BFE_CORRUPT, entry_at(present), entry.kind, entry.block);
    }
    return BFE_OK;
}

bfe_status bfe_validate(const uint8_t *file, size_t size, bfe_config *config, bfe_diag *diag) {
    static bfe_status (*const rules[])(file_check *) = {
        v1_magic,    v2_header,    v3_byte_order,     v4_version,        v5_length,    v6_checksum,
        v7_features, v8_header,    v9_config_section, v10_config_fields, v11_sections, v12_offsets,
        v13_padding, v14_features, v15_weights,       v16_floats,        v17_angles,   v18_labels_and_golden,
    };
    file_check check = {0};
    check.file = file;
    check.size = size;
    check.diag = diag;
    for (uint32_t i = 0; i < sizeof rules / sizeof rules[0]; i++) {
        const bfe_status status = rules[i](&check);
        if (status != BFE_OK) {
            diag->rule = i + 1;
            return status;
        }
    }
    *config = check.config;
    return BFE_OK;
}
