"""What a board would execute for a model that nobody has run there: an estimate, from what emulated boards executed
for other models.

devices/measured.json has, for each board with an emulator, what one pass of each inner loop costs. tests/estimates.py
writes it, and measures its error on models that it was not fitted to.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from bfedge.device.profile import Profile, known_profiles, profile_folder
from bfedge.errors import BfedgeError
from bfedge.lowered.model import Shape
from bfedge.measure.operations import operations
from bfedge.measure.work import even_routing, fewest_experts_used, most_experts_used
from bfedge.packed.layout import Encoding, Kind
from bfedge.packed.outline import Outline

RECORD = "measured.json"


@dataclass(frozen=True)
class Program:
    """Bytes of a board's memory that the device program takes besides the model, its workspace, image and logits."""

    code_bytes: int
    """Code and constants, the C library's included where there is one"""
    runtime_bytes: int
    """Of these, the runtime's (runtime_c/src)"""
    data_bytes: int
    """Variables"""
    stack_bytes: int
    """Reserved for the program's stack"""
    flash_bytes: int | None
    """Flash that firmware takes besides the model, whatever the model: with initial values of variables, and with what
    is left free before the model for its alignment. None where bfedge alone builds no firmware
    """


class Costs(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Of one quantity."""

    loops: dict[str, float]
    """Of one pass of a loop, by its name in operations.py"""
    error: float
    """The largest error of a whole inference of a model that was not fitted to, its routing given, as a fraction of
    what was counted, rounded up to half a percent: the next model may be a little worse
    """
    stage_errors: dict[str, float]
    """The largest of single stages, by kind"""


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Of one board."""

    compiler: str
    """As an export's manifest says it"""
    emulator: str
    kernels: str
    """The board's set; others execute something else"""
    fitted: int
    """Inferences that the costs were fitted to"""
    held_out: int
    """Inferences that the errors are of"""
    sizes: dict[str, tuple[int, int]]
    """The smallest and the largest that these models had, each size by itself, by the names of sizes_of"""
    program: Program | None
    """None where the board's own program is not built by bfedge alone (ESP-IDF)"""
    instructions: Costs
    bytes_loaded: Costs
    """By load instructions, but for the first pass of each product over its weights"""
    bytes_stored: Costs


@dataclass(frozen=True)
class StageEstimate:
    name: str
    """As in work.StageBytes"""
    instructions: int
    bytes_loaded: int
    bytes_stored: int


@dataclass(frozen=True)
class Estimate:
    """What the emulator would count for one inference on one thread. Instructions are not cycles, and bytes are those
    of load and store instructions, wherever they find them: in a cache, most of them, on boards that have one.
    """

    instructions: int
    fewest_instructions: int
    most_instructions: int
    """If all tokens take the same experts, and if each takes others as long as there are any"""
    activation_bytes: int
    """Loaded and stored of workspace, image, logits, tables and stack, and of weights that are read again while they
    are in the nearest cache"""
    error: float
    """Of the instructions, the routing given: the largest among the models that were not fitted to, as a fraction"""
    bytes_error: float
    """Of the bytes"""
    outside: tuple[str, ...]
    """Sizes of the model that are smaller or larger than in any model that the errors are of, such as "d_model 4": the
    estimate may be more wrong than stated. Empty if there are none
    """
    stages: tuple[StageEstimate, ...]
    kernels: str
    source: str
    """What counted, and what compiled"""
    note: str | None
    """How the emulator differs from the board, where that changes what is counted"""


def estimate(outline: Outline, profile: Profile, tile: int, experts: Sequence[float] | None = None) -> Estimate | None:
    """None for boards that nothing was counted on: this machine, and users' own, but for those that run the same
    program as a board that comes with bfedge.

    Args:
        tile: tokens that go through the experts together, 0 for all.
        experts: work.experts_used of each block; None for what even routing would use.

    Raises BfedgeError if the record is missing or damaged.
    """
    found = record_of(profile)
    if found is None:
        return None
    board, record = found
    shape = outline.shape

    def by_stage(experts: Sequence[float]) -> tuple[StageEstimate, ...]:
        return tuple(
            StageEstimate(
                name,
                instructions=total(record.instructions, done),
                bytes_loaded=total(record.bytes_loaded, done),
                bytes_stored=total(record.bytes_stored, done),
            )
            for name, done in operations(outline, record.kernels, tile, experts)
        )

    def instructions(experts_of_a_block: float) -> int:
        return sum(stage.instructions for stage in by_stage([experts_of_a_block] * shape.layers))

    stages = by_stage([even_routing(shape, tile)] * shape.layers if experts is None else experts)
    return Estimate(
        instructions=sum(stage.instructions for stage in stages),
        fewest_instructions=instructions(fewest_experts_used(shape, tile)),
        most_instructions=instructions(most_experts_used(shape, tile)),
        activation_bytes=sum(stage.bytes_loaded + stage.bytes_stored for stage in stages),
        error=record.instructions.error,
        bytes_error=max(record.bytes_loaded.error, record.bytes_stored.error),
        outside=tuple(outside(outline, record)),
        stages=stages,
        kernels=record.kernels,
        source=f"{record.emulator}, {record.compiler}",
        note=board.emulate.note if board.emulate else None,
    )


def outside(outline: Outline, record: Record) -> Iterator[str]:
    for name, size in sizes_of(outline.shape).items():
        low, high = record.sizes[name]
        if not low <= size <= high:
            yield f"{name} {size}"
    if any(s.kind in (Kind.theta, Kind.phi) and s.encoding == Encoding.angle8 for s in outline.sections):
        yield "8-bit angles"


def sizes_of(shape: Shape) -> dict[str, int]:
    """All that a model's loops depend on, but for the tile, which is at most the tokens."""
    model = ("d_model", "d_ff", "layers", "heads", "experts", "top_k", "theta_layers", "phi_layers")
    return {
        **{name: getattr(shape, name) for name in (*model, "tokens", "classes")},
        "head size": shape.d_model // shape.heads,
        "values of a patch": shape.patch_columns,
    }


def recorded_program(profile: Profile) -> Program | None:
    """None for boards without a record, and for those whose program is built by another system (ESP-IDF). A board's
    name is part of its program: of a user's own one, code_bytes differ by as much as the names' lengths.
    """
    found = record_of(profile)
    return found[1].program if found else None


def record_of(profile: Profile) -> tuple[Profile, Record] | None:
    """The record of a board, or of one that comes with bfedge and runs the same program, and so the same kernels: a
    user's profile may be its copy, with other memories.
    """
    if profile.name in recorded():
        return profile, recorded()[profile.name]
    for board in known_profiles():
        is_same = (board.port, board.cpu.machine, board.build) == (profile.port, profile.cpu.machine, profile.build)
        if is_same and board.name in recorded():
            return board, recorded()[board.name]
    return None


def total(costs: Costs, done: Mapping[str, float]) -> int:
    return round(sum(costs.loops.get(loop, 0.0) * times for loop, times in done.items()))


@functools.cache
def recorded() -> dict[str, Record]:
    """By board."""
    path = profile_folder() / RECORD
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Record])
    except (OSError, msgspec.DecodeError) as problem:
        raise BfedgeError(f"cannot read `{path}`: {problem}", "install bfedge again") from None
