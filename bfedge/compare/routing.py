"""Where a model's tokens go on images: how even the load of the experts is, and how alike neighbouring patches are
routed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bfedge.lowered.model import shape_of
from bfedge.measure.verify import batches_of
from bfedge.model.experts import Routing
from bfedge.model.losses import expert_share, spatial_smoothness

if TYPE_CHECKING:
    from bfedge.config import ViTConfig
    from bfedge.model.vit import ViT

Track = Callable[[Iterable[Any], str], Iterable[Any]]


@dataclass(frozen=True)
class LayerRouting:
    """Of one layer, over all images. Figures of pairs of patches are None where an image has one patch."""

    shares: tuple[float, ...]
    """Share of the (token, expert) pairs that each expert took (f of equation 8)"""
    smoothness: float | None
    """Squared difference of the gate logits of patches that follow each other in raster order, the mean (equation 9)"""
    any_difference: float | None
    """The same of any two patches of an image"""
    same_experts: float | None
    """Share of neighbours, side by side or one above the other, that go to the same experts"""
    any_same_experts: float | None
    """The same of any two patches of an image"""

    @property
    def relative_smoothness(self) -> float | None:
        """Of neighbours against any two patches: 1 if neighbours are no more alike, 0 if they are equal. Unlike the
        loss it does not fall when all logits shrink. None if all patches of an image have equal logits.
        """
        if self.smoothness is None or not self.any_difference:
            return None
        return self.smoothness / self.any_difference

    @property
    def load_balance(self) -> float:
        """N * sum f^2 (equation 8): 1 if all experts are used alike, N if all tokens go to one"""
        return len(self.shares) * sum(share * share for share in self.shares)


@torch.no_grad()
def measure_routing(model: ViT, images: NDArray[np.uint8], track: Track) -> list[LayerRouting]:
    """Of a model with experts, as deployed (`eval()`), on uint8 images [images, height, width, channels]."""
    model.eval()
    device = next(model.parameters()).device
    found: list[list[LayerRouting]] = []
    sizes: list[int] = []
    for batch in track(batches_of(images, shape_of(model.config)), "routing"):
        routings = model.forward_with_routing(torch.from_numpy(batch).to(device))[1]
        found.append([layer_routing(routing, model.config) for routing in routings])
        sizes.append(len(batch))
    weights = np.array(sizes) / sum(sizes)
    return [mean_routing(batches, weights) for batches in zip(*found, strict=True)]


def layer_routing(routing: Routing, config: ViTConfig) -> LayerRouting:
    """Of one batch."""
    class_token = config.pooling == "class"
    first = int(class_token)
    shares = tuple(expert_share(routing).double().tolist())
    logits, selected = routing.logits[:, first:].double(), routing.selected[:, first:]
    patches = logits.shape[1]
    if patches < 2:
        return LayerRouting(shares, None, None, None, None)
    variance = logits.var(1, unbiased=True).sum(-1).mean()  # half the mean squared difference of two different patches
    chosen = choices(selected)
    grid = chosen.view(len(chosen), config.image_height // config.patch_size, -1)
    beside, below = grid[:, :, 1:] == grid[:, :, :-1], grid[:, 1:] == grid[:, :-1]
    alike = torch.cat([beside.flatten(), below.flatten()]).double().mean()
    counts = [image.unique(return_counts=True)[1].double() for image in chosen]
    pairs = sum(float((count * (count - 1)).sum()) for count in counts)
    return LayerRouting(
        shares,
        float(spatial_smoothness(routing, class_token)),
        float(2 * variance),
        float(alike),
        pairs / (len(counts) * patches * (patches - 1)),
    )


def choices(selected: Tensor) -> Tensor:
    """[images, patches]: the same number for the same experts of [images, patches, top_k]."""
    numbers: Tensor = torch.unique(selected.flatten(0, 1), dim=0, return_inverse=True)[1]
    return numbers.view(selected.shape[:2])


def mean_routing(batches: tuple[LayerRouting, ...], weights: NDArray[np.float64]) -> LayerRouting:
    def mean(name: str) -> float | None:
        values = [getattr(batch, name) for batch in batches]
        return None if values[0] is None else float(np.dot(weights, values))

    return LayerRouting(
        tuple((weights @ np.array([batch.shares for batch in batches])).tolist()),
        *(mean(name) for name in ("smoothness", "any_difference", "same_experts", "any_same_experts")),
    )
