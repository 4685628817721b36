"""Everything that the papers claim and that can be computed without training (`bfedge paper`)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from bfedge.bench.random_models import cifar_shape
from bfedge.measure import paper_memory
from bfedge.measure.claims import Claim
from bfedge.measure.expert_memory import expert_memory, pack_random
from bfedge.measure.paper_devices import Capacity, capacities, devices
from bfedge.measure.paper_energy import energy
from bfedge.measure.paper_memory import packed


@dataclass(frozen=True)
class StoredExperts:
    """Expert memory in packed files of ButterflyViT's model, in bytes: substrate with scales, and FP16 angles."""

    experts: int
    standard: float
    """Independent float32 experts"""
    two_bits: int
    """With trits in 2 bits each"""
    base_3: int
    """With 5 trits in a byte"""


@dataclass(frozen=True)
class Recomputed:
    groups: dict[str, list[Claim]]
    """By what they are about"""
    stored: list[StoredExperts]
    capacities: list[Capacity]

    def claims(self) -> Iterator[Claim]:
        for group in self.groups.values():
            yield from group

    @property
    def should_match(self) -> int:
        return sum(claim.must_match for claim in self.claims())

    @property
    def do_match(self) -> int:
        """Of those that should"""
        return sum(claim.must_match and claim.matches for claim in self.claims())

    @property
    def contradictions(self) -> int:
        return sum(claim.contradiction for claim in self.claims())

    @property
    def passed(self) -> bool:
        return self.do_match == self.should_match


def recompute() -> Recomputed:
    found = capacities()
    return Recomputed(
        groups={
            "ButterflyViT, Table 2": paper_memory.table_2(),
            "ButterflyViT, Table 1": paper_memory.table_1(),
            "memory in ButterflyViT's text": paper_memory.text(),
            "how trits and angles are stored": paper_memory.stored(),
            "ButterflyViT's formulas and limit": paper_memory.limits(),
            "ButterflyMoE": paper_memory.butterfly_moe(),
            "energy": energy(),
            "experts on boards": devices(found),
        },
        stored=[stored_experts(experts) for experts in paper_memory.TABLE_2],
        capacities=found,
    )


def stored_experts(experts: int) -> StoredExperts:
    two_bits = packed(experts)
    base_3 = expert_memory(pack_random(cifar_shape(experts), "trits3"))
    return StoredExperts(experts, two_bits.standard_bytes, two_bits.stored_bytes, base_3.stored_bytes)
