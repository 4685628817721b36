/*
 * bfe_plan.h - sizes of a model that does not exist yet, for the planner of the Python package, which loads this
 * library. No device links it.
 */
#ifndef BFE_PLAN_H
#define BFE_PLAN_H

#include "bfedge.h"

/* clang-format off */
/*
 * Makes *model answer bfe_workspace_size, bfe_largest_tile and bfe_prepared_size(model, "tiles"), and nothing else: it
 * has no weights and must not be run.
 *
 *   model       out
 *   config      all fields set, the last two too; within FORMAT.md's bounds
 *   head        header and section table that the packed file would begin with; owned by the caller, kept as long as
 *               the model is used, and trusted: the caller has just written it
 *   rearranged  0 for weights used in place, else as bfe_prepare rearranges them
 */
/* clang-format on */
BFE_API void bfe_plan(bfe_model *model, const bfe_config *config, const void *head, int rearranged);

#endif
