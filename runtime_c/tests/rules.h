/* For tests of the validation rules: what bfe_open has to say about a file. */
#ifndef RULES_H
#define RULES_H

#include "model_file.h"

enum { NONE = BFE_NO_BLOCK };

typedef struct expectation {
    uint32_t rule;
    bfe_status status;
    uint64_t offset;
    uint32_t kind, block, detail;
} expectation;

static const expectation fine = {0, BFE_OK, 0, 0, NONE, 0};

/* Opens a copy of exactly `size` bytes. */
void expect_bytes(const uint8_t *bytes, size_t size, expectation e);

/* Opens a file after making its checksum right. */
void expect(const model_file *file, expectation e);

/* The file that most rules are tried on: every encoding of weights, two blocks, labels, golden cases, an extension. */
model_plan full_plan(void);
model_file full_file(void);

/* Opens the full file with byte `at` changed. */
void expect_byte(size_t at, uint8_t value, expectation e);

typedef enum edit { DROP, REPEAT, SWAP_WITH_NEXT, LONGER, SHORTER, CUT_HERE } edit;

/* Leaves the sections' data alone, so a draft is freed through a copy from before. */
void edit_draft(model_draft *draft, uint32_t at, edit what);

/* For `return` at the end of main: how the expectations came out. */
int rules_result(void);

#endif
