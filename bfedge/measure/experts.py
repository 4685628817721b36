"""How the experts of a trained model differ, where tokens go, and what the rotations do to what is quantised.

Everything is computed from the lowered model in the arithmetic of NUMERICS.md, so it holds for what a device runs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bfedge.errors import BfedgeError
from bfedge.lowered import reference
from bfedge.lowered.arithmetic import Float, layer_norm, rotate
from bfedge.lowered.model import ButterflyExperts, LoweredViT, Shape
from bfedge.measure.expert_statistics import (
    MOST_VALUES,
    Matrix,
    Outliers,
    TernaryError,
    int8_error,
    off_diagonal_mean,
    outliers,
    output_similarity,
    ternary_error,
    up_matrix_similarity,
)

BATCH_TOKENS = 1024
MOST_TOKENS = 1024
FEWEST_TOKENS = 16

Track = Callable[[Iterable[Any], str], Iterable[Any]]
"""Wraps a loop in a progress bar with a title"""


@dataclass(frozen=True)
class LayerAnalysis:
    """The experts of one layer."""

    shares: NDArray[np.float64]
    """[experts]: share of all images' (token, expert) pairs that went to each (f of equation 8); adds up to 1"""
    similarity: Matrix
    """[experts, experts]: cosine of two experts' outputs for the same token, the mean over the sampled tokens, whether
    or not they were routed there (Figure 5). Outputs include the down projection; a zero output has cosine 0.
    """
    matrix_similarity: Matrix
    """[experts, experts]: cosine of the experts' up matrices, W_base B(theta_i) written out"""
    before: Outliers
    """Of h = LN(z), what the experts get"""
    after: Outliers | None
    """Of B(theta_i) h, what the shared substrate gets, for the experts that each token was routed to; None for standard
    experts"""
    int8_error_before: float
    """||q - h||^2 / ||h||^2 of h rounded to int8 with a scale a token"""
    int8_error_after: float | None
    """The same of B(theta_i) h, which is what the device rounds"""
    ternary_error: TernaryError | None
    """Needs the weights before they were made ternary, which only a checkpoint has"""

    @property
    def mean_similarity(self) -> float | None:
        """Off the diagonal, as the paper quotes it (section 4.3); None for a single expert"""
        return off_diagonal_mean(self.similarity)

    @property
    def mean_matrix_similarity(self) -> float | None:
        return off_diagonal_mean(self.matrix_similarity)

    @property
    def entropy(self) -> float:
        """Of the shares, in bits; log2(experts) if all are used alike"""
        used = self.shares[self.shares > 0]
        return max(0.0, float(-(used * np.log2(used)).sum()))

    @property
    def load_balance(self) -> float:
        """N * sum f^2 (equation 8): 1 if all experts are used alike, N if all tokens go to one"""
        return float(len(self.shares) * (self.shares**2).sum())


@dataclass(frozen=True)
class ExpertAnalysis:
    images: int
    tokens: int
    """Tokens a layer in the sample that everything but the shares is computed from; drawn with a fixed seed"""
    layers: tuple[LayerAnalysis, ...]

    def mean(self, value: Callable[[LayerAnalysis], float | None]) -> float | None:
        """Over the layers that have the value; None if none has."""
        values = [v for layer in self.layers if (v := value(layer)) is not None]
        return float(np.mean(values)) if values else None


@dataclass(frozen=True)
class ImageRouting:
    """Where the tokens of one image go."""

    selected: NDArray[np.int64]
    """[layers, tokens, top_k] experts, ascending"""
    weights: NDArray[np.float32]
    """[layers, tokens, top_k], adding up to 1 for each token"""
    rows: int
    columns: int
    """Of the grid of patches: the last rows * columns tokens, row by row"""
    class_token: bool
    """Whether token 0 is the class token rather than a patch"""

    def of_patches(self, layer: int) -> NDArray[np.int64]:
        """[rows, columns, top_k]: the experts of each patch."""
        return self.selected[layer, int(self.class_token) :].reshape(self.rows, self.columns, -1)


@dataclass(frozen=True)
class LayerSample:
    """What was seen of a layer."""

    h: Float
    """[tokens, d_model]: LN(z) of the sampled tokens"""
    selected: NDArray[np.int64]
    """[tokens, top_k]: their experts"""
    shares: NDArray[np.float64]
    """[experts], over all tokens"""


def analyse(
    model: LoweredViT,
    images: NDArray[np.uint8],
    latent: tuple[NDArray[np.float32], ...] | None = None,
    track: Track = lambda items, title: items,
) -> ExpertAnalysis:
    """Analyses the experts of a model with uint8 images [images, height, width, channels].

    Args:
        latent: of a checkpoint, from `latent_substrates`; without them there is no ternary error.

    Raises BfedgeError for no images or images that do not have the model's shape.
    """
    shape = model.shape
    check_images(images, shape.image_shape)

    def forward(batch: NDArray[np.uint8]) -> list[tuple[Float, NDArray[np.int64]]]:
        inputs = layer_inputs(model, batch)
        return [
            (h, reference.route(block.experts, h, shape.top_k)[0])
            for h, block in zip(inputs, model.blocks, strict=True)
        ]

    samples = observe(forward, images, shape, track)
    weights = latent or (None,) * shape.layers
    layers = []
    for index in track(range(shape.layers), "experts"):
        layers.append(analyse_layer(model, index, samples[index], weights[index]))
    return ExpertAnalysis(len(images), len(samples[0].h), tuple(layers))


