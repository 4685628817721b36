#include "bfe_store_neon.h"

#ifdef BFE_HAS_NEON_KERNELS

#include "../bfe_float.h"

#include <arm_neon.h>

enum { INT8_ROWS = 16, TRIT_ROWS = 32 };

static size_t rows_from(const bfe_matrix *matrix, size_t first, size_t most) {
    return matrix->rows - first < most ? matrix->rows - first : most;
}

void bfe_store_int8_neon(const bfe_matrix *matrix, size_t first, const int32_t *sum, const float *s, size_t count,
                         void *y, size_t y_stride) {
    const size_t rows = rows_from(matrix, first, INT8_ROWS);
    if (matrix->scale == NULL) {
        for (size_t c = 0; c < count; c++)
            memcpy((int32_t *)y + c * y_stride + first, sum + c * INT8_ROWS, rows * sizeof *sum);
        return;
    }
    const float *const scale = matrix->scale + first;
    for (size_t c = 0; c < count; c++, sum += INT8_ROWS) {
        float *const to = (float *)y + c * y_stride + first;
        if (rows == INT8_ROWS) {
            const float32x4x4_t w = vld1q_f32_x4(scale);
            const int32x4x4_t v = vld1q_s32_x4(sum);
            vst1q_f32(to, vmulq_f32(vcvtq_f32_s32(v.val[0]), vmulq_n_f32(w.val[0], s[c])));
            vst1q_f32(to + 4, vmulq_f32(vcvtq_f32_s32(v.val[1]), vmulq_n_f32(w.val[1], s[c])));
            vst1q_f32(to + 8, vmulq_f32(vcvtq_f32_s32(v.val[2]), vmulq_n_f32(w.val[2], s[c])));
            vst1q_f32(to + 12, vmulq_f32(vcvtq_f32_s32(v.val[3]), vmulq_n_f32(w.val[3], s[c])));
        } else {
            for (size_t r = 0; r < rows; r++)
                to[r] = (float)sum[r] * (s[c] * scale[r]);
        }
    }
}

static inline void store_16(float *to, const int32_t *sum, float factor) {
    const int32x4x4_t v = vld1q_s32_x4(sum);
    vst1q_f32(to, vmulq_n_f32(vcvtq_f32_s32(v.val[0]), factor));
    vst1q_f32(to + 4, vmulq_n_f32(vcvtq_f32_s32(v.val[1]), factor));
    vst1q_f32(to + 8, vmulq_n_f32(vcvtq_f32_s32(v.val[2]), factor));
    vst1q_f32(to + 12, vmulq_n_f32(vcvtq_f32_s32(v.val[3]), factor));
}

void bfe_store_trits_neon(const bfe_matrix *matrix, size_t first, const int32_t *sum, const float *s, size_t count,
                          void *y, size_t y_stride) {
    const size_t rows = rows_from(matrix, first, TRIT_ROWS);
    for (size_t c = 0; c < count; c++, sum += TRIT_ROWS) {
        const float factor = s[c] * matrix->scale[0];
        float *const to = (float *)y + c * y_stride + first;
        if (rows == TRIT_ROWS) {
            store_16(to, sum, factor);
            store_16(to + 16, sum + 16, factor);
        } else {
            for (size_t r = 0; r < rows; r++)
                to[r] = (float)sum[r] * factor;
        }
    }
}

void bfe_store_part_neon(const bfe_matrix *matrix, size_t first, const int32_t *sum, size_t count, void *y,
                         size_t y_stride) {
    const size_t rows = rows_from(matrix, first, TRIT_ROWS);
    for (size_t c = 0; c < count; c++)
        memcpy((int32_t *)y + c * y_stride + first, sum + c * TRIT_ROWS, rows * sizeof *sum);
}

void bfe_add_parts_neon(const bfe_matrix *matrix, size_t first, int32_t *sum, size_t count, const void *y,
                        size_t y_stride) {
    const size_t rows = rows_from(matrix, first, TRIT_ROWS);
    for (size_t c = 0; c < count; c++)
        for (size_t r = 0; r < rows; r++)
            sum[c * TRIT_ROWS + r] += ((const int32_t *)y)[c * y_stride + first + r];
}

#endif
