"""Torch model to lowered model: quantise, fold the shuffles, order. The only file of this folder that sees torch."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bfedge.errors import BfedgeError
from bfedge.lowered.angles import codes_of
from bfedge.lowered.model import (
    Block,
    ButterflyExperts,
    Int8Matrix,
    LayerNorm,
    Linear,
    LoweredViT,
    Matrix,
    Rotation,
    TernaryEncoding,
    TernaryMatrix,
    shape_of,
)
from bfedge.lowered.rotation import angle_order, output_order
from bfedge.model import layers, rotation, vit
from bfedge.model.experts import ButterflyExperts as TorchExperts


def lower(model: vit.ViT, labels: tuple[str, ...] = (), ternary: TernaryEncoding = "trits2") -> LoweredViT:
    """The model as a device needs it.

    `ternary` chooses how the packed file stores trits. Raises BfedgeError for a feed-forward layer that the runtime
    does not have and for weights that are not finite.
    """
    config = model.config
    if config.feed_forward != "butterfly":
        raise BfedgeError(
            f"a model with {config.feed_forward} feed-forward layers cannot be exported; it is a baseline for training",
            'train one with `feed_forward = "butterfly"`',
        )
    for name, tensor in model.state_dict().items():
        if not torch.isfinite(tensor).all():
            raise BfedgeError(f"`{name}` has {int((~torch.isfinite(tensor)).sum())} values that are not finite")
    model = model.eval()
    with torch.no_grad():
        return LoweredViT(
            shape=shape_of(config),
            patch=int8_matrix(*layers.quantise_rows(model.embedding.folded_weight())),
            position=float32(model.embedding.folded_position()),
            blocks=tuple(lower_block(block, ternary) for block in model.blocks if isinstance(block, vit.Block)),
            norm=layer_norm(model.norm),
            head=linear(model.head, ternary),
            labels=labels,
        )


def lower_block(block: vit.Block, ternary: TernaryEncoding) -> Block:
    experts = block.experts
    assert isinstance(experts, TorchExperts)
    router = matrix(experts.router.gate, ternary)
    substrate = matrix(experts.substrate, ternary, fold(experts.theta))
    assert isinstance(router, Int8Matrix)
    assert isinstance(substrate, TernaryMatrix)
    return Block(
        norm1=layer_norm(block.norm1),
        qkv=linear(block.attention.qkv, ternary),
        proj=linear(block.attention.proj, ternary),
        norm2=layer_norm(block.norm2),
        experts=ButterflyExperts(
            router=router,
            theta=lower_rotation(experts.theta),
            substrate=substrate,
            phi=lower_rotation(experts.phi),
            down=matrix(experts.down, ternary, fold(experts.phi)),
        ),
    )


def fold(layer: rotation.Rotation) -> NDArray[np.int64]:
    """The order in which the folded rotation leaves its output: the next matrix's columns take it."""
    return output_order(layer.width, layer.angles.shape[1])


def lower_rotation(layer: rotation.Rotation) -> Rotation:
    order = angle_order(layer.angles.shape[1], layer.padded)
    angles = np.take_along_axis(layer.deployed_angles().numpy().astype(np.float16), order[None], axis=2)
    return Rotation(layer.width, angles if layer.stored == "float16" else codes_of(angles))


def matrix(layer: layers.QuantisedMatrix, ternary: TernaryEncoding, columns: NDArray[np.int64] | None = None) -> Matrix:
    values, scales = layer.integers()
    integers = values if columns is None else values[:, torch.from_numpy(columns)]
    if layer.kind == "ternary":
        return TernaryMatrix(int8(integers), np.float32(scales.item()), ternary)
    return int8_matrix(integers, scales)


def int8_matrix(values: Tensor, scales: Tensor) -> Int8Matrix:
    return Int8Matrix(int8(values), float32(scales).reshape(-1))


def linear(layer: layers.QuantisedLinear, ternary: TernaryEncoding) -> Linear:
    return Linear(matrix(layer, ternary), float32(layer.bias))


def layer_norm(layer: layers.LayerNorm) -> LayerNorm:
    return LayerNorm(float32(layer.weight), float32(layer.bias))


def int8(values: Tensor) -> NDArray[np.int8]:
    return np.ascontiguousarray(values.detach().numpy().astype(np.int8))


def float32(values: Tensor) -> NDArray[np.float32]:
    return np.array(values.detach().numpy(), np.float32)
