"""The C side of the benchmark: the runtime's sources and runtime_c/bench in one library, built for this machine when it
is first needed. Every competitor here is prepared once; one call then computes once.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from bfedge.device.compiler import (
    FLAGS,
    Compiler,
    compile_objects,
    find_compiler,
    is_zig,
    run_compiler,
    runtime_sources,
    sources,
)
from bfedge.device.host import (
    PREPARED_ALIGNMENT,
    HostModel,
    TraceCallback,
    aligned_buffer,
    load_library,
    usable_kernels,
)
from bfedge.errors import BfedgeError
from bfedge.files import cache_folder, write_atomically
from bfedge.lowered.model import Int8Matrix, LayerNorm, Matrix
from bfedge.packed.layout import Encoding
from bfedge.packed.trits import pack_trits

Floats = NDArray[np.float32]


class Weight(ctypes.Structure):
    """`bfb_weight` of bfb_bench.h."""

    _fields_: ClassVar[list[tuple[str, Any]]] = [
        ("weight", ctypes.c_void_p),
        ("scale", ctypes.c_void_p),
        ("rows", ctypes.c_uint32),
        ("columns", ctypes.c_uint32),
        ("encoding", ctypes.c_uint32),
    ]

    @classmethod
    def of(cls, matrix: Matrix) -> Weight:
        rows, columns = matrix.integers.shape
        values: NDArray[Any]
        if isinstance(matrix, Int8Matrix):
            encoding = Encoding.int8
            values, scale = np.ascontiguousarray(matrix.values), np.ascontiguousarray(matrix.scales)
        else:
            encoding = Encoding[matrix.encoding]
            values = np.frombuffer(pack_trits(matrix.trits, encoding), np.uint8)
            scale = np.array([matrix.scale], np.float32)
        weight = cls(values.ctypes.data, scale.ctypes.data, rows, columns, encoding)
        weight.kept = (values, scale)
        return weight


class Input(ctypes.Structure):
    """`bfb_input` of bfb_bench.h."""

    _fields_: ClassVar[list[tuple[str, Any]]] = [
        ("z", ctypes.c_void_p),
        ("gain", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
        ("tokens", ctypes.c_uint32),
        ("d_model", ctypes.c_uint32),
    ]

    @classmethod
    def of(cls, z: Floats, norm: LayerNorm) -> Input:
        tokens, d_model = z.shape
        return cls(pointer(z), pointer(norm.gain), pointer(norm.bias), tokens, d_model)


@dataclass(frozen=True)
class Prepared:
    """A piece of work that the library holds ready."""

    call: Callable[[], object]
    result: Callable[[], Floats]
    """What the last call computed"""


class BenchLibrary:
    def __init__(self, path: Path, compiler: Compiler) -> None:
        self.path = path
        self.compiler = compiler
        self.dll = load_library(path)
        for name in ("product", "dense", "standard", "experts"):
            getattr(self.dll, f"bfb_{name}_prepare").restype = ctypes.c_size_t
            getattr(self.dll, f"bfb_{name}_result").restype = ctypes.POINTER(ctypes.c_float)

    def kernels(self) -> list[str]:
        """The sets that this processor can run, fastest first."""
        return usable_kernels(self.path)

    def choose(self, wanted: str | None) -> str:
        """The set to measure. Raises BfedgeError if this processor does not have it."""
        known = self.kernels()
        if wanted is not None and wanted not in known:
            raise BfedgeError(f"this machine has no kernels `{wanted}`", f"it has {', '.join(known)}")
        return wanted or known[0]

    def nothing(self) -> Callable[[], object]:
        """A call that computes nothing."""
        return functools.partial(self.dll.bfb_nothing, ctypes.c_void_p(0))

    def product(self, kernels: str, matrix: Matrix, q: NDArray[np.int8], s: Floats) -> Prepared:
        """y[count, rows] of the columns q [count, columns], which have the scales s [count]."""
        weight = Weight.of(matrix)
        arguments = (kernels.encode(), ctypes.byref(weight), pointer(q), pointer(s), ctypes.c_uint32(len(q)))
        return self.prepare("product", arguments, (len(q), weight.rows))

    def dense(self, kernels: str, z: Floats, norm: LayerNorm, up: Matrix, down: Matrix, copies: int) -> Prepared:
        """A dense feed-forward layer on z [tokens, d_model]; every token goes through `up` as `copies` columns."""
        given, weights = Input.of(z, norm), (Weight.of(up), Weight.of(down))
        matrices = (ctypes.byref(weight) for weight in weights)
        arguments = (kernels.encode(), ctypes.byref(given), *matrices, ctypes.c_uint32(copies))
        return self.prepare("dense", arguments, z.shape)

    def standard(
        self,
        kernels: str,
        z: Floats,
        norm: LayerNorm,
        router: Int8Matrix,
        experts: list[tuple[Int8Matrix, Int8Matrix]],
        top_k: int,
    ) -> Prepared:
        """A mixture of experts with an `up` and a `down` each, on z [tokens, d_model]."""
        given, gate, table = Input.of(z, norm), Weight.of(router), Weight * len(experts)
        ups, downs = [Weight.of(up) for up, _ in experts], [Weight.of(down) for _, down in experts]
        matrices = (ctypes.byref(gate), table(*ups), table(*downs))
        arguments = (kernels.encode(), ctypes.byref(given), *matrices, ctypes.c_uint32(top_k))
        return self.prepare("standard", arguments, z.shape)

    def experts(self, model: BenchModel, block: int, z: Floats) -> Prepared:
        """The experts' stage of one block of an open model, on z [tokens, d_model]."""
        arguments = (model.host.reference, ctypes.c_uint32(block), pointer(z))
        return self.prepare("experts", arguments, z.shape, model)

    def prepare(self, name: str, arguments: tuple[Any, ...], shape: tuple[int, ...], kept: object = None) -> Prepared:
        """`kept` is what the call uses of the arguments; all others are copied."""
        size = getattr(self.dll, f"bfb_{name}_prepare")(ctypes.c_void_p(0), *arguments)
        memory = aligned_buffer(size, PREPARED_ALIGNMENT)
        at = pointer(memory)
        at.kept = (memory, kept)  # for as long as there is a call that holds it
        getattr(self.dll, f"bfb_{name}_prepare")(at, *arguments)
        result = getattr(self.dll, f"bfb_{name}_result")
        return Prepared(
            functools.partial(getattr(self.dll, f"bfb_{name}_run"), at),
            lambda: np.ctypeslib.as_array(result(at), shape).copy(),
        )


