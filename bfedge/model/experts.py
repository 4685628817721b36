"""Feed-forward layers behind one interface: butterfly experts, and the two baselines that the papers compare with.

Each maps h [images, tokens, d_model] to (out of the same shape, Routing or None).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bfedge.config import ViTConfig
from bfedge.lowered.arithmetic import LOG2E
from bfedge.model import exact
from bfedge.model.layers import Gelu, Quantised, QuantisedMatrix, quantise_activations, quantise_rows
from bfedge.model.rotation import Rotation


@dataclass(frozen=True)
class Routing:
    """Where the tokens of one layer went."""

    logits: Tensor
    """[images, tokens, experts], before the softmax"""
    selected: Tensor
    """[images, tokens, top_k] expert indices, ascending"""
    weights: Tensor
    """[images, tokens, top_k], summing to 1"""


class Router(Quantised):
    """Softmax over the top-k gate logits; the lower index wins a tie (NUMERICS.md, section 8)."""

    def __init__(self, d_model: int, experts: int, top_k: int) -> None:
        super().__init__()
        self.gate = QuantisedMatrix(d_model, experts)
        self.top_k = top_k

    def forward(self, h: Tensor) -> Routing:
        logits = self.gate(h)
        order = torch.argsort(logits.detach(), dim=-1, descending=True, stable=True)
        selected = order[..., : self.top_k].sort(-1).values
        chosen = logits.gather(-1, selected)
        if not self.exact:
            return Routing(logits, selected, torch.softmax(chosen, -1))
        e = exact.exp2fix((chosen - chosen.amax(-1, keepdim=True)) * float(LOG2E))
        return Routing(logits, selected, exact.divide(e, e.sum(-1, keepdim=True)))


class ButterflyExperts(Quantised):
    """Experts that are rotations of one shared ternary matrix (ButterflyViT equation 3, Algorithm 2 lines 5-15).

    All (token, expert) pairs go through one product with the shared substrate, and the shared down projection is
    applied once a token, after the weighted sum; Algorithm 2 written naively gives the same (tested).
    """

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        d_model, d_ff, experts = config.d_model, config.d_ff, config.experts
        self.router = Router(d_model, experts, config.top_k)
        self.theta = Rotation(d_model, experts, config.theta_layers, config.angles)
        self.substrate = QuantisedMatrix(d_model, d_ff, "ternary")
        self.gelu = Gelu()
        self.phi = Rotation(d_ff, experts, config.phi_layers, config.angles)
        self.down = QuantisedMatrix(d_ff, d_model, config.projection_weights)

    def forward(self, h: Tensor) -> tuple[Tensor, Routing]:
        routing = self.router(h)
        top_k = routing.selected.shape[-1]
        expert = routing.selected.flatten()
        pairs = h.unsqueeze(2).expand(-1, -1, top_k, -1).reshape(len(expert), -1)
        u = self.gelu(self.substrate(self.theta(pairs, expert)))
        u = self.phi(u, expert).view(*routing.selected.shape, -1)
        mixed = torch.zeros_like(u[:, :, 0])
        for rank in range(top_k):  # ascending expert index: the order that NUMERICS.md states
            mixed = mixed + routing.weights[..., rank, None] * u[:, :, rank]
        return self.down(mixed), routing


class StandardExperts(Quantised):
    """Baseline: independent experts, each with its own int8 up and down matrix (ButterflyViT equation 1)."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        d_model, d_ff, experts = config.d_model, config.d_ff, config.experts
        self.router = Router(d_model, experts, config.top_k)
        self.up = nn.Parameter(torch.empty(experts, d_ff, d_model))
        self.down = nn.Parameter(torch.empty(experts, d_model, d_ff))
        self.gelu = Gelu()
        bound = math.sqrt(6 / (d_model + d_ff))  # Xavier, as for every other matrix
        nn.init.uniform_(self.up, -bound, bound)
        nn.init.uniform_(self.down, -bound, bound)

    def forward(self, h: Tensor) -> tuple[Tensor, Routing]:
        routing = self.router(h)
        tokens = h.flatten(0, 1)
        out = torch.zeros_like(tokens)
        selected, weights = routing.selected.flatten(0, 1), routing.weights.flatten(0, 1)
        for expert in range(len(self.up)):
            token, rank = torch.where(selected == expert)
            if len(token):
                u = self.product(self.down[expert], self.gelu(self.product(self.up[expert], tokens[token])))
                out = out.index_add(0, token, weights[token, rank, None] * u)
        return out.view_as(h), routing

    def product(self, weight: Tensor, x: Tensor) -> Tensor:
        if not self.quantised:
            return F.linear(x, weight)
        values, scales = quantise_rows(weight)
        q, s = quantise_activations(x, through=self.training)
        return F.linear(q, values) * (s * scales[:, 0])


class DenseFeedForward(nn.Module):
    """Baseline: one int8 feed-forward layer that all tokens share."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.up = QuantisedMatrix(config.d_model, config.d_ff)
        self.gelu = Gelu()
        self.down = QuantisedMatrix(config.d_ff, config.d_model, config.projection_weights)

    def forward(self, h: Tensor) -> tuple[Tensor, None]:
        return self.down(self.gelu(self.up(h))), None


FEED_FORWARD: dict[str, type[ButterflyExperts] | type[StandardExperts] | type[DenseFeedForward]] = {
    "butterfly": ButterflyExperts,
    "standard": StandardExperts,
    "dense": DenseFeedForward,
}
