/* Rules V11 to V14, the section table: each has files that break it and nothing before it. */
#include "rules.h"

/* Assembles the full file after an edit of its section at `position`, and expects V11 at another one, where the
 * required section has this kind and block. */
static void expect_edit(uint32_t position, edit what, bfe_status status, uint32_t blamed, uint32_t kind, uint32_t block,
                        uint32_t found) {
    const model_plan plan = full_plan();
    model_draft draft;
    draft_model(&plan, &draft);
    const model_draft original = draft;
    edit_draft(&draft, position, what);
    model_file file = assemble(&draft);
    expect(&file, (expectation){11, status, 64 + 16 * (uint64_t)blamed, kind, block, found});
    free_file(&file);
    draft = original;
    free_draft(&draft);
}

static void test_v11_required(void) {
    const model_plan plan = full_plan();
    model_draft draft;
    draft_model(&plan, &draft);
    const uint32_t required = find_in_draft(&draft, BFE_KIND_LABELS, NONE);
    for (uint32_t i = 1; i < required; i++) {
        const uint32_t kind = draft.sections[i].kind, next = draft.sections[i + 1].kind,
                       block = draft.sections[i].block;
        const uint32_t next_block = draft.sections[i + 1].block;
        expect_edit(i, DROP, BFE_CORRUPT, i, kind, block, next);
        expect_edit(i, SWAP_WITH_NEXT, BFE_CORRUPT, i, kind, block, next);
        expect_edit(i, LONGER, BFE_CORRUPT, i, kind, block, kind);
        expect_edit(i, SHORTER, BFE_CORRUPT, i, kind, block, kind);
        expect_edit(i, CUT_HERE, BFE_CORRUPT, i, kind, block, 0);
        if (i + 1 < required)
            expect_edit(i, REPEAT, BFE_CORRUPT, i + 1, next, next_block, kind);
        else
            expect_edit(i, REPEAT, BFE_CORRUPT, i + 1, kind, NONE, kind); /* nothing is demanded there */
    }
    free_draft(&draft);
}

/* Sets a field of the section table. */
static void expect_field(uint32_t kind, uint32_t block, uint32_t field, uint32_t value, bfe_status status,
                         uint32_t found) {
    model_file file = full_file();
    uint8_t *const entry = find_entry(&file, (uint16_t)kind, (uint16_t)block);
    put_u16(entry + field, value);
    expect(&file, (expectation){11, status, (uint64_t)(entry - file.bytes), kind, block, found});
    free_file(&file);
}

