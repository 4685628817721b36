"""The smallest interesting model, the same on every machine: the file that FORMAT.md dumps."""

from __future__ import annotations

import numpy as np

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


def int8_matrix(rows: int, columns: int) -> Int8Matrix:
    values = (np.arange(rows * columns, dtype=np.int64) * 37 % 255 - 127).astype(np.int8)
    return Int8Matrix(values.reshape(rows, columns), np.full(rows, 2.0**-7, np.float32))


def norm() -> LayerNorm:
    return LayerNorm(np.ones(4, np.float32), np.zeros(4, np.float32))


def linear(rows: int) -> Linear:
    return Linear(int8_matrix(rows, 4), np.zeros(rows, np.float32))


def tiny_model() -> LoweredViT:
    shape = Shape(
        image_height=2,
        image_width=2,
        channels=1,
        patch_size=2,
        classes=2,
        d_model=4,
        d_ff=6,
        layers=1,
        heads=1,
        experts=2,
        top_k=1,
        theta_layers=1,
        phi_layers=1,
        pooling="mean",
        attention_scale=float(np.float32(np.log2(np.e) / 2)),
    )
    trits = (np.arange(24) % 3 - 1).astype(np.int8).reshape(6, 4)
    theta = np.array([0.5, -0.5, 1.0, -1.0], np.float16).reshape(2, 1, 2)
    phi = np.arange(8, dtype=np.float16).reshape(2, 1, 4) / np.float16(4)
    experts = ButterflyExperts(
        router=int8_matrix(2, 4),
        theta=Rotation(4, theta),
        substrate=TernaryMatrix(trits, np.float32(0.25), "trits3"),
        phi=Rotation(6, phi),
        down=int8_matrix(4, 6),
    )
    return LoweredViT(
        shape=shape,
        patch=int8_matrix(4, 4),
        position=np.zeros((1, 4), np.float32),
        blocks=(Block(norm(), linear(12), linear(4), norm(), experts),),
        norm=norm(),
        head=linear(2),
        labels=("no", "yes"),
    )
