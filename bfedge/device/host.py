"""The C runtime on this machine, through ctypes: the same sources that devices compile."""

from __future__ import annotations

import ctypes
import functools
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

import bfedge
from bfedge.errors import BfedgeError

if TYPE_CHECKING:
    from bfedge.device.profile import Profile
    from bfedge.lowered.model import Shape
    from bfedge.packed.outline import Outline

STAGES = ("embed", "attention", "experts", "logits")
NO_BLOCK = 0xFFFF
ALIGNMENT = 16
PREPARED_ALIGNMENT = 64
COLUMNS_IN_PLACE, COLUMNS_REARRANGED = 4, 32
"""Columns that go through a matrix together, at most (bfe_columns_at_once of bfe_internal.h)"""

GUARD_BYTES = 16
"""That the device program keeps behind the workspace, to see whether it is left alone"""


CONFIG_WORDS = (
    *("image_height", "image_width", "channels", "patch_size", "classes"),
    *("d_model", "d_ff", "layers", "heads", "experts", "top_k"),
    *("theta_layers", "phi_layers", "pooling", "feed_forward"),
)


class Config(ctypes.Structure):
    _fields_: ClassVar[list[tuple[str, Any]]] = [
        *((name, ctypes.c_uint32) for name in CONFIG_WORDS),
        ("attention_scale", ctypes.c_float),
        ("tokens", ctypes.c_uint32),
        ("patch_columns", ctypes.c_uint32),
    ]


class Model(ctypes.Structure):
    """`bfe_model` of bfedge.h."""

    _fields_ = [
        ("config", Config),
        ("file", ctypes.c_void_p),
        ("file_bytes", ctypes.c_uint32),
        ("section_count", ctypes.c_uint32),
        ("golden_count", ctypes.c_uint32),
        ("kernels", ctypes.c_void_p),
        ("prepared", ctypes.c_void_p),
    ]


class Diag(ctypes.Structure):
    """`bfe_diag` of bfedge.h."""

    _fields_ = [
        ("rule", ctypes.c_uint32),
        ("offset", ctypes.c_uint32),
        ("kind", ctypes.c_uint16),
        ("block", ctypes.c_uint16),
        ("detail", ctypes.c_uint32),
    ]


class Event(ctypes.Structure):
    """`bfe_event` of bfedge.h."""

    _fields_ = [
        ("stage", ctypes.c_int),
        ("block", ctypes.c_uint32),
        ("values", ctypes.POINTER(ctypes.c_float)),
        ("count", ctypes.c_size_t),
        ("model_bytes", ctypes.c_uint64),
    ]


TraceCallback = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.POINTER(Event))


class Options(ctypes.Structure):
    """`bfe_options` of bfedge.h."""

    _fields_ = [
        ("tile_tokens", ctypes.c_uint32),
        ("trace", TraceCallback),
        ("trace_context", ctypes.c_void_p),
        ("workers", ctypes.c_uint32),
        ("parallel", ctypes.c_void_p),
        ("parallel_context", ctypes.c_void_p),
    ]


class RuntimeRefusalError(BfedgeError):
    """The runtime refused a file or a call; `status` is its text, `rule` FORMAT.md's number or 0."""

    def __init__(self, status: str, rule: int, offset: int) -> None:
        where = f" (rule V{rule}, offset {offset})" if rule else ""
        super().__init__(f"the runtime says: {status}{where}")
        self.status = status
        self.rule = rule


@functools.cache
def load_library(path: Path | None = None) -> ctypes.CDLL:
    """The runtime as a shared library: the one that was built with this package, or the one at `path`."""
    found = path or installed_library()
    library = ctypes.CDLL(str(found))
    library.bfe_status_text.restype = ctypes.c_char_p
    library.bfe_kernels_name.restype = ctypes.c_char_p
    library.bfe_kernels_name.argtypes = [ctypes.c_uint32]
    library.bfe_kernels_used.restype = ctypes.c_char_p
    library.bfe_prepared_size.restype = ctypes.c_size_t
    library.bfe_prepared_size.argtypes = [ctypes.POINTER(Model), ctypes.c_char_p]
    library.bfe_prepare.argtypes = [ctypes.POINTER(Model), ctypes.c_char_p, ctypes.c_void_p, ctypes.c_size_t]
    if path is None:  # what plans is in the package's own library only
        library.bfe_plan.restype = None
        library.bfe_plan.argtypes = [ctypes.POINTER(Model), ctypes.POINTER(Config), ctypes.c_char_p, ctypes.c_int]
    library.bfe_workspace_size.restype = ctypes.c_size_t
    library.bfe_workspace_size.argtypes = [ctypes.POINTER(Model), ctypes.POINTER(Options)]
    library.bfe_open.argtypes = [ctypes.POINTER(Model), ctypes.c_void_p, ctypes.c_size_t, ctypes.POINTER(Diag)]
    library.bfe_run.argtypes = [
        ctypes.POINTER(Model),
        ctypes.POINTER(Options),
        ctypes.c_void_p,
        ctypes.c_size_t,
        ctypes.c_void_p,
        ctypes.c_void_p,
    ]
    return library


