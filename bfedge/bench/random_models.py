"""Random models of the shapes that the benchmark measures. Time does not depend on the weights, so none are trained."""

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

D_MODEL, D_FF = 256, 1024
ROTATION_LAYERS = 2


def cifar_shape(experts: int, side: int = 32, layers: int = 7, d_model: int = D_MODEL, d_ff: int = D_FF) -> Shape:
    """The paper's model for CIFAR-100; `side` is the image's."""
    heads = 8
    return Shape(
        image_height=side,
        image_width=side,
        channels=3,
        patch_size=4,
        classes=100,
        d_model=d_model,
        d_ff=d_ff,
        layers=layers,
        heads=heads,
        experts=experts,
        top_k=2,
        theta_layers=ROTATION_LAYERS,
        phi_layers=ROTATION_LAYERS,
        pooling="class",
        attention_scale=attention_scale(d_model, heads),
    )


def random_model(shape: Shape, seed: int = 1) -> LoweredViT:
    r = np.random.default_rng(seed)

    def rotation(width: int, layers: int) -> Rotation:
        angles = r.uniform(-math.pi, math.pi, (shape.experts, layers, padded_width(width) // 2))
        return Rotation(width, angles.astype(np.float16).clip(-3.140625, 3.140625))

    def norm() -> LayerNorm:
        return LayerNorm(
            r.uniform(0.5, 1.5, shape.d_model).astype(np.float32), r.normal(0, 0.1, shape.d_model).astype(np.float32)
        )

    def linear(rows: int, columns: int) -> Linear:
        return Linear(random_int8(r, rows, columns), r.normal(0, 0.1, rows).astype(np.float32))

    def block() -> Block:
        return Block(
            norm1=norm(),
            qkv=linear(3 * shape.d_model, shape.d_model),
            proj=linear(shape.d_model, shape.d_model),
            norm2=norm(),
            experts=ButterflyExperts(
                router=random_int8(r, shape.experts, shape.d_model),
                theta=rotation(shape.d_model, shape.theta_layers),
                substrate=random_ternary(r, shape.d_ff, shape.d_model),
                phi=rotation(shape.d_ff, shape.phi_layers),
                down=random_int8(r, shape.d_model, shape.d_ff),
            ),
        )

    return LoweredViT(
        shape=shape,
        patch=random_int8(r, shape.d_model, shape.patch_columns),
        position=r.normal(0, 0.5, (shape.tokens, shape.d_model)).astype(np.float32),
        blocks=tuple(block() for _ in range(shape.layers)),
        norm=norm(),
        head=linear(shape.classes, shape.d_model),
    )


def random_int8(r: np.random.Generator, rows: int, columns: int) -> Int8Matrix:
    """Its products with vectors of values around 1 are of values around 1."""
    values = r.integers(-127, 128, (rows, columns)).astype(np.int8)
    scales = r.uniform(0.8, 1.2, rows) / (127 / math.sqrt(3) * math.sqrt(columns))
    return Int8Matrix(values, scales.astype(np.float32))


def random_ternary(r: np.random.Generator, rows: int, columns: int) -> TernaryMatrix:
    """Trits -1, 0 and +1 are equally frequent, as AbsMean makes them."""
    trits = r.integers(-1, 2, (rows, columns)).astype(np.int8)
    return TernaryMatrix(trits, np.float32(1 / math.sqrt(columns * 2 / 3)), "trits2")


def random_tokens(shape: Shape, seed: int = 2) -> np.ndarray:
    """A residual [tokens, d_model]."""
    return np.random.default_rng(seed).normal(0, 1, (shape.tokens, shape.d_model)).astype(np.float32)


def random_image(shape: Shape, seed: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape.image_shape, np.uint8)
