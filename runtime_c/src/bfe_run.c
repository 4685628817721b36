#include "bfe_internal.h"

/* What the workers of one step share. */
typedef struct step {
    bfe_job job;
    void *workspace;
    bfe_step *run;
} step;

static void run_worker(void *argument, uint32_t worker) {
    const step *const s = argument;
    bfe_workspace w;
    (void)bfe_lay_out(s->job.model, &s->job.schedule, worker, s->workspace, &w);
    s->run(&s->job, worker, &w);
}

static void run_step(step *s, const bfe_options *options, bfe_step *run) {
    const uint32_t workers = s->job.schedule.workers;
    s->run = run;
    if (workers > 1 && options->parallel != NULL) {
        options->parallel(options->parallel_context, run_worker, s, workers);
        return;
    }
    for (uint32_t worker = 0; worker < workers; worker++)
        run_worker(s, worker);
}

/* Shows a finished stage to the caller, and starts counting for the next. */
static void trace(const step *s, const bfe_options *options, bfe_stage stage, uint32_t block, const float *values,
                  size_t count) {
    uint64_t *const counts = s->workspace; /* where bfe_lay_out has them */
    uint64_t model_bytes = 0;
    for (uint32_t worker = 0; worker < s->job.schedule.workers; worker++) {
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
    step s = {{model, bfe_schedule_of(model, options), image, logits, BFE_NO_BLOCK}, workspace, NULL};
    bfe_workspace w;
    (void)bfe_lay_out(model, &s.job.schedule, 0, workspace, &w);
    for (uint32_t worker = 0; worker < s.job.schedule.workers; worker++)
        w.model_bytes[worker] = 0;

    run_step(&s, options, bfe_embed);
    trace(&s, options, BFE_STAGE_EMBED, BFE_NO_BLOCK, w.residual, count);
    for (uint32_t block = 0; block < config->layers; block++) {
        s.job.block = block;
        run_step(&s, options, bfe_project);
        run_step(&s, options, bfe_attend);
        trace(&s, options, BFE_STAGE_ATTENTION, block, w.residual, count);
        run_step(&s, options, bfe_experts);
        trace(&s, options, BFE_STAGE_EXPERTS, block, w.residual, count);
    }
    run_step(&s, options, bfe_head);
    trace(&s, options, BFE_STAGE_LOGITS, BFE_NO_BLOCK, logits, config->classes);
    return BFE_OK;
}
