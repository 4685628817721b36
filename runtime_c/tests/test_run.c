/* bfe_run: known bits with all kernels, exact workspace, tiles, workers, trace, golden cases, labels, arguments. */
#include "bfe_crc32.h"
#include "model_file.h"
#include "test.h"

#include <stdlib.h>

enum { GUARD = 64, MOST_CLASSES = 100 };

/* Workspaces between two guards of this value. */
static const uint8_t guard_byte = 0xA5;

typedef struct opened {
    model_file file;
    bfe_model model;
    const uint8_t *image; /* the first golden input */
} opened;

static opened open_plan(int plan) {
    opened o;
    const float *expected;
    o.file = write_model(&model_plans[plan]);
    CHECK(bfe_open(&o.model, o.file.bytes, o.file.size, NULL) == BFE_OK);
    CHECK(bfe_golden(&o.model, 0, &o.image, &expected) == BFE_OK);
    return o;
}

/* Runs with a workspace of exactly the stated size, filled with `fill`, and checks its guards. Returns how many of its
 * bytes no longer have that value, counted up to the last such. */
static size_t run_guarded(const opened *o, const bfe_options *options, uint8_t fill, float *logits) {
    const size_t need = bfe_workspace_size(&o->model, options);
    uint8_t *const memory = malloc(need + 2 * GUARD + BFE_ALIGNMENT);
    uint8_t *const workspace =
        memory + GUARD + (BFE_ALIGNMENT - (uintptr_t)(memory + GUARD) % BFE_ALIGNMENT) % BFE_ALIGNMENT;
    memset(workspace - GUARD, guard_byte, need + 2 * GUARD);
    memset(workspace, fill, need);

    CHECK(bfe_run(&o->model, options, workspace, need - 1, o->image, logits) == BFE_WORKSPACE_TOO_SMALL);
    CHECK(bfe_run(&o->model, options, workspace, 0, o->image, logits) == BFE_WORKSPACE_TOO_SMALL);
    CHECK(bfe_run(&o->model, options, workspace, need, o->image, logits) == BFE_OK);
    for (size_t i = 1; i <= GUARD; i++)
        CHECK(workspace[-(ptrdiff_t)i] == guard_byte && workspace[need + i - 1] == guard_byte);
    size_t used = need;
    while (used > 0 && workspace[used - 1] == fill)
        used--;
    free(memory);
    return used;
}

/* One set of kernels: the same bits whatever the tile and the number of workers, in exactly the workspace stated. */
static void test_bits_and_workspace(opened *o, uint32_t known_crc) {
    const model_file before = copy_file(o->file.bytes, o->file.size);
    const uint32_t tokens = o->model.config.tokens, classes = o->model.config.classes;
    float logits[MOST_CLASSES], other[MOST_CLASSES];

    (void)run_guarded(o, NULL, 0x00, logits);
    const uint32_t crc = bfe_crc32(0, (const uint8_t *)logits, classes * sizeof *logits);
    if (crc != known_crc)
        fprintf(stderr, "kernels %s: logits have CRC 0x%08X\n", bfe_kernels_used(&o->model), (unsigned)crc);
    CHECK(crc == known_crc);

    for (uint32_t workers = 0; workers <= 5; workers++) {
        size_t previous = 0;
        for (uint32_t tile = 1; tile <= tokens + 2; tile++) {
            bfe_options options = {0};
            options.tile_tokens = tile;
            options.workers = workers;
            const size_t need = bfe_workspace_size(&o->model, &options);
            CHECK(need % BFE_ALIGNMENT == 0 && need >= previous);
            previous = need;
            const size_t used_a = run_guarded(o, &options, 0x00, logits),
                         used_b = run_guarded(o, &options, 0xFF, other);
            CHECK((used_a > used_b ? used_a : used_b) + BFE_ALIGNMENT > need); /* exact, no bound */
            CHECK(bfe_crc32(0, (const uint8_t *)logits, classes * sizeof *logits) == known_crc);
            CHECK(test_same_bits(logits, other, classes));

            const uint32_t largest = bfe_largest_tile(&o->model, &options, need);
            options.tile_tokens = largest;
            CHECK(largest >= (tile < tokens ? tile : tokens) && bfe_workspace_size(&o->model, &options) <= need);
            options.tile_tokens = largest + 1;
            CHECK(largest == tokens || bfe_workspace_size(&o->model, &options) > need);
        }
        bfe_options all = {0};
        all.workers = workers;
        CHECK(bfe_workspace_size(&o->model, &all) == previous);
    }
    bfe_options smallest = {0};
    smallest.tile_tokens = 1;
    CHECK(bfe_largest_tile(&o->model, NULL, bfe_workspace_size(&o->model, &smallest) - 1) == 0);
    CHECK(memcmp(before.bytes, o->file.bytes, o->file.size) == 0);
    model_file to_free = before;
    free_file(&to_free);
}