static void test_v11_fields(void) {
    for (uint32_t block = 0; block < 2; block++) {
        expect_field(BFE_KIND_NORM1, block, BFE_ENTRY_BLOCK, 1 - block, BFE_CORRUPT, BFE_KIND_NORM1);
        expect_field(BFE_KIND_NORM1, block, BFE_ENTRY_BLOCK, NONE, BFE_CORRUPT, BFE_KIND_NORM1);
        expect_field(BFE_KIND_NORM1, block, BFE_ENTRY_KIND, 32, BFE_UNSUPPORTED, 32);
        expect_field(BFE_KIND_NORM1, block, BFE_ENTRY_KIND, 0x7FFF, BFE_UNSUPPORTED, 0x7FFF);
        expect_field(BFE_KIND_NORM1, block, BFE_ENTRY_KIND, 0, BFE_UNSUPPORTED, 0);
        expect_field(BFE_KIND_NORM1, block, BFE_ENTRY_KIND, 0x8000, BFE_CORRUPT, 0x8000);
        expect_field(BFE_KIND_SUBSTRATE, block, BFE_ENTRY_ENCODING, BFE_ENCODING_INT8, BFE_CORRUPT, BFE_KIND_SUBSTRATE);
        expect_field(BFE_KIND_QKV_WEIGHT, block, BFE_ENTRY_ENCODING, BFE_ENCODING_BYTES, BFE_CORRUPT,
                     BFE_KIND_QKV_WEIGHT);
        expect_field(BFE_KIND_QKV_WEIGHT, block, BFE_ENTRY_ENCODING, BFE_ENCODING_ANGLE8, BFE_CORRUPT,
                     BFE_KIND_QKV_WEIGHT);
        expect_field(BFE_KIND_QKV_WEIGHT, block, BFE_ENTRY_ENCODING, 8, BFE_CORRUPT, BFE_KIND_QKV_WEIGHT);
        expect_field(BFE_KIND_QKV_WEIGHT, block, BFE_ENTRY_ENCODING, 0xFFFF, BFE_CORRUPT, BFE_KIND_QKV_WEIGHT);
        expect_field(BFE_KIND_THETA, block, BFE_ENTRY_ENCODING, BFE_ENCODING_BYTES, BFE_CORRUPT, BFE_KIND_THETA);
        expect_field(BFE_KIND_PHI, block, BFE_ENTRY_ENCODING, BFE_ENCODING_INT8, BFE_CORRUPT, BFE_KIND_PHI);
        expect_field(BFE_KIND_PHI, block, BFE_ENTRY_ENCODING, BFE_ENCODING_ANGLE8, BFE_CORRUPT, BFE_KIND_PHI);
    }
    expect_field(BFE_KIND_NORM, NONE, BFE_ENTRY_BLOCK, 0, BFE_CORRUPT, BFE_KIND_NORM);
    expect_field(BFE_KIND_HEAD_WEIGHT, NONE, BFE_ENTRY_ENCODING, BFE_ENCODING_TRITS2, BFE_CORRUPT,
                 BFE_KIND_HEAD_WEIGHT);
    expect_field(BFE_KIND_LABELS, NONE, BFE_ENTRY_BLOCK, 0, BFE_CORRUPT, BFE_KIND_LABELS);
    expect_field(BFE_KIND_LABELS, NONE, BFE_ENTRY_ENCODING, BFE_ENCODING_INT8, BFE_CORRUPT, BFE_KIND_LABELS);
    expect_field(BFE_KIND_GOLDEN_OUTPUT, NONE, BFE_ENTRY_ENCODING, BFE_ENCODING_U32, BFE_CORRUPT,
                 BFE_KIND_GOLDEN_OUTPUT);
    expect_field(0x8123, NONE, BFE_ENTRY_BLOCK, 0, BFE_CORRUPT, 0x8123);
}

static void test_v11_optional(void) {
    const model_plan plan = full_plan();
    model_draft draft;
    draft_model(&plan, &draft);
    const uint32_t labels = find_in_draft(&draft, BFE_KIND_LABELS, NONE);
    free_draft(&draft);
    const uint32_t input = labels + 1, output = labels + 2, extension = labels + 3;

    expect_edit(labels, REPEAT, BFE_CORRUPT, labels + 1, BFE_KIND_LABELS, NONE, BFE_KIND_LABELS);
    expect_edit(labels, SWAP_WITH_NEXT, BFE_CORRUPT, labels + 1, BFE_KIND_LABELS, NONE, BFE_KIND_LABELS);
    expect_edit(input, REPEAT, BFE_CORRUPT, input + 1, BFE_KIND_GOLDEN_INPUT, NONE, BFE_KIND_GOLDEN_INPUT);
    expect_edit(input, SWAP_WITH_NEXT, BFE_CORRUPT, input + 1, BFE_KIND_GOLDEN_INPUT, NONE, BFE_KIND_GOLDEN_INPUT);
    expect_edit(input, SHORTER, BFE_CORRUPT, input, BFE_KIND_GOLDEN_INPUT, NONE, BFE_KIND_GOLDEN_INPUT);
    expect_edit(output, LONGER, BFE_CORRUPT, output, BFE_KIND_GOLDEN_OUTPUT, NONE, BFE_KIND_GOLDEN_OUTPUT);
    expect_edit(output, SWAP_WITH_NEXT, BFE_CORRUPT, output + 1, BFE_KIND_GOLDEN_OUTPUT, NONE, BFE_KIND_GOLDEN_OUTPUT);
    expect_edit(extension, REPEAT, BFE_CORRUPT, extension + 1, 0x8123, NONE, 0x8123);

    /* Two extensions: ascending is fine, descending and unknown required kinds are not. */
    model_draft two;
    draft_model(&plan, &two);
    const model_draft original = two;
    edit_draft(&two, extension, REPEAT);
    two.sections[extension + 1].kind = 0xFFFF;
    model_file file = assemble(&two);
    expect(&file, fine);
    free_file(&file);
    two.sections[extension + 1].kind = 0x8122;
    file = assemble(&two);
    expect(&file, (expectation){11, BFE_CORRUPT, 64 + 16 * (uint64_t)(extension + 1), 0x8122, NONE, 0x8122});
    free_file(&file);
    two.sections[extension + 1].kind = 67;
    file = assemble(&two);
    expect(&file, (expectation){11, BFE_UNSUPPORTED, 64 + 16 * (uint64_t)(extension + 1), 67, NONE, 67});
    free_file(&file);
    two = original;
    free_draft(&two);
}

