"""torch as a competitor: float32 forms of a lowered model with nothing left to prepare, as one would deploy them.

The model that is trained computes its quantised weights, sines and cosines anew at every call; these forms hold them,
which is several times faster.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from bfedge.config import padded_width
from bfedge.lowered import model as lowered
from bfedge.lowered.arithmetic import sine_cosine
from bfedge.lowered.rotation import angle_order, original_index, output_order, pair_distance, rotate_bits_left

Form = Literal["eager", "fused", "dense"]
"""Butterfly experts for eager execution or for torch.compile; or a standard feed-forward layer of the same matrices"""


class FloatLinear(nn.Module):
    """A matrix as float32, with its bias if it has one, its columns in another order if one is given."""

    def __init__(
        self, matrix: lowered.Matrix, bias: Any = None, columns: NDArray[np.int64] | slice = slice(None)
    ) -> None:
        super().__init__()
        weight = matrix.integers[:, columns] * matrix.row_scales[:, None]
        self.weight = nn.Parameter(torch.from_numpy(np.ascontiguousarray(weight)))
        self.bias = None if bias is None else nn.Parameter(torch.from_numpy(bias))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)


class FloatNorm(nn.Module):
    def __init__(self, norm: lowered.LayerNorm) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.from_numpy(norm.gain))
        self.bias = nn.Parameter(torch.from_numpy(norm.bias))

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, eps=1e-5)


class FusedRotation(nn.Module):
    """The rotation in its folded order, on real numbers: what torch.compile fuses best."""

    cosine: Tensor
    sine: Tensor

    def __init__(self, rotation: lowered.Rotation) -> None:
        super().__init__()
        sine, cosine = sine_cosine(rotation.angles)
        self.register_buffer("cosine", torch.from_numpy(cosine.copy()))
        self.register_buffer("sine", torch.from_numpy(sine.copy()))
        self.width = rotation.width
        self.layers = rotation.angles.shape[1]
        self.padded = padded_width(rotation.width)
        self.kept = kept(original_index(self.layers, self.padded), self.width)
        self.order = np.arange(self.width)

    def forward(self, x: Tensor, expert: Tensor) -> Tensor:
        """[pairs, width] of the pairs' experts [pairs]."""
        cosine, sine = self.cosine[expert], self.sine[expert]
        if self.padded > self.width:
            x = F.pad(x, (0, self.padded - self.width))
        for layer in range(self.layers):
            distance = pair_distance(layer, self.padded)
            a, b = x.view(len(x), -1, 2, distance).unbind(2)
            c, s = (table[:, layer].view(len(x), -1, distance) for table in (cosine, sine))
            x = torch.stack((c * a - s * b, s * a + c * b), 2).view(len(x), self.padded)
        return x if self.kept is None else x[:, self.kept]


class ComplexRotation(nn.Module):
    """Algorithm 1 with a pair as one complex number: the fewest passes over memory where nothing is fused. The last
    shuffle is left to the columns of the next matrix.
    """

    def __init__(self, rotation: lowered.Rotation) -> None:
        super().__init__()
        sine, cosine = sine_cosine(rotation.angles)
        self.width = rotation.width
        self.layers = rotation.angles.shape[1]
        self.padded = padded_width(rotation.width)
        folded = cosine + 1j * sine
        turns = np.empty_like(folded)
        np.put_along_axis(turns, angle_order(self.layers, self.padded)[None].repeat(len(turns), 0), folded, axis=2)
        self.turns = [torch.from_numpy(turns[:, layer].astype(np.complex64)) for layer in range(self.layers)]
        original = rotate_bits_left(np.arange(self.padded), 1, self.padded.bit_length() - 1)
        self.kept = kept(original, self.width)
        position = np.empty(self.width, np.int64)
        position[output_order(self.width, self.layers)] = np.arange(self.width)
        self.order = position[original[original < self.width]]

    def forward(self, x: Tensor, expert: Tensor) -> Tensor:
        """[pairs, width] of the pairs' experts [pairs]."""
        if self.padded > self.width:
            x = F.pad(x, (0, self.padded - self.width))
        y = torch.view_as_complex(x.view(len(x), -1, 2)) * self.turns[0].index_select(0, expert)
        for turns in self.turns[1:]:
            halves = torch.view_as_real(y).view(len(x), 2, -1)
            y = torch.complex(halves[:, 0], halves[:, 1]).mul_(turns.index_select(0, expert))
        x = torch.view_as_real(y).view(len(x), self.padded)
        return x if self.kept is None else x[:, self.kept]