class BenchModel:
    """A packed file opened by the library, with all memory at hand: `run` computes the logits of one image."""

    def __init__(
        self, library: BenchLibrary, packed: bytes, kernels: str, image: NDArray[np.uint8], threads: int = 1
    ) -> None:
        self.host = HostModel(packed, library.path, kernels, threads)
        self.options = self.host.options(tile_tokens=0)
        self.image = np.ascontiguousarray(image)
        self.logits = np.zeros(self.host.model.config.classes, np.float32)
        self.workspace = aligned_buffer(self.host.workspace_bytes(), PREPARED_ALIGNMENT)
        self.run_library = functools.partial(
            library.dll.bfe_run,
            self.host.reference,
            ctypes.byref(self.options),
            self.workspace.ctypes.data,
            self.workspace.nbytes,
            self.image.ctypes.data,
            self.logits.ctypes.data,
        )

    def run(self) -> None:
        self.run_library()

    def trace(self, seen: Callable[[int], None]) -> None:
        """Has `seen` called with each stage's number at its end, in the runs that follow."""
        self.options.trace = TraceCallback(lambda _, event: seen(event.contents.stage))


def bench_library(cc: str | None = None) -> BenchLibrary:
    """Builds the library if its sources or the compiler have changed since it was built. Raises CompilerError."""
    folder, compiler = runtime_sources(), find_compiler(cc)
    flags = [*FLAGS, "-fPIC", "-Iinclude", "-Isrc", "-Ibench", "-Iports/posix"]
    if is_zig(compiler):
        flags.append("-mcpu=baseline")  # zig would build for this very processor, the installed runtime is not
    files = [*sources(folder, "src", "bench"), "ports/posix/bfe_pool.c"]
    named = [(source, source.replace("/", "-") + ".o") for source in files]
    objects = compile_objects(compiler, flags, folder, named, cache_folder() / "objects")
    path = objects[0].parent / "libbfedge-bench.so"
    if not path.is_file():
        linking = ["-shared", "-pthread", *map(str, objects), "-o"]
        write_atomically(path, lambda output: run_compiler(compiler, [*linking, output], folder))
    return BenchLibrary(path, compiler)


class Pointer(ctypes.c_void_p):
    kept: object = None
    """What it points to, and what that needs"""


def pointer(values: NDArray[Any]) -> Pointer:
    if not values.flags.c_contiguous:
        raise ValueError("the library takes contiguous arrays")
    return Pointer(values.ctypes.data)
