"""What a board measured of itself: memory, and time, cycles or instructions by stage."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bfedge.device.board import Board
from bfedge.device.protocol import Clock, Hello, Profile, Result
from bfedge.errors import BfedgeError

if TYPE_CHECKING:
    from bfedge.device.counts import Region


@dataclass(frozen=True)
class StageProfile:
    name: str
    """`embed`, `block 0 attention`, ..."""
    ticks: int | None
    """In the clock's unit; None without a clock, and in an emulator"""
    instructions: int | None
    """Executed, as counted by the emulator; None on hardware"""
    model_bytes: int
    """Read from the model, or from its rearranged weights, each pass over a matrix counted; as the runtime adds up"""
    activation_bytes: int | None
    """That instructions load and store besides, as counted by the emulator; None on hardware. Rows that only pad
    rearranged weights count as read, and some kernels skip them: they are missing here.
    """


@dataclass(frozen=True)
class BoardProfile:
    where: str
    hello: Hello
    emulated: bool
    note: str | None
    """How the emulator differs from the board, where that changes what is counted"""
    clock: Clock | None
    """None in an emulator: its time says nothing about the board's"""
    tile: int
    stages: tuple[StageProfile, ...]
    ticks: int | None
    """Of a whole inference, without tracing"""
    workspace_stated: int
    workspace_used: int
    stack_run: int | None
    stack_open: int | None
    stack_total: int | None
    free_memory: int | None

    @property
    def instructions(self) -> int | None:
        """Of a whole inference: the stages' sum"""
        counts = [stage.instructions for stage in self.stages if stage.instructions is not None]
        return sum(counts) if counts else None

    @property
    def model_bytes(self) -> int:
        return sum(stage.model_bytes for stage in self.stages)

    @property
    def activation_bytes(self) -> int | None:
        """Of a whole inference: the stages' sum"""
        counts = [stage.activation_bytes for stage in self.stages if stage.activation_bytes is not None]
        return sum(counts) if counts else None

    @property
    def milliseconds(self) -> float | None:
        return milliseconds(self.ticks, self.clock)


def profile_board(board: Board, tile: int) -> BoardProfile:
    """Profiles golden case 0. Raises BfedgeError if the board cannot."""
    stages, found = board.session.profile(0, tile)
    refuse_wrong(found)
    counts: Sequence[Region | None] = board.counts(len(stages)) or [None] * len(stages)
    return BoardProfile(
        where=board.where,
        hello=board.hello,
        emulated=board.emulated,
        note=board.note,
        clock=None if board.emulated else board.hello.clock,
        tile=tile,
        stages=tuple(
            StageProfile(
                name=stage.stage if stage.block is None else f"block {stage.block} {stage.stage}",
                ticks=None if board.emulated else stage.ticks,
                instructions=counted.instructions if counted else None,
                model_bytes=stage.model_bytes,
                activation_bytes=activation_bytes(counted, stage.model_bytes) if counted else None,
            )
            for stage, counted in zip(stages, counts, strict=True)
        ),
        ticks=None if board.emulated else found.ticks,
        workspace_stated=found.workspace.stated,
        workspace_used=found.workspace.used,
        stack_run=found.stack.run,
        stack_open=found.stack.open,
        stack_total=found.stack.total,
        free_memory=None if board.emulated else found.memory.free,
    )


def activation_bytes(counted: Region, weights_read: int) -> int | None:
    """The emulator knows where the packed file lies, but not where its rearranged weights do."""
    loads = counted.model_bytes_loaded, counted.other_bytes_loaded
    if loads[0] is None or loads[1] is None or counted.bytes_stored is None:
        return None
    return loads[0] + loads[1] - weights_read + counted.bytes_stored


def refuse_wrong(result: Result | Profile) -> None:
    """Raises BfedgeError if what was measured computed something else than it should."""
    if result.differing:
        raise BfedgeError(
            f"golden case {result.case} differs in {result.differing} logits: what it took means nothing",
            "`bfedge verify` says what is wrong",
        )


def milliseconds(ticks: int | None, clock: Clock | None) -> float | None:
    """None where the clock's rate is unknown."""
    return None if ticks is None or clock is None or not clock.hz else 1000 * ticks / clock.hz


@dataclass(frozen=True)
class Timing:
    """Of many inferences, in the unit of the board's clock."""

    runs: int
    median: float
    fastest: int
    slowest: int
    first_quartile: float
    third_quartile: float


def time_board(ticks: list[int]) -> Timing:
    low, median, high = statistics.quantiles(ticks, n=4, method="inclusive") if len(ticks) > 1 else ticks * 3
    return Timing(len(ticks), median, min(ticks), max(ticks), low, high)
