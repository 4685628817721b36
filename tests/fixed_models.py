"""Models whose instructions are counted: the same bits on every machine, and so the same work. random_models.py has
torch draw the numbers, which differ between processors in their last bits; here they are integers.
"""

from __future__ import annotations

import math

import numpy as np

from bfedge.config import attention_scale, padded_width
from bfedge.lowered.model import (
    Block,
    ButterflyExperts,
    Int8Matrix,
    LayerNorm,
    Linear,
    LoweredViT,
    Rotation,
    Shape,
    TernaryMatrix,
)
from bfedge.packed.golden import golden_vectors
from bfedge.packed.writer import pack

ONE = 2.0**-7
"""A step of int8 activations that spread by about 1"""


DIGITS = Shape(
    image_height=8,
    image_width=8,
    channels=1,
    patch_size=2,
    classes=10,
    d_model=64,
    d_ff=256,
    layers=2,
    heads=4,
    experts=8,
    top_k=2,
    theta_layers=2,
    phi_layers=2,
    pooling="mean",
    attention_scale=attention_scale(64, 4),
)
"""As bfedge/training/recipes/digits.toml has it"""

CIFAR_BLOCK = Shape(
    image_height=32,
    image_width=32,
    channels=3,
    patch_size=4,
    classes=100,
    d_model=256,
    d_ff=1024,
    layers=1,
    heads=4,
    experts=64,
    top_k=2,
    theta_layers=2,
    phi_layers=2,
    pooling="class",
    attention_scale=attention_scale(256, 4),
)
"""One block of ButterflyViT's CIFAR-100 model"""


class Drawer:
    """Draws a model's parameters."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.random = np.random.default_rng(4)

    def model(self) -> LoweredViT:
        shape, d = self.shape, self.shape.d_model
        return LoweredViT(
            shape=shape,
            patch=self.int8_matrix(d, shape.patch_columns),
            position=(self.random.integers(-128, 129, (shape.tokens, d)) * ONE).astype(np.float32),
            blocks=tuple(self.block() for _ in range(shape.layers)),
            norm=self.norm(),
            head=self.linear(shape.classes, d),
        )

    def block(self) -> Block:
        d = self.shape.d_model
        return Block(self.norm(), self.linear(3 * d, d), self.linear(d, d), self.norm(), self.experts())

    def experts(self) -> ButterflyExperts:
        shape, d = self.shape, self.shape.d_model
        trits = self.random.integers(-1, 2, (shape.d_ff, d)).astype(np.int8)
        return ButterflyExperts(
            router=self.int8_matrix(shape.experts, d),
            theta=self.rotation(d, shape.theta_layers),
            substrate=TernaryMatrix(trits, np.float32(self.scale(d)), "trits2"),
            phi=self.rotation(shape.d_ff, shape.phi_layers),
            down=self.int8_matrix(d, shape.d_ff),
        )

    def norm(self) -> LayerNorm:
        d = self.shape.d_model
        return LayerNorm(np.ones(d, np.float32), np.zeros(d, np.float32))

    def linear(self, rows: int, columns: int) -> Linear:
        return Linear(self.int8_matrix(rows, columns), np.zeros(rows, np.float32))

    def int8_matrix(self, rows: int, columns: int) -> Int8Matrix:
        values = self.random.integers(-127, 128, (rows, columns)).astype(np.int8)
        return Int8Matrix(values, np.full(rows, self.scale(columns) * ONE, np.float32))

    def rotation(self, width: int, layers: int) -> Rotation:
        angles = self.random.integers(-3072, 3073, (self.shape.experts, layers, padded_width(width) // 2))
        return Rotation(width, (angles / 1024).astype(np.float16))

    def scale(self, columns: int) -> float:
        """A power of two with which a product is about as large as what goes in."""
        return float(2.0 ** -round(math.log2(columns) / 2))


def fixed_model(shape: Shape) -> bytes:
    """A packed model with one golden case."""
    model = Drawer(shape).model()
    images = np.random.default_rng(5).integers(0, 256, (1, *shape.image_shape)).astype(np.uint8)
    return pack(model, golden_vectors(model, images))
