"""Lowered model to an ONNX graph that computes NUMERICS.md, operation by operation, in the bits of the reference.

The graph is written node by node: no tracing, so nothing of torch gets in, and its structure is that of lowered/reference.py. Weights
stay as small as in the .bfe file: packed trits, int8 and binary16 angles are initializers, and nodes unpack them; onnxruntime does that
once, when it loads the file.
"""

from __future__ import annotations

import dataclasses
import json

import onnx
from onnx import TensorProto, helper

import bfedge
from bfedge.errors import BfedgeError
from bfedge.export.onnx_arithmetic import (
    embed_patches,
    exp2fix,
    gelu,
    integer_product,
    integer_sum,
    layer_norm,
    multiply,
    quantise,
    rotate,
)
from bfedge.export.onnx_builder import FLOAT, GraphBuilder, Tensor
from bfedge.lowered.arithmetic import F32, LOG2E
from bfedge.lowered.model import Block, ButterflyExperts, LoweredViT, Shape

OPSET = 18
"""The first with bitwise operators and with axes as inputs of every reduction; any later runtime has it"""
IR_VERSION = 8
"""The one that came with opset 18"""
MAX_PROTOBUF = 2**31 - 1


def to_onnx(model: LoweredViT) -> onnx.ModelProto:
    """The model as ONNX: `image` uint8 [batch, height, width, channels] to `logits` float32 [batch, classes].

    Raises BfedgeError for a model that does not fit into one ONNX file.
    """
    shape = model.shape
    g = GraphBuilder()
    z = embed(g, model, "image")
    for index, block in enumerate(model.blocks):
        with g.scope(f"block{index}"):
            z = g.op("Add", z, attention(g, shape, block, z, f"block{index}"), name="attention/residual")
            h = layer_norm(g, z, block.norm2, f"block{index}.norm2")
            z = g.op("Add", z, experts(g, shape, block.experts, h, f"block{index}.experts"), name="experts/residual")
    with g.scope("head"):
        q, s = quantise(g, pool(g, model, z))
    logits = multiply(g, model.head.weight, "head", q, s, model.head.bias)
    g.op("Identity", logits, name="logits")
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", *shape.image_shape])
    output = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", shape.classes])
    if (size := sum(len(t.raw_data) for t in g.initializers.values())) > MAX_PROTOBUF:
        raise BfedgeError(f"the weights have {size} bytes; an ONNX file holds at most {MAX_PROTOBUF}")
    graph = helper.make_graph(g.nodes, "bfedge", [image], [output], list(g.initializers.values()))
    result = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="bfedge",
        producer_version=bfedge.__version__,
    )
    metadata = {"bfedge.config": json.dumps(dataclasses.asdict(shape))}
    if model.labels:
        metadata["bfedge.labels"] = json.dumps(model.labels)
    helper.set_model_props(result, metadata)
    return result


def embed(g: GraphBuilder, model: LoweredViT, image: Tensor) -> Tensor:
    """Section 4: [batch, tokens, d_model]."""
    shape, p = model.shape, model.shape.patch_size
    rows, columns = shape.image_height // p, shape.image_width // p
    with g.scope("embed"):
        grid = g.reshape(image, -1, rows, p, columns, p, shape.channels)
        patches = g.op("Transpose", grid, perm=[0, 1, 3, 2, 4, 5])
        patches = g.reshape(patches, -1, rows * columns, shape.patch_columns)
        centred = g.op("Sub", g.cast(patches, FLOAT), g.constant("128", F32(128)), name="centred")
        y = embed_patches(g, model.patch, centred)
        if shape.pooling == "class":  # a row of zeros in front: the class token is the first row of positions alone
            y = g.op("Pad", y, g.integers(1, 0), "", g.integers(1))
        return g.op("Add", y, g.initializer("position", model.position))


def attention(g: GraphBuilder, shape: Shape, block: Block, z: Tensor, name: str) -> Tensor:
    """Section 7: what attention adds to the residual [batch, tokens, d_model]."""
    tokens, heads = shape.tokens, shape.heads
    width = shape.d_model // heads
    normed = layer_norm(g, z, block.norm1, f"{name}.norm1")
    with g.scope("attention"):
        q, s = quantise(g, normed)
        qkv = multiply(g, block.qkv.weight, f"{name}.attention.qkv", q, s, block.qkv.bias)
        parts, scales = quantise(g, g.reshape(qkv, -1, tokens, 3, heads, width), "quantise_qkv")
        query, key, value = split3(g, parts, [2, 0, 3, 1, 4], "q, k, v")  # [batch, heads, tokens, width] each
        query_scale, key_scale, value_scale = split3(g, scales, [2, 0, 3, 1, 4], "scales")  # [batch, heads, tokens, 1]
        key_scale, value_scale = (g.reshape(x, -1, heads, 1, tokens) for x in (key_scale, value_scale))

        transposed = g.op("Transpose", key, perm=[0, 1, 3, 2])
        scores = integer_product(g, query, transposed, width * 127 * 127, "scores")
        scaled = g.op("Mul", query_scale, g.constant("attention", shape.attention_scale))
        t = g.op("Mul", scores, g.op("Mul", scaled, key_scale), name="t")
        e = exp2fix(g, g.op("Sub", t, g.op("ReduceMax", t, g.integers(-1))))
        weights, weight_scale = quantise(g, g.op("Mul", e, value_scale, name="g"), "quantise_g")
        total = integer_sum(g, e, tokens * 32768, "sum")
        mixed = integer_product(g, weights, value, tokens * 127 * 127, "mix")
        mixed = g.op("Mul", mixed, g.op("Div", weight_scale, total), name="o")
        joined = g.reshape(g.op("Transpose", mixed, perm=[0, 2, 1, 3]), -1, tokens, shape.d_model)
        q, s = quantise(g, joined, "quantise_o")
        return multiply(g, block.proj.weight, f"{name}.attention.proj", q, s, block.proj.bias)
