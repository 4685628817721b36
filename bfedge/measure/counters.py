"""What the C runtime on this machine counts while it runs a real input."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bfedge.device.host import NO_BLOCK, STAGES, Event, HostModel, TraceCallback, aligned_buffer
from bfedge.measure.work import StageBytes, model_bytes
from bfedge.packed.outline import Outline


def weights_read(runtime: HostModel, image: NDArray[np.uint8], tile: int = 0) -> list[StageBytes]:
    """Bytes of weights and tables that an inference of this image reads, by stage, every pass over them counted."""
    found: list[StageBytes] = []

    def on_stage(_: int, pointer: ctypes._Pointer[Event]) -> None:
        event = pointer.contents
        stage = STAGES[event.stage]
        name = stage if event.block == NO_BLOCK else f"block {event.block} {stage}"
        found.append(StageBytes(name, int(event.model_bytes)))

    runtime.run_in(aligned_buffer(runtime.workspace_bytes(tile)), image, tile, TraceCallback(on_stage))
    return found


class RealInput:
    """An image for a packed model, to count what routing decides."""

    def __init__(self, packed: bytes, image: NDArray[np.uint8]) -> None:
        self.packed, self.image = packed, image
        self.found: dict[tuple[str, int], list[StageBytes]] = {}

    def weights_read(self, kernels: str, tile: int) -> list[StageBytes]:
        """`kernels` as of HostModel."""
        if (kernels, tile) not in self.found:
            runtime = HostModel(self.packed, kernels=kernels)
            self.found[kernels, tile] = weights_read(runtime, self.image, tile)
        return self.found[kernels, tile]


def experts_used(outline: Outline, in_place: bool, tile: int, counted: Sequence[StageBytes]) -> list[float]:
    """Of each block: how often an expert's angles were read, from the bytes that its stage read."""
    without = model_bytes(outline, in_place, tile, [0] * outline.shape.layers)
    with_one = model_bytes(outline, in_place, tile, [1] * outline.shape.layers)
    return [
        (found.model_bytes - none.model_bytes) / (one.model_bytes - none.model_bytes)
        for found, none, one in zip(counted, without, with_one, strict=True)
        if one.model_bytes > none.model_bytes
    ]
