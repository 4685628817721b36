"""Runs a lowered model in the arithmetic of NUMERICS.md: the bits that every device must give."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from bfedge.lowered.arithmetic import (
    F32,
    LOG2E,
    Float,
    exp2fix,
    gelu,
    integer_product,
    layer_norm,
    multiply,
    quantise,
    rotate,
)
from bfedge.lowered.model import Block, ButterflyExperts, LoweredViT, Shape

Trace = Callable[[str, int | None, Float], None]
"""Called with the stage (embed, attention, experts, logits), its block and its result [images, ...]."""


def run(model: LoweredViT, images: NDArray[np.uint8], trace: Trace | None = None) -> Float:
    """Logits [images, classes] of uint8 images [images, height, width, channels].

    Raises ValueError if the images do not have the model's shape.
    """
    shape = model.shape
    if images.dtype != np.uint8 or images.shape[1:] != shape.image_shape:
        raise ValueError(f"images are {images.dtype} {images.shape[1:]}, the model takes uint8 {shape.image_shape}")
    seen = trace or (lambda stage, block, values: None)
    z = embed(model, images)
    seen("embed", None, z)
    for index, block in enumerate(model.blocks):
        z = z + attention(shape, block, z)
        seen("attention", index, z)
        z = z + experts(shape, block.experts, layer_norm(z, block.norm2))
        seen("experts", index, z)
    q, s = quantise(pool(model, z))
    logits = multiply(model.head.weight, q, s, model.head.bias)
    seen("logits", None, logits)
    return logits


def embed(model: LoweredViT, images: NDArray[np.uint8]) -> Float:
    """Section 4: [images, tokens, d_model]."""
    shape, p = model.shape, model.shape.patch_size
    rows, columns = shape.image_height // p, shape.image_width // p
    patches = images.reshape(-1, rows, p, columns, p, shape.channels).transpose(0, 1, 3, 2, 4, 5)
    centred = (patches.reshape(-1, rows * columns, shape.patch_columns).astype(np.int16) - 128).astype(np.int8)
    y = integer_product(centred, model.patch.values.T) * model.patch.scales
    if shape.pooling == "mean":
        return y + model.position
    class_token = np.broadcast_to(model.position[:1], (len(images), 1, shape.d_model))
    return np.concatenate([class_token, y + model.position[1:]], axis=1)


def attention(shape: Shape, block: Block, z: Float) -> Float:
    """Section 7: what attention adds to the residual [images, tokens, d_model]."""
    images, tokens, d_model = z.shape
    q, s = quantise(layer_norm(z, block.norm1))
    qkv = multiply(block.qkv.weight, q, s, block.qkv.bias)
    parts = qkv.reshape(images, tokens, 3, shape.heads, d_model // shape.heads).transpose(2, 0, 3, 1, 4)
    (query, query_scale), (key, key_scale), (value, value_scale) = (quantise(part) for part in parts)
    scores = integer_product(query, key.swapaxes(-1, -2))
    t = scores * ((query_scale * F32(shape.attention_scale))[..., :, None] * key_scale[..., None, :])
    e = exp2fix(t - t.max(-1, keepdims=True))
    weights, weight_scale = quantise(e.astype(F32) * value_scale[..., None, :])
    heads = integer_product(weights, value) * (weight_scale / e.sum(-1).astype(F32))[..., None]
    q, s = quantise(heads.transpose(0, 2, 1, 3).reshape(images, tokens, d_model))
    return multiply(block.proj.weight, q, s, block.proj.bias)


def route(layer: ButterflyExperts, h: Float, top_k: int) -> tuple[NDArray[np.int64], Float]:
    """Section 8: expert indices [..., top_k] in ascending order, and their weights."""
    logits = multiply(layer.router, *quantise(h))
    selected = np.argsort(-logits, axis=-1, kind="stable")[..., :top_k]
    selected = np.sort(selected, axis=-1)
    chosen = np.take_along_axis(logits, selected, axis=-1)
    e = exp2fix((chosen - chosen.max(-1, keepdims=True)) * LOG2E)
    return selected, e.astype(F32) / e.sum(-1, keepdims=True).astype(F32)


def experts(shape: Shape, layer: ButterflyExperts, h: Float) -> Float:
    """Section 11: what the experts add to the residual, from h [images, tokens, d_model]."""
    selected, weights = route(layer, h, shape.top_k)
    pairs = np.broadcast_to(h[:, :, None, :], (*selected.shape, shape.d_model)).reshape(-1, shape.d_model)
    expert = selected.reshape(-1)
    u = gelu(multiply(layer.substrate, *quantise(rotate(layer.theta, expert, pairs))))
    u = rotate(layer.phi, expert, u).reshape(*selected.shape, shape.d_ff)
    v = np.zeros((*h.shape[:-1], shape.d_ff), F32)
    for rank in range(shape.top_k):
        v = v + weights[..., rank, None] * u[..., rank, :]
    return multiply(layer.down, *quantise(v))


def pool(model: LoweredViT, z: Float) -> Float:
    """Section 12: [images, d_model]."""
    if model.shape.pooling == "class":
        return layer_norm(z[:, 0], model.norm)
    y = layer_norm(z, model.norm)
    total = np.zeros((z.shape[0], z.shape[2]), F32)
    for token in range(z.shape[1]):
        total = total + y[:, token]
    return total * (F32(1) / F32(z.shape[1]))
