"""A model on a board, before it is flashed: where everything lies, whether it fits, how fast, and what energy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bfedge.device.fit import REARRANGED_WEIGHTS, Fit, Need, fit, needs_of, place
from bfedge.device.host import kernels_on
from bfedge.device.profile import Memory, Profile
from bfedge.errors import BfedgeError
from bfedge.measure.counters import RealInput, experts_used
from bfedge.measure.energy import Account, Homes, Moved, energy_accounts, weights_by_memory
from bfedge.measure.estimate import Estimate, Program, estimate, recorded_program
from bfedge.measure.most_experts import MostExperts, most_experts
from bfedge.measure.plan import Plan, tile_sizes
from bfedge.measure.work import StageBytes, even_routing, model_bytes
from bfedge.packed.outline import Outline


@dataclass(frozen=True)
class MemoryPlan:
    """One memory of the board, in bytes."""

    name: str
    kind: str
    contents: dict[str, int]
    """What of the model lies here: `model`, `workspace`, `image`, ..."""
    needed: int
    room: int
    """What a model may take of it"""
    size: int


@dataclass(frozen=True)
class TargetTile:
    """What a tile of tokens takes."""

    tile: int
    """Tokens that go through the experts together; 0 for all"""
    workspace_bytes: int
    working_bytes: int
    """With image, logits, guard, and weights that are rearranged"""
    memory: str | None
    """Where they would lie; None if they do not fit, and on this machine"""
    fits: bool


@dataclass(frozen=True)
class TargetPlan:
    target: str
    title: str
    fits: bool
    problem: str | None
    """Why it does not fit, with the numbers, and a way out"""
    hint: str | None
    kernels: str
    """Weights are used `in place` or `rearranged`, or with what is `fastest` on this machine"""
    tile: int
    """Chosen, or what the rest is for if the model does not fit; 0 for all tokens"""
    workspace_bytes: int
    """For this tile"""
    memories: tuple[MemoryPlan, ...]
    """None for this machine, whose memory is not planned"""
    tiles: tuple[TargetTile, ...]
    program: Program | None
    """What the program takes besides, outside the room for a model; None if it was not recorded"""
    most_experts: MostExperts | None
    weights_read: tuple[StageBytes, ...]
    """Of one inference, by stage"""
    routing: str
    """`even`: as if tokens took all experts alike; `counted`: of a real input, by the runtime"""
    estimate: Estimate | None
    """Executed instructions, and bytes of activations; None for boards that none were counted for"""
    milliseconds: float | None
    """Estimated from the board's measured rate; None without one, and without instructions of such a processor"""
    rate_source: str | None
    energy: tuple[Account, ...]

    @property
    def weights_read_bytes(self) -> int:
        return sum(stage.model_bytes for stage in self.weights_read)


def plan_target(
    profile: Profile,
    outline: Outline,
    plan: Plan,
    name: str,
    tile: int | None = None,
    real: RealInput | None = None,
) -> TargetPlan:
    """Everything about a model on one board. A model that does not fit is no error: it is said why.

    Args:
        tile: tokens that go through the experts together; None for as many as fit.
        name: of the model, for messages.
        real: an input to count what depends on the routing; without one it is taken to be even.
    """
    needs = needs_of(outline)
    need = needs(profile)
    fitted, problem = None, None
    try:
        fitted = fit(profile, needs, tile, name)
    except BfedgeError as why:
        problem = why
    chosen = fitted.tile if fitted else tile or 1
    in_place = REARRANGED_WEIGHTS not in need.around
    if real:
        read = real.weights_read(kernels_on(profile), chosen)
        used = experts_used(outline, in_place, chosen, read)
    else:
        used = [even_routing(outline.shape, chosen)] * outline.shape.layers
        read = model_bytes(outline, in_place, chosen, used)
    estimated = estimate(outline, profile, chosen, used)
    memories = memory_plans(profile, need, chosen, fitted)
    is_boards_own = estimated is not None and estimated.note is None
    rate = profile.cpu.instructions_per_s
    most = most_experts(profile, outline, tile)
    return TargetPlan(
        target=profile.name,
        title=profile.title,
        fits=fitted is not None,
        problem=problem.message if problem else None,
        hint=way_out(problem, most, outline.shape.experts) if problem else None,
        kernels=kernels_on(profile),
        tile=chosen,
        workspace_bytes=need.workspace_of(chosen),
        memories=memories,
        tiles=tuple(target_tile(profile, need, size) for size in tile_sizes(outline.shape.tokens)),
        program=recorded_program(profile),
        most_experts=most,
        weights_read=tuple(read),
        routing="counted" if real else "even",
        estimate=estimated,
        milliseconds=1000 * estimated.instructions / rate.value if estimated and is_boards_own and rate else None,
        rate_source=rate.source if rate else None,
        energy=energy_of(profile, outline, plan, memories, chosen, read, real is not None, estimated),
    )


def way_out(problem: BfedgeError, most: MostExperts | None, experts: int) -> str | None:
    fewer = f"with {most.on_board} experts it would fit" if most and 0 < most.on_board < experts else None
    return "; ".join(filter(None, (problem.hint, fewer))) or None


def target_tile(profile: Profile, need: Need, tile: int) -> TargetTile:
    uses = place(profile, need, tile)
    memory = next((use.name for use in uses or () if "workspace" in use.contents), None)
    return TargetTile(tile, need.workspace_of(tile), need.working(tile), memory, uses is not None)


def memory_plans(profile: Profile, need: Need, tile: int, fitted: Fit | None) -> tuple[MemoryPlan, ...]:
    """Where it does not fit, everything is where there is most room for it."""
    inside = {
        "model": {"model": need.model},
        "workspace": {"workspace": need.workspace_of(tile), **need.around},
    }

    def home(what: str) -> str:
        if fitted:
            return next(use.name for use in fitted.memories if what in use.contents)
        return max((m for m in profile.memories if what in m.holds), key=lambda memory: memory.room).name

    def contents(memory: Memory) -> dict[str, int]:
        held = (what for what in ("model", "workspace") if home(what) == memory.name)
        return {name: size for what in held for name, size in inside[what].items()}

    return tuple(
        MemoryPlan(memory.name, memory.kind, held, sum(held.values()), memory.room, int(memory.bytes.value))
        for memory in profile.memories
        for held in [contents(memory)]
    )


def energy_of(
    profile: Profile,
    outline: Outline,
    plan: Plan,
    memories: tuple[MemoryPlan, ...],
    tile: int,
    read: Sequence[StageBytes],
    counted: bool,
    estimated: Estimate | None,
) -> tuple[Account, ...]:
    if not memories:
        return ()
    where = {what: memory.name for memory in memories for what in memory.contents}
    homes = Homes(where["model"], where["workspace"], where.get(REARRANGED_WEIGHTS))
    # What an emulated machine without the board's instructions moves is not what the board would.
    activations = estimated.activation_bytes if estimated and estimated.note is None else None
    moved = Moved(
        expert_bytes=plan.expert_bytes,
        weights=weights_by_memory(sum(stage.model_bytes for stage in read), outline, tile, homes),
        weights_origin="counted" if counted else "even routing",
        activations=activations,
        activations_origin="estimated",
        multiply_adds=sum(plan.multiply_adds.values()),
    )
    return energy_accounts(profile, moved, homes)
