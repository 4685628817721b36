#include "bfe_internal.h"
#include "bfe_kernels.h"
#include "test.h"

#include <math.h>

enum { MOST = 70 };

/* NUMERICS.md, section 8: expert e is selected if fewer than top_k others beat it. */
static int is_selected(const float *logits, uint32_t experts, uint32_t top_k, uint32_t e) {
    uint32_t beaten_by = 0;
    for (uint32_t other = 0; other < experts; other++)
        beaten_by += logits[other] > logits[e] || (logits[other] == logits[e] && other < e);
    return beaten_by < top_k;
}

static void compare(const float *logits, uint32_t experts, uint32_t top_k) {
    uint16_t selected[16];
    float gate[16], highest = logits[0];
    bfe_route(logits, experts, top_k, selected, gate);
    for (uint32_t e = 0; e < experts; e++)
        highest = fmaxf(highest, logits[e]);

    int32_t weight[16], total = 0;
    uint32_t rank = 0;
    for (uint32_t e = 0; e < experts; e++) {
        if (!is_selected(logits, experts, top_k, e))
            continue;
        CHECK(rank < top_k && selected[rank] == e);
        weight[rank] = bfe_exp2fix_f32((logits[e] - highest) * 0x1.715476p+0f);
        total += weight[rank++];
    }
    CHECK(rank == top_k);
    for (uint32_t i = 0; i < top_k; i++)
        CHECK(gate[i] == (float)weight[i] / (float)total);
}

int main(void) {
    float logits[MOST];
    for (int repeat = 0; repeat < 20000; repeat++) {
        const uint32_t experts = 1 + test_random_below(MOST);
        const uint32_t top_k = 1 + test_random_below(experts < 16 ? experts : 16);
        const uint32_t values = 1 + test_random_below(12); /* few, so that ties abound */
        for (uint32_t e = 0; e < experts; e++)
            logits[e] = (float)test_random_below(values) * 0.37f - 1.0f;
        compare(logits, experts, top_k);
    }

    uint16_t selected[3]; /* NaN cannot come up, but indices must stay valid and different */
    float gate[3];
    for (uint32_t e = 0; e < 5; e++)
        logits[e] = e % 2 == 0 ? NAN : (float)e;
    bfe_route(logits, 5, 3, selected, gate);
    CHECK(selected[0] < selected[1] && selected[1] < selected[2] && selected[2] < 5);
    return test_result();
}
