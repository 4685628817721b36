"""What ButterflyViT says about energy, recomputed: expert memory read once from DRAM (section 3.2, F2)."""

from __future__ import annotations

from bfedge.device.profile import Memory, load_profile
from bfedge.measure.claims import VIT, Claim
from bfedge.measure.energy import in_memory
from bfedge.measure.expert_memory import FP32_ANGLE
from bfedge.measure.paper_memory import MB, packed, packed_moe

BOARD = "jetson-nano"


def energy() -> list[Claim]:
    profile = load_profile(BOARD)
    memory = dram(profile.memories)
    pj_per_bit = memory.energy_pj_per_bit.value if memory.energy_pj_per_bit else None
    few, many = packed(8), packed(64)

    def millijoules(size: float) -> float | None:
        return in_memory(profile, "expert weights", round(size), "exact", memory.name).millijoules

    standard, butterfly = millijoules(many.standard_bytes), millijoules(many.counted(FP32_ANGLE))
    saved, saved_8 = (100 * (1 - m.counted(FP32_ANGLE) / m.standard_bytes) for m in (many, few))
    other_paper = packed_moe(64).standard_bytes / 2
    per_bit = f"{pj_per_bit} pJ a bit, {many.standard_bytes / MB:.2f} MB"
    thirteen = f"{per_bit}; {millijoules(other_paper) or 0:.1f} mJ are ButterflyMoE's 256 MB"
    ninety = f"{per_bit}; and section 3.2 says 13 mJ"
    if standard is not None and pj_per_bit is not None:
        ninety += f". 90 mJ would take {90 / standard * pj_per_bit:.1f} pJ a bit"
    known = standard is not None
    return [
        Claim(VIT, "section 3.2", "DRAM access", "6.4 pJ/bit", pj_per_bit,
              f"the profile of {BOARD} has it from this paper", must_match=False),
        Claim(VIT, "section 3.2", "StandardMoE, 64 experts", "13 mJ", standard, thirteen, must_match=False),
        Claim(VIT, "section 4.4", "StandardMoE, 64 experts", "90 mJ", standard, ninety, must_match=False),
        Claim(VIT, "section 4.4", "ButterflyViT, 64 experts", "below 0.2 mJ", butterfly,
              f"{many.counted(FP32_ANGLE) / MB:.3f} MB", known, "below"),
        Claim(VIT, "section 4.4", "energy saved", "more than 98%", saved_8, "at 8 experts, and more with more",
              relation="above"),
        Claim(VIT, "section 1", "energy saved, at most", "99.5%", saved,
              f"at 64 experts, as the bytes are; {saved_8:.2f}% at 8", must_match=False),
    ]  # fmt: skip


def dram(memories: tuple[Memory, ...]) -> Memory:
    return next(memory for memory in memories if memory.kind == "dram")
