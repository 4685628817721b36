"""Lowered model to an ONNX graph that computes NUMERICS.md, operation by operation, in the bits of the reference.

The graph is written node by node, without tracing; its structure is that of lowered/reference.py. Weights stay as small
as in the .bfe file: packed trits, int8, and angles of 16 or 8 bits are initializers, and nodes unpack them; onnxruntime
does that once, when it loads the file.
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
    graph = helper.make_graph(
        g.nodes, "bfedge", [image], [output], list(g.initializers.values()), value_info=g.value_infos
    )
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
        grid = g.reshape(image, 0, rows, p, columns, p, shape.channels)
        patches = g.op("Transpose", grid, perm=[0, 1, 3, 2, 4, 5])
        patches = g.reshape(patches, 0, rows * columns, shape.patch_columns)
        centred = g.op("Sub", g.cast(patches, FLOAT), g.constant("128", F32(128)), name="centred")
        y = embed_patches(g, model.patch, centred)
        if shape.pooling == "class":  # a row of zeros in front: the class token is the first row of positions alone
            y = g.op("Pad", y, g.integers(1, 0), "", g.integers(1))
            g.declare(y, shape.tokens, shape.d_model)
        return g.op("Add", y, g.initializer("position", model.position))


def attention(g: GraphBuilder, shape: Shape, block: Block, z: Tensor, name: str) -> Tensor:
    """Section 7: what attention adds to the residual [batch, tokens, d_model]."""
    tokens, heads = shape.tokens, shape.heads
    width = shape.d_model // heads
    normed = layer_norm(g, z, block.norm1, f"{name}.norm1")
    with g.scope("attention"):
        q, s = quantise(g, normed)
        qkv = multiply(g, block.qkv.weight, f"{name}.attention.qkv", q, s, block.qkv.bias)
        parts, scales = quantise(g, g.reshape(qkv, 0, tokens, 3, heads, width), "quantise_qkv")
        query, key, value = split_qkv(g, parts)  # [batch, heads, tokens, width] each
        query_scale, key_scale, value_scale = split_qkv(g, scales)  # [batch, heads, tokens, 1]
        key_scale, value_scale = (g.reshape(x, 0, heads, 1, tokens) for x in (key_scale, value_scale))

        transposed = g.op("Transpose", key, perm=[0, 1, 3, 2])
        scores = integer_product(g, query, transposed, width * 127 * 127, "scores")
        scaled = g.op("Mul", query_scale, g.constant("attention", F32(shape.attention_scale)))
        t = g.op("Mul", scores, g.op("Mul", scaled, key_scale), name="t")
        e = exp2fix(g, g.op("Sub", t, g.op("ReduceMax", t, g.integers(-1))), heads, tokens, tokens)
        weights, weight_scale = quantise(g, g.op("Mul", e, value_scale, name="g"), "quantise_g")
        total = integer_sum(g, e, tokens * 32768, "sum")
        mixed = integer_product(g, weights, value, tokens * 127 * 127, "mix")
        mixed = g.op("Mul", mixed, g.op("Div", weight_scale, total), name="o")
        joined = g.reshape(g.op("Transpose", mixed, perm=[0, 2, 1, 3]), 0, tokens, shape.d_model)
        q, s = quantise(g, joined, "quantise_o")
        return multiply(g, block.proj.weight, f"{name}.attention.proj", q, s, block.proj.bias)


def split_qkv(g: GraphBuilder, x: Tensor) -> list[Tensor]:
    """Three times [batch, heads, tokens, ...] from [batch, tokens, 3, heads, ...]."""
    parts = g.op("Transpose", x, perm=[2, 0, 3, 1, 4])
    return [g.op("Gather", parts, g.index(part), axis=0) for part in range(3)]


def route(g: GraphBuilder, shape: Shape, layer: ButterflyExperts, h: Tensor, name: str) -> tuple[Tensor, Tensor]:
    """Section 8: expert indices int64 [batch, tokens, top_k] in ascending order, and their weights."""
    with g.scope("route"):
        logits = multiply(g, layer.router, f"{name}.router", *quantise(g, h))
        _, selected = g.ops("TopK", 2, logits, g.integers(shape.top_k))  # ONNX, too, prefers the lower index on a tie
        if shape.top_k > 1:
            selected, _ = g.ops("TopK", 2, selected, g.integers(shape.top_k), name="ascending", largest=0)
        chosen = g.op("GatherElements", logits, selected, axis=-1)
        best = g.op("ReduceMax", chosen, g.integers(-1))
        e = exp2fix(g, g.op("Mul", g.op("Sub", chosen, best), g.constant("log2e", LOG2E)), shape.tokens, shape.top_k)
        return selected, g.op("Div", e, integer_sum(g, e, shape.top_k * 32768, "sum"), name="weights")


def experts(g: GraphBuilder, shape: Shape, layer: ButterflyExperts, h: Tensor, name: str) -> Tensor:
    """Section 11: what the experts add to the residual, from h [batch, tokens, d_model]."""
    tokens, top_k = shape.tokens, shape.top_k
    with g.scope("experts"):
        selected, weights = route(g, shape, layer, h, name)
        x = g.reshape(h, 0, tokens, 1, shape.d_model)
        x = rotate(g, layer.theta, f"{name}.theta", selected, x, tokens, 1)
        u = multiply(g, layer.substrate, f"{name}.substrate", *quantise(g, x, "quantise_x"))
        u = gelu(g, u, tokens, top_k, shape.d_ff)
        u = rotate(g, layer.phi, f"{name}.phi", selected, u, tokens, top_k)
        weighted = g.op("Mul", g.reshape(weights, 0, tokens, top_k, 1), u, name="weighted")
        # NUMERICS.md starts from +0.0. Without that addition a zero may get another sign, which quantise drops
        ranks = g.ops("Split", top_k, weighted, axis=2, num_outputs=top_k) if top_k > 1 else [weighted]
        v = ranks[0]
        for rank in ranks[1:]:
            v = g.op("Add", v, rank)
        v = g.reshape(v, 0, tokens, shape.d_ff)
        return multiply(g, layer.down, f"{name}.down", *quantise(g, v, "quantise_v"))


def pool(g: GraphBuilder, model: LoweredViT, z: Tensor) -> Tensor:
    """Section 12: [batch, d_model]."""
    if model.shape.pooling == "class":
        return layer_norm(g, g.op("Gather", z, g.index(0), axis=1), model.norm, "norm")
    y = layer_norm(g, z, model.norm, "norm")
    tokens = model.shape.tokens
    # CumSum adds token by token, in order; ReduceSum may not
    total = g.op("Gather", g.op("CumSum", y, g.index(1)), g.index(tokens - 1), axis=1)
    return g.op("Mul", total, g.constant(f"1/{tokens}", F32(1) / F32(tokens)))
