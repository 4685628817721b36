#include "kernels.h"
#include "test.h"

#include <stdlib.h>

enum { GUARD_BYTES = 64, GUARD = 0xA5 };

const bfe_kernels *kernels_to_test(uint32_t index) {
    const char *const wanted = getenv("BFEDGE_TEST_KERNELS");
    if (wanted == NULL || index != 0)
        return wanted == NULL ? bfe_kernels_at(index) : NULL;
    for (uint32_t i = 0; bfe_kernels_at(i) != NULL; i++)
        if (strcmp(bfe_kernels_at(i)->name, wanted) == 0)
            return bfe_kernels_at(i);
    fprintf(stderr, "this processor has no kernels %s\n", wanted);
    exit(1);
}

static void *allocate(size_t bytes) {
    void *const memory = malloc(bytes);
    if (memory == NULL)
        abort();
    return memory;
}

static void fill(uint8_t *data, size_t bytes) {
    for (size_t i = 0; i < bytes; i++)
        data[i] = (uint8_t)(test_random() >> 24);
}

/* malloc aligns to what it likes. Where that is too little, a few bytes in front make up for it; if no number of them
 * does, the end is not exact. */
block new_block(size_t bytes, size_t alignment) {
    block b = {NULL, bytes, NULL};
    for (size_t front = 0; b.data == NULL && front < alignment; front += 8) {
        uint8_t *const memory = allocate(front + bytes);
        if ((uintptr_t)(memory + front) % alignment == 0) {
            b.allocation = memory;
            b.data = memory + front;
        } else {
            free(memory);
        }
    }
    if (b.data == NULL) {
        b.allocation = allocate(alignment + bytes);
        b.data = (uint8_t *)b.allocation + (alignment - (uintptr_t)b.allocation % alignment);
    }
    fill(b.data, bytes);
    return b;
}

block new_guarded_block(size_t bytes, size_t alignment) {
    block b = {NULL, bytes, allocate(bytes + alignment + 2 * GUARD_BYTES)};
    const uintptr_t lowest = (uintptr_t)b.allocation + GUARD_BYTES;
    uint8_t *const data = (uint8_t *)b.allocation + GUARD_BYTES + (alignment - lowest % alignment) % alignment;
    fill(data, bytes);
    memset(data - GUARD_BYTES, GUARD, GUARD_BYTES);
    memset(data + bytes, GUARD, GUARD_BYTES);
    b.data = data;
    return b;
}

int is_intact(const block *guarded) {
    const uint8_t *const data = guarded->data;
    int intact = 1;
    for (size_t i = 1; i <= GUARD_BYTES; i++)
        intact &= data[-(ptrdiff_t)i] == GUARD && data[guarded->bytes + i - 1] == GUARD;
    return intact;
}

void free_block(block *b) {
    free(b->allocation);
    b->allocation = b->data = NULL;
}
