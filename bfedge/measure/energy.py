"""Energy of one inference on a board: bytes moved times the energy of the memory that they are moved in, and the
arithmetic. Every constant is the board profile's, with its source; where one is missing there is no number.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bfedge.device.profile import Profile, Quantity
from bfedge.measure.work import rearranged_read
from bfedge.packed.outline import Outline

MEMORY_CONSTANT = "energy_pj_per_bit"
COMPUTE_CONSTANT = "energy_pj_per_multiply_add"

Origin = Literal["exact", "counted", "even routing", "estimated", "measured"]


@dataclass(frozen=True)
class EnergyPart:
    what: str
    """`expert weights`, `weights`, `activations`, `arithmetic`, `power`"""
    amount: float | None
    """In the unit: `bytes`, `multiply-adds`, `ms`; None if unknown"""
    unit: str
    origin: Origin
    """How the amount is known: of the file or the shape; counted by the runtime or an emulator; as if routing were
    even; estimated from counts of other models; by the board's clock
    """
    where: str
    """The board's name of the memory, or of its processor"""
    pj_per_unit: float | None
    """None if the profile has no constant"""
    source: str | None

    @property
    def millijoules(self) -> float | None:
        if self.pj_per_unit is None or self.amount is None:
            return None
        return self.amount * self.pj_per_unit * 1e-9


@dataclass(frozen=True)
class Account:
    """One way to count."""

    name: str
    meaning: str
    parts: tuple[EnergyPart, ...]

    @property
    def millijoules(self) -> float | None:
        """None if that of any part is unknown."""
        energies = [part.millijoules for part in self.parts]
        return None if None in energies else sum(e for e in energies if e is not None)

    @property
    def missing(self) -> tuple[str, ...]:
        """What a sum would need: amounts that are unknown, and constants that the profile does not have."""
        amounts = {f"{part.unit} of {part.what}" for part in self.parts if part.amount is None}
        constants = {
            f"{part.where}: {COMPUTE_CONSTANT if part.unit == 'multiply-adds' else MEMORY_CONSTANT}"
            for part in self.parts
            if part.pj_per_unit is None
        }
        return tuple(sorted(amounts | constants))


@dataclass(frozen=True)
class Moved:
    """What one inference moves and computes."""

    expert_bytes: int
    """Substrate and angles of all experts, as the packed file stores them"""
    weights: dict[str, int]
    """Bytes of weights and tables that are read, every pass over them counted, by the board's name of the memory"""
    weights_origin: Origin
    activations: int | None
    """Bytes of all else that is loaded and stored: workspace, image, logits, tables, stack; None if unknown"""
    activations_origin: Origin
    multiply_adds: int


@dataclass(frozen=True)
class Homes:
    """Names of the board's memories."""

    model: str
    workspace: str
    rearranged: str | None
    """None where weights are used in place"""


def weights_by_memory(total: int, outline: Outline, tile: int, homes: Homes) -> dict[str, int]:
    """Where `total` bytes of weights are read: matrices from where they are rearranged, all else from the file. More
    threads pass over the matrices more often than is assumed here.
    """
    matrices = min(rearranged_read(outline, tile), total) if homes.rearranged else 0
    read = {homes.model: total - matrices}
    if homes.rearranged:
        read[homes.rearranged] = read.get(homes.rearranged, 0) + matrices
    return read


def energy_accounts(profile: Profile, moved: Moved, homes: Homes) -> tuple[Account, ...]:
    """Three accounts of the same inference.

    Bytes are counted where the program loads and stores them. What a cache holds costs less, so on processors with
    caches the second and third account are upper bounds; the first is the least that must be read from memory if every
    expert is used once (ButterflyViT, section 3.2, F2).
    """
    experts = in_memory(profile, "expert weights", moved.expert_bytes, "exact", homes.model)
    weights = tuple(
        in_memory(profile, "weights", amount, moved.weights_origin, memory) for memory, amount in moved.weights.items()
    )
    activations = in_memory(profile, "activations", moved.activations, moved.activations_origin, homes.workspace)
    return (
        Account("paper", "memory of all experts, read once", (experts,)),
        Account("weights read", "bytes of weights that are read, given routing and schedule", weights),
        Account(
            "with activations and compute",
            "besides, all else that is loaded and stored, and the multiply-adds",
            (*weights, activations, in_processor(profile, moved.multiply_adds)),
        ),
    )


def energy_of_time(profile: Profile, milliseconds: float | None) -> tuple[Account, ...]:
    """What the whole board or chip takes while it computes, where the time was measured and the power is known."""
    power = profile.cpu.active_power_w
    if milliseconds is None or power is None:
        return ()
    part = EnergyPart("power", milliseconds, "ms", "measured", profile.cpu.name, power.value * 1e9, power.source)
    return (Account("power times time", "of the whole board or chip while it computes", (part,)),)


def in_memory(profile: Profile, what: str, amount: int | None, origin: Origin, memory: str) -> EnergyPart:
    constant = next(m.energy_pj_per_bit for m in profile.memories if m.name == memory)
    value = None if constant is None else 8 * constant.value
    return EnergyPart(what, amount, "bytes", origin, memory, value, source_of(constant))


def in_processor(profile: Profile, multiply_adds: int) -> EnergyPart:
    constant = profile.cpu.energy_pj_per_multiply_add
    value = None if constant is None else constant.value
    return EnergyPart(
        "arithmetic", multiply_adds, "multiply-adds", "exact", profile.cpu.name, value, source_of(constant)
    )


def source_of(constant: Quantity | None) -> str | None:
    return constant.source if constant else None
