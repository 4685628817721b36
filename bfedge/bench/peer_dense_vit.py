"""A standard ViT of the same shape as an ONNX graph in float32: what one would run on a processor without bfedge."""

from __future__ import annotations

import logging
import math
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from bfedge.export.onnx_builder import FLOAT, GraphBuilder, Tensor
from bfedge.export.onnx_graph import IR_VERSION, OPSET
from bfedge.lowered.model import LayerNorm, LoweredViT, Matrix, Shape


def dense_vit(model: LoweredViT, one_node_attention: bool) -> onnx.ModelProto:
    """`image` uint8 [height, width, channels] to `logits` [classes], with the matrices of a lowered model dequantised
    and one standard feed-forward layer (substrate and down projection) in place of the experts.

    Attention is either written out, as exporters do, or onnxruntime's own operator.
    """
    shape, p = model.shape, model.shape.patch_size
    g = GraphBuilder()
    rows, columns = shape.image_height // p, shape.image_width // p
    grid = g.reshape(g.cast("image", FLOAT), rows, p, columns, p, shape.channels)
    patches = g.reshape(g.op("Transpose", grid, perm=[0, 2, 1, 3, 4]), 1, rows * columns, shape.patch_columns)
    y = product(g, model.patch, "patch", g.op("Sub", patches, g.constant("128", np.float32(128))))
    if shape.pooling == "class":
        y = g.op("Concat", g.constant("class", np.zeros((1, 1, shape.d_model), np.float32)), y, axis=1)
    z = g.op("Add", y, g.initializer("position", model.position[None]))
    for index, block in enumerate(model.blocks):
        name = f"block{index}"
        with g.scope(name):
            h = norm(g, block.norm1, f"{name}.norm1", z)
            qkv = product(g, block.qkv.weight, f"{name}.qkv", h, block.qkv.bias)
            mixed = (attention_node if one_node_attention else attention)(g, shape, qkv)
            z = g.op("Add", z, product(g, block.proj.weight, f"{name}.proj", mixed, block.proj.bias))
            h = norm(g, block.norm2, f"{name}.norm2", z)
            u = gelu(g, product(g, block.experts.substrate, f"{name}.up", h))
            z = g.op("Add", z, product(g, block.experts.down, f"{name}.down", u))
    z = norm(g, model.norm, "norm", z)
    if shape.pooling == "class":
        pooled = g.op("Gather", z, g.index(0), axis=1)
    else:
        pooled = g.op("ReduceMean", z, g.integers(1), keepdims=0)
    g.op("Identity", product(g, model.head.weight, "head", pooled, model.head.bias), name="logits")
    graph = helper.make_graph(
        g.nodes,
        "dense ViT",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, list(shape.image_shape))],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, shape.classes])],
        list(g.initializers.values()),
    )
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)


def product(g: GraphBuilder, matrix: Matrix, name: str, x: Tensor, bias: np.ndarray | None = None) -> Tensor:
    weight = (matrix.integers * matrix.row_scales[:, None]).T
    y = g.op("MatMul", x, g.initializer(f"{name}.weight", weight))
    return y if bias is None else g.op("Add", y, g.initializer(f"{name}.bias", bias))


def norm(g: GraphBuilder, layer: LayerNorm, name: str, x: Tensor) -> Tensor:
    gain, bias = g.initializer(f"{name}.gain", layer.gain), g.initializer(f"{name}.bias", layer.bias)
    return g.op("LayerNormalization", x, gain, bias, axis=-1, epsilon=1e-5)


def gelu(g: GraphBuilder, x: Tensor) -> Tensor:
    """Written out; onnxruntime recognises it and runs one operator."""
    erf = g.op("Erf", g.op("Div", x, g.constant("sqrt2", np.float32(math.sqrt(2)))))
    twice = g.op("Mul", x, g.op("Add", erf, g.constant("1", np.float32(1))))
    return g.op("Mul", twice, g.constant("0.5", np.float32(0.5)))


def attention(g: GraphBuilder, shape: Shape, qkv: Tensor) -> Tensor:
    width = shape.d_model // shape.heads
    heads = g.reshape(qkv, 1, shape.tokens, 3, shape.heads, width)
    query, key, value = (
        g.op("Gather", g.op("Transpose", heads, perm=[2, 0, 3, 1, 4]), g.index(part), axis=0) for part in range(3)
    )
    scores = g.op("MatMul", query, g.op("Transpose", key, perm=[0, 1, 3, 2]))
    weights = g.op("Softmax", g.op("Mul", scores, g.constant("scale", np.float32(1 / math.sqrt(width)))), axis=-1)
    mixed = g.op("Transpose", g.op("MatMul", weights, value), perm=[0, 2, 1, 3])
    return g.reshape(mixed, 1, shape.tokens, shape.d_model)


def attention_node(g: GraphBuilder, shape: Shape, qkv: Tensor) -> Tensor:
    query, key, value = g.ops("Split", 3, qkv, axis=-1, num_outputs=3)
    mixed = g.op("MultiHeadAttention", query, key, value, num_heads=shape.heads)
    g.nodes[-1].domain = "com.microsoft"
    return mixed


def with_int8_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph by onnxruntime's dynamic quantisation: int8 weights, activations quantised as it runs."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    logging.disable(logging.WARNING)  # it recommends a step that this graph does not need
    try:
        with tempfile.TemporaryDirectory(prefix="bfedge-") as folder:
            path = Path(folder, "int8.onnx")
            quantize_dynamic(model, path, weight_type=QuantType.QInt8)
            return onnx.load(path)
    finally:
        logging.disable(logging.NOTSET)
