"""onnxruntime as a competitor: sessions whose inputs and outputs are bound once, and the graphs of its products."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from bfedge.errors import BfedgeError
from bfedge.export.onnx_graph import IR_VERSION, OPSET

QUIET = 3
"""Errors only"""


@dataclass(frozen=True)
class Bound:
    call: Callable[[], object]
    result: Callable[[], NDArray[Any]]


def bind(model: onnx.ModelProto, inputs: dict[str, NDArray[Any]], threads: int) -> Bound:
    """A session with all of onnxruntime's optimisations, ready to run. Raises BfedgeError if it refuses the graph."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = QUIET
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        binding = session.io_binding()
        for name, values in inputs.items():
            binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(values))
        first = session.run(None, inputs)[0]
        output = onnxruntime.OrtValue.ortvalue_from_numpy(np.zeros_like(first))
        binding.bind_ortvalue_output(session.get_outputs()[0].name, output)
    except Exception as problem:  # onnxruntime raises many kinds, all with a message
        text = str(problem).splitlines() or [type(problem).__name__]
        raise BfedgeError(f"onnxruntime refuses a graph: {text[0][:200]}") from None
    return Bound(functools.partial(session.run_with_iobinding, binding), output.numpy)


def one_node(
    node: onnx.NodeProto, inputs: dict[str, NDArray[Any]], weights: dict[str, NDArray[Any]], output: Any, rank: int = 2
) -> onnx.ModelProto:
    """A graph of one node with the output `y`, of a type that NumPy knows."""
    given = [helper.make_tensor_value_info(name, element_type(x.dtype), x.shape) for name, x in inputs.items()]
    made = helper.make_tensor_value_info("y", element_type(output), [None] * rank)
    stored = [numpy_helper.from_array(np.ascontiguousarray(x), name) for name, x in weights.items()]
    graph = helper.make_graph([node], "bench", given, [made], stored)
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)


def element_type(dtype: Any) -> int:
    return int(helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))


def shifted(values: NDArray[np.int8]) -> NDArray[np.uint8]:
    """The same with a zero point of 128."""
    return (values.astype(np.int16) + 128).astype(np.uint8)


def nothing(threads: int) -> Bound:
    """A graph that copies one number."""
    x = np.zeros((1, 1), np.float32)
    return bind(one_node(helper.make_node("Identity", ["x"], ["y"]), {"x": x}, {}, np.float32), {"x": x}, threads)


def matmul_integer(
    weight: NDArray[np.int8], q: NDArray[np.int8], threads: int
) -> Iterator[tuple[str, Callable[[], Bound]]]:
    """MatMulInteger of int8 activations [count, columns] with weight [rows, columns], in the three ways that give the
    exact int32 sums: which is the fastest depends on the processor.
    """
    point = np.array(128, np.uint8)
    variants: dict[str, tuple[NDArray[Any], dict[str, NDArray[Any]], list[str]]] = {
        "int8 x int8": (q, {"w": weight.T}, ["x", "w"]),
        "uint8 x int8": (shifted(q), {"w": weight.T, "zx": point}, ["x", "w", "zx"]),
        "uint8 x uint8": (shifted(q), {"w": shifted(weight).T, "zx": point, "zw": point}, ["x", "w", "zx", "zw"]),
    }
    for name, (x, stored, names) in variants.items():
        graph = one_node(helper.make_node("MatMulInteger", names, ["y"]), {"x": x}, stored, np.int32)
        yield name, functools.partial(bind, graph, {"x": x}, threads)


def matmul_nbits(
    trits: NDArray[np.int8], x: NDArray[np.float32], bits: int, threads: int
) -> Iterator[tuple[str, Callable[[], Bound]]]:
    """MatMulNBits of float32 activations, which it quantises to int8 itself (accuracy level 4), in blocks of several
    sizes.
    """
    rows, columns = trits.shape
    codes = (trits + (1 << (bits - 1))).astype(np.uint8)
    per_byte = 8 // bits
    for block in (32, 128, 256):
        if columns % block:
            continue
        blocks = codes.reshape(rows, columns // block, block // per_byte, per_byte)
        shifts = np.arange(0, 8, bits, dtype=np.uint8)
        packed = np.bitwise_or.reduce(blocks << shifts, axis=-1).astype(np.uint8)
        scales = np.ones((rows, columns // block), np.float32)
        attributes = dict(K=columns, N=rows, bits=bits, block_size=block, accuracy_level=4)
        node = helper.make_node("MatMulNBits", ["x", "w", "s"], ["y"], domain="com.microsoft", **attributes)
        graph = one_node(node, {"x": x}, {"w": packed, "s": scales}, np.float32)
        yield f"blocks of {block}", functools.partial(bind, graph, {"x": x}, threads)


def matmul_float(weight: NDArray[np.float32], x: NDArray[np.float32], threads: int) -> Bound:
    graph = one_node(helper.make_node("MatMul", ["x", "w"], ["y"]), {"x": x}, {"w": weight.T}, np.float32)
    return bind(graph, {"x": x}, threads)
