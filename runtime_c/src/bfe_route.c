/* Routing (NUMERICS.md, section 8). */
#include "bfe_float.h"
#include "bfe_internal.h"
#include "bfe_kernels.h"

/* Puts expert `e` among the `count` selected so far, by descending logit. A later one passes an earlier one only if its
 * logit is higher, so ties go to the lower index. */
static void insert(const float *logits, uint32_t e, uint32_t count, uint16_t *selected) {
    uint32_t at = count;
    for (; at > 0 && logits[e] > logits[selected[at - 1]]; at--)
        selected[at] = selected[at - 1];
    selected[at] = (uint16_t)e;
}

/* Whatever the logits are, the selected are top_k different experts. */
static void select_highest(const float *logits, uint32_t experts, uint32_t top_k, uint16_t *selected) {
    for (uint32_t e = 0; e < top_k; e++)
        insert(logits, e, e, selected);
    float lowest = logits[selected[top_k - 1]];
    for (uint32_t e = top_k; e < experts; e++) {
        if (logits[e] > lowest) {                   /* of many experts, few get here */
            insert(logits, e, top_k - 1, selected); /* in place of the last */
            lowest = logits[selected[top_k - 1]];
        }
    }
}

static void sort_ascending(uint16_t *selected, uint32_t count) {
    for (uint32_t i = 1; i < count; i++) {
        const uint16_t moved = selected[i];
        uint32_t at = i;
        for (; at > 0 && selected[at - 1] > moved; at--)
            selected[at] = selected[at - 1];
        selected[at] = moved;
    }
}

void bfe_route(const float *logits, uint32_t experts, uint32_t top_k, uint16_t *selected, float *gate) {
    const float log2_e = 0x1.715476p+0f;
    select_highest(logits, experts, top_k, selected);
    const float highest = logits[selected[0]];
    sort_ascending(selected, top_k);

    int32_t total = 0;
    for (uint32_t i = 0; i < top_k; i++) {
        const int32_t e = bfe_exp2fix_f32((logits[selected[i]] - highest) * log2_e);
        total += e;
        gate[i] = (float)e; /* at most 2^15, so exact */
    }
    for (uint32_t i = 0; i < top_k; i++)
        gate[i] = gate[i] / (float)total;
}
