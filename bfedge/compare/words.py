"""What the tables of `bfedge compare` show, in words."""

from __future__ import annotations

MODELS_TEXT = (
    "Expert memory as deployed is that of feed-forward matrices and angles, the butterfly model's shared down "
    "projection included: trits in 2 bits, angles in FP16, other matrices in int8 with a scale a row. As the paper "
    "counts (ButterflyViT, Table 2): float32 matrices, or 1.58 bits a trit and FP32 angles without the down "
    "projection. Training times are those of the training steps, on the machine that trained."
)

SIMILARITY_TEXT = (
    "Cosine of two different experts, the mean over pairs and layers. Of their outputs for the same token, down "
    "projection included, whether or not it was routed there; and of their up matrices, written out."
)

SUBSTRATE_TEXT = (
    "||Q(W) x - W x||² / ||W x||² over the tokens' experts: W is the weight that training keeps in float, Q(W) its "
    "trits. In the rotated basis W is the shared matrix and x the rotated activation, which is what the model does; "
    "static, W is the same expert's matrix written out, made ternary with a scale of its own."
)

OUTLIER_TEXT = (
    "Of h = LN(z), what the experts get, and of B(θ) h, what the shared matrix gets. Peak is the largest over the "
    "median magnitude of a vector; excess kurtosis is 0 for normally distributed values; both are means over tokens "
    "and layers."
)

SMOOTHNESS_TEXT = (
    "Squared difference of the gate logits of patches that follow each other in raster order (equation 9; the loss is "
    "this times its weight, summed over layers), the same over that of any two patches of an image, which does not "
    "fall when all logits shrink, and how often neighbours, side by side or one above the other, go to the same "
    "experts; means over layers."
)

LOAD_TEXT = (
    "N Σ f² (equation 8) is 1 if all experts take as many tokens and N if one takes all; means over layers. The "
    "smallest and the largest share are of any layer."
)

ACCURACY_TEXT = (
    "On all {images:,} test images. In float only the ternary substrate is quantised. As deployed: int8 matrices and "
    "activations, FP16 angles; the butterfly model in the C runtime, whose bits are every device's, the others in "
    "torch's `eval()`, which computes the same arithmetic. ± is the standard error that the choice of the test images "
    "makes; what another seed of training would change is not in it."
)

ROUNDING_TEXT = (
    "What rounding the feed-forward layers changes: ||out' - out||² / ||out||² of a layer's output against float "
    "arithmetic, with the same inputs and routing, the mean over layers; and the accuracy on all test images. As "
    "deployed is what training knew of. Static is after training and without more of it, everything else in float: 2 "
    "bits are four evenly spaced levels, symmetric about 0, and ternary has three, both with the scale of least "
    "squared error for every row; AbsMean is the paper's quantiser (equation 6), with a scale for every matrix. "
    "Chance is {chance:.2%}."
)

TIME_TEXT = (
    "{where}; batch {batch}; {clock}; medians of {rounds} interleaved rounds, in brackets the median of the ratios to "
    "the first column, round by round. A training step is forward, backward, gradient clipping and AdamW. Quantised "
    "rounds as training does, float rounds only the ternary substrate. An inference as deployed is the C runtime's "
    "(`bfedge bench`)."
)

PAPER_TEXT = "Of each architecture the first model. Means over layers, where a figure is a layer's."
