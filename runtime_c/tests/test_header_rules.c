/* Rules V1 to V10, the header and the config: each has files that break it and nothing before it. */
#include "rules.h"
#include "test.h"

static void test_v1_to_v5(void) {
    model_file file = full_file();
    expect(&file, fine);
    for (size_t size = 0; size < 64; size++) {
        const expectation v1 = {1, BFE_NOT_A_MODEL, 0, 0, NONE, 0}, v2 = {2, BFE_TRUNCATED, size, 0, NONE, 0};
        expect_bytes(file.bytes, size, size < 4 ? v1 : v2);
    }
    for (size_t i = 0; i < 4; i++)
        expect_byte(i, 0x20, (expectation){1, BFE_NOT_A_MODEL, 0, 0, NONE, 0});
    expect_byte(5, 7, (expectation){3, BFE_CORRUPT, 4, 0, NONE, 0});
    put_u32(file.bytes + 4, 0x04030201);
    expect(&file, (expectation){3, BFE_WRONG_BYTE_ORDER, 4, 0, NONE, 0});
    expect_byte(8, 0, (expectation){4, BFE_CORRUPT, 8, 0, NONE, 0});
    expect_byte(8, 2, (expectation){4, BFE_TOO_NEW, 8, 0, NONE, 2});
    expect_byte(9, 1, (expectation){4, BFE_TOO_NEW, 8, 0, NONE, 257});
    expect_byte(10, 200, fine); /* a higher minor version */
    expect_byte(28, 255, fine); /* unknown optional features */
    const uint32_t size = (uint32_t)file.size;
    expect_byte(19, 1, (expectation){5, BFE_TRUNCATED, 16, 0, NONE, size | 1u << 24});
    expect_byte(17, 0, (expectation){5, BFE_CORRUPT, 16, 0, NONE, size & 0xFFFF00FF});
    free_file(&file);
}

static void test_v6_to_v9(void) {
    model_file file = full_file();
    file.bytes[file.size - 1] ^= 0x40;
    expect_bytes(file.bytes, file.size, (expectation){6, BFE_CORRUPT, 20, 0, NONE, 0});
    free_file(&file);

    expect_byte(24, 31 | 0x60, (expectation){7, BFE_UNSUPPORTED, 24, 0, NONE, 0x60});
    expect_byte(27, 0x80, (expectation){7, BFE_UNSUPPORTED, 24, 0, NONE, 0x80000000});
    expect_byte(12, 80, (expectation){8, BFE_CORRUPT, 12, 0, NONE, 0});
    for (size_t at = 36; at < 64; at++)
        expect_byte(at, 1, (expectation){8, BFE_CORRUPT, at, 0, NONE, 0});
    expect_byte(35, 0xFF, (expectation){8, BFE_CORRUPT, 32, 0, NONE, 0});
    expect_byte(64 + 3 * 16 + 7, 1, (expectation){8, BFE_CORRUPT, 64 + 3 * 16 + 6, 0, NONE, 0});

    const expectation v9 = {9, BFE_CORRUPT, 64, BFE_KIND_CONFIG, NONE, 0};
    expect_byte(64, 2, v9);
    expect_byte(66, 0, v9);
    expect_byte(68, BFE_ENCODING_F32, v9);
    expect_byte(76, 64, v9);
    file = full_file();
    put_u32(file.bytes + 32, 0);
    expect(&file, (expectation){9, BFE_CORRUPT, 32, 0, NONE, 0});
    put_u32(file.bytes + 32, (uint32_t)((file.size - 64) / 16 + 1));
    expect(&file, (expectation){8, BFE_CORRUPT, 32, 0, NONE, 0});
    put_u32(file.bytes + 32, (uint32_t)((file.size - 64) / 16)); /* a table up to the end of the file; config outside */
    for (size_t at = 70; at < file.size; at += 16)
        put_u16(file.bytes + at, 0);
    expect(&file, v9);
    free_file(&file);
}

static void expect_config(uint32_t word, uint32_t value, bfe_status status, uint32_t blamed_word) {
    model_file file = full_file();
    uint8_t *const config = find_contents(&file, BFE_KIND_CONFIG, NONE);
    put_u32(config + 4 * (size_t)word, value);
    expect(&file, (expectation){10, status, (uint64_t)(config - file.bytes) + 4 * (uint64_t)blamed_word,
                                BFE_KIND_CONFIG, NONE, 0});
    free_file(&file);
}

