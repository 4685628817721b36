"""AdamW with the recipe's schedule."""

from __future__ import annotations

import math
from typing import Any

from torch import nn


def schedule(step: int, steps: int, warmup_share: float) -> float:
    """Factor on the learning rate: linear warm-up, then cosine to zero."""
    warmup = warmup_share * steps
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(steps - warmup, 1)))


def parameter_groups(model: nn.Module, weight_decay: float, angle_rate: float) -> list[dict[str, Any]]:
    """Weight decay for matrices only: not for angles, positions, norms and biases. `rate` is a factor on the learning
    rate.
    """
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    angles: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        is_matrix = parameter.ndim >= 2 and not name.endswith("position")
        (angles if name.endswith("angles") else matrices if is_matrix else others).append(parameter)
    groups = [(matrices, weight_decay, 1.0), (others, 0.0, 1.0), (angles, 0.0, angle_rate)]
    return [{"params": params, "weight_decay": decay, "rate": rate} for params, decay, rate in groups if params]
