"""Layers whose matrices and activations are quantised in the forward, as they will be on the device.

A model has two arithmetics. Quantised (the default): training rounds with straight-through gradients and torch's
own functions for the rest; `eval()` computes NUMERICS.md exactly. Float, inside `float_arithmetic(model)`: only the
ternary substrate, which is the architecture, stays quantised.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bfedge.config import attention_scale
from bfedge.model import exact, native


class Quantised(nn.Module):
    """A module that knows whether to quantise."""

    quantised = True

    @property
    def exact(self) -> bool:
        return self.quantised and not self.training


@contextmanager
def float_arithmetic(model: nn.Module) -> Iterator[None]:
    """Runs the model without int8: float32 activations, angles and matrices outside the substrate."""
    modules = [m for m in model.modules() if isinstance(m, Quantised)]
    for module in modules:
        module.quantised = False
    try:
        yield
    finally:
        for module in modules:
            module.quantised = True


class FakeQuantise(torch.autograd.Function):
    """Rounds each row to int8 steps of its largest magnitude; the gradient passes unchanged."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        if native.is_native(x):
            rounded, step = native.fake_quantise(x)
        else:
            wide = x.float()  # bf16 has no room for steps of int8
            m = exact.largest(wide)
            step = exact.divide(m, 127)
            rounded = torch.round(wide * exact.divide(127, m)) * step
        ctx.mark_non_differentiable(step)
        return rounded, step

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0]


def fake_quantise(x: Tensor) -> tuple[Tensor, Tensor]:
    """Training's view of int8: x [..., columns] as quantised (NUMERICS.md, section 2) and multiplied out again, and the
    steps [..., 1]. Straight-through gradient.
    """
    rounded, step = FakeQuantise.apply(x)  # type: ignore[no-untyped-call]
    return rounded, step


class RoundThrough(torch.autograd.Function):
    """Rounds, ties to even, into [low, high]; the gradient passes unchanged."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, low: float, high: float) -> Tensor:
        return torch.round(x).clamp_(low, high)

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor, None, None]:
        return grad[0], None, None


def round_through(x: Tensor, limit: int = 127) -> Tensor:
    """Integers in [-limit, limit], as floats; straight-through gradient."""
    rounded: Tensor = RoundThrough.apply(x, -limit, limit)  # type: ignore[no-untyped-call]
    return rounded


def quantise_rows(weight: Tensor) -> tuple[Tensor, Tensor]:
    """int8 values (as floats) [..., rows, columns] and scales [..., rows, 1], straight-through."""
    m = exact.largest(weight.detach())
    return round_through(weight * exact.divide(127, m)), exact.divide(m, 127)


def ternary(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Trits (as floats) and their scale gamma = mean|W| (AbsMean, ButterflyViT section 3.5), straight-through."""
    gamma = weight.detach().double().abs().mean().float().clamp_min(float(2.0**-100))
    return round_through(exact.divide(weight, gamma + 1e-8), limit=1), gamma


class QuantisedMatrix(Quantised):
    """A matrix [rows, columns], int8 with a scale a row or ternary with one scale, without bias."""

    bias: Tensor | None

    def __init__(self, columns: int, rows: int, kind: str = "int8") -> None:
        super().__init__()
        self.kind = kind
        self.weight = nn.Parameter(torch.empty(rows, columns))
        self.register_parameter("bias", None)
        nn.init.xavier_uniform_(self.weight)

    def integers(self) -> tuple[Tensor, Tensor]:
        """int8 values or trits (as floats) [rows, columns], and scales [rows] or []."""
        if self.kind == "ternary":
            return ternary(self.weight)
        values, scales = quantise_rows(self.weight)
        return values, scales[:, 0]

    def rounded_weight(self) -> Tensor:
        """[rows, columns] as the present arithmetic has it, multiplied out."""
        if self.kind == "ternary":
            trits, gamma = ternary(self.weight)
            return trits * gamma
        return fake_quantise(self.weight)[0] if self.quantised else self.weight

    def product(self, x: Tensor) -> Tensor:
        """Of an x that is rounded already, if the arithmetic is quantised; not exact."""
        return F.linear(x, self.rounded_weight(), self.bias)

    def forward(self, x: Tensor) -> Tensor:
        if not self.exact:
            return self.product(fake_quantise(x)[0] if self.quantised else x)
        values, scales = self.integers()
        q, s = exact.quantise(x)
        y = exact.integer_product(q, values.T) * (s * scales)
        return y if self.bias is None else y + self.bias


class QuantisedLinear(QuantisedMatrix):
    """The same with a bias."""

    bias: Tensor

    def __init__(self, columns: int, rows: int, kind: str = "int8") -> None:
        super().__init__(columns, rows, kind)
        self.bias = nn.Parameter(torch.zeros(rows))


class LayerNorm(Quantised):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        if self.exact:
            return exact.layer_norm(x, self.weight, self.bias)
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, eps=1e-5)


class Gelu(Quantised):
    def forward(self, x: Tensor) -> Tensor:
        return exact.gelu(x) if self.exact else F.gelu(x)


class Attention(Quantised):
    """Multi-head self-attention with int8 queries, keys, values and weights (NUMERICS.md, section 7)."""

    def __init__(self, d_model: int, heads: int, kind: str) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = QuantisedLinear(d_model, 3 * d_model, kind)
        self.proj = QuantisedLinear(d_model, d_model, kind)
        self.scale = attention_scale(d_model, heads)

    def forward(self, h: Tensor) -> Tensor:
        images, tokens, d_model = h.shape
        qkv = self.qkv(h).view(images, tokens, 3, self.heads, d_model // self.heads)
        if self.exact:
            heads = self.mix_exactly(qkv)
        elif self.quantised:
            heads = self.mix_rounded(qkv)
        else:
            query, key, value = apart(qkv)
            heads = F.scaled_dot_product_attention(query, key, value)
        out: Tensor = self.proj(heads.transpose(1, 2).reshape(images, tokens, d_model))
        return out

    def mix_rounded(self, qkv: Tensor) -> Tensor:
        rounded, steps = fake_quantise(qkv)
        (query, key, value), value_step = apart(rounded), apart(steps)[2]
        e = torch.softmax(query @ key.transpose(-1, -2) * (self.scale * math.log(2)), -1)
        weights, _ = fake_quantise(e * value_step.transpose(-1, -2))
        return weights @ (value / value_step)

    def mix_exactly(self, qkv: Tensor) -> Tensor:
        (query, query_scale), (key, key_scale), (value, value_scale) = (exact.quantise(part) for part in apart(qkv))
        factors = (query_scale * self.scale) * key_scale.transpose(-1, -2)
        t = exact.integer_product(query, key.transpose(-1, -2)) * factors
        e = exact.exp2fix(t - t.amax(-1, keepdim=True))
        weights, weight_scale = exact.quantise(e * value_scale.transpose(-1, -2))
        total = e.long().sum(-1, keepdim=True).float()
        return exact.integer_product(weights, value) * exact.divide(weight_scale, total)


def apart(qkv: Tensor) -> tuple[Tensor, ...]:
    """[images, tokens, 3, heads, n] as three of [images, heads, tokens, n]."""
    return qkv.permute(2, 0, 3, 1, 4).unbind(0)
