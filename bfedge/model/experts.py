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
from bfedge.model import exact, native
from bfedge.model.layers import Gelu, Quantised, QuantisedMatrix, fake_quantise
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
        if native.is_native(h) and not self.exact:
            return self.down.product(self.mixed_natively(h.flatten(0, 1), routing)).view_as(h), routing
        top_k = routing.selected.shape[-1]
        expert = routing.selected.flatten()
        pairs = h.unsqueeze(2).expand(-1, -1, top_k, -1).reshape(len(expert), h.shape[-1])
        u = self.gelu(self.substrate(self.theta(pairs, expert)))
        u = self.phi(u, expert).view(*routing.selected.shape, -1)
        mixed = torch.zeros_like(u[:, :, 0])
        for rank in range(top_k):  # ascending expert index: the order that NUMERICS.md states
            mixed = mixed + routing.weights[..., rank, None] * u[:, :, rank]
        return self.down(mixed), routing

    def mixed_natively(self, tokens: Tensor, routing: Routing) -> Tensor:
        """What goes into the down projection [tokens, d_ff], rounded: as `forward` has it, in two native passes."""
        expert, weights = routing.selected.flatten(0, 1), routing.weights.flatten(0, 1)
        pairs = native.RotateInputs.apply(tokens, expert, *self.theta.tables(), self.quantised)  # type: ignore[no-untyped-call]
        y = self.substrate.product(pairs)
        mixed: Tensor = native.MixOutputs.apply(y, expert, weights, *self.phi.tables(), self.quantised)  # type: ignore[no-untyped-call]
        return mixed


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
        """The pairs of each expert lie side by side for its two products; a token's results are added at the end."""
        routing = self.router(h)
        top_k = routing.selected.shape[-1]
        expert = routing.selected.flatten()
        order = torch.argsort(expert, stable=True)
        counts = torch.bincount(expert, minlength=len(self.up)).tolist()
        pairs = torch.split(self.rounded(h.flatten(0, 1))[order // top_k], counts)
        matrices = zip(self.rounded(self.up).unbind(), self.rounded(self.down).unbind(), strict=True)
        results = [
            F.linear(self.rounded(self.gelu(F.linear(x, up))), down)
            for x, (up, down) in zip(pairs, matrices, strict=True)
            if len(x)
        ]
        place = torch.empty_like(order)
        place[order] = torch.arange(len(order), device=order.device)
        by_rank = torch.cat(results)[place].view(*routing.selected.shape, -1)
        return (routing.weights[..., None] * by_rank).sum(2), routing

    def rounded(self, x: Tensor) -> Tensor:
        return fake_quantise(x)[0] if self.quantised else x

    def product(self, weight: Tensor, x: Tensor) -> Tensor:
        return F.linear(self.rounded(x), self.rounded(weight))


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
