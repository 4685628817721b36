/*
 * A small pool of threads for bfe_options.parallel, on POSIX systems.
 *
 *     bfe_pool *pool = bfe_pool_start(2);
 *     bfe_options options = {.workers = 2, .parallel = bfe_pool_run, .parallel_context = pool};
 *     ... bfe_run(&model, &options, ...) ...
 *     bfe_pool_stop(pool);
 */
#ifndef BFE_POOL_H
#define BFE_POOL_H

#include "bfedge.h"

#include <stdint.h>

typedef struct bfe_pool bfe_pool;

/* A pool of `threads` threads, the caller of bfe_pool_run counted as one: 1 to BFE_MOST_WORKERS. NULL if there is not
 * enough memory, or no thread can be started. */
BFE_API bfe_pool *bfe_pool_start(uint32_t threads);

/* A bfe_parallel; `pool` is the pool. One call at a time. */
BFE_API void bfe_pool_run(void *pool, void (*task)(void *argument, uint32_t index), void *argument, uint32_t count);

/* Ends the threads and frees the pool; NULL is ignored. */
BFE_API void bfe_pool_stop(bfe_pool *pool);

#endif