static void test_v10(void) {
    expect_config(0, 2, BFE_UNSUPPORTED, 0);
    expect_config(15, 0, BFE_UNSUPPORTED, 15);
    static const uint32_t highest[15] = {1, 4096, 4096, 16, 64, 65536, 16384, 16384, 256, 16384, 4096, 16, 14, 14, 1};
    for (uint32_t word = 1; word < 15; word++) {
        expect_config(word, highest[word] + 1, BFE_CORRUPT, word);
        expect_config(word, 0xFFFFFFFF, BFE_CORRUPT, word);
        if (word < 14)
            expect_config(word, 0, BFE_CORRUPT, word);
    }
    expect_config(6, 1, BFE_CORRUPT, 6);
    expect_config(7, 1, BFE_CORRUPT, 7);
    static const uint32_t bad_scales[] = {0, 0x80000000, 0xBF800000, 0x44800001, 0x7F800000, 0x7FC00000, 0xFFFFFFFF};
    for (size_t i = 0; i < sizeof bad_scales / sizeof bad_scales[0]; i++)
        expect_config(16, bad_scales[i], BFE_CORRUPT, 16);

    /* Bounds that hold between fields. The plan: 6 x 9 pixels, 3 channels, patches of 3, d_model 12, d_ff 22, 5
     * experts. */
    expect_config(1, 7, BFE_CORRUPT, 1);
    expect_config(2, 8, BFE_CORRUPT, 2);
    expect_config(4, 4, BFE_CORRUPT, 1);
    expect_config(9, 5, BFE_CORRUPT, 9);
    expect_config(9, 24, BFE_CORRUPT, 9);
    expect_config(11, 6, BFE_CORRUPT, 11);
    expect_config(12, 5, BFE_CORRUPT, 12);
    expect_config(13, 6, BFE_CORRUPT, 13);

    model_file file = full_file();
    uint8_t *const config = find_contents(&file, BFE_KIND_CONFIG, NONE);
    const uint64_t at = (uint64_t)(config - file.bytes);
    put_u32(config + 4, 192); /* 64 * 64 tokens are the most */
    put_u32(config + 8, 192);
    put_u32(config + 56, BFE_POOL_CLASS);
    expect(&file, (expectation){10, BFE_CORRUPT, at + 4, BFE_KIND_CONFIG, NONE, 0});
    put_u32(config + 56, BFE_POOL_MEAN);
    expect(&file, (expectation){11, BFE_CORRUPT, 64 + 3 * 16, BFE_KIND_POSITION, NONE, BFE_KIND_POSITION});
    put_u32(config + 4, 64); /* patches of 64 * 64 pixels have at most 4 channels */
    put_u32(config + 8, 64);
    put_u32(config + 16, 64);
    put_u32(config + 12, 5);
    expect(&file, (expectation){10, BFE_CORRUPT, at + 16, BFE_KIND_CONFIG, NONE, 0});
    put_u32(config + 12, 4);
    expect(&file, (expectation){11, BFE_CORRUPT, 64 + 16, BFE_KIND_PATCH_WEIGHT, NONE, BFE_KIND_PATCH_WEIGHT});
    free_file(&file);
}

static void test_arguments(void) {
    model_file file = full_file();
    bfe_model model;
    bfe_diag diag;
    CHECK(bfe_open(NULL, file.bytes, file.size, &diag) == BFE_BAD_ARGUMENT && diag.rule == 0);
    CHECK(bfe_open(&model, NULL, file.size, &diag) == BFE_BAD_ARGUMENT && model.file == NULL);
    CHECK(bfe_open(&model, file.bytes + 1, file.size - 1, &diag) == BFE_MISALIGNED && diag.rule == 0);
    CHECK(bfe_open(&model, file.bytes, file.size, NULL) == BFE_OK);
    CHECK(bfe_open(&model, file.bytes, 3, NULL) == BFE_NOT_A_MODEL && model.file == NULL && model.config.tokens == 0);
    CHECK(strcmp(bfe_status_text(BFE_TRUNCATED), "truncated") == 0);
    for (int status = -1; status < 40; status++)
        CHECK(strlen(bfe_status_text((bfe_status)status)) > 0);
    CHECK(strcmp(bfe_status_text((bfe_status)99), "unknown status") == 0);
    free_file(&file);
}

int main(void) {
    test_v1_to_v5();
    test_v6_to_v9();
    test_v10();
    test_arguments();
    return rules_result() + test_result();
}
