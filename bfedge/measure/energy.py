"""Energy of one inference on a board: bytes moved times the energy of the memory that they are moved in, and the
arithmetic. Every constant is the board profile's, with its source; where one is missing there is no number.
"""

from __future__ import annotations

from dataclasses import dataclass

from bfedge.device.profile import Profile, Quantity

MEMORY_CONSTANT = "energy_pj_per_bit"
COMPUTE_CONSTANT = "energy_pj_per_multiply_add"


@dataclass(frozen=True)
class EnergyPart:
    what: str
    """`weights`, `activations`, `arithmetic`, `power`"""
    amount: float
    """In the unit: `bytes`, `multiply-adds`, `ms`"""
    unit: str
    where: str
    """The board's name of the memory, or of its processor"""
    pj_per_unit: float | None
    """None if the profile has no constant"""
    source: str | None

    @property
    def millijoules(self) -> float | None:
        return None if self.pj_per_unit is None else self.amount * self.pj_per_unit * 1e-9


@dataclass(frozen=True)
class Account:
    """One way to count."""

    name: str
    meaning: str
    parts: tuple[EnergyPart, ...]

    @property
    def millijoules(self) -> float | None:
        """None if a constant of any part is missing."""
        energies = [part.millijoules for part in self.parts]
        return None if None in energies else sum(e for e in energies if e is not None)

    @property
    def missing(self) -> tuple[str, ...]:
        """Constants that the profile does not have."""
        names = {
            f"{part.where}: {COMPUTE_CONSTANT if part.unit == 'multiply-adds' else MEMORY_CONSTANT}"
            for part in self.parts
            if part.pj_per_unit is None
        }
        return tuple(sorted(names))


@dataclass(frozen=True)
class Moved:
    """What one inference moves and computes."""

    expert_bytes: int
    """Substrate and angles of all experts, as the packed file stores them"""
    weights_read: int
    """Bytes of weights and tables, every pass over them counted"""
    activations: int | None
    """Bytes of all else that is loaded and stored: workspace, image, logits, tables, stack; None if unknown"""
    multiply_adds: int


def energy_accounts(profile: Profile, moved: Moved, weights_in: str, working_in: str) -> tuple[Account, ...]:
    """Three accounts of the same inference.

    Args:
        weights_in: name of the board's memory that weights are read from.
        working_in: name of the one that holds the workspace.

    Bytes are counted where the program loads and stores them. What a cache holds costs less, so on processors with
    caches the second and third account are upper bounds; the first is the least that must be read from memory if every
    expert is used once (ButterflyViT, section 3.2, F2).
    """
    paper = Account(
        "paper",
        "memory of all experts, read once",
        (in_memory(profile, "expert weights", moved.expert_bytes, weights_in),),
    )
    weights = in_memory(profile, "weights", moved.weights_read, weights_in)
    read = Account("weights read", "bytes of weights that are read, given routing and schedule", (weights,))
    if moved.activations is None:
        return paper, read
    whole = Account(
        "with activations and compute",
        "besides, all else that is loaded and stored, and the multiply-adds",
        (
            weights,
            in_memory(profile, "activations", moved.activations, working_in),
            in_processor(profile, moved.multiply_adds),
        ),
    )
    return paper, read, whole


def energy_of_time(profile: Profile, milliseconds: float | None) -> tuple[Account, ...]:
    """What the whole board or chip takes while it computes, where the time was measured and the power is known."""
    power = profile.cpu.active_power_w
    if milliseconds is None or power is None:
        return ()
    part = EnergyPart("power", milliseconds, "ms", profile.cpu.name, power.value * 1e9, power.source)
    return (Account("power times time", "of the whole board or chip while it computes", (part,)),)


def in_memory(profile: Profile, what: str, amount: int, memory: str) -> EnergyPart:
    constant = next(m.energy_pj_per_bit for m in profile.memories if m.name == memory)
    value = None if constant is None else 8 * constant.value
    return EnergyPart(what, amount, "bytes", memory, value, source_of(constant))


def in_processor(profile: Profile, multiply_adds: int) -> EnergyPart:
    constant = profile.cpu.energy_pj_per_multiply_add
    value = None if constant is None else constant.value
    return EnergyPart("arithmetic", multiply_adds, "multiply-adds", profile.cpu.name, value, source_of(constant))


def source_of(constant: Quantity | None) -> str | None:
    return constant.source if constant else None
