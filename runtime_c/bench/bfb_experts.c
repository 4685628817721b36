/* The experts' stage of one block alone, as bfe_run does it with one worker. */
#include "bfb_bench.h"
#include "bfe_internal.h"

#include <string.h>

typedef struct stage {
    bfe_job job;
    const float *z;
} stage;

size_t bfb_experts_prepare(void *memory, const bfe_model *model, uint32_t block, const float *z) {
    bfb_memory pieces = {memory, 0};
    const size_t values = (size_t)model->config.tokens * model->config.d_model;
    stage *const self = bfb_take(&pieces, sizeof *self);
    stage s;
    memset(&s, 0, sizeof s);
    s.job.model = model;
    s.job.schedule = bfe_schedule_of(model, NULL);
    s.job.block = block;
    s.z = bfb_copy(&pieces, z, values * sizeof *z);
    s.job.workspace = bfb_take(&pieces, (size_t)bfe_workspace_bytes(model, &s.job.schedule));
    if (self) {
        s.job.residual = bfe_residual_in(&s.job.schedule, s.job.workspace);
        memset(s.job.workspace, 0, sizeof(uint64_t)); /* bfe_count's */
        *self = s;
    }
    return pieces.used;
}

void bfb_experts_run(void *memory) {
    const stage *const s = memory;
    const bfe_config *const config = &s->job.model->config;
    memcpy(s->job.residual, s->z, (size_t)config->tokens * config->d_model * sizeof *s->z);
    bfe_experts(&s->job, 0);
}

const float *bfb_experts_result(const void *memory) { return ((const stage *)memory)->job.residual; }
