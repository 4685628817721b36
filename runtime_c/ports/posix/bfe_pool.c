#if !defined(_POSIX_C_SOURCE)
#define _POSIX_C_SOURCE 200809L
#endif

#include "bfe_pool.h"

#include <pthread.h>
#include <stdlib.h>

/* The steps of an inference follow each other in microseconds, which is less than waking a thread takes: a thread looks
 * for work this often before it sleeps. Some 30 microseconds. */
enum { SPINS = 2000 };

struct bfe_pool {
    pthread_mutex_t lock;
    pthread_cond_t has_work, is_done;
    void (*task)(void *argument, uint32_t index);
    void *argument;
    uint32_t next, count; /* indices that no thread has taken yet: next..count - 1 */
    uint32_t unfinished;
    int is_stopping;
    uint32_t helpers;
    pthread_t thread[BFE_MOST_WORKERS];
};

static void pause_a_moment(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Reading without the lock only decides when to look with it. */
static uint32_t peek(const uint32_t *value) { return __atomic_load_n(value, __ATOMIC_RELAXED); }

static void set(uint32_t *value, uint32_t to) { __atomic_store_n(value, to, __ATOMIC_RELAXED); }

/* Does all the work that nobody else has taken. The lock is held before and after, but not meanwhile. */
static void work(bfe_pool *pool) {
    while (pool->next < pool->count) {
        const uint32_t index = pool->next;
        set(&pool->next, index + 1);
        pthread_mutex_unlock(&pool->lock);
        pool->task(pool->argument, index);
        pthread_mutex_lock(&pool->lock);
        set(&pool->unfinished, pool->unfinished - 1);
        if (pool->unfinished == 0)
            pthread_cond_signal(&pool->is_done);
    }
}

static void *help(void *argument) {
    bfe_pool *const pool = argument;
    pthread_mutex_lock(&pool->lock);
    while (!pool->is_stopping) {
        work(pool);
        pthread_mutex_unlock(&pool->lock);
        for (int i = 0; i < SPINS && peek(&pool->next) >= peek(&pool->count); i++)
            pause_a_moment();
        pthread_mutex_lock(&pool->lock);
        while (!pool->is_stopping && pool->next >= pool->count)
            pthread_cond_wait(&pool->has_work, &pool->lock);
    }
    pthread_mutex_unlock(&pool->lock);
    return NULL;
}

bfe_pool *bfe_pool_start(uint32_t threads) {
    if (threads < 1 || threads > BFE_MOST_WORKERS)
        return NULL;
    bfe_pool *const pool = calloc(1, sizeof *pool);
    if (pool == NULL)
        return NULL;
    if (pthread_mutex_init(&pool->lock, NULL) != 0 || pthread_cond_init(&pool->has_work, NULL) != 0 ||
        pthread_cond_init(&pool->is_done, NULL) != 0) {
        free(pool);
        return NULL;
    }
    while (pool->helpers + 1 < threads) {
        if (pthread_create(&pool->thread[pool->helpers], NULL, help, pool) != 0) {
            bfe_pool_stop(pool);
            return NULL;
        }
        pool->helpers++;
    }
    return pool;
}

void bfe_pool_run(void *context, void (*task)(void *argument, uint32_t index), void *argument, uint32_t count) {
    bfe_pool *const pool = context;
    pthread_mutex_lock(&pool->lock);
    pool->task = task;
    pool->argument = argument;
    set(&pool->unfinished, count);
    set(&pool->next, 0);
    set(&pool->count, count);
    pthread_cond_broadcast(&pool->has_work);
    work(pool);
    pthread_mutex_unlock(&pool->lock);
    for (int i = 0; i < SPINS && peek(&pool->unfinished) != 0; i++)
        pause_a_moment();
    pthread_mutex_lock(&pool->lock);
    while (pool->unfinished != 0)
        pthread_cond_wait(&pool->is_done, &pool->lock);
    pthread_mutex_unlock(&pool->lock);
}

void bfe_pool_stop(bfe_pool *pool) {
    if (pool == NULL)
        return;
    pthread_mutex_lock(&pool->lock);
    pool->is_stopping = 1;
    pthread_cond_broadcast(&pool->has_work);
    pthread_mutex_unlock(&pool->lock);
    for (uint32_t i = 0; i < pool->helpers; i++)
        pthread_join(pool->thread[i], NULL);
    pthread_cond_destroy(&pool->has_work);
    pthread_cond_destroy(&pool->is_done);
    pthread_mutex_destroy(&pool->lock);
    free(pool);
}
