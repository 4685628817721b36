"""A thin layer over onnx.helper: nodes with readable names, scopes, and constants that are stored once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnx
from numpy.typing import ArrayLike, NDArray
from onnx import TensorProto, helper, numpy_helper

Tensor = str
"""Name of a tensor in the graph"""

FLOAT, DOUBLE, INT64 = int(TensorProto.FLOAT), int(TensorProto.DOUBLE), int(TensorProto.INT64)


class GraphBuilder:
    """Collects nodes and initializers.

    A node and its first output share a name, its scopes and its kind: `block0/experts/theta/layer1/Concat`.
    """

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, onnx.TensorProto] = {}
        self.value_infos: list[onnx.ValueInfoProto] = []
        self._scope = ""
        self._names: set[str] = set()

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Puts `name/` in front of the names of the nodes made inside."""
        outer = self._scope
        self._scope = f"{outer}{name}/"
        try:
            yield
        finally:
            self._scope = outer

    def op(self, kind: str, *inputs: Tensor, name: str = "", **attributes: Any) -> Tensor:
        """Adds a node with one output and returns that."""
        return self.ops(kind, 1, *inputs, name=name, **attributes)[0]

    def ops(self, kind: str, outputs: int, *inputs: Tensor, name: str = "", **attributes: Any) -> list[Tensor]:
        """Adds a node with several outputs: `name`, `name.1`, `name.2`, ..."""
        unique = self._unique(self._scope + (name or kind))
        results = [unique, *(f"{unique}.{i}" for i in range(1, outputs))]
        self.nodes.append(helper.make_node(kind, inputs, results, name=unique, **attributes))
        return results

    def cast(self, x: Tensor, to: int) -> Tensor:
        return self.op("Cast", x, to=to)

    def reshape(self, x: Tensor, *dimensions: int) -> Tensor:
        """0 keeps the dimension in its place, -1 is what is left."""
        return self.op("Reshape", x, self.integers(*dimensions))

    def declare(self, x: Tensor, *dimensions: int) -> Tensor:
        """Says that x is float32 [batch, *dimensions], where shape inference loses sight of the batch.

        Tensors of unknown size are never reused by onnxruntime and make it load a graph in quadratic time.
        """
        self.value_infos.append(helper.make_tensor_value_info(x, FLOAT, ["batch", *dimensions]))
        return x

    def initializer(self, name: str, values: NDArray[Any]) -> Tensor:
        """A parameter of the model. Names with dots, such as `block0.attention.qkv.weight`, must be unique."""
        if name in self.initializers:
            raise ValueError(f"two initializers are called {name}")
        self.initializers[name] = numpy_helper.from_array(np.ascontiguousarray(values), name)
        return name

    def constant(self, name: str, values: ArrayLike) -> Tensor:
        """A constant of the arithmetic, stored once however often it is asked for."""
        key = f"constant.{name}"
        tensor = numpy_helper.from_array(np.asarray(values), key)
        if self.initializers.setdefault(key, tensor) != tensor:
            raise ValueError(f"two different constants are called {name}")
        return key

    def integers(self, *values: int) -> Tensor:
        """A vector of int64, for shapes and axes."""
        return self.constant("i64[" + ",".join(map(str, values)) + "]", np.array(values, np.int64))

    def index(self, value: int) -> Tensor:
        """A scalar int64."""
        return self.constant(f"i64.{value}", np.int64(value))

    def _unique(self, name: str) -> str:
        unique, count = name, 1
        while unique in self._names:
            count += 1
            unique = f"{name}_{count}"
        self._names.add(unique)
        return unique
