"""One mixture-of-experts layer: ours beside dense layers and distinct experts on the same kernels, and beside others'
runtimes. Every competitor does the whole layer: norm, routing if there is any, quantisation, GELU, down projection, and
the sum with the residual.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from bfedge.bench.library import BenchModel
from bfedge.bench.peers import Bench, Case, demand_alike, demand_correct
from bfedge.bench.random_models import cifar_shape, random_image, random_int8, random_model, random_tokens
from bfedge.bench.timing import Competitor
from bfedge.lowered import reference
from bfedge.lowered.arithmetic import F32, gelu, layer_norm, multiply, quantise
from bfedge.lowered.model import Block, Int8Matrix, LoweredViT, Matrix, Shape
from bfedge.packed.writer import pack

EXPERTS = (8, 64, 256)

Floats = NDArray[np.float32]


def bench_layers(bench: Bench, shapes: Sequence[Shape] | None = None) -> list[Case]:
    """All on one thread, all from the same residual."""
    cases = []
    for shape in shapes or [cifar_shape(experts, layers=1) for experts in EXPERTS]:
        name = f"{shape.experts} experts, top-{shape.top_k}, {shape.tokens} tokens"
        bench.on_case(name)
        model, z = random_model(shape), random_tokens(shape)
        expected = z + reference.experts(shape, model.blocks[0].experts, layer_norm(z[None], model.blocks[0].norm2))[0]
        competitors = [ours(bench, model, z, expected), *on_our_kernels(bench, model, z)]
        if "torch" in bench.installed:
            competitors += torch_peers(bench, model, z, expected)
        if "onnxruntime" in bench.installed:
            competitors.append(onnxruntime_peer(model, z, expected))
        parameters = {
            "experts": shape.experts,
            "top_k": shape.top_k,
            "tokens": shape.tokens,
            "d_model": shape.d_model,
            "d_ff": shape.d_ff,
            "rotation_layers": shape.theta_layers,
            "experts_used": experts_used(model, z),
        }
        cases.append(bench.time(name, parameters, competitors))
    return cases


def experts_used(model: LoweredViT, z: Floats) -> int:
    """Of all experts, how many some token selects."""
    block = model.blocks[0]
    selected, _ = reference.route(block.experts, layer_norm(z, block.norm2), model.shape.top_k)
    return len(np.unique(selected))


def ours(bench: Bench, model: LoweredViT, z: Floats, expected: Floats) -> Competitor:
    opened = BenchModel(bench.library, pack(model), bench.kernels, random_image(model.shape))
    prepared = bench.library.experts(opened, 0, z)
    prepared.call()
    name = "ours, butterfly experts"
    return Competitor(name, prepared.call, "ours", demand_correct(name, prepared.result(), expected, 0))


def on_our_kernels(bench: Bench, model: LoweredViT, z: Floats) -> Iterator[Competitor]:
    shape, block = model.shape, model.blocks[0]
    library, kernels, r = bench.library, bench.kernels, np.random.default_rng(5)
    up, down = block.experts.substrate, block.experts.down
    int8_up = random_int8(r, shape.d_ff, shape.d_model)
    layers: dict[str, tuple[Matrix, int]] = {
        f"our dense layer, ternary, {shape.top_k * shape.tokens} columns": (up, shape.top_k),
        f"our dense layer, ternary, {shape.tokens} columns": (up, 1),
        f"our dense layer, int8, {shape.tokens} columns": (int8_up, 1),
    }
    for name, (matrix, copies) in layers.items():
        prepared = library.dense(kernels, z, block.norm2, matrix, down, copies)
        prepared.call()
        check = demand_correct(name, prepared.result(), dense(block, z, matrix, copies), 0)
        yield Competitor(name, prepared.call, "ours", check)
    experts = [
        (random_int8(r, shape.d_ff, shape.d_model), random_int8(r, shape.d_model, shape.d_ff))
        for _ in range(shape.experts)
    ]
    prepared = library.standard(kernels, z, block.norm2, block.experts.router, experts, shape.top_k)
    prepared.call()
    name = "distinct int8 experts on our kernels"
    check = demand_correct(name, prepared.result(), standard(shape, block, z, experts), 0)
    yield Competitor(name, prepared.call, "ours", check)


def dense(block: Block, z: Floats, up: Matrix, copies: int) -> Floats:
    """The reference of a dense layer whose tokens go through `up` several times each."""
    u = gelu(multiply(up, *quantise(layer_norm(z, block.norm2))))
    mean = u
    if copies > 1:
        mean = np.zeros_like(u)
        for _ in range(copies):
            mean = mean + F32(1 / copies) * u
    result: Floats = z + multiply(block.experts.down, *quantise(mean))
    return result


def standard(shape: Shape, block: Block, z: Floats, experts: list[tuple[Int8Matrix, Int8Matrix]]) -> Floats:
    """The reference of a mixture of distinct experts."""
    h = layer_norm(z, block.norm2)
    selected, gate = reference.route(block.experts, h, shape.top_k)
    q, s = quantise(h)
    total = np.zeros_like(z)
    for expert, (up, down) in enumerate(experts):
        token, rank = np.nonzero(selected == expert)
        if len(token):
            y = multiply(down, *quantise(gelu(multiply(up, q[token], s[token]))))
            total[token] = total[token] + gate[token, rank, None] * y
    result: Floats = z + total
    return result


def torch_peers(bench: Bench, model: LoweredViT, z: Floats, expected: Floats) -> Iterator[Competitor]:
    import torch

    from bfedge.bench.peer_torch import FloatLayer, compiled

    given = torch.from_numpy(z)
    eager = FloatLayer(model.blocks[0], model.shape.top_k, "eager").eval()
    name = "torch eager, float32"
    check = demand_alike(name, eager(given).numpy() - z, expected - z)
    yield Competitor(name, lambda: eager(given), "torch", check)
    name = "torch compiled, float32"
    try:
        fused = compiled(FloatLayer(model.blocks[0], model.shape.top_k, "fused").eval(), given)
    except Exception as problem:  # torch raises many kinds, most of them for the lack of a C++ compiler
        bench.leave_out("torch compiled", f"torch.compile fails: {type(problem).__name__}")
        return
    yield Competitor(name, fused, "torch", demand_alike(name, fused().numpy() - z, expected - z))


def onnxruntime_peer(model: LoweredViT, z: Floats, expected: Floats) -> Competitor:
    """The layer as `bfedge export` writes it."""
    from onnx import TensorProto, helper

    from bfedge.bench import peer_onnx
    from bfedge.export import onnx_graph
    from bfedge.export.onnx_arithmetic import layer_norm as norm_nodes
    from bfedge.export.onnx_builder import GraphBuilder

    block, g = model.blocks[0], GraphBuilder()
    h = norm_nodes(g, "z", block.norm2, "block0.norm2")
    g.op("Add", "z", onnx_graph.experts(g, model.shape, block.experts, h, "block0.experts"), name="y")
    shape = [1, *z.shape]
    graph = helper.make_graph(
        g.nodes,
        "layer",
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        list(g.initializers.values()),
    )
    opsets = [helper.make_opsetid("", onnx_graph.OPSET)]
    exported = helper.make_model(graph, opset_imports=opsets, ir_version=onnx_graph.IR_VERSION)
    bound = peer_onnx.bind(exported, {"z": z[None]}, 1)
    bound.call()
    name = "onnxruntime, our exported layer"
    return Competitor(name, bound.call, "onnxruntime", demand_correct(name, bound.result()[0], expected, 0))
