"""Accuracy on all test images: in float, and as deployed."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bfedge.measure.verify import TOP, is_among_top


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
