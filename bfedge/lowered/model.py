"""Dataclasses of the lowered model. Every exporter, the reference and the plan read these and nothing else."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from bfedge.config import ViTConfig, attention_scale
from bfedge.lowered.angles import angles_of

TernaryEncoding = Literal["trits2", "trits3"]


@dataclass(frozen=True)
class Int8Matrix:
    """Weights [rows, columns] = values * scales[:, None] (NUMERICS.md, section 3)."""

    values: NDArray[np.int8]
    """[rows, columns], -127..127"""
    scales: NDArray[np.float32]
    """[rows], positive"""

    @property
    def integers(self) -> NDArray[np.int8]:
        return self.values

    @property
    def row_scales(self) -> NDArray[np.float32]:
        return self.scales


@dataclass(frozen=True)
class TernaryMatrix:
    """Weights [rows, columns] = trits * scale, AbsMean (ButterflyViT section 3.5)."""

    trits: NDArray[np.int8]
    """[rows, columns], -1, 0 or +1"""
    scale: np.float32
    encoding: TernaryEncoding
    """How the packed file stores it: 2 bits a trit, or 5 trits a byte"""

    @property
    def integers(self) -> NDArray[np.int8]:
        return self.trits

    @property
    def row_scales(self) -> NDArray[np.float32]:
        return np.full(self.trits.shape[0], self.scale, np.float32)


Matrix = Int8Matrix | TernaryMatrix


@dataclass(frozen=True)
class Linear:
    weight: Matrix
    bias: NDArray[np.float32]
    """[rows]"""


@dataclass(frozen=True)
class LayerNorm:
    gain: NDArray[np.float32]
    bias: NDArray[np.float32]


@dataclass(frozen=True)
class Rotation:
    """One rotation an expert, in the folded order of NUMERICS.md, section 9."""

    width: int
    """Channels that go in and come out; the rotation works on the next power of two"""
    stored: NDArray[np.float16] | NDArray[np.int8]
    """[experts, layers, padded width / 2], as the packed file stores them: radians, or codes of 8 bits"""

    @property
    def angles(self) -> NDArray[np.float16]:
        """The same in radians"""
        if self.stored.dtype == np.int8:
            return angles_of(self.stored.astype(np.int8, copy=False))
        return self.stored.astype(np.float16, copy=False)


@dataclass(frozen=True)
class ButterflyExperts:
    router: Int8Matrix
    """[experts, d_model]"""
    theta: Rotation
    substrate: TernaryMatrix
    """[d_ff, d_model], columns in theta's output order"""
    phi: Rotation
    down: Matrix
    """[d_model, d_ff], columns in phi's output order"""


@dataclass(frozen=True)
class Block:
    norm1: LayerNorm
    qkv: Linear
    proj: Linear
    norm2: LayerNorm
    experts: ButterflyExperts


@dataclass(frozen=True)
class Shape:
    """The dimensions that the packed file's config section holds (FORMAT.md)."""

    image_height: int
    image_width: int
    channels: int
    patch_size: int
    classes: int
    d_model: int
    d_ff: int
    layers: int
    heads: int
    experts: int
    top_k: int
    theta_layers: int
    phi_layers: int
    pooling: Literal["mean", "class"]
    attention_scale: float
    """A binary32: log2(e) / sqrt(d_model / heads), rounded once (NUMERICS.md, section 7)"""

    @property
    def tokens(self) -> int:
        patches = (self.image_height // self.patch_size) * (self.image_width // self.patch_size)
        return patches + (self.pooling == "class")

    @property
    def patch_columns(self) -> int:
        return self.patch_size * self.patch_size * self.channels

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return (self.image_height, self.image_width, self.channels)


def shape_of(config: ViTConfig) -> Shape:
    """Of a configuration with butterfly experts."""
    named = {name: getattr(config, name) for name in Shape.__dataclass_fields__ if name != "attention_scale"}
    return Shape(**named, attention_scale=attention_scale(config.d_model, config.heads))


@dataclass(frozen=True)
class LoweredViT:
    shape: Shape
    patch: Int8Matrix
    """[d_model, patch columns], pixel normalisation folded in"""
    position: NDArray[np.float32]
    """[tokens, d_model], patch bias and class token folded in"""
    blocks: tuple[Block, ...]
    norm: LayerNorm
    head: Linear
    labels: tuple[str, ...] = ()
    """Class names; empty if unknown"""


def same(a: Any, b: Any) -> bool:
    """True if two lowered models (or parts of them) hold the same bits."""
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ndarray):
        return bool(a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes())
    if isinstance(a, tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    if dataclasses.is_dataclass(a):
        return all(same(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(a))
    return bool(a == b)
