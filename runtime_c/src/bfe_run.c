#include "bfe_internal.h"

#include <string.h>

/* What the workers of one step share. */
typedef struct step {
    const bfe_job *job;
    bfe_step *run;
} step;

static void run_worker(void *argument, uint32_t worker) {
    const step *const s = argument;
    s->run(s->job, worker);
}

static void run_step(const bfe_job *job, const bfe_options *options, bfe_step *run) {
    step s = {job, run};
    const uint32_t workers = job->schedule.workers;
    if (workers > 1 && options->parallel != NULL) {
        options->parallel(options->parallel_context, run_worker, &s, workers);
        return;
    }
    for (uint32_t worker = 0; worker < workers; worker++)
        run(job, worker);
}

/* Shows a finished stage to the caller, and starts counting for the next. */
static void trace(const bfe_job *job, const bfe_options *options, bfe_stage stage, uint32_t block, const float *values,
                  size_t count) {
    uint64_t *const counts = (uint64_t *)(void *)job->workspace;
    uint64_t model_bytes = 0;
    for (uint32_t worker = 0; worker < job->schedule.workers; worker++) {
        model_bytes += counts[worker];
        counts[worker] = 0;
    }
    if (options != NULL && options->trace != NULL) {
        const bfe_event event = {stage, block, values, count, model_bytes};
        options->trace(options->trace_context, &event);
    }
}

bfe_status bfe_run(const bfe_model *model, const bfe_options *options, void *workspace, size_t workspace_size,
                   const uint8_t *image, float *logits) {
    if (model == NULL || model->file == NULL || workspace == NULL || image == NULL || logits == NULL)
        return BFE_BAD_ARGUMENT;
    if ((uintptr_t)workspace % BFE_ALIGNMENT != 0)
        return BFE_MISALIGNED;
    const size_t needed = bfe_workspace_size(model, options);
    if (needed == 0 || workspace_size < needed)
        return BFE_WORKSPACE_TOO_SMALL;

    const bfe_config *const config = &model->config;
    const size_t count = (size_t)config->tokens * config->d_model;
    bfe_job job;
    job.model = model;
    job.schedule = bfe_schedule_of(model, options);
    job.workspace = workspace;
    job.residual = bfe_residual_in(&job.schedule, workspace);
    job.image = image;
    job.logits = logits;
    memset(workspace, 0, job.schedule.workers * sizeof(uint64_t)); /* bfe_count's */

    run_step(&job, options, bfe_embed);
    trace(&job, options, BFE_STAGE_EMBED, BFE_NO_BLOCK, job.residual, count);
    for (job.block = 0; job.block < config->layers; job.block++) {
        run_step(&job, options, bfe_project);
        run_step(&job, options, bfe_attend);
        trace(&job, options, BFE_STAGE_ATTENTION, job.block, job.residual, count);
        run_step(&job, options, bfe_experts);
        trace(&job, options, BFE_STAGE_EXPERTS, job.block, job.residual, count);
    }
    run_step(&job, options, bfe_head);
    trace(&job, options, BFE_STAGE_LOGITS, BFE_NO_BLOCK, logits, config->classes);
    return BFE_OK;
}