/* Every set of kernels that this processor can run, with weights rearranged in memory of exactly the size stated. */
static void test_kernels(int plan) {
    const char *name;
    for (uint32_t i = 0; (name = bfe_kernels_name(i)) != NULL; i++) {
        opened o = open_plan(plan);
        const size_t size = bfe_prepared_size(&o.model, name);
        uint8_t *const memory = malloc(size + GUARD + BFE_PREPARED_ALIGNMENT);
        uint8_t *const prepared =
            memory + (BFE_PREPARED_ALIGNMENT - (uintptr_t)memory % BFE_PREPARED_ALIGNMENT) % BFE_PREPARED_ALIGNMENT;
        memset(prepared, guard_byte, size + GUARD);
        if (size != 0) {
            CHECK(bfe_prepare(&o.model, name, prepared, size - 1) == BFE_WORKSPACE_TOO_SMALL);
            CHECK(bfe_prepare(&o.model, name, prepared + 16, size) == BFE_MISALIGNED);
            CHECK(bfe_prepare(&o.model, name, NULL, size) == BFE_BAD_ARGUMENT);
            CHECK(o.model.prepared == NULL);
        }
        CHECK(bfe_prepare(&o.model, name, prepared, size) == BFE_OK);
        CHECK(strcmp(bfe_kernels_used(&o.model), name) == 0);
        for (size_t j = 0; j < GUARD; j++)
            CHECK(prepared[size + j] == guard_byte);
        test_bits_and_workspace(&o, model_plans[plan].logits_crc);
        CHECK(bfe_prepare(&o.model, "c", NULL, 0) == BFE_OK && o.model.prepared == NULL); /* and back */
        test_bits_and_workspace(&o, model_plans[plan].logits_crc);
        free(memory);
        free_file(&o.file);
    }
}

static void test_choice_of_kernels(void) {
    opened o = open_plan(0);
    CHECK(bfe_prepared_size(&o.model, "none such") == 0 && bfe_prepared_size(NULL, NULL) == 0);
    CHECK(bfe_prepare(&o.model, "none such", NULL, 0) == BFE_UNSUPPORTED);
    CHECK(bfe_prepare(NULL, NULL, NULL, 0) == BFE_BAD_ARGUMENT);
    CHECK(bfe_prepared_size(&o.model, "c") == 0 && bfe_prepared_size(&o.model, "tiles") > 0);
    CHECK(bfe_prepared_size(&o.model, NULL) == bfe_prepared_size(&o.model, bfe_kernels_name(0)));
    CHECK(strcmp(bfe_kernels_used(NULL), "none") == 0 && strcmp(bfe_kernels_used(&o.model), "c") != 0);
    free_file(&o.file);
}

/* What a trace has to show, in order. */
typedef struct watched {
    const bfe_config *config;
    uint32_t calls;
    float logits[MOST_CLASSES];
} watched;

static void watch(void *context, const bfe_event *event) {
    watched *const w = context;
    const bfe_stage stage = event->stage;
    const uint32_t block = event->block;
    const size_t count = event->count;
    const uint32_t last = 1 + 2 * w->config->layers, call = w->calls++;
    const size_t residual = (size_t)w->config->tokens * w->config->d_model;
    if (call == 0)
        CHECK(stage == BFE_STAGE_EMBED && block == BFE_NO_BLOCK && count == residual);
    else if (call < last)
        CHECK(stage == (call % 2 == 1 ? BFE_STAGE_ATTENTION : BFE_STAGE_EXPERTS) && block == (call - 1) / 2 &&
              count == residual);
    else
        CHECK(call == last && stage == BFE_STAGE_LOGITS && block == BFE_NO_BLOCK && count == w->config->classes);
    if (stage == BFE_STAGE_LOGITS)
        memcpy(w->logits, event->values, count * sizeof *event->values);
    CHECK(event->model_bytes > 0);
}

static void test_trace(int plan) {
    opened o = open_plan(plan);
    float logits[MOST_CLASSES];
    watched w = {&o.model.config, 0, {0}};
    bfe_options options = {0};
    options.trace = watch;
    options.trace_context = &w;
    (void)run_guarded(&o, &options, 0, logits);
    CHECK(w.calls == 2 + 2 * o.model.config.layers);
    CHECK(test_same_bits(w.logits, logits, o.model.config.classes));
    free_file(&o.file);
}

/* Every parameter at the bound that V16 allows: the results mean nothing, but nothing may be undefined on the way. */
static void test_absurd(int plan, uint32_t value_bits, uint8_t weight) {
    opened o = open_plan(plan);
    for (uint32_t i = 1; i < bfe_read_u32(o.file.bytes + BFE_AT_SECTION_COUNT); i++) {
        const uint8_t *const entry = o.file.bytes + BFE_HEADER_BYTES + 16 * (size_t)i;
        const uint32_t offset = bfe_read_u32(entry + BFE_ENTRY_OFFSET), bytes = bfe_read_u32(entry + BFE_ENTRY_SIZE);
        if (bfe_read_u16(entry + BFE_ENTRY_ENCODING) == BFE_ENCODING_F32)
            for (uint32_t at = 0; at < bytes; at += 4)
                put_u32(o.file.bytes + offset + at, value_bits);
        if (bfe_read_u16(entry + BFE_ENTRY_ENCODING) == BFE_ENCODING_INT8)
            memset(o.file.bytes + offset, weight, bytes);
    }
    fix_crc(&o.file);
    CHECK(bfe_open(&o.model, o.file.bytes, o.file.size, NULL) == BFE_OK);
    float logits[MOST_CLASSES];
    (void)run_guarded(&o, NULL, 0, logits);
    free_file(&o.file);
}