def installed_library() -> Path:
    for folder in bfedge.__path__:
        for file in sorted(Path(folder).glob("libbfedge.*")):
            return file
    raise BfedgeError(
        "the C runtime was not built with this installation of bfedge", "`pip install .` in the source folder builds it"
    )


FASTEST = "fastest"
IN_PLACE = "in place"
REARRANGED = "rearranged"


def kernels_on(profile: Profile) -> str:
    """Which kernels a board uses: those of Linux boards with vector instructions want weights rearranged."""
    return {"aarch64": REARRANGED, "x86_64": REARRANGED, "any": FASTEST}.get(profile.cpu.machine, IN_PLACE)


def usable_kernels(library: Path | None = None) -> list[str]:
    """Names of the runtime's sets of kernels that this processor can run, fastest first."""
    loaded = load_library(library)
    names: list[str] = []
    while name := loaded.bfe_kernels_name(len(names)):
        names.append(name.decode())
    return names


class OpenModel:
    """What the C runtime knows as an open model, and says of the memory that it needs."""

    library: ctypes.CDLL
    model: Model
    threads: int
    pool: ctypes.c_void_p | None = None

    @property
    def reference(self) -> Any:
        return ctypes.byref(self.model)

    def options(self, tile_tokens: int, trace: Any = None) -> Options:
        options = Options(tile_tokens=tile_tokens, trace=trace or TraceCallback(), workers=self.threads)
        if self.pool:
            options.parallel = ctypes.cast(self.library.bfe_pool_run, ctypes.c_void_p)
            options.parallel_context = self.pool
        return options

    def workspace_bytes(self, tile_tokens: int = 0) -> int:
        """What the runtime asks for to run with this tile; 0 takes all tokens at once."""
        options = self.options(tile_tokens)
        return int(self.library.bfe_workspace_size(self.reference, ctypes.byref(options)))

    def arena_bytes(self, tile_tokens: int = 0) -> int:
        """What the device program takes of a board's memory: the workspace, and what lies around it."""
        return self.workspace_bytes(tile_tokens) + self.around_workspace_bytes

    @property
    def around_workspace_bytes(self) -> int:
        """Image and logits, each rounded up to the alignment, and the guard behind the workspace."""
        return sum(around_workspace(self.model.config).values())


def around_workspace(config: Config) -> dict[str, int]:
    """Bytes that lie with the workspace in the device program's memory, by what they are."""
    image = config.image_height * config.image_width * config.channels
    return {"image": aligned(image), "logits": aligned(4 * config.classes), "guard": GUARD_BYTES}


class PlannedModel(OpenModel):
    """A model that does not exist yet: the runtime's own word on its memory, from an outline of its file.

    `kernels` is IN_PLACE, REARRANGED, or FASTEST: what of both this machine does; `threads` share the work.
    """

    def __init__(self, outline: Outline, kernels: str, threads: int = 1) -> None:
        self.library = load_library()
        self.threads = threads
        self.model = Model()
        self.head = ctypes.create_string_buffer(outline.head, len(outline.head))
        config = config_of(outline.shape)
        self.library.bfe_plan(self.reference, ctypes.byref(config), self.head, int(kernels != IN_PLACE))
        self.prepared_bytes = 0
        if kernels != IN_PLACE:
            name = None if kernels == FASTEST else b"tiles"
            self.prepared_bytes = int(self.library.bfe_prepared_size(self.reference, name))
        if kernels == FASTEST and not self.prepared_bytes:
            self.library.bfe_plan(self.reference, ctypes.byref(config), self.head, 0)


def config_of(shape: Shape) -> Config:
    values = {name: getattr(shape, name) for name in CONFIG_WORDS[:-2]}
    return Config(
        **values,
        pooling=int(shape.pooling == "class"),
        feed_forward=1,
        attention_scale=shape.attention_scale,
        tokens=shape.tokens,
        patch_columns=shape.patch_columns,
    )


