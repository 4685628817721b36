"""LiteRT (TensorFlow Lite) as a competitor: a flatbuffer with one int8 operator, written with the schema that its
package brings.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

SCHEMA_VERSION = 3
FULLY_CONNECTED_VERSION = 4
"""The first with int8 in and out"""


@dataclass(frozen=True)
class Invoked:
    interpreter: Any
    output: int

    @property
    def call(self) -> Any:
        return self.interpreter.invoke

    def result(self) -> NDArray[np.int8]:
        values: NDArray[np.int8] = self.interpreter.get_tensor(self.output)
        return values


def fully_connected(weight: NDArray[np.int8], q: NDArray[np.int8], output_scale: float, threads: int) -> Invoked:
    """int8 activations [count, columns] times weight [rows, columns], requantised to int8 by output_scale."""
    rows, columns = weight.shape
    options = schema.FullyConnectedOptionsT()
    options.keepNumDims = True
    tensors = [
        tensor("x", (len(q), columns), 1.0),
        tensor("w", weight.shape, 1.0, buffer=1),
        tensor("y", (len(q), rows), output_scale),
    ]
    kind = schema.BuiltinOptions.FullyConnectedOptions
    inputs = [0, 1, -1]
    code, version = schema.BuiltinOperator.FULLY_CONNECTED, FULLY_CONNECTED_VERSION
    return interpret(flatbuffer(tensors, weight, code, version, inputs, 2, kind, options), q, threads)


def nothing(threads: int) -> Invoked:
    """A graph that reshapes one number, so nothing is computed."""
    options = schema.ReshapeOptionsT()
    options.newShape = [1]
    tensors = [tensor("x", (1, 1), 1.0), tensor("y", (1,), 1.0)]
    code, kind = schema.BuiltinOperator.RESHAPE, schema.BuiltinOptions.ReshapeOptions
    empty = np.zeros(0, np.int8)
    return interpret(flatbuffer(tensors, empty, code, 1, [0], 1, kind, options), np.zeros((1, 1), np.int8), threads)


def interpret(model: bytes, x: NDArray[np.int8], threads: int) -> Invoked:
    with silent():
        interpreter = Interpreter(model_content=model, num_threads=threads)
        interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
    interpreter.invoke()
    return Invoked(interpreter, interpreter.get_output_details()[0]["index"])


@contextmanager
def silent() -> Iterator[None]:
    """LiteRT tells the standard error stream, past Python, which delegate it uses."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def tensor(name: str, shape: tuple[int, ...], scale: float, buffer: int = 0) -> Any:
    result = schema.TensorT()
    result.name, result.shape, result.type, result.buffer = name.encode(), list(shape), schema.TensorType.INT8, buffer
    result.hasRank = True
    result.quantization = schema.QuantizationParametersT()
    result.quantization.scale, result.quantization.zeroPoint = [scale], [0]
    return result


def flatbuffer(
    tensors: list[Any],
    weight: NDArray[np.int8],
    code: int,
    version: int,
    inputs: list[int],
    output: int,
    options_kind: int,
    options: Any,
) -> bytes:
    """A model with one operator; tensor 0 is its input."""
    model, graph, operator, kind = schema.ModelT(), schema.SubGraphT(), schema.OperatorT(), schema.OperatorCodeT()
    kind.builtinCode, kind.deprecatedBuiltinCode, kind.version = code, min(code, 127), version
    operator.opcodeIndex, operator.inputs, operator.outputs = 0, inputs, [output]
    operator.builtinOptionsType, operator.builtinOptions = options_kind, options
    graph.name, graph.tensors, graph.operators = b"main", tensors, [operator]
    graph.inputs, graph.outputs = [0], [output]
    stored = schema.BufferT()
    stored.data = np.frombuffer(weight.tobytes(), np.uint8)
    model.version, model.description = SCHEMA_VERSION, b"bfedge bench"
    model.operatorCodes, model.subgraphs, model.buffers = [kind], [graph], [schema.BufferT(), stored]
    builder = flatbuffers.Builder(weight.nbytes + 4096)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())
