"""A running average of the weights during training (EMA), which usually classifies better than the last ones."""

from __future__ import annotations

import copy

import torch

from bfedge.model.vit import ViT


class AverageModel:
    """`model` holds the average; buffers do not change in training and are the same."""

    def __init__(self, model: ViT, decay: float) -> None:
        self.model = copy.deepcopy(model).requires_grad_(False).eval()
        self.decay = decay

    @torch.no_grad()
    def update(self, model: ViT, steps: int) -> None:
        """After `steps` steps. The decay begins low, so that the first random weights are soon forgotten."""
        weight = 1 - min(self.decay, (1 + steps) / (10 + steps))
        torch._foreach_lerp_(list(self.model.parameters()), list(model.parameters()), weight)
