"""Passes over activations as native code, for training and float evaluation on a CPU (runtime_c/train).

torch makes a dozen passes over memory where one is enough: rotations, GELU, weighted sum and rounding of butterfly
experts take most of a training step. Each class here is one pass forward and one backward. Other devices, other types
and torch.compile use the torch operations that these stand for (bfedge.model.experts, bfedge.model.layers).
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import torch
from torch import Tensor

from bfedge.device.host import load_library

ROWS_A_THREAD = 64
"""Fewer rows than this are not worth another thread"""


class NativeRotation(ctypes.Structure):
    """`bft_rotation` of bft_train.h."""

    _fields_: ClassVar[list[tuple[str, Any]]] = [
        ("width", ctypes.c_size_t),
        ("padded", ctypes.c_size_t),
        ("layers", ctypes.c_size_t),
        ("cosine", ctypes.c_void_p),
        ("sine", ctypes.c_void_p),
    ]


def is_native(x: Tensor) -> bool:
    """Whether the native passes take this tensor."""
    if torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu"):  # products would come in bf16
        return False
    return x.device.type == "cpu" and x.dtype == torch.float32


@functools.cache
def library() -> ctypes.CDLL:
    loaded = load_library()
    loaded.bft_scratch_floats.restype = ctypes.c_size_t
    for name in ("fake_quantise", "rotate_inputs", "rotate_inputs_backward", "mix_outputs", "mix_outputs_backward"):
        getattr(loaded, f"bft_{name}").restype = None
    return loaded


@functools.cache
def pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, "bfedge-train")


def divided(rows: int, work: Callable[[int, int, int], object]) -> None:
    """Calls work(part, first row, last row) on as many threads as torch uses. ctypes releases Python's lock."""
    parts = max(1, min(torch.get_num_threads(), rows // ROWS_A_THREAD))
    bounds = [rows * part // parts for part in range(parts + 1)]
    jobs = [pool(parts - 1).submit(work, part, bounds[part], bounds[part + 1]) for part in range(1, parts)]
    work(0, bounds[0], bounds[1])
    for job in jobs:
        job.result()


def address(tensor: Tensor | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())


def size(number: int) -> ctypes.c_size_t:
    return ctypes.c_size_t(number)


def fake_quantise(x: Tensor) -> tuple[Tensor, Tensor]:
    """x [..., columns] rounded to int8 steps of each row's largest magnitude, and the steps [..., 1]."""
    x = x.contiguous()
    out, scale = torch.empty_like(x), x.new_empty(*x.shape[:-1], 1)

    def work(_: int, first: int, last: int) -> None:
        library().bft_fake_quantise(
            address(x), address(out), address(scale), size(x.shape[-1]), size(first), size(last)
        )

    divided(scale.numel(), work)
    return out, scale


class Tables:
    """Sines and cosines [experts, layers, padded / 2] of a rotation, and scratch memory for every thread."""

    def __init__(self, sine: Tensor, cosine: Tensor, width: int) -> None:
        _, layers, half = sine.shape
        self.sine, self.cosine, self.width = sine.contiguous(), cosine.contiguous(), width
        self.padded = 2 * half
        self.rotation = NativeRotation(width, 2 * half, layers, self.cosine.data_ptr(), self.sine.data_ptr())
        self.scratch = sine.new_empty(
            torch.get_num_threads(), library().bft_scratch_floats(size(2 * half), size(layers))
        )

    def angle_gradients(self) -> Tensor:
        """One for every thread, to be summed."""
        return self.sine.new_zeros(len(self.scratch), *self.sine.shape)


class RotateInputs(torch.autograd.Function):
    """h [tokens, width] turned by each of its experts [tokens, top_k], as [tokens * top_k, width]; rounded to int8
    steps if `quantise`, with straight-through gradient.
    """

    @staticmethod
    def forward(
        ctx: Any, h: Tensor, expert: Tensor, angles: Tensor, sine: Tensor, cosine: Tensor, quantise: bool
    ) -> Tensor:
        h, expert = h.contiguous(), expert.contiguous()
        tokens, top_k = expert.shape
        tables = Tables(sine, cosine, h.shape[1])
        out = h.new_empty(tokens * top_k, h.shape[1])

        def work(part: int, first: int, last: int) -> None:
            library().bft_rotate_inputs(
                ctypes.byref(tables.rotation), address(h), address(expert), size(top_k), int(quantise), address(out),
                address(tables.scratch[part]), size(first), size(last),
            )  # fmt: skip

        divided(tokens, work)
        ctx.tables = tables
        ctx.save_for_backward(h, expert)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        h, expert = ctx.saved_tensors
        gradient, tables = gradients[0].contiguous(), ctx.tables
        tokens, top_k = expert.shape
        h_gradient, angle_gradients = torch.empty_like(h), tables.angle_gradients()

        def work(part: int, first: int, last: int) -> None:
            library().bft_rotate_inputs_backward(
                ctypes.byref(tables.rotation), address(h), address(expert), size(top_k), address(gradient),
                address(h_gradient), address(angle_gradients[part]), address(tables.scratch[part]), size(first),
                size(last),
            )  # fmt: skip

        divided(tokens, work)
        return h_gradient, None, angle_gradients.sum(0), None, None, None


class MixOutputs(torch.autograd.Function):
    """GELU of y [tokens * top_k, width], each row turned by its expert [tokens, top_k], summed over a token's experts
    with their weights [tokens, top_k]: [tokens, width]; rounded to int8 steps if `quantise`, with straight-through
    gradient.
    """

    @staticmethod
    def forward(
        ctx: Any, y: Tensor, expert: Tensor, weight: Tensor, angles: Tensor, sine: Tensor, cosine: Tensor,
        quantise: bool,
    ) -> Tensor:  # fmt: skip
        y, expert, weight = y.contiguous(), expert.contiguous(), weight.contiguous()
        tokens, top_k = expert.shape
        tables = Tables(sine, cosine, y.shape[1])
        out = y.new_empty(tokens, y.shape[1])

        def work(part: int, first: int, last: int) -> None:
            library().bft_mix_outputs(
                ctypes.byref(tables.rotation), address(y), address(expert), address(weight), size(top_k),
                int(quantise), address(out), address(tables.scratch[part]), size(first), size(last),
            )  # fmt: skip

        divided(tokens, work)
        ctx.tables = tables
        ctx.save_for_backward(y, expert, weight)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        y, expert, weight = ctx.saved_tensors
        gradient, tables = gradients[0].contiguous(), ctx.tables
        tokens, top_k = expert.shape
        y_gradient, weight_gradient = torch.empty_like(y), torch.empty_like(weight)
        angle_gradients = tables.angle_gradients()

        def work(part: int, first: int, last: int) -> None:
            library().bft_mix_outputs_backward(
                ctypes.byref(tables.rotation), address(y), address(expert), address(weight), size(top_k),
                address(gradient), address(y_gradient), address(weight_gradient), address(angle_gradients[part]),
                address(tables.scratch[part]), size(first), size(last),
            )  # fmt: skip

        divided(tokens, work)
        return y_gradient, None, weight_gradient, angle_gradients.sum(0), None, None, None
