/* Writes small .bfe files with random contents, and broken ones. Follows FORMAT.md and shares no code with the library
 * but the names of the constants. */
#ifndef MODEL_FILE_H
#define MODEL_FILE_H

#include "bfe_format.h"
#include "bfedge.h"

typedef struct model_plan {
    uint32_t image_height, image_width, channels, patch_size, classes;
    uint32_t d_model, d_ff, layers, heads, experts, top_k, theta_layers, phi_layers, pooling;
    uint16_t qkv, proj, substrate, down, angles; /* encodings */
    uint32_t golden_cases;
    const char *labels;       /* NULL: none */
    uint32_t extension_bytes; /* of an optional section of a kind that no reader knows; 0: none */
    uint32_t logits_crc; /* of what bfe_run must give for the first golden input; confirmed by the NumPy reference */
} model_plan;

enum { MODEL_PLANS = 7 };
extern const model_plan model_plans[MODEL_PLANS];

enum { DRAFT_SECTIONS = 80 };

/* A file as a list of sections, still to be altered. */
typedef struct model_draft {
    struct {
        uint16_t kind, block, encoding;
        uint32_t bytes;
        uint8_t *data;
    } sections[DRAFT_SECTIONS];
    uint32_t count;
} model_draft;

typedef struct model_file {
    uint8_t *bytes; /* aligned, and with an address sanitizer exactly `size` bytes */
    size_t size;
    void *allocation;
} model_file;

/* Contents depend on the plan alone. Golden outputs are zero until add_golden. */
void draft_model(const model_plan *plan, model_draft *draft);
void free_draft(model_draft *draft);

/* Position of a section in the draft. */
uint32_t find_in_draft(const model_draft *draft, uint16_t kind, uint16_t block);

model_file assemble(const model_draft *draft);
model_file write_model(const model_plan *plan); /* draft and assemble */
model_file copy_file(const uint8_t *bytes, size_t size);
void free_file(model_file *file);

/* The section table entry of a section, and its contents. */
uint8_t *find_entry(const model_file *file, uint16_t kind, uint16_t block);
uint8_t *find_contents(const model_file *file, uint16_t kind, uint16_t block);

void put_u16(uint8_t *at, uint32_t value);
void put_u32(uint8_t *at, uint32_t value);
void fix_crc(const model_file *file);

/* Fills in the golden outputs with what bfe_run computes. */
void add_golden(const model_file *file);

#endif