class HostModel(OpenModel):
    """A packed file opened by the C runtime.

    `kernels` says what the runtime computes with: the FASTEST of this machine; those that use weights IN_PLACE, as
    microcontrollers do; those that want them REARRANGED in memory, as processors with vectors do; or a name from
    `usable_kernels`. `threads` share the work. Results are the same bits with all of them, and sizes depend only on
    whether weights are rearranged, and on the threads.

    Raises RuntimeRefusalError if the runtime refuses the file, and BfedgeError for unknown kernels.
    """

    def __init__(self, data: bytes, library: Path | None = None, kernels: str = FASTEST, threads: int = 1) -> None:
        self.library = load_library(library)
        self.buffer = aligned_buffer(len(data))
        ctypes.memmove(self.buffer.ctypes.data, data, len(data))
        self.model = Model()
        diag = Diag()
        status = self.library.bfe_open(ctypes.byref(self.model), self.buffer.ctypes.data, len(data), ctypes.byref(diag))
        if status:
            raise RuntimeRefusalError(self.status_text(status), diag.rule, diag.offset)
        self.prepared = np.empty(0, np.uint8)
        if kernels != IN_PLACE:
            self.prepare(self.choose(kernels, library))
        self.threads = threads
        self.pool = self.start_pool(threads) if threads > 1 else None

    def choose(self, kernels: str, library: Path | None) -> str:
        names = usable_kernels(library)
        if kernels == FASTEST:
            return names[0]
        if kernels == REARRANGED:
            return next(name for name in names if self.library.bfe_prepared_size(self.reference, name.encode()))
        if kernels not in names:
            raise BfedgeError(f"this machine has no kernels `{kernels}`", f"it has {', '.join(names)}")
        return kernels

    def prepare(self, name: str) -> None:
        size = self.library.bfe_prepared_size(self.reference, name.encode())
        self.prepared = aligned_buffer(size, PREPARED_ALIGNMENT)
        status = self.library.bfe_prepare(self.reference, name.encode(), self.prepared.ctypes.data, size)
        if status:
            raise RuntimeRefusalError(self.status_text(status), 0, 0)

    def start_pool(self, threads: int) -> ctypes.c_void_p:
        """Threads that end with this object."""
        start, stop = self.library.bfe_pool_start, self.library.bfe_pool_stop
        start.restype, stop.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
        pool = start(threads)
        if not pool:
            raise BfedgeError(f"{threads} threads could not be started")
        weakref.finalize(self, stop, pool)
        return ctypes.c_void_p(pool)

    @property
    def kernels(self) -> str:
        """Name of the kernels in use"""
        name: bytes = self.library.bfe_kernels_used(self.reference)
        return name.decode()

    @property
    def prepared_bytes(self) -> int:
        """Memory for weights that were rearranged, 0 if they are used in place"""
        return self.prepared.nbytes

    def status_text(self, status: int) -> str:
        text: bytes = self.library.bfe_status_text(status)
        return text.decode()

    def run(
        self,
        image: NDArray[np.uint8],
        tile_tokens: int = 0,
        trace: Callable[[str, int | None, NDArray[np.float32]], None] | None = None,
    ) -> NDArray[np.float32]:
        """Logits [classes] of one image [height, width, channels]."""
        config = self.model.config
        expected = (config.image_height, config.image_width, config.channels)
        if image.dtype != np.uint8 or image.shape != expected:
            raise ValueError(f"image is {image.dtype} {image.shape}, the model takes uint8 {expected}")

        def on_stage(_: int, pointer: ctypes._Pointer[Event]) -> None:
            if trace:
                event = pointer.contents
                copy = np.ctypeslib.as_array(event.values, (event.count,)).copy()
                trace(STAGES[event.stage], None if event.block == NO_BLOCK else event.block, copy)

        workspace = aligned_buffer(self.workspace_bytes(tile_tokens))
        return self.run_in(workspace, image, tile_tokens, TraceCallback(on_stage) if trace else None)

    def run_in(
        self, workspace: NDArray[np.uint8], image: NDArray[np.uint8], tile_tokens: int = 0, trace: Any = None
    ) -> NDArray[np.float32]:
        """The same in a workspace of the caller's, from `aligned_buffer`; `trace` is a TraceCallback."""
        image = np.ascontiguousarray(image)
        options = self.options(tile_tokens, trace)
        logits = np.empty(self.model.config.classes, np.float32)
        status = self.library.bfe_run(
            self.reference,
            ctypes.byref(options),
            workspace.ctypes.data,
            workspace.nbytes,
            image.ctypes.data,
            logits.ctypes.data,
        )
        if status:
            raise RuntimeRefusalError(self.status_text(status), 0, 0)
        return logits


def aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def aligned_buffer(size: int, alignment: int = ALIGNMENT) -> NDArray[np.uint8]:
    """Uninitialised bytes at the alignment that the runtime asks for."""
    raw = np.empty(size + alignment, np.uint8)
    start = -raw.ctypes.data % alignment
    return raw[start : start + size]
