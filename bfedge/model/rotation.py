"""Butterfly rotations, Algorithm 1 of ButterflyViT, one for every expert."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bfedge.config import Angles, padded_width
from bfedge.model import exact
from bfedge.model.layers import Quantised

INITIAL_ANGLE_DEVIATION = 0.01  # ButterflyViT equation 10


class Rotation(Quantised):
    """Rotates vectors [pairs, width] by the angles of each pair's expert [pairs].

    Any width: padded with zeros to the next power of two, the padding stripped at the end. Every layer is a Givens
    rotation of the adjacent pairs followed by the perfect shuffle out[2j] = in[j], out[2j+1] = in[j + d'/2].
    """

    def __init__(self, width: int, experts: int, layers: int, stored: Angles = "float16") -> None:
        super().__init__()
        self.stored = stored
        self.width = width
        self.padded = padded_width(width)
        self.angles = nn.Parameter(torch.randn(experts, layers, self.padded // 2) * INITIAL_ANGLE_DEVIATION)

    def deployed_angles(self) -> Tensor:
        """The angles as deployed: within one turn, rounded to binary16 or to 256ths of a turn (straight-through), as
        float32.
        """
        angles, turn = self.angles.detach(), 2 * math.pi
        if self.stored == "int8":
            codes = torch.remainder(torch.round(angles * (256 / turn)) + 128, 256) - 128
            rounded = (codes * (turn / 256)).half().float()
        else:
            rounded = (angles - turn * torch.round(angles / turn)).half().float()
        return self.angles + (rounded - self.angles).detach() if self.training else rounded

    def tables(self) -> tuple[Tensor, Tensor, Tensor]:
        """Angles as the present arithmetic has them, and their sines and cosines (without gradient), each [experts,
        layers, padded / 2].
        """
        angles = self.deployed_angles() if self.quantised else self.angles
        sine, cosine = exact.sine_cosine(angles) if self.exact else (torch.sin(angles), torch.cos(angles))
        return angles, sine.detach(), cosine.detach()

    def forward(self, x: Tensor, expert: Tensor) -> Tensor:
        angles, sine, cosine = self.tables()
        half = self.padded // 2
        first, second = F.pad(x, (0, self.padded - self.width)).view(-1, half, 2).unbind(-1)
        for layer in range(angles.shape[1]):
            tables = angles[:, layer], sine[:, layer], cosine[:, layer]
            rotated = interleave(*GivensLayer.apply(first, second, expert, *tables))  # type: ignore[no-untyped-call]
            # The perfect shuffle puts rotated[j] and rotated[j + d'/2] side by side: the next layer's pair j.
            first, second = rotated.view(-1, 2, half).unbind(1)
        return interleave(first, second)[:, : self.width]


class GivensLayer(torch.autograd.Function):
    """Rotates the pairs (first, second) [pairs, d'/2] by the angles [experts, d'/2] of each pair's expert [pairs].

    The derivative by an angle needs only the outputs (d first = -second, d second = first), which saves half of what
    differentiating the products one by one would cost.
    """

    @staticmethod
    def forward(
        ctx: Any, first: Tensor, second: Tensor, expert: Tensor, angles: Tensor, sine: Tensor, cosine: Tensor
    ) -> tuple[Tensor, Tensor]:
        s, c = sine.index_select(0, expert), cosine.index_select(0, expert)
        first, second = c * first - s * second, s * first + c * second
        ctx.save_for_backward(first, second, expert, angles, s, c)
        return first, second

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        first, second, expert, angles, s, c = ctx.saved_tensors
        grad_first, grad_second = grads
        by_pair = grad_second * first - grad_first * second
        grad_angles = F.one_hot(expert, len(angles)).to(by_pair.dtype).T @ by_pair  # faster than scattering
        return c * grad_first + s * grad_second, c * grad_second - s * grad_first, None, grad_angles, None, None


def interleave(first: Tensor, second: Tensor) -> Tensor:
    """[pairs, d'] with first[j] at 2j and second[j] at 2j + 1."""
    return torch.stack((first, second), -1).flatten(1)
