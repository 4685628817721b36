"""Golden vectors: inputs and the logits that NUMERICS.md defines for them, carried in the file to check a device."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bfedge.lowered import reference
from bfedge.lowered.model import LoweredViT


@dataclass(frozen=True)
class Golden:
    inputs: NDArray[np.uint8]
    """[cases, height, width, channels]"""
    outputs: NDArray[np.float32]
    """[cases, classes]"""


def golden_vectors(model: LoweredViT, images: NDArray[np.uint8]) -> Golden:
    """Runs the reference on the images [cases, height, width, channels]."""
    return Golden(np.ascontiguousarray(images), reference.run(model, images))