static void test_labels_and_golden(void) {
    opened o = open_plan(0);
    add_golden(&o.file);
    static const char *const names[3] = {"a", "b\xC3\xA9", ""};
    const char *text;
    size_t length;
    for (uint32_t i = 0; i < 3; i++) {
        CHECK(bfe_label(&o.model, i, &text, &length) == BFE_OK);
        CHECK(length == strlen(names[i]) && memcmp(text, names[i], length) == 0);
    }
    CHECK(bfe_label(&o.model, 3, &text, &length) == BFE_BAD_ARGUMENT);
    CHECK(bfe_label(NULL, 0, &text, &length) == BFE_BAD_ARGUMENT);
    CHECK(bfe_label(&o.model, 0, NULL, &length) == BFE_BAD_ARGUMENT);
    CHECK(bfe_label(&o.model, 0, &text, NULL) == BFE_BAD_ARGUMENT);

    const uint8_t *first, *second;
    const float *first_logits, *second_logits;
    CHECK(o.model.golden_count == 2 && bfe_input_size(&o.model) == 16);
    CHECK(bfe_golden(&o.model, 0, &first, &first_logits) == BFE_OK);
    CHECK(bfe_golden(&o.model, 1, &second, &second_logits) == BFE_OK);
    CHECK(first == find_contents(&o.file, BFE_KIND_GOLDEN_INPUT, BFE_NO_BLOCK) && second == first + 16);
    CHECK(second_logits == first_logits + 3 && !test_same_bits(first_logits, second_logits, 3));
    CHECK(bfe_golden(&o.model, 2, &first, &first_logits) == BFE_BAD_ARGUMENT);
    CHECK(bfe_golden(NULL, 0, &first, &first_logits) == BFE_BAD_ARGUMENT);
    CHECK(bfe_golden(&o.model, 0, NULL, &first_logits) == BFE_BAD_ARGUMENT);
    CHECK(bfe_golden(&o.model, 0, &first, NULL) == BFE_BAD_ARGUMENT);
    free_file(&o.file);

    o = open_plan(1); /* no labels */
    CHECK(bfe_label(&o.model, 0, &text, &length) == BFE_BAD_ARGUMENT);
    free_file(&o.file);
    model_plan bare = model_plans[1];
    bare.golden_cases = 0;
    model_file file = write_model(&bare);
    CHECK(bfe_open(&o.model, file.bytes, file.size, NULL) == BFE_OK && o.model.golden_count == 0);
    CHECK(bfe_golden(&o.model, 0, &first, &first_logits) == BFE_BAD_ARGUMENT);
    free_file(&file);
}

static void test_arguments(void) {
    opened o = open_plan(0);
    uint8_t *const memory = malloc(bfe_workspace_size(&o.model, NULL) + 2 * BFE_ALIGNMENT);
    uint8_t *const workspace = memory + (BFE_ALIGNMENT - (uintptr_t)memory % BFE_ALIGNMENT);
    const size_t size = bfe_workspace_size(&o.model, NULL);
    float logits[MOST_CLASSES] = {-1.0f};
    CHECK(bfe_run(NULL, NULL, workspace, size, o.image, logits) == BFE_BAD_ARGUMENT);
    CHECK(bfe_run(&o.model, NULL, NULL, size, o.image, logits) == BFE_BAD_ARGUMENT);
    CHECK(bfe_run(&o.model, NULL, workspace, size, NULL, logits) == BFE_BAD_ARGUMENT);
    CHECK(bfe_run(&o.model, NULL, workspace, size, o.image, NULL) == BFE_BAD_ARGUMENT);
    CHECK(bfe_run(&o.model, NULL, workspace + 1, size, o.image, logits) == BFE_MISALIGNED);
    CHECK(bfe_run(&o.model, NULL, workspace, size - 1, o.image, logits) == BFE_WORKSPACE_TOO_SMALL);
    CHECK(logits[0] == -1.0f);

    const bfe_model failed = {0}; /* as bfe_open leaves it */
    CHECK(bfe_run(&failed, NULL, workspace, size, o.image, logits) == BFE_BAD_ARGUMENT);
    CHECK(bfe_workspace_size(NULL, NULL) == 0 && bfe_workspace_size(&failed, NULL) == 0);
    CHECK(bfe_input_size(NULL) == 0 && bfe_input_size(&failed) == 0);
    free(memory);
    free_file(&o.file);
}

int main(void) {
    test_choice_of_kernels();
    for (int plan = 0; plan < MODEL_PLANS; plan++) {
        test_kernels(plan);
        test_trace(plan);
        test_absurd(plan, 0x44800000, 127); /* 1024 */
        test_absurd(plan, 0x44800000, 0);
        test_absurd(plan, 0x00000001, 127); /* the smallest subnormal */
    }
    test_labels_and_golden();
    test_arguments();
    return test_result();
}
