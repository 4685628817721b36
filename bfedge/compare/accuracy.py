"""Accuracy on all test images: in float, and as deployed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from bfedge.lowered.model import shape_of
from bfedge.measure.verify import TOP, batches_of, is_among_top

if TYPE_CHECKING:
    from bfedge.model.vit import ViT

Track = Callable[[Iterable[Any], str], Iterable[Any]]


@dataclass(frozen=True)
class Accuracy:
    images: int
    top1: float
    """Share of the images, 0..1"""
    top5: float | None
    """Share whose class has one of the five largest logits; None where there are no more classes than that"""

    @property
    def standard_error(self) -> float:
        """That the choice of the test images alone makes: of `images` independent draws."""
        return math.sqrt(self.top1 * (1 - self.top1) / self.images)


def accuracy_of(logits: NDArray[np.float32], targets: NDArray[np.int64]) -> Accuracy:
    top5 = float(is_among_top(logits, targets).mean()) if logits.shape[1] > TOP else None
    return Accuracy(len(targets), float((logits.argmax(1) == targets).mean()), top5)


@torch.no_grad()
def model_logits(model: ViT, images: NDArray[np.uint8], track: Track, title: str) -> NDArray[np.float32]:
    """[images, classes], on the model's device, in its present arithmetic (`eval()`)."""
    model.eval()
    device = next(model.parameters()).device
    batches = track(batches_of(images, shape_of(model.config)), title)
    found: NDArray[np.float32] = torch.cat([model(torch.from_numpy(b).to(device)).cpu() for b in batches]).numpy()
    return found
