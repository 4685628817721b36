"""What rounding the matrices of a trained feed-forward layer costs: as deployed, and static, which is after training
and without any more of it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bfedge.model.experts import ButterflyExperts, DenseFeedForward, Routing, StandardExperts
from bfedge.model.layers import float_arithmetic, ternary

if TYPE_CHECKING:
    from bfedge.model.vit import ViT

MOST_VALUES = 2**25
"""Hidden values of a layer that are computed at a time"""
MOST_IMAGES = 64
SCALES = 32
"""Scales a row that the search for the best one begins with"""
REFINEMENTS = 8
TRITS = (-1.0, 0.0, 1.0)
TWO_BITS = (-3.0, -1.0, 1.0, 3.0)

Round = Callable[[Tensor], Tensor]
"""Of matrices [..., rows, columns], as rounded and multiplied out again"""


@dataclass(frozen=True)
class Static:
    """A way to round after training."""

    name: str
    up: Round
    down: Round | None
    """None leaves it alone"""


def absmean(weight: Tensor) -> Tensor:
    """Each matrix [..., rows, columns] as ButterflyViT rounds its substrate: trits times mean|W| (equation 6)."""
    if weight.ndim > 2:
        return torch.stack([absmean(matrix) for matrix in weight])
    trits, gamma = ternary(weight)
    return trits * gamma


def least_squares(weight: Tensor, levels: tuple[float, ...]) -> Tensor:
    """Each row to the nearest of `levels` (ascending) times a scale of its own, the one that leaves the smallest
    squared error: the best that rounding a row can do without looking at data.
    """
    values = torch.tensor(levels, device=weight.device)
    borders = (values[1:] + values[:-1]) / 2

    def nearest(scale: Tensor) -> Tensor:
        return values[torch.bucketize(weight / scale, borders)]

    def error(scale: Tensor, steps: Tensor) -> Tensor:
        return ((weight - scale * steps) ** 2).sum(-1, keepdim=True)

    widest = (weight.abs().amax(-1, keepdim=True) / levels[-1]).clamp_min(2.0**-100)
    best, least = widest, error(widest, nearest(widest))
    for part in range(1, SCALES):
        scale = widest * (part / SCALES)
        found = error(scale, nearest(scale))
        best, least = torch.where(found < least, scale, best), torch.minimum(found, least)
    for _ in range(REFINEMENTS):  # the best scale for these steps, then the best steps for this scale
        steps = nearest(best)
        squares = (steps * steps).sum(-1, keepdim=True).clamp_min(1)
        best = ((weight * steps).sum(-1, keepdim=True) / squares).clamp_min(2.0**-100)
    return best * nearest(best)


STATIC = (
    Static("2 bits", *[lambda w: least_squares(w, TWO_BITS)] * 2),
    Static("ternary", *[lambda w: least_squares(w, TRITS)] * 2),
    Static("ternary, AbsMean", absmean, absmean),
    Static("ternary, AbsMean, up only", absmean, None),
)
"""2 bits are four evenly spaced levels, symmetric about 0. Where it does not say AbsMean, every row has the scale of
least squared error."""


@torch.no_grad()
def rounded_model(model: ViT, static: Static) -> ViT:
    """A copy of a model with standard or dense feed-forward layers, whose up and down matrices are rounded."""
    result = copy.deepcopy(model)
    for layer in feed_forward_layers(result):
        up, down = matrices(layer)
        up.copy_(static.up(up))
        if static.down and not has_ternary_down(layer):
            down.copy_(static.down(down))
    return result


def matrices(layer: nn.Module) -> tuple[Tensor, Tensor]:
    """Up and down of a standard or dense layer, [experts, rows, columns] or [rows, columns]."""
    if isinstance(layer, StandardExperts):
        return layer.up, layer.down
    assert isinstance(layer, DenseFeedForward)
    return layer.up.weight, layer.down.weight


def has_ternary_down(layer: nn.Module) -> bool:
    """Whether the down projection was ternary in training (`projection_weights`), and so is not to be rounded again."""
    return isinstance(layer, DenseFeedForward) and layer.down.kind == "ternary"


def feed_forward_layers(model: ViT) -> list[nn.Module]:
    return [block.get_submodule("experts") for block in model.blocks]


@dataclass(frozen=True)
class LayerCall:
    """What a layer got and gave in float arithmetic."""

    h: Tensor
    out: Tensor
    routing: Routing | None


@torch.no_grad()
def float_calls(model: ViT, images: NDArray[np.uint8]) -> list[LayerCall]:
    """Of every feed-forward layer, for as many of the images as it can take at once."""
    config = model.config
    hidden = config.tokens * config.d_ff * (1 if config.feed_forward == "dense" else config.top_k)
    some = images[: max(1, min(MOST_IMAGES, MOST_VALUES // hidden))]
    calls: list[LayerCall] = []
    hooks = [
        layer.register_forward_hook(lambda _, inputs, outputs: calls.append(LayerCall(inputs[0], *outputs)))
        for layer in feed_forward_layers(model)
    ]
    model.eval()
    try:
        with float_arithmetic(model):
            model(torch.from_numpy(some).to(next(model.parameters()).device))
    finally:
        for hook in hooks:
            hook.remove()
    return calls


def layer_errors(model: ViT, calls: list[LayerCall]) -> list[float]:
    """||out' - out||^2 / ||out||^2 of each feed-forward layer of `model`, in its present arithmetic, with the inputs
    and the routing of `calls`. Nothing adds up from layer to layer.
    """
    return [layer_error(layer, call) for layer, call in zip(feed_forward_layers(model), calls, strict=True)]


@torch.no_grad()
def layer_error(layer: nn.Module, call: LayerCall) -> float:
    with routed_as(layer, call.routing):
        out: Tensor = layer(call.h)[0]
    length = float((call.out.double() ** 2).sum())
    return float(((out.double() - call.out) ** 2).sum()) / length if length else 0.0


@contextmanager
def routed_as(layer: nn.Module, routing: Routing | None) -> Iterator[None]:
    """The layer's tokens go where `routing` says, whatever its router finds."""
    if routing is None:
        yield
        return
    assert isinstance(layer, (ButterflyExperts, StandardExperts))
    hook = layer.router.register_forward_hook(lambda *_: routing)
    try:
        yield
    finally:
        hook.remove()
