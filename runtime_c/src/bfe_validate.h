#ifndef BFE_VALIDATE_H
#define BFE_VALIDATE_H

#include "bfedge.h"

/* Checks a file against FORMAT.md's rules. Fills in *config on BFE_OK, *diag otherwise. */
bfe_status bfe_validate(const uint8_t *file, size_t size, bfe_config *config, bfe_diag *diag);

#endif
