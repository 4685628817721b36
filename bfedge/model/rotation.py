"""Butterfly rotations, Algorithm 1 of ButterflyViT, one for every expert."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bfedge.config import padded_width
from bfedge.model import exact
from bfedge.model.layers import Quantised

INITIAL_ANGLE_DEVIATION = 0.01  # ButterflyViT equation 10


class Rotation(Quantised):
    """Rotates vectors [pairs, width] by the angles of each pair's expert [pairs].

    Any width: padded with zeros to the next power of two, the padding stripped at the end. Every layer is a Givens
    rotation of the adjacent pairs followed by the perfect shuffle out[2j] = in[j], out[2j+1] = in[j + d'/2].
    """

    def __init__(self, width: int, experts: int, layers: int) -> None:
        super().__init__()
        self.width = width
        self.padded = padded_width(width)
        self.angles = nn.Parameter(torch.randn(experts, layers, self.padded // 2) * INITIAL_ANGLE_DEVIATION)

    def binary16_angles(self) -> Tensor:
        """The angles as deployed: within one turn, rounded to binary16 (straight-through), as float32."""
        turn = 2 * math.pi
        rounded = (self.angles.detach() - turn * torch.round(self.angles.detach() / turn)).half().float()
        return self.angles + (rounded - self.angles).detach() if self.training else rounded

    def sine_cosine(self) -> tuple[Tensor, Tensor]:
        """[experts, layers, padded / 2] each."""
        if self.exact:
            return exact.sine_cosine(self.binary16_angles())
        angles = self.binary16_angles() if self.quantised else self.angles
        return torch.sin(angles), torch.cos(angles)

    def forward(self, x: Tensor, expert: Tensor) -> Tensor:
        sine, cosine = self.sine_cosine()
        half = self.padded // 2
        x = F.pad(x, (0, self.padded - self.width))
        for layer in range(self.angles.shape[1]):
            s, c = F.embedding(expert, sine[:, layer]), F.embedding(expert, cosine[:, layer])
            a, b = x.view(-1, half, 2).unbind(-1)
            rotated = torch.stack([c * a - s * b, s * a + c * b], -1).flatten(1)
            x = rotated.view(-1, 2, half).transpose(1, 2).reshape(-1, self.padded)
        return x[:, : self.width]
