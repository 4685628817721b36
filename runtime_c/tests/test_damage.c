/* Files cut short or with a flipped bit are never accepted; with the checksum made right again they never do harm. */
#include "model_file.h"
#include "test.h"

#include <stdlib.h>

/* Opens a file that may be anything, and runs it if it is accepted: for the sanitizers to watch. */
static bfe_status try(const model_file *file, int run) {
    bfe_model model;
    const bfe_status status = bfe_open(&model, file->bytes, file->size, NULL);
    if (status == BFE_OK && run) {
        const size_t need = bfe_workspace_size(&model, NULL);
        uint8_t *const image = calloc(bfe_input_size(&model), 1);
        float *const logits = malloc(model.config.classes * sizeof *logits);
        uint8_t *const memory = calloc(need + BFE_ALIGNMENT, 1);
        uint8_t *const aligned = memory + (BFE_ALIGNMENT - (uintptr_t)memory % BFE_ALIGNMENT) % BFE_ALIGNMENT;
        CHECK(bfe_run(&model, NULL, aligned, need, image, logits) == BFE_OK);
        const char *text;
        size_t length;
        for (uint32_t i = 0; i < model.config.classes; i++)
            (void)bfe_label(&model, i, &text, &length);
        free(memory);
        free(logits);
        free(image);
    }
    return status;
}

static void test_truncation(const model_file *file) {
    for (size_t size = 0; size < file->size; size++) {
        model_file cut = copy_file(file->bytes, size);
        const bfe_status status = try(&cut, 0);
        CHECK(status == (size < 4 ? BFE_NOT_A_MODEL : BFE_TRUNCATED));
        if (size >= BFE_HEADER_BYTES) { /* as a forger would cut it */
            put_u32(cut.bytes + BFE_AT_FILE_BYTES, (uint32_t)size);
            fix_crc(&cut);
            CHECK(try(&cut, 1) != BFE_OK);
        }
        free_file(&cut);
    }
}

static void test_longer(const model_file *file) {
    uint8_t bytes[8192] = {0};
    CHECK(file->size + 40 <= sizeof bytes);
    memcpy(bytes, file->bytes, file->size);
    for (size_t extra = 1; extra < 40; extra++) {
        model_file longer = copy_file(bytes, file->size + extra);
        CHECK(try(&longer, 0) == BFE_CORRUPT);
        put_u32(longer.bytes + BFE_AT_FILE_BYTES, (uint32_t)longer.size);
        fix_crc(&longer);
        CHECK(try(&longer, 0) == BFE_CORRUPT);
        free_file(&longer);
    }
}

static void test_bit_flips(const model_file *file) {
    uint32_t accepted = 0;
    for (size_t at = 0; at < file->size; at++) {
        for (int bit = 0; bit < 8; bit++) {
            model_file flipped = copy_file(file->bytes, file->size);
            flipped.bytes[at] ^= (uint8_t)(1 << bit);
            CHECK(try(&flipped, 0) != BFE_OK);
            if (at >= BFE_AT_CRC && at < BFE_AT_CRC + 4)
                flipped.bytes[at] ^= (uint8_t)(1 << bit); /* the checksum is the one thing not to repair */
            else
                fix_crc(&flipped);
            accepted += try(&flipped, test_random_below(8) == 0) == BFE_OK;
            free_file(&flipped);
        }
    }
    CHECK(accepted > 0); /* most weights are as good as any other */
}

/* Several random bytes of header, table and config at once, which single flips do not reach. */
static void test_random_damage(const model_file *file) {
    const uint32_t front = 64 + 16 * bfe_read_u32(file->bytes + 32) + 68;
    for (int repeat = 0; repeat < 20000; repeat++) {
        model_file damaged = copy_file(file->bytes, file->size);
        for (uint32_t i = 1 + test_random_below(4); i > 0; i--)
            damaged.bytes[24 + test_random_below(front - 24)] = (uint8_t)(test_random_below(2) ? test_random() : 0);
        fix_crc(&damaged);
        (void)try(&damaged, 1);
        free_file(&damaged);
    }
}

int main(void) {
    for (int angles = 0; angles < 2; angles++) { /* of 16 and of 8 bits */
        model_plan plan = model_plans[0];
        plan.angles = angles == 0 ? BFE_ENCODING_F16 : BFE_ENCODING_ANGLE8;
        model_file file = write_model(&plan);
        CHECK(try(&file, 1) == BFE_OK);
        test_truncation(&file);
        test_longer(&file);
        test_bit_flips(&file);
        test_random_damage(&file);
        free_file(&file);
    }
    return test_result();
}
