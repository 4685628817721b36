#include "bfe_plan.h"
#include "bfe_kernel_sets.h"

#include <string.h>

void bfe_plan(bfe_model *model, const bfe_config *config, const void *head, int rearranged) {
    memset(model, 0, sizeof *model);
    model->config = *config;
    model->file = head;
    model->kernels = rearranged ? &bfe_kernels_tiles : bfe_kernels_in_place;
}