def kept(original: NDArray[np.int64], width: int) -> Tensor | None:
    """The positions whose element is not padding; None where there is none."""
    return None if len(original) == width else torch.from_numpy((original < width).nonzero()[0])


class FloatExperts(nn.Module):
    """Butterfly experts: all pairs through the shared substrate at once, one down projection a token."""

    def __init__(self, experts: lowered.ButterflyExperts, top_k: int, fused: bool) -> None:
        super().__init__()
        rotation = FusedRotation if fused else ComplexRotation
        self.theta, self.phi = rotation(experts.theta), rotation(experts.phi)
        self.router = FloatLinear(experts.router)
        self.up = FloatLinear(experts.substrate, columns=self.theta.order)
        self.down = FloatLinear(experts.down, columns=self.phi.order)
        self.top_k = top_k

    def forward(self, h: Tensor) -> Tensor:
        """[tokens, d_model]"""
        logits, selected = torch.topk(self.router(h), self.top_k)
        gate = torch.softmax(logits, -1)
        expert = selected.flatten()
        u = F.gelu(self.up(self.theta(h.repeat_interleave(self.top_k, 0), expert)))
        u = self.phi(u, expert).view(len(h), self.top_k, -1)
        return self.down(torch.bmm(gate.unsqueeze(1), u).squeeze(1))  # type: ignore[no-any-return]


class FloatDense(nn.Module):
    """A standard feed-forward layer with the same two matrices."""

    def __init__(self, experts: lowered.ButterflyExperts) -> None:
        super().__init__()
        self.up, self.down = FloatLinear(experts.substrate), FloatLinear(experts.down)

    def forward(self, h: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(h)))  # type: ignore[no-any-return]


class FloatLayer(nn.Module):
    """Norm, feed-forward layer and residual, on z [tokens, d_model]."""

    def __init__(self, block: lowered.Block, top_k: int, form: Form) -> None:
        super().__init__()
        self.norm = FloatNorm(block.norm2)
        self.layer = (
            FloatDense(block.experts) if form == "dense" else FloatExperts(block.experts, top_k, form == "fused")
        )

    def forward(self, z: Tensor) -> Tensor:
        result: Tensor = z + self.layer(self.norm(z))
        return result


class FloatBlock(nn.Module):
    def __init__(self, block: lowered.Block, shape: lowered.Shape, form: Form) -> None:
        super().__init__()
        self.norm = FloatNorm(block.norm1)
        self.qkv = FloatLinear(block.qkv.weight, block.qkv.bias)
        self.proj = FloatLinear(block.proj.weight, block.proj.bias)
        self.heads = shape.heads
        self.feed_forward = FloatLayer(block, shape.top_k, form)

    def forward(self, z: Tensor) -> Tensor:
        parts = self.qkv(self.norm(z)).view(len(z), 3, self.heads, -1).permute(1, 2, 0, 3)
        mixed = F.scaled_dot_product_attention(*(part.unsqueeze(0) for part in parts))
        z = z + self.proj(mixed[0].transpose(0, 1).reshape(len(z), -1))
        return self.feed_forward(z)  # type: ignore[no-any-return]


class FloatVit(nn.Module):
    """Logits [classes] of one image [height, width, channels] of uint8."""

    position: Tensor

    def __init__(self, model: lowered.LoweredViT, form: Form) -> None:
        super().__init__()
        self.shape = model.shape
        self.patch = FloatLinear(model.patch)
        self.register_buffer("position", torch.from_numpy(model.position))
        self.blocks = nn.ModuleList(FloatBlock(block, model.shape, form) for block in model.blocks)
        self.norm = FloatNorm(model.norm)
        self.head = FloatLinear(model.head.weight, model.head.bias)

    def forward(self, image: Tensor) -> Tensor:
        shape, p = self.shape, self.shape.patch_size
        grid = image.float().view(shape.image_height // p, p, shape.image_width // p, p, shape.channels)
        y = self.patch(grid.transpose(1, 2).reshape(-1, shape.patch_columns) - 128)
        is_class = shape.pooling == "class"
        z = self.position + (F.pad(y, (0, 0, 1, 0)) if is_class else y)
        for block in self.blocks:
            z = block(z)
        logits: Tensor = self.head(self.norm(z[0]) if is_class else self.norm(z).mean(0))
        return logits


def compiled(module: nn.Module, example: Tensor) -> Callable[[], Tensor]:
    """torch.compile with the weights frozen into the code, bound to its input. Compiles now; raises what torch raises
    if it cannot.
    """

    torch._dynamo.reset()
    result: Callable[[Tensor], Tensor] = torch.compile(module, options={"freezing": True})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # advice on the model's code
        for _ in range(2):
            result(example)
    return functools.partial(result, example)
