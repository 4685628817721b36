/* Rules V15 to V18, the sections' contents: each has files that break it and nothing before it. */
#include "rules.h"

/* Changes byte `at` of a section; the rule is 0 if that is fine. */
static void expect_content(uint32_t kind, uint32_t block, size_t at, size_t blamed, uint32_t bits, size_t width,
                           uint32_t rule) {
    model_file file = full_file();
    uint8_t *const contents = find_contents(&file, (uint16_t)kind, (uint16_t)block);
    for (size_t i = 0; i < width; i++)
        contents[at + i] = (uint8_t)(bits >> 8 * i & 255);
    const expectation broken = {rule, BFE_CORRUPT, (uint64_t)(contents - file.bytes) + blamed, kind, block, 0};
    expect(&file, rule == 0 ? fine : broken);
    free_file(&file);
}

static void test_v15(void) {
    /* int8, in each of the sections that the full file has */
    static const uint32_t int8_kinds[] = {BFE_KIND_QKV_WEIGHT, BFE_KIND_ROUTER_WEIGHT, BFE_KIND_DOWN_WEIGHT};
    for (size_t i = 0; i < 3; i++) {
        expect_content(int8_kinds[i], 1, 0, 0, 0x80, 1, 15);
        expect_content(int8_kinds[i], 1, 59, 59, 0x80, 1, 15);
        expect_content(int8_kinds[i], 1, 59, 59, 0x81, 1, 0);
    }
    expect_content(BFE_KIND_PATCH_WEIGHT, NONE, 12 * 27 - 1, 12 * 27 - 1, 0x80, 1, 15);
    expect_content(BFE_KIND_HEAD_WEIGHT, NONE, 5, 5, 0x80, 1, 15);

    for (uint32_t byte = 0; byte < 256; byte++) { /* trits2: 12 columns, 3 whole bytes a row */
        const int bad = (byte & 3) == 3 || (byte >> 2 & 3) == 3 || (byte >> 4 & 3) == 3 || byte >> 6 == 3;
        expect_content(BFE_KIND_PROJ_WEIGHT, 0, 4, 4, byte, 1, bad ? 15 : 0);
    }
    for (uint32_t byte = 0; byte < 256; byte++) { /* trits3: 12 columns, so 2 trits in the third byte of a row */
        expect_content(BFE_KIND_SUBSTRATE, 1, 4, 4, byte, 1, byte > 242 ? 15 : 0);
        const int unused_are_zero = byte / 9 == 1 + 3 + 9;
        expect_content(BFE_KIND_SUBSTRATE, 1, 5, 5, byte, 1, unused_are_zero ? 0 : 15);
    }

    model_plan plan = model_plans[2]; /* trits2 with 21 columns: 1 trit in the sixth byte of a row */
    for (uint32_t byte = 0; byte < 256; byte++) {
        model_file file = write_model(&plan);
        uint8_t *const contents = find_contents(&file, BFE_KIND_QKV_WEIGHT, 1);
        contents[11] = (uint8_t)byte;
        const expectation broken = {15, BFE_CORRUPT, (uint64_t)(contents + 11 - file.bytes), BFE_KIND_QKV_WEIGHT, 1, 0};
        expect(&file, (byte & 3) != 3 && byte >> 2 == 0x15 ? fine : broken);
        free_file(&file);
    }
}

static void test_v16(void) {
    static const struct {
        uint32_t bits;
        int value_is_fine, scale_is_fine, result_is_fine;
    } floats[] = {
        {0x00000000, 1, 0, 1}, {0x80000000, 1, 0, 1},                                               /* zeros */
        {0x00000001, 1, 1, 1}, {0x80000001, 1, 0, 1},                                               /* subnormals */
        {0x3F800000, 1, 1, 1}, {0xBF800000, 1, 0, 1}, {0x44800000, 1, 1, 1}, {0xC4800000, 1, 0, 1}, /* 1024 */
        {0x44800001, 0, 0, 1}, {0xC4800001, 0, 0, 1}, {0x7F7FFFFF, 0, 0, 1}, {0xFF7FFFFF, 0, 0, 1},
        {0x7F800000, 0, 0, 0}, {0xFF800000, 0, 0, 0}, /* infinities */
        {0x7F800001, 0, 0, 0}, {0xFFC00000, 0, 0, 0}, /* NaNs */
    };
    static const uint32_t values[] = {BFE_KIND_NORM1, BFE_KIND_QKV_BIAS, BFE_KIND_PROJ_BIAS, BFE_KIND_NORM2};
    static const uint32_t scales[] = {BFE_KIND_QKV_SCALE, BFE_KIND_PROJ_SCALE, BFE_KIND_ROUTER_SCALE,
                                      BFE_KIND_SUBSTRATE_SCALE, BFE_KIND_DOWN_SCALE};
    for (size_t i = 0; i < sizeof floats / sizeof floats[0]; i++) {
        const uint32_t bits = floats[i].bits, value = floats[i].value_is_fine ? 0 : 16;
        const uint32_t scale = floats[i].scale_is_fine ? 0 : 16, result = floats[i].result_is_fine ? 0 : 16;
        for (size_t j = 0; j < sizeof values / sizeof values[0]; j++)
            expect_content(values[j], 1, 4 * 11, 4 * 11, bits, 4, value);
        for (size_t j = 0; j < sizeof scales / sizeof scales[0]; j++)
            expect_content(scales[j], 1, 0, 0, bits, 4, scale);
        expect_content(BFE_KIND_POSITION, NONE, 4 * 12 * 6 - 4, 4 * 12 * 6 - 4, bits, 4, value);
        expect_content(BFE_KIND_PATCH_SCALE, NONE, 44, 44, bits, 4, scale);
        expect_content(BFE_KIND_NORM, NONE, 92, 92, bits, 4, value);
        expect_content(BFE_KIND_HEAD_SCALE, NONE, 36, 36, bits, 4, scale);
        expect_content(BFE_KIND_HEAD_BIAS, NONE, 36, 36, bits, 4, value);
        expect_content(BFE_KIND_GOLDEN_OUTPUT, NONE, 76, 76, bits, 4, result);
    }
}

