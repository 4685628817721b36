/* write_model PLAN PATH: writes one of the test models, with golden cases, for tests of other programs. */
#include "model_file.h"

#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv) {
    const int plan = argc == 3 ? atoi(argv[1]) : -1;
    if (plan < 0 || plan >= MODEL_PLANS)
        return 2;
    model_file file = write_model(&model_plans[plan]);
    add_golden(&file);
    FILE *const out = fopen(argv[2], "wb");
    const int ok = out != NULL && fwrite(file.bytes, 1, file.size, out) == file.size && fclose(out) == 0;
    free_file(&file);
    return ok ? 0 : 1;
}
