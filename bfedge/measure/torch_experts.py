"""What only a checkpoint has of its experts: weights before they were made ternary, and standard experts."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bfedge.errors import BfedgeError
from bfedge.lowered.model import shape_of
from bfedge.lowered.rotation import output_order
from bfedge.measure.expert_statistics import Matrix, cosines, int8_error, outliers, output_similarity
from bfedge.measure.experts import ExpertAnalysis, LayerAnalysis, LayerSample, Track, check_images, observe
from bfedge.model.experts import ButterflyExperts, StandardExperts
from bfedge.model.vit import Block, ViT


def latent_substrates(model: ViT) -> tuple[NDArray[np.float32], ...]:
    """W_base of each layer before quantisation, columns in the lowered model's order, for `experts.analyse`."""
    found = []
    for block in blocks(model):
        layer = block.experts
        assert isinstance(layer, ButterflyExperts)
        order = output_order(layer.theta.width, layer.theta.angles.shape[1])
        found.append(np.ascontiguousarray(layer.substrate.weight.detach().numpy()[:, order]))
    return tuple(found)


def analyse_standard(
    model: ViT, images: NDArray[np.uint8], track: Track = lambda items, title: items
) -> ExpertAnalysis:
    """`experts.analyse` for a baseline with standard experts, in the same arithmetic (torch's `eval()`).

    Raises BfedgeError for a model without experts and for images that do not have its shape.
    """
    config = model.config
    if config.feed_forward != "standard":
        raise BfedgeError(f"a model with {config.feed_forward} feed-forward layers has no standard experts")
    check_images(images, (config.image_height, config.image_width, config.channels))
    model.eval()
    layers = blocks(model)

    def forward(batch: NDArray[np.uint8]) -> list[tuple[NDArray[np.float32], NDArray[np.int64]]]:
        inputs: list[Tensor] = []
        hooks = [b.experts.register_forward_pre_hook(lambda _, arguments: inputs.append(arguments[0])) for b in layers]
        try:
            _, routings = model.forward_with_routing(torch.from_numpy(batch))
        finally:
            for hook in hooks:
                hook.remove()
        return [(h.numpy(), routing.selected.numpy()) for h, routing in zip(inputs, routings, strict=True)]

    with torch.no_grad():
        samples = observe(forward, images, shape_of(config), track)
        pairs = list(zip(layers, samples, strict=True))
        found = tuple(analyse_layer(block.experts, sample) for block, sample in track(pairs, "experts"))
    return ExpertAnalysis(len(images), len(samples[0].h), found)


def analyse_layer(layer: nn.Module, sample: LayerSample) -> LayerAnalysis:
    assert isinstance(layer, StandardExperts)
    h = torch.from_numpy(sample.h)
    outputs = (
        layer.product(down, layer.gelu(layer.product(up, h))).numpy()
        for up, down in zip(layer.up, layer.down, strict=True)
    )
    return LayerAnalysis(
        shares=sample.shares,
        similarity=output_similarity(outputs),
        matrix_similarity=up_matrix_similarity(layer.up),
        before=outliers(sample.h),
        after=None,
        int8_error_before=int8_error(sample.h),
        int8_error_after=None,
        ternary_error=None,
    )


def up_matrix_similarity(up: Tensor) -> Matrix:
    flat = up.detach().flatten(1).double().numpy()
    return cosines(flat @ flat.T)


def blocks(model: ViT) -> list[Block]:
    return [block for block in model.blocks if isinstance(block, Block)]