static void test_v17(void) {
    static const uint32_t kinds[] = {BFE_KIND_THETA, BFE_KIND_PHI};
    for (size_t i = 0; i < 2; i++) {
        expect_content(kinds[i], 0, 0, 0, 0x4249, 2, 17);
        expect_content(kinds[i], 0, 6, 6, 0xC249, 2, 17);
        expect_content(kinds[i], 1, 158, 158, 0x7C00, 2, 17); /* the last of theta; infinity */
        expect_content(kinds[i], 1, 158, 158, 0xFE00, 2, 17);
        expect_content(kinds[i], 1, 158, 158, 0x4248, 2, 0);
        expect_content(kinds[i], 1, 158, 158, 0xC248, 2, 0);
        expect_content(kinds[i], 1, 158, 158, 0x8001, 2, 0);
    }
    for (uint32_t code = 0; code < 256; code++) { /* of 8 bits: all are legal */
        model_file file = write_model(&model_plans[6]);
        find_contents(&file, BFE_KIND_THETA, 1)[7] = find_contents(&file, BFE_KIND_PHI, 0)[0] = (uint8_t)code;
        expect(&file, fine);
        free_file(&file);
    }
}

static void expect_plan(const model_plan *plan, uint32_t dropped_kind, uint32_t blamed_kind) {
    model_draft draft;
    draft_model(plan, &draft);
    const model_draft original = draft;
    if (dropped_kind != 0)
        edit_draft(&draft, find_in_draft(&draft, (uint16_t)dropped_kind, NONE), DROP);
    model_file file = assemble(&draft);
    uint64_t offset = 0;
    if (blamed_kind != 0)
        offset = blamed_kind == BFE_KIND_LABELS
                     ? bfe_read_u32(find_entry(&file, BFE_KIND_LABELS, NONE) + BFE_ENTRY_OFFSET)
                     : (uint64_t)(find_entry(&file, (uint16_t)blamed_kind, NONE) - file.bytes);
    const expectation broken = {18, BFE_CORRUPT, offset, blamed_kind, NONE, 0};
    expect(&file, blamed_kind == 0 ? fine : broken);
    free_file(&file);
    draft = original;
    free_draft(&draft);
}

static void test_v18(void) {
    model_plan plan = model_plans[0]; /* three classes */
    static const char *const wrong_labels[] = {"a\nb", "a\nb\nc\n", "abc"};
    for (size_t i = 0; i < 3; i++) {
        plan.labels = wrong_labels[i];
        expect_plan(&plan, 0, BFE_KIND_LABELS);
    }
    plan.labels = "\n\n";
    expect_plan(&plan, 0, 0);
    plan.labels = "a\nb\nc";
    expect_plan(&plan, 0, 0);
    expect_content(BFE_KIND_LABELS, NONE, 2, 2, 0xFF, 1, 18);
    expect_content(BFE_KIND_LABELS, NONE, 20, 18, 0x0A, 1, 18); /* breaks the character that starts at 18 */
    expect_content(BFE_KIND_LABELS, NONE, 0, 0, 0x0A, 1, 18);

    expect_plan(&plan, BFE_KIND_GOLDEN_OUTPUT, BFE_KIND_GOLDEN_INPUT);
    expect_plan(&plan, BFE_KIND_GOLDEN_INPUT, BFE_KIND_GOLDEN_OUTPUT);
    for (uint32_t kind = BFE_KIND_GOLDEN_INPUT; kind <= BFE_KIND_GOLDEN_OUTPUT; kind++) {
        model_draft draft;
        draft_model(&plan, &draft);
        const uint32_t input = find_in_draft(&draft, BFE_KIND_GOLDEN_INPUT, NONE);
        const uint32_t at = find_in_draft(&draft, (uint16_t)kind, NONE);
        draft.sections[at].bytes /= 2; /* one case of two */
        model_file file = assemble(&draft);
        expect(&file, (expectation){18, BFE_CORRUPT, 64 + 16 * (uint64_t)input, BFE_KIND_GOLDEN_INPUT, NONE, 0});
        free_file(&file);
        draft.sections[input].bytes = draft.sections[input + 1].bytes = 0; /* no case at all */
        file = assemble(&draft);
        expect(&file, (expectation){18, BFE_CORRUPT, 64 + 16 * (uint64_t)input, BFE_KIND_GOLDEN_INPUT, NONE, 0});
        free_file(&file);
        free_draft(&draft);
    }
}

int main(void) {
    test_v15();
    test_v16();
    test_v17();
    test_v18();
    return rules_result();
}
