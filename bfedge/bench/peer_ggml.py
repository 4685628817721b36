"""llama.cpp's ternary kernels as a competitor: ggml, from the libraries that the package llama-cpp-python builds."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from dataclasses import dataclass
from importlib import util
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from bfedge.errors import BfedgeError

F32 = 0
TERNARY = {"TQ2_0": 35, "TQ1_0": 34}
"""ggml_type: 2.06 and 1.69 bits a trit"""
BLOCK = 256
"""Weights that share a scale; a matrix's columns are a multiple"""
OVERHEAD_BYTES = 1 << 20
"""Of a context, beside its tensors' data"""


class InitParams(ctypes.Structure):
    """`ggml_init_params`"""

    _fields_: ClassVar[list[tuple[str, Any]]] = [
        ("mem_size", ctypes.c_size_t),
        ("mem_buffer", ctypes.c_void_p),
        ("no_alloc", ctypes.c_bool),
    ]


@dataclass(frozen=True)
class Product:
    call: Callable[[], object]
    result: Callable[[], NDArray[np.float32]]


@functools.cache
def libraries() -> tuple[ctypes.CDLL, ctypes.CDLL]:
    """ggml's base, and its backend for processors. Raises BfedgeError if the package is built otherwise."""
    spec = util.find_spec("llama_cpp")
    folder = Path(spec.origin or "").parent / "lib" if spec else Path()
    try:
        base, backend = [ctypes.CDLL(str(next(folder.glob(f"libggml-{name}.*")))) for name in ("base", "cpu")]
        for function in ("init", "new_tensor_2d", "get_data", "mul_mat", "new_graph"):
            getattr(base, f"ggml_{function}").restype = ctypes.c_void_p
        base.ggml_quantize_chunk.restype = ctypes.c_size_t
        backend.ggml_backend_cpu_init.restype = ctypes.c_void_p
    except (StopIteration, OSError, AttributeError) as problem:
        raise BfedgeError(f"llama-cpp-python's libraries are not as expected: {type(problem).__name__}") from None
    return base, backend


def multiply(trits: NDArray[np.int8], x: NDArray[np.float32], kind: str, threads: int) -> Product:
    """Trits [rows, columns] times float32 activations [count, columns], which ggml rounds to int8 itself."""
    base, cpu = libraries()
    (rows, columns), count = trits.shape, len(x)
    size = trits.size + 2 * x.nbytes + 4 * rows * count + OVERHEAD_BYTES
    context = pointer(base.ggml_init(InitParams(size, None, False)))

    def tensor(type_number: int, width: int, height: int) -> ctypes.c_void_p:
        sizes = ctypes.c_int64(width), ctypes.c_int64(height)
        return pointer(base.ggml_new_tensor_2d(context, ctypes.c_int(type_number), *sizes))

    weight, given = tensor(TERNARY[kind], columns, rows), tensor(F32, columns, count)
    floats = np.ascontiguousarray(trits, np.float32)
    base.ggml_quantize_chunk(
        ctypes.c_int(TERNARY[kind]),
        pointer(floats.ctypes.data),
        pointer(base.ggml_get_data(weight)),
        *(ctypes.c_int64(number) for number in (0, rows, columns)),
        None,
    )
    ctypes.memmove(base.ggml_get_data(given), x.ctypes.data, x.nbytes)
    output = pointer(base.ggml_mul_mat(context, weight, given))
    graph = pointer(base.ggml_new_graph(context))
    base.ggml_build_forward_expand(graph, output)
    backend = pointer(cpu.ggml_backend_cpu_init())
    cpu.ggml_backend_cpu_set_n_threads(backend, ctypes.c_int(threads))
    address = base.ggml_get_data(output)

    def result() -> NDArray[np.float32]:
        values = ctypes.cast(address, ctypes.POINTER(ctypes.c_float))
        return np.ctypeslib.as_array(values, (count, rows)).copy()

    return Product(functools.partial(base.ggml_backend_graph_compute, backend, graph), result)


def pointer(address: int | None) -> ctypes.c_void_p:
    if not address:
        raise BfedgeError("ggml has no memory left")
    return ctypes.c_void_p(address)
