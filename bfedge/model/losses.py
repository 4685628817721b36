"""The training objective (ButterflyViT equations 7 to 9)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from bfedge.model.experts import Routing

BALANCE_WEIGHT = 0.05
SMOOTHNESS_WEIGHT = 0.005


@dataclass(frozen=True)
class Losses:
    total: Tensor
    cross_entropy: Tensor
    balance: Tensor
    smoothness: Tensor


def load_balance(routing: Routing) -> Tensor:
    """N_E * sum f_i^2 over the experts' shares f_i of the routed pairs (equation 8): 1 when all are used alike, N_E
    when one is.

    Counts have no gradient; the mean gate probability stands in for it (straight-through), so the value is the paper's.
    """
    experts = routing.logits.shape[-1]
    share = torch.bincount(routing.selected.flatten(), minlength=experts) / routing.selected.numel()
    probability = routing.logits.softmax(-1).mean((0, 1))
    f = probability + (share - probability).detach()
    return experts * (f * f).sum()


def spatial_smoothness(routing: Routing, class_token: bool) -> Tensor:
    """Squared differences of the gate logits of neighbouring patches, averaged over images and neighbours
    (equation 9).
    """
    patches = routing.logits[:, 1:] if class_token else routing.logits
    if patches.shape[1] < 2:
        return patches.new_zeros(())
    difference = patches[:, 1:] - patches[:, :-1]
    return (difference * difference).sum() / (difference.shape[0] * difference.shape[1])


def training_loss(
    logits: Tensor,
    target: Tensor,
    routings: list[Routing],
    class_token: bool,
    balance_weight: float = BALANCE_WEIGHT,
    smoothness_weight: float = SMOOTHNESS_WEIGHT,
    label_smoothing: float = 0.0,
) -> Losses:
    """Cross entropy plus the weighted sums of both routing losses over the layers (equation 7)."""
    cross_entropy = F.cross_entropy(logits, target, label_smoothing=label_smoothing)
    zero = logits.new_zeros(())
    balance = sum((load_balance(r) for r in routings), zero)
    smoothness = sum((spatial_smoothness(r, class_token) for r in routings), zero)
    total = cross_entropy + balance_weight * balance + smoothness_weight * smoothness
    return Losses(total, cross_entropy, balance, smoothness)
