"""How many experts could a model have, everything else equal, and still fit a board?"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from bfedge.config import BOUNDS
from bfedge.device.fit import needs_of, place
from bfedge.device.profile import Memory, Profile
from bfedge.errors import BfedgeError
from bfedge.packed.outline import Outline, with_experts

FORMAT_LIMIT = BOUNDS["experts"][1]


@dataclass(frozen=True)
class MostExperts:
    """Of each layer; 0 if the model does not fit with as few as top_k. 4,096 is as many as the format holds."""

    in_sram: int | None
    """With the packed file in SRAM, beside the workspace; None for boards whose memory is all DRAM"""
    on_board: int
    """With weights used where the board keeps them: in flash, or in DRAM"""


def most_experts(profile: Profile, outline: Outline, tile: int | None = None) -> MostExperts | None:
    """With `tile` tokens at a time, 0 for all; None for at least one. Returns None for this machine, whose memory is
    not planned.
    """
    if not profile.memories:
        return None
    sram = in_sram_alone(profile)
    return MostExperts(in_sram=search(sram, outline, tile) if sram else None, on_board=search(profile, outline, tile))


def in_sram_alone(profile: Profile) -> Profile | None:
    """The board as if model and workspace had to be in its SRAM; None if it has none."""
    memories: tuple[Memory, ...] = tuple(
        msgspec.structs.replace(memory, holds=("model", "workspace"))
        for memory in profile.memories
        if memory.kind == "sram"
    )
    return msgspec.structs.replace(profile, memories=memories) if memories else None


def search(profile: Profile, outline: Outline, tile: int | None) -> int:
    def fits(experts: int) -> bool:
        try:
            need = needs_of(with_experts(outline, experts))(profile)
        except BfedgeError:  # 4 GiB or more
            return False
        return place(profile, need, 1 if tile is None else tile) is not None

    fewest = outline.shape.top_k
    if not fits(fewest):
        return 0
    enough, too_many = fewest, FORMAT_LIMIT + 1  # file and workspace grow with the experts
    while too_many - enough > 1:
        middle = (enough + too_many) // 2
        if fits(middle):
            enough = middle
        else:
            too_many = middle
    return enough
