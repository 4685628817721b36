"""What a board measured of itself, against the plan: every difference is an error of ours, or of the board's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from bfedge.device.board import Line
from bfedge.device.exported import Exported
from bfedge.device.fit import fit, needs_of
from bfedge.device.host import FASTEST, IN_PLACE, REARRANGED, HostModel, kernels_on
from bfedge.device.profile import Profile
from bfedge.device.protocol import Hello
from bfedge.errors import BfedgeError
from bfedge.measure.board import PREPARED_STACK_BOUND, STACK_BOUND
from bfedge.measure.board_profile import BoardProfile
from bfedge.measure.counters import weights_read
from bfedge.measure.energy import Account, Homes, Moved, energy_accounts, energy_of_time, weights_by_memory
from bfedge.measure.estimate import record_of, recorded_program
from bfedge.measure.plan import plan
from bfedge.packed.outline import outline_of
from bfedge.packed.reader import unpack

WEIGHTS_READ = "weights read, "
"""In front of a stage's name"""


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


def compare(found: BoardProfile, exported: Exported, packed: bytes, line: Line) -> list[Comparison]:
    """The plan for golden case 0, by this machine's copy of the runtime with the kernels and threads that were asked
    for.
    """
    runtime = HostModel(packed, kernels=expected_kernels(found.hello, exported.profile, line), threads=line.threads)
    return list(comparisons(found, runtime, exported, packed))


def expected_kernels(hello: Hello, profile: Profile, line: Line) -> str:
    """Those of this machine that take memory and read weights as the board's should."""
    if line.kernels in ("c", "tiles"):
        return line.kernels
    expected = kernels_on(profile)
    if line.kernels is not None or expected == FASTEST:  # a processor that this machine knows nothing of
        return REARRANGED if hello.prepared else IN_PLACE
    return expected


def comparisons(found: BoardProfile, runtime: HostModel, exported: Exported, packed: bytes) -> Iterator[Comparison]:
    hello = found.hello
    workspace = runtime.workspace_bytes(found.tile)
    if hello.model:
        yield Comparison("model on the board", len(packed), hello.model.bytes)
    yield Comparison("rearranged weights", runtime.prepared_bytes, hello.prepared)
    yield Comparison("workspace, as the runtime states it", workspace, found.workspace_stated)
    yield Comparison("workspace, as it is used", workspace, found.workspace_used)
    bound = PREPARED_STACK_BOUND if runtime.prepared_bytes else STACK_BOUND
    yield Comparison("stack of bfe_run", bound, found.stack_run, is_bound=True)
    yield Comparison("stack of bfe_open", bound, found.stack_open, is_bound=True)
    program = recorded_program(exported.profile)
    reserved = program.stack_bytes if program else hello.stack.bytes
    if reserved:
        yield Comparison("stack of the whole program", reserved, found.stack_total, is_bound=True)
    yield from flash(exported, len(packed))
    golden = unpack(packed).golden
    assert golden is not None  # what was profiled is a golden case
    read = weights_read(runtime, golden.inputs[0], found.tile)
    if [stage.name for stage in found.stages] != [planned.name for planned in read]:
        raise BfedgeError(
            f"the board ran {len(found.stages)} stages, its model has {len(read)}", "`bfedge verify` says more"
        )
    for planned, stage in zip(read, found.stages, strict=True):
        yield Comparison(f"{WEIGHTS_READ}{stage.name}", planned.model_bytes, stage.model_bytes)


def flash(exported: Exported, model_bytes: int) -> Iterator[Comparison]:
    """Of firmware: what the plan counts for program and model against what the linker took; for the compiler that the
    program was recorded with.
    """
    recorded = record_of(exported.profile)
    if exported.image_bytes is None or recorded is None:
        return
    _, record = recorded
    if record.program and record.program.flash_bytes is not None and record.compiler == exported.compiler:
        yield Comparison("flash of program and model", record.program.flash_bytes + model_bytes, exported.image_bytes)


def energy_of(found: BoardProfile, exported: Exported, packed: bytes) -> tuple[Account, ...]:
    """The accounts of bfedge.measure.energy with what the board counted; none for this machine."""
    profile, outline = exported.profile, outline_of(packed)
    if not profile.memories:
        return ()
    result = plan(outline)
    where = {what: use.name for use in fit(profile, needs_of(outline), found.tile).memories for what in use.contents}
    homes = Homes(where["model"], where["workspace"], where["workspace"] if found.hello.prepared else None)
    moved = Moved(
        expert_bytes=result.expert_bytes,
        weights=weights_by_memory(found.model_bytes, outline, found.tile, homes),
        weights_origin="counted",
        activations=found.activation_bytes if found.note is None else None,  # else they are another processor's
        activations_origin="counted",
        multiply_adds=sum(result.multiply_adds.values()),
    )
    accounts = energy_accounts(profile, moved, homes)
    return (*accounts, *energy_of_time(profile, found.milliseconds))
