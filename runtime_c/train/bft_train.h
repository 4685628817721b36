/* Training on a CPU: the passes over activations that butterfly experts need, forward and backward, each in one go.
 *
 * For the Python package's shared library only (bfedge/model/native.py calls it); nothing of this goes to a device. The
 * arithmetic is that of training, not of NUMERICS.md: binary32 throughout, GELU to some 1e-7.
 *
 * All arrays are dense, rows one after the other, of the caller, and do not overlap. Rows [first, last) are worked on,
 * so that threads divide a call; an `angle_gradient` belongs to one thread. Nothing is allocated: `scratch` has
 * bft_scratch_floats(...) floats, one a thread.
 *
 * A rotation is Algorithm 1 of ButterflyViT: `layers` Givens layers on adjacent pairs of a vector padded with zeros
 * from `width` to `padded` (a power of two, at least 2), each followed by the perfect shuffle out[2j] = in[j],
 * out[2j+1] = in[j + padded/2]. `cosine`, `sine` and `angle_gradient` are [experts, layers, padded/2].
 */
#ifndef BFT_TRAIN_H
#define BFT_TRAIN_H

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32)
#define BFT_API __declspec(dllexport)
#else
#define BFT_API __attribute__((visibility("default")))
#endif

typedef struct {
    size_t width, padded, layers;
    const float *cosine, *sine;
} bft_rotation;

/* Floats of scratch memory for one thread. */
BFT_API size_t bft_scratch_floats(size_t padded, size_t layers);

/* x [rows, columns] rounded to int8 steps of each row's largest magnitude: out = round(x * 127 / m) * (m / 127), ties
 * to even, and scale [rows] = m / 127 unless NULL. out may be x. */
BFT_API void bft_fake_quantise(const float *x, float *out, float *scale, size_t columns, size_t first, size_t last);

/* out [tokens, top_k, width]: each token of h [tokens, width] turned by each of its experts [tokens, top_k], rounded
 * to int8 steps if `quantise`. Rows are tokens. */
BFT_API void bft_rotate_inputs(const bft_rotation *r, const float *h, const int64_t *expert, size_t top_k, int quantise,
                               float *out, float *scratch, size_t first, size_t last);

/* From the gradient of out: that of h is written, that of the angles is added to. The rounding passes gradients. */
BFT_API void bft_rotate_inputs_backward(const bft_rotation *r, const float *h, const int64_t *expert, size_t top_k,
                                        const float *out_gradient, float *h_gradient, float *angle_gradient,
                                        float *scratch, size_t first, size_t last);

/* out [tokens, width] = sum over ranks of weight [tokens, top_k] times GELU(y [tokens, top_k, width]) turned by the
 * rank's expert, rounded to int8 steps if `quantise`. Rows are tokens. */
BFT_API void bft_mix_outputs(const bft_rotation *r, const float *y, const int64_t *expert, const float *weight,
                             size_t top_k, int quantise, float *out, float *scratch, size_t first, size_t last);

/* From the gradient of out: those of y and weight are written, that of the angles is added to. */
BFT_API void bft_mix_outputs_backward(const bft_rotation *r, const float *y, const int64_t *expert, const float *weight,
                                      size_t top_k, const float *out_gradient, float *y_gradient,
                                      float *weight_gradient, float *angle_gradient, float *scratch, size_t first,
                                      size_t last);

#endif
