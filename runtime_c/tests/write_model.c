/*
 * write_model PLAN PATH [VARIANT]: writes one of the test models, for tests of other programs. Variants:
 * `bare` has no golden cases, `wrong` has one wrong bit in a golden output, `damaged` fails its checksum.
 */
#include "model_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(int argc, char **argv) {
    const int plan = argc >= 3 ? atoi(argv[1]) : -1;
    const char *const variant = argc == 4 ? argv[3] : "";
    if (plan < 0 || plan >= MODEL_PLANS)
        return 2;

    model_plan chosen = model_plans[plan];
    if (strcmp(variant, "bare") == 0)
        chosen.golden_cases = 0;
    model_file file = write_model(&chosen);
    add_golden(&file);
    if (strcmp(variant, "wrong") == 0) {
        find_contents(&file, BFE_KIND_GOLDEN_OUTPUT, BFE_NO_BLOCK)[4] ^= 1;
        fix_crc(&file);
    }
    if (strcmp(variant, "damaged") == 0)
        file.bytes[file.size - 1] ^= 1;

    FILE *const out = fopen(argv[2], "wb");
    const int ok = out != NULL && fwrite(file.bytes, 1, file.size, out) == file.size && fclose(out) == 0;
    free_file(&file);
    return ok ? 0 : 1;
}
