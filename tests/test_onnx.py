"""The ONNX graph gives the reference's bits in onnxruntime, and its file holds packed weights."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bfedge.lowered import arithmetic, reference
from bfedge.lowered.model import Int8Matrix, LayerNorm, LoweredViT, Shape
from bfedge.packed.layout import MAX_ANGLE, Kind
from bfedge.packed.writer import sections_of
from tests.random_models import random_images, random_lowered

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

from bfedge.export import onnx_arithmetic as onnx_ops  # noqa: E402
from bfedge.export.onnx_builder import GraphBuilder  # noqa: E402
from bfedge.export.onnx_graph import IR_VERSION, OPSET, to_onnx  # noqa: E402

DIGITS = dict(
    image_height=8, image_width=8, channels=1, patch_size=2, classes=10, d_model=64, d_ff=256, layers=2, heads=4,
    experts=8, top_k=2, rotation_layers=2, pooling="mean",
)  # fmt: skip


def session(graph: Any, optimised: bool = True) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    if not optimised:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])


def check_bits(model: LoweredViT, images: NDArray[np.uint8], optimisation: tuple[bool, ...] = (True, False)) -> None:
    graph = to_onnx(model)
    expected = reference.run(model, images)
    for optimised in optimisation:
        ran = session(graph, optimised)
        for batch in {1, len(images)}:
            (logits,) = ran.run(["logits"], {"image": images[-batch:]})
            assert logits.shape == (batch, model.shape.classes)
            np.testing.assert_array_equal(logits.view(np.uint32), expected[-batch:].view(np.uint32))


@pytest.mark.parametrize("first", range(0, 40, 8))
def test_bits_of_random_models(first: int) -> None:
    for seed in range(first, first + 8):
        model = random_lowered(seed)
        check_bits(model, random_images(model, 5, seed))


def with_router_rows(model: LoweredViT, rows: list[int]) -> LoweredViT:
    """The model with row rows[e] of every router in the place of row e."""
    blocks = []
    for block in model.blocks:
        router = block.experts.router
        equal = dataclasses.replace(router, values=router.values[rows], scales=router.scales[rows])
        blocks.append(dataclasses.replace(block, experts=dataclasses.replace(block.experts, router=equal)))
    return dataclasses.replace(model, blocks=tuple(blocks))


@pytest.mark.parametrize("rows", [[0] * 8, [3, 2, 1, 0, 0, 1, 2, 3], [7, 7, 6, 6, 5, 5, 4, 4]])
def test_equal_router_logits_choose_the_lower_index(rows: list[int]) -> None:
    model = with_router_rows(random_lowered(1, **DIGITS | dict(d_model=24, d_ff=40, heads=3, top_k=3)), rows)
    check_bits(model, random_images(model, 5, 1))


@pytest.mark.parametrize(
    ("seed", "fixed"),
    [
        (1, dict(d_ff=5000, d_model=16)),
        (2, dict(d_ff=8, d_model=1100, heads=1)),
        (3, dict(image_height=33, image_width=33, patch_size=1, d_model=8, heads=1)),
        (4, dict(patch_size=40, image_height=40, image_width=80, channels=3)),
        (5, dict(experts=40, top_k=16, rotation_layers="full")),
        (6, dict(image_height=2, image_width=2, classes=1)),
    ],
    ids=["long columns", "wide head", "1089 tokens", "large patch", "top 16", "one token"],
)
def test_bits_of_extreme_shapes(seed: int, fixed: dict[str, Any]) -> None:
    """Among them those whose integers exceed binary32, and which the graph sums in binary64."""
    model = random_lowered(seed, **DIGITS | dict(layers=1) | fixed)
    check_bits(model, random_images(model, 2, seed), (True,))


def evaluate(build: Callable[[GraphBuilder], Any], **inputs: NDArray[Any]) -> NDArray[np.float32]:
    """What the nodes that `build` makes of the inputs, named tensors, give in onnxruntime."""
    g = GraphBuilder()
    g.op("Identity", build(g), name="result")
    helper = onnx.helper
    feeds = [
        helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(x.dtype), x.shape) for n, x in inputs.items()
    ]
    result = helper.make_tensor_value_info("result", onnx.TensorProto.FLOAT, None)
    graph = helper.make_graph(g.nodes, "test", feeds, [result], list(g.initializers.values()))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    return np.asarray(session(model).run(None, inputs)[0])


def same_bits(a: NDArray[np.float32], b: NDArray[np.float32]) -> bool:
    return a.shape == b.shape and a.tobytes() == b.tobytes()


@pytest.mark.parametrize("columns", [1040, 1041, 5001])
@pytest.mark.parametrize("least", [64, 127])
def test_large_integers_stay_exact(columns: int, least: int) -> None:
    """Up to 1040 columns no sum exceeds 2^24; beyond, binary32 leaves integers out."""
    r = np.random.default_rng(0)
    matrix = Int8Matrix(r.integers(least, 128, (16, columns)).astype(np.int8), np.ones(16, np.float32))
    q, scale = r.integers(least, 128, (2, columns)).astype(np.int8), np.ones((2, 1), np.float32)
    got = evaluate(lambda g: onnx_ops.multiply(g, matrix, "m", "q", "scale"), q=q.astype(np.float32), scale=scale)
    assert same_bits(got, arithmetic.multiply(matrix, q, scale[:, 0]))


def test_exp2fix() -> None:
    t = np.linspace(-40, 0, 100_001, dtype=np.float32)[None]
    got = evaluate(lambda g: onnx_ops.exp2fix(g, "t", t.size), t=t)
    assert same_bits(got, arithmetic.exp2fix(t).astype(np.float32))


def test_gelu() -> None:
    x = np.linspace(-6, 6, 100_001, dtype=np.float32)[None]
    np.testing.assert_array_equal(evaluate(lambda g: onnx_ops.gelu(g, "x", x.size), x=x), arithmetic.gelu(x))


def test_sine_and_cosine_of_every_angle() -> None:
    angles = np.arange(65536, dtype=np.uint16).view(np.float16)
    angles = angles[np.abs(angles) <= MAX_ANGLE]
    for part in range(2):
        got = evaluate(lambda g, part=part: onnx_ops.sine_cosine(g, "angles")[part], angles=angles)
        np.testing.assert_array_equal(got, arithmetic.sine_cosine(angles)[part])


@pytest.mark.parametrize("scale", [0.0, 1e-20, 1e-3, 1.0, 1e9, 1e30])
def test_layer_norm(scale: float) -> None:
    r = np.random.default_rng(0)
    x = (r.normal(r.normal(size=(2000, 1)), 1, (2000, 37)) * scale).astype(np.float32)
    norm = LayerNorm(*r.normal(size=(2, 37)).astype(np.float32))
    assert same_bits(evaluate(lambda g: onnx_ops.layer_norm(g, "x", norm, "norm"), x=x), arithmetic.layer_norm(x, norm))


@pytest.mark.parametrize("fixed", [{}, dict(d_model=48, d_ff=99, pooling="class", projection_weights="ternary")])
def test_graph_is_valid_and_holds_nothing_foreign(fixed: dict[str, Any]) -> None:
    model = dataclasses.replace(random_lowered(4, **DIGITS | fixed), labels=tuple("abcdefghij"))
    graph = to_onnx(model)
    onnx.checker.check_model(graph, full_check=True)
    assert [(o.domain, o.version) for o in graph.opset_import] == [("", 18)]
    assert graph.ir_version == 8
    assert (graph.producer_name, graph.doc_string, graph.graph.doc_string) == ("bfedge", "", "")
    properties = {p.key: json.loads(p.value) for p in graph.metadata_props}
    assert Shape(**properties.pop("bfedge.config")) == model.shape
    assert properties == {"bfedge.labels": list(model.labels)}
    assert not any(n.doc_string or n.metadata_props or n.domain for n in graph.graph.node)
    names = [n.name for n in graph.graph.node]
    assert len(set(names)) == len(names)
    assert "block1/experts/theta/layer0/Concat" in names
    ran = session(graph)
    ((image,), (logits,)) = ran.get_inputs(), ran.get_outputs()
    assert (image.name, image.type, image.shape) == ("image", "tensor(uint8)", ["batch", 8, 8, 1])
    assert (logits.name, logits.type, logits.shape) == ("logits", "tensor(float)", ["batch", 10])


@pytest.mark.parametrize(("seed", "encoding"), [(0, "trits2"), (1, "trits3")])
def test_initializers_hold_what_the_packed_file_holds(seed: int, encoding: str) -> None:
    """Byte for byte; a LayerNorm's gain and bias are two initializers and one section."""
    angles = "float16" if seed else "int8"
    model = random_lowered(seed, **DIGITS | dict(d_model=66, heads=2, projection_weights="ternary", angles=angles))
    parameters, constants = {}, 0
    for tensor in to_onnx(model).graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        if tensor.name.startswith("constant."):
            constants += values.nbytes
        else:
            parameters[tensor.name] = values
    assert constants < 6000
    data = {section.tobytes() for section in parameters.values()}
    sections = [(kind, bytes_) for kind, _, _, bytes_ in sections_of(model, None) if kind != Kind.config]
    assert sum(v.nbytes for v in parameters.values()) == sum(len(bytes_) for _, bytes_ in sections)
    assert all(bytes_ in data for kind, bytes_ in sections if kind not in (Kind.norm1, Kind.norm2, Kind.norm))
    assert parameters[f"block1.experts.down.weight.{encoding}"].dtype == np.uint8
    assert parameters["block1.experts.router.weight"].dtype == np.int8
    assert parameters["block1.experts.phi.angles"].dtype == angles
