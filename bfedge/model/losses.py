"""The training objective (ButterflyViT equations 7 to 9)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, distributed

from bfedge.model.experts import Routing

BALANCE_WEIGHT = 0.05
SMOOTHNESS_WEIGHT = 0.005


@dataclass(frozen=True)
class Losses:
    total: Tensor
    cross_entropy: Tensor
    balance: Tensor
    smoothness: Tensor
    shares: Tensor
    """[layers, experts] of the routed pairs, those of all processes"""


def expert_shares(routings: list[Routing]) -> Tensor:
    """[layers, experts]: each expert's share of the routed pairs, over the batches of all processes together."""
    shares = torch.stack([expert_share(routing) for routing in routings])
    if distributed.is_available() and distributed.is_initialized():
        distributed.all_reduce(shares)
        shares /= distributed.get_world_size()
    return shares


def expert_share(routing: Routing) -> Tensor:
    """[experts], of the batch of this process."""
    counts = routing.logits.new_zeros(routing.logits.shape[-1], dtype=torch.float32)
    selected = routing.selected.flatten()
    return counts.index_add_(0, selected, torch.ones_like(selected, dtype=torch.float32)) / len(selected)


def wide(logits: Tensor) -> Tensor:
    """float32 for what autocast left in bf16."""
    return logits if logits.dtype == torch.float64 else logits.float()


def load_balance(routing: Routing, share: Tensor | None = None) -> Tensor:
    """N_E * sum f_i^2 over the experts' shares f_i of the routed pairs (equation 8): 1 when all are used alike, N_E
    when one is. `share` [experts] is f where it is known.

    Counts have no gradient; the mean gate probability stands in for it (straight-through), so the value is the paper's.
    With several processes, f is that of their batches together and the probability that of the own one. Averaging
    gradients, as DistributedDataParallel does, averages the probabilities' too, so the result is the gradient that one
    process has on the whole batch.
    """
    if share is None:
        share = expert_share(routing)
    probability = wide(routing.logits).softmax(-1).mean((0, 1))
    f = probability + (share - probability).detach()
    return routing.logits.shape[-1] * (f * f).sum()


def spatial_smoothness(routing: Routing, class_token: bool) -> Tensor:
    """Squared differences of the gate logits of neighbouring patches, averaged over images and neighbours
    (equation 9).
    """
    logits = wide(routing.logits)
    patches = logits[:, 1:] if class_token else logits
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
    """Cross entropy plus the weighted sums of both routing losses over the layers (equation 7).

    `target` holds classes [images] or probabilities [images, classes]. With several processes the mean of their
    losses is the loss of the whole batch.
    """
    logits = wide(logits)
    cross_entropy = F.cross_entropy(logits, target, label_smoothing=label_smoothing)
    zero = logits.new_zeros(())
    shares = expert_shares(routings) if routings else logits.new_zeros(0, 0)
    balance = sum(
        (load_balance(r, share) for r, share in zip(routings, shares, strict=True)),
        zero,
    )
    smoothness = sum((spatial_smoothness(r, class_token) for r in routings), zero)
    total = cross_entropy + balance_weight * balance + smoothness_weight * smoothness
    return Losses(total, cross_entropy, balance, smoothness, shares)
