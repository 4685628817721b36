"""The training objective: load balance, spatial smoothness and their weights (ButterflyViT equations 7 to 9)."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from bfedge.model.experts import Routing
from bfedge.model.losses import load_balance, spatial_smoothness, training_loss


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def routing_of(logits: Tensor, top_k: int) -> Routing:
    selected = torch.argsort(logits.detach(), dim=-1, descending=True, stable=True)[..., :top_k].sort(-1).values
    return Routing(logits, selected, logits.gather(-1, selected).softmax(-1))


def test_load_balance_of_even_and_of_collapsed_routing() -> None:
    even = torch.eye(4).repeat(2, 3, 1)  # 2 images, 12 tokens, each expert 6 times
    assert float(load_balance(routing_of(even, 1))) == pytest.approx(1)
    collapsed = torch.zeros(2, 12, 4)
    collapsed[..., 2] = 9
    assert float(load_balance(routing_of(collapsed, 1))) == pytest.approx(4)
    half = torch.zeros(2, 12, 4)
    half[..., :2] = 9  # top-2, always the same two: 4 * (1/4 + 1/4)
    assert float(load_balance(routing_of(half, 2))) == pytest.approx(2)


def test_load_balance_pushes_the_crowded_expert_down() -> None:
    logits = torch.zeros(2, 6, 3)
    logits[..., 1] = 1
    logits.requires_grad_()
    load_balance(routing_of(logits, 1)).backward()
    assert logits.grad is not None
    assert bool((logits.grad[..., 1] > 0).all())
    assert bool((logits.grad[..., 0] < 0).all())


def test_spatial_smoothness_is_equation_9() -> None:
    g = torch.randn(3, 5, 4, dtype=torch.float64)
    by_hand = 0.0
    for image in range(3):
        for t in range(1, 5):
            by_hand += sum(float(g[image, t, e] - g[image, t - 1, e]) ** 2 for e in range(4))
    by_hand /= 3 * (5 - 1)
    assert float(spatial_smoothness(routing_of(g, 1), class_token=False)) == pytest.approx(by_hand)
    with_class_token = torch.cat([torch.full((3, 1, 4), 1e3, dtype=torch.float64), g], 1)
    assert float(spatial_smoothness(routing_of(with_class_token, 1), class_token=True)) == pytest.approx(by_hand)


def test_spatial_smoothness_of_one_patch_and_of_equal_patches() -> None:
    assert float(spatial_smoothness(routing_of(torch.randn(2, 1, 4), 1), class_token=False)) == 0
    assert float(spatial_smoothness(routing_of(torch.randn(2, 2, 4), 1), class_token=True)) == 0
    assert float(spatial_smoothness(routing_of(torch.randn(2, 1, 4).expand(2, 6, 4), 1), class_token=False)) == 0


def test_the_total_has_the_papers_weights() -> None:
    logits, target = torch.randn(3, 5), torch.tensor([0, 4, 2])
    routings = [routing_of(torch.randn(3, 6, 4), 2) for _ in range(3)]
    losses = training_loss(logits, target, routings, class_token=False)
    cross_entropy = -logits.log_softmax(1)[range(3), target].mean()
    balance = sum(float(load_balance(r)) for r in routings)
    smoothness = sum(float(spatial_smoothness(r, False)) for r in routings)
    assert float(losses.cross_entropy) == pytest.approx(float(cross_entropy))
    assert float(losses.balance) == pytest.approx(balance)
    assert float(losses.smoothness) == pytest.approx(smoothness)
    assert float(losses.total) == pytest.approx(float(cross_entropy) + 0.05 * balance + 0.005 * smoothness)