static void test_v12_to_v14(void) {
    model_file file = full_file();
    const uint32_t count = bfe_read_u32(file.bytes + 32);
    for (uint32_t i = 0; i < count; i++) {
        uint8_t *const entry = file.bytes + 64 + 16 * (size_t)i;
        const uint32_t offset = bfe_read_u32(entry + 8);
        const expectation v12 = {
            12, BFE_CORRUPT, 64 + 16 * (uint64_t)i + 8, bfe_read_u16(entry), bfe_read_u16(entry + 2), 0};
        const uint32_t wrong[] = {offset - 16, offset + 16, offset + 1, 0, (uint32_t)file.size, 0xFFFFFFF0};
        for (size_t j = 0; j < sizeof wrong / sizeof wrong[0]; j++) {
            put_u32(entry + 8, wrong[j]);
            expect(&file, v12);
        }
        put_u32(entry + 8, offset);
    }
    uint8_t *const last = file.bytes + 64 + 16 * (size_t)(count - 1); /* the extension may have any size, if it fits */
    const uint32_t bytes = bfe_read_u32(last + 12), offset = bfe_read_u32(last + 8);
    put_u32(last + 12, 17);
    expect(&file, (expectation){12, BFE_CORRUPT, (uint64_t)(last - file.bytes) + 8, 0x8123, NONE, 0});
    put_u32(last + 12, 0xFFFFFFFF);
    expect(&file, (expectation){12, BFE_CORRUPT, (uint64_t)(last - file.bytes) + 8, 0x8123, NONE, 0});
    put_u32(last + 12, 0);
    expect(&file, (expectation){12, BFE_CORRUPT, offset, 0, NONE, 0}); /* bytes after the last section */
    put_u32(last + 12, bytes);
    expect(&file, fine);

    for (uint32_t i = 0; i < count; i++) { /* the last byte of padding behind each section, and the first */
        const uint8_t *const entry = file.bytes + 64 + 16 * (size_t)i;
        const uint32_t end = bfe_read_u32(entry + 8) + bfe_read_u32(entry + 12), next = (end + 15) / 16 * 16;
        if (end == next)
            continue;
        file.bytes[next - 1] = 1;
        expect(&file, (expectation){13, BFE_CORRUPT, next - 1, 0, NONE, 0});
        file.bytes[end] = 1;
        expect(&file, (expectation){13, BFE_CORRUPT, end, 0, NONE, 0});
        file.bytes[next - 1] = file.bytes[end] = 0;
    }
    free_file(&file);

    for (uint32_t features = 0; features < 32; features++) /* the full file uses all but 8-bit angles */
        if (features != 15)
            expect_byte(24, (uint8_t)features, (expectation){14, BFE_CORRUPT, 24, 0, NONE, 0});
    for (int plan = 0; plan < MODEL_PLANS; plan++) {
        file = write_model(&model_plans[plan]);
        expect(&file, fine);
        for (uint32_t features = 0; features < 32; features++) {
            if (file.bytes[24] == features)
                continue;
            model_file changed = copy_file(file.bytes, file.size);
            changed.bytes[24] = (uint8_t)features;
            expect(&changed, (expectation){14, BFE_CORRUPT, 24, 0, NONE, 0});
            free_file(&changed);
        }
        free_file(&file);
    }
}

int main(void) {
    test_v11_required();
    test_v11_fields();
    test_v11_optional();
    test_v12_to_v14();
    return rules_result();
}
