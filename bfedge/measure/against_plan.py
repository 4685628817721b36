"""What a board measured of itself, against the plan: every difference is an error of ours, or of the board's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from bfedge.device.exported import Exported
from bfedge.device.fit import fit, needs_of
from bfedge.device.host import IN_PLACE, REARRANGED, HostModel
from bfedge.device.protocol import Hello
from bfedge.errors import BfedgeError
from bfedge.measure.board import PREPARED_STACK_BOUND, STACK_BOUND
from bfedge.measure.board_profile import BoardProfile
from bfedge.measure.counters import weights_read
from bfedge.measure.energy import Account, Moved, energy_accounts, energy_of_time
from bfedge.measure.plan import plan
from bfedge.packed.outline import outline_of
from bfedge.packed.reader import unpack

MOST_WORKERS = 64
"""BFE_MOST_WORKERS of bfedge.h"""

FIRMWARE_IMAGE = "firmware.bin"


@dataclass(frozen=True)
class Comparison:
    what: str
    planned: int
    """Bytes"""
    measured: int | None
    """Bytes; None if the board can't tell"""
    is_bound: bool = False
    """The plan states what is not exceeded, not what is taken"""

    @property
    def agrees(self) -> bool:
        if self.measured is None:
            return True
        return self.measured <= self.planned if self.is_bound else self.measured == self.planned


def compare(found: BoardProfile, exported: Exported, packed: bytes) -> list[Comparison]:
    """The plan for golden case 0 with the board's kernels, tile and threads, by this machine's copy of the runtime."""
    return list(comparisons(found, runtime_like(found.hello, packed), exported, packed))


def runtime_like(hello: Hello, packed: bytes) -> HostModel:
    """This machine's runtime, with kernels that take memory and read weights as the board's do."""
    if hello.kernels in ("c", "tiles"):
        kernels = hello.kernels
    else:
        kernels = REARRANGED if hello.prepared else IN_PLACE
    return HostModel(packed, kernels=kernels, threads=max(1, min(hello.workers, MOST_WORKERS)))


def comparisons(found: BoardProfile, runtime: HostModel, exported: Exported, packed: bytes) -> Iterator[Comparison]:
    hello = found.hello
    workspace = runtime.workspace_bytes(found.tile)
    if hello.model:
        yield Comparison("model on the board", len(packed), hello.model.bytes)
    yield Comparison("rearranged weights", runtime.prepared_bytes, hello.prepared)
    yield Comparison("workspace, as the runtime states it", workspace, found.workspace_stated)
    yield Comparison("workspace, as it is used", workspace, found.workspace_used)
    bound = PREPARED_STACK_BOUND if hello.prepared else STACK_BOUND
    yield Comparison("stack of bfe_run", bound, found.stack_run, is_bound=True)
    yield Comparison("stack of bfe_open", bound, found.stack_open, is_bound=True)
    if hello.stack.bytes:
        yield Comparison("stack of the whole program", hello.stack.bytes, found.stack_total, is_bound=True)
    if exported.image_bytes is not None:
        image = exported.folder / FIRMWARE_IMAGE
        yield Comparison("flash", exported.image_bytes, image.stat().st_size if image.is_file() else None)
    golden = unpack(packed).golden
    assert golden is not None  # what was profiled is a golden case
    read = weights_read(runtime, golden.inputs[0], found.tile)
    if [stage.name for stage in found.stages] != [planned.name for planned in read]:
        raise BfedgeError(
            f"the board ran {len(found.stages)} stages, its model has {len(read)}", "`bfedge verify` says more"
        )
    for planned, stage in zip(read, found.stages, strict=True):
        yield Comparison(f"weights read, {stage.name}", planned.model_bytes, stage.model_bytes)


def energy_of(found: BoardProfile, exported: Exported, packed: bytes) -> tuple[Account, ...]:
    """The accounts of bfedge.measure.energy with what the board counted; none for this machine."""
    profile, outline = exported.profile, outline_of(packed)
    if not profile.memories:
        return ()
    result = plan(outline)
    memories = {what: use.name for use in fit(profile, needs_of(outline), found.tile).memories for what in use.contents}
    accounts = energy_accounts(
        profile,
        Moved(
            expert_bytes=result.expert_bytes,
            weights_read=found.model_bytes,
            activations=found.activation_bytes,
            multiply_adds=sum(result.multiply_adds.values()),
        ),
        weights_in=memories["workspace" if found.hello.prepared else "model"],
        working_in=memories["workspace"],
    )
    return (*accounts, *energy_of_time(profile, found.milliseconds))
