#include "rules.h"
#include "test.h"

void expect_bytes(const uint8_t *bytes, size_t size, expectation e) {
    model_file copy = copy_file(bytes, size);
    bfe_model model;
    bfe_diag diag;
    const bfe_status status = bfe_open(&model, copy.bytes, size, &diag);
    const int right = diag.rule == e.rule && status == e.status && diag.offset == e.offset && diag.kind == e.kind &&
                      diag.block == e.block && diag.detail == e.detail;
    if (!right)
        fprintf(stderr,
                "expected V%u %s at %u kind %u block %u detail %u, got V%u %s at %u kind %u block %u detail %u\n",
                (unsigned)e.rule, bfe_status_text(e.status), (unsigned)e.offset, (unsigned)e.kind, (unsigned)e.block,
                (unsigned)e.detail, (unsigned)diag.rule, bfe_status_text(status), (unsigned)diag.offset,
                (unsigned)diag.kind, (unsigned)diag.block, (unsigned)diag.detail);
    CHECK(right);
    CHECK((model.file != NULL) == (status == BFE_OK));
    free_file(&copy);
}

void expect(const model_file *file, expectation e) {
    fix_crc(file);
    expect_bytes(file->bytes, file->size, e);
}

model_plan full_plan(void) {
    model_plan plan = model_plans[1];
    plan.proj = BFE_ENCODING_TRITS2;
    plan.labels = "1\n2\n3\n4\n5\n6\n7\n8\n9\n\xE2\x82\xAC";
    return plan;
}

model_file full_file(void) {
    const model_plan plan = full_plan();
    return write_model(&plan);
}

void expect_byte(size_t at, uint8_t value, expectation e) {
    model_file file = full_file();
    file.bytes[at] = value;
    expect(&file, e);
    free_file(&file);
}

void edit_draft(model_draft *draft, uint32_t at, edit what) {
    const uint32_t behind = draft->count - at - 1;
    switch (what) {
    case DROP:
        memmove(&draft->sections[at], &draft->sections[at + 1], behind * sizeof draft->sections[0]);
        draft->count--;
        break;
    case REPEAT:
        memmove(&draft->sections[at + 1], &draft->sections[at], (behind + 1) * sizeof draft->sections[0]);
        draft->count++;
        break;
    case SWAP_WITH_NEXT: /* the last place is never used */
        draft->sections[DRAFT_SECTIONS - 1] = draft->sections[at];
        draft->sections[at] = draft->sections[at + 1];
        draft->sections[at + 1] = draft->sections[DRAFT_SECTIONS - 1];
        break;
    case LONGER:
        draft->sections[at].bytes++;
        break;
    case SHORTER:
        draft->sections[at].bytes--;
        break;
    case CUT_HERE:
        draft->count = at;
        break;
    }
}

int rules_result(void) { return test_result(); }