def route_image(model: LoweredViT, image: NDArray[np.uint8]) -> ImageRouting:
    """Experts and weights of one image [height, width, channels], in every layer. Raises BfedgeError if it does not
    have the model's shape.
    """
    shape = model.shape
    check_images(image[None], shape.image_shape)
    inputs = layer_inputs(model, image[None])
    routes = [reference.route(b.experts, h[0], shape.top_k) for h, b in zip(inputs, model.blocks, strict=True)]
    return ImageRouting(
        selected=np.stack([selected for selected, _ in routes]),
        weights=np.stack([weights for _, weights in routes]),
        rows=shape.image_height // shape.patch_size,
        columns=shape.image_width // shape.patch_size,
        class_token=shape.pooling == "class",
    )


def check_images(images: NDArray[np.uint8], image_shape: tuple[int, ...]) -> None:
    if images.dtype != np.uint8 or images.shape[1:] != image_shape:
        raise BfedgeError(f"images are {images.dtype} {images.shape[1:]}, the model takes uint8 {image_shape}")
    if not len(images):
        raise BfedgeError("there are no images to analyse the experts with")


def layer_inputs(model: LoweredViT, images: NDArray[np.uint8]) -> list[Float]:
    """What the experts of each layer get: LN(z) [images, tokens, d_model] after attention."""
    inputs: list[Float] = []

    def keep(stage: str, index: int | None, z: Float) -> None:
        if stage == "attention" and index is not None:
            inputs.append(layer_norm(z, model.blocks[index].norm2))

    reference.run(model, images, keep)
    return inputs


def observe(
    forward: Callable[[NDArray[np.uint8]], list[tuple[Float, NDArray[np.int64]]]],
    images: NDArray[np.uint8],
    shape: Shape,
    track: Track,
) -> list[LayerSample]:
    """Runs the images; `forward` gives each layer's input [images, tokens, d_model] and experts [images, tokens, top_k]
    of a batch. The sample is smaller for many experts, because all of them are applied to all of it.
    """
    tokens, experts = shape.tokens, shape.experts
    affordable = MOST_VALUES // (experts * (shape.d_model + shape.d_ff))
    size = min(len(images) * tokens, max(FEWEST_TOKENS, min(MOST_TOKENS, affordable)))
    chosen = np.sort(np.random.default_rng(0).choice(len(images) * tokens, size, replace=False))
    kept: list[list[tuple[Float, NDArray[np.int64]]]] = [[] for _ in range(shape.layers)]
    counts = np.zeros((shape.layers, experts))
    step = max(1, BATCH_TOKENS // tokens)
    for start in track(range(0, len(images), step), "images"):
        batch = images[start : start + step]
        here = chosen[(chosen >= start * tokens) & (chosen < (start + len(batch)) * tokens)] - start * tokens
        for layer, (h, selected) in enumerate(forward(batch)):
            counts[layer] += np.bincount(selected.reshape(-1), minlength=experts)
            pairs = selected.reshape(-1, selected.shape[-1])
            kept[layer].append((h.reshape(-1, h.shape[-1])[here], pairs[here]))
    return [
        LayerSample(np.concatenate([h for h, _ in parts]), np.concatenate([s for _, s in parts]), count / count.sum())
        for parts, count in zip(kept, counts, strict=True)
    ]


def analyse_layer(
    model: LoweredViT, index: int, sample: LayerSample, latent: NDArray[np.float32] | None
) -> LayerAnalysis:
    layer = model.blocks[index].experts
    pairs = np.repeat(sample.h, model.shape.top_k, axis=0)
    expert = sample.selected.reshape(-1)
    rotated = rotate(layer.theta, expert, pairs)
    outputs = (expert_output(model, layer, e, sample.h) for e in range(model.shape.experts))
    return LayerAnalysis(
        shares=sample.shares,
        similarity=output_similarity(outputs),
        matrix_similarity=up_matrix_similarity(layer),
        before=outliers(sample.h),
        after=outliers(rotated),
        int8_error_before=int8_error(sample.h),
        int8_error_after=int8_error(rotated),
        ternary_error=None if latent is None else ternary_error(layer, latent, pairs, rotated, expert),
    )


def expert_output(model: LoweredViT, layer: ButterflyExperts, expert: int, h: Float) -> Float:
    """W_down u of one expert for every token [tokens, d_model]: the layer with this expert alone, whose weight is 1."""
    only = slice(expert, expert + 1)
    alone = dataclasses.replace(
        layer,
        router=dataclasses.replace(layer.router, values=layer.router.values[only], scales=layer.router.scales[only]),
        theta=dataclasses.replace(layer.theta, stored=layer.theta.stored[only]),
        phi=dataclasses.replace(layer.phi, stored=layer.phi.stored[only]),
    )
    output: Float = reference.experts(dataclasses.replace(model.shape, experts=1, top_k=1), alone, h[None])[0]
    return output
