"""What a model's experts take, of every architecture, as deployed and as the paper counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from bfedge.compare.rounding import feed_forward_layers, has_ternary_down, matrices
from bfedge.measure.expert_memory import FP32_ANGLE, expert_memory
from bfedge.measure.plan import file_parts
from bfedge.packed.outline import Outline

if TYPE_CHECKING:
    from bfedge.model.vit import ViT

DOWN_PROJECTION = "down projection"


@dataclass(frozen=True)
class Sizes:
    """In bytes."""

    parameters: int
    file: int | None
    """The packed file; None for a baseline, which cannot be packed"""
    experts: int
    """Feed-forward matrices and angles as deployed, without the router: trits in 2 bits, FP16 angles, int8 with a
    float32 scale a row"""
    experts_as_counted: float
    """As ButterflyViT's Table 2 counts: float32 matrices; trits of 1.58 bits and FP32 angles, without the down
    projection"""


def sizes_of(model: ViT, outline: Outline | None) -> Sizes:
    parameters = sum(parameter.numel() for parameter in model.parameters())
    if outline:
        parts, memory = file_parts(outline), expert_memory(outline)
        deployed = memory.stored_bytes + parts[DOWN_PROJECTION]
        return Sizes(parameters, outline.file_bytes, deployed, memory.counted(FP32_ANGLE))
    deployed = counted = 0
    for layer in feed_forward_layers(model):
        up, down = matrices(layer)
        deployed += int8_bytes(up) + (ternary_bytes(down) if has_ternary_down(layer) else int8_bytes(down))
        counted += 4 * (up.numel() + down.numel())
    return Sizes(parameters, None, deployed, counted)


def int8_bytes(matrix: Tensor) -> int:
    """With a float32 scale a row."""
    return matrix.numel() + 4 * (matrix.numel() // matrix.shape[-1])


def ternary_bytes(matrix: Tensor) -> int:
    """2 bits each, whole bytes a row, and a float32 scale."""
    return matrix.shape[0] * -(-matrix.shape[1] // 4) + 4
