"""Does a packed model fit a board, and with how many tokens at a time?"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import msgspec

from bfedge.device.host import COLUMNS_IN_PLACE, PlannedModel, around_workspace, kernels_on
from bfedge.device.profile import Memory, Profile, known_profiles
from bfedge.errors import BfedgeError
from bfedge.packed.outline import Outline, in_base3

Content = Literal["model", "workspace"]

REARRANGED_WEIGHTS = "rearranged weights"

WORDS = {"flash": "flash", "sram": "RAM", "psram": "PSRAM", "dram": "memory"}


@dataclass(frozen=True)
class MemoryUse:
    """One memory of the board, in bytes."""

    name: str
    kind: str
    contents: tuple[Content, ...]
    """What lies here; "workspace" is with the input image, the logits, and weights that are rearranged"""
    needed: int
    room: int
    """What a model may take of it"""
    size: int


@dataclass(frozen=True)
class Fit:
    tile: int
    """Tokens that go through the experts together; 0 for all"""
    workspace_bytes: int
    """For this tile, alone"""
    memories: tuple[MemoryUse, ...]
    """All of the board's, in its order; none for this machine, where everything fits"""


@dataclass(frozen=True)
class Need:
    """Bytes of a model on a board."""

    model: int
    """The packed file"""
    workspace_of: Callable[[int], int]
    """Bytes of workspace for a tile; grows with the tile"""
    around: dict[str, int]
    """What lies with the workspace: image, logits, guard, and weights that the board's kernels want rearranged"""
    tokens: int
    """Of one image, so the largest tile"""
    model_in_base3: int | None = None
    """The packed file with trits five a byte, if that is smaller"""

    def working(self, tile: int) -> int:
        return self.workspace_of(tile) + sum(self.around.values())


def needs_of(outline: Outline) -> Callable[[Profile], Need]:
    """What a packed file needs on a board, by the C runtime's own word."""

    @functools.cache
    def with_kernels(kernels: str) -> Need:
        runtime = PlannedModel(outline, kernels)
        around = around_workspace(runtime.model.config)
        if runtime.prepared_bytes:
            around[REARRANGED_WEIGHTS] = runtime.prepared_bytes
        smaller = in_base3(outline).file_bytes
        return Need(
            outline.file_bytes,
            runtime.workspace_bytes,
            around,
            outline.shape.tokens,
            smaller if smaller < outline.file_bytes else None,
        )

    return lambda profile: with_kernels(kernels_on(profile))


def fit(profile: Profile, need_on: Callable[[Profile], Need], tile: int | None, name: str = "model.bfe") -> Fit:
    """Where everything lies on a board.

    Args:
        need_on: from `needs_of`.
        tile: tokens that go through the experts together, 0 for all; None for as many as fit.
        name: of the model, for messages.

    Raises BfedgeError with the numbers and a way out if it does not fit.
    """
    need = need_on(profile)
    chosen = largest_tile(profile, need) if tile is None else 0 if tile >= need.tokens else tile
    uses = None if chosen is None else place(profile, need, chosen)
    if chosen is None or uses is None:
        raise too_large(profile, need_on, tile, name)
    return Fit(chosen, need.workspace_of(chosen), uses)


def place(profile: Profile, need: Need, tile: int) -> tuple[MemoryUse, ...] | None:
    """The model and the workspace each in a memory that holds it, both with room: of all such pairs the first, the
    model's home first. None if there is none.
    """
    sizes: dict[Content, int] = {"model": need.model, "workspace": need.working(tile)}
    homes = itertools.product(*(profile.memories_that_hold(what) for what in sizes))
    for pair in homes:
        contents = {memory.name: tuple(what for what, home in zip(sizes, pair, strict=True) if home is memory)
                    for memory in profile.memories}  # fmt: skip
        needed = {name: sum(sizes[what] for what in held) for name, held in contents.items()}
        if all(needed[memory.name] <= memory.room for memory in profile.memories):
            return tuple(
                MemoryUse(m.name, m.kind, contents[m.name], needed[m.name], m.room, int(m.bytes.value))
                for m in profile.memories
            )
    return None if profile.memories else ()


def largest_tile(profile: Profile, need: Need) -> int | None:
    """The tile to run with, 0 for all tokens: the largest in the board's first memory for a workspace, if enough tokens
    fit it to share every pass over a matrix; else the largest in any. None if not even one token fits.

    More tokens at a time in a slower memory would save only some expanding of angles.
    """
    tiles = []
    for memory in profile.memories_that_hold("workspace"):
        tile = largest_tile_in(memory, profile, need)
        if tile == 0 or (tile and tile >= COLUMNS_IN_PLACE):
            return tile
        tiles.append(tile)
    return max((tile for tile in tiles if tile), default=None) if profile.memories else 0


def largest_tile_in(memory: Memory, profile: Profile, need: Need) -> int | None:
    """The same, with the workspace in this memory."""
    memories = tuple(m if m is memory else without_workspace(m) for m in profile.memories)
    alone = msgspec.structs.replace(profile, memories=memories)
    if place(alone, need, 0) is not None:
        return 0
    fits, too_many = 0, need.tokens
    while too_many - fits > 1:
        middle = (fits + too_many) // 2
        if place(alone, need, middle) is not None:
            fits = middle
        else:
            too_many = middle
    return fits or None


def without_workspace(memory: Memory) -> Memory:
    return msgspec.structs.replace(memory, holds=tuple(what for what in memory.holds if what != "workspace"))


def too_large(profile: Profile, need_on: Callable[[Profile], Need], tile: int | None, name: str) -> BfedgeError:
    need = need_on(profile)
    homes = profile.memories_that_hold("model")
    if not any(need.model <= memory.room for memory in homes):
        message = f"{name} is {at_least(need.model)}; {rooms(profile, homes)}"
        smaller = need.model_in_base3
        if smaller is not None and any(smaller <= memory.room for memory in homes):
            return BfedgeError(message, f"packed with `--ternary base3` it is {at_least(smaller)}")
        return BfedgeError(message, boards_that_fit(need_on))
    smaller = largest_tile(profile, need)
    least = 1 if tile is None else tile
    speed = {0: "all tokens at once", 1: "one token at a time"}.get(least, f"{least} tokens at a time")
    kinds = " or ".join(word(profile, memory) for memory in profile.memories_that_hold("workspace"))
    message = (
        f"{name} needs {at_least(need.working(least))} of {kinds} with {speed}; "
        f"{rooms(profile, profile.memories_that_hold('workspace'), need)}"
    )
    if smaller:
        return BfedgeError(message, f"`--tile {smaller}` needs {at_least(need.working(smaller))}")
    return BfedgeError(message, boards_that_fit(need_on))


def rooms(profile: Profile, memories: list[Memory], need: Need | None = None) -> str:
    """What the board has for a model, or beside the model that `need` puts into one of the memories."""
    shares = []
    home = next((m for m in profile.memories_that_hold("model") if need and need.model <= m.room), None)
    for memory in memories:
        room = memory.room - (need.model if need and memory is home else 0)
        shares.append(f"{at_most(room)} of {word(profile, memory)}")
    beside = " beside it" if home in memories else ""
    return f"{profile.name} has {' and '.join(shares)} for a model{beside}"


def word(profile: Profile, memory: Memory) -> str:
    """Its kind, or its name if the board has several of the kind."""
    of_kind = [other for other in profile.memories if other.kind == memory.kind]
    return WORDS[memory.kind] if len(of_kind) == 1 else memory.name


def boards_that_fit(need_on: Callable[[Profile], Need]) -> str:
    fitting = [p.name for p in known_profiles() if p.memories and largest_tile(p, need_on(p)) is not None]
    return f"it fits {', '.join(fitting)}" if fitting else "no board that bfedge knows has room for it"


def at_least(size: int) -> str:
    """Rounded up, and `at_most` down, so that what does not fit never reads as if it did."""
    return in_units(-(-size // 1024), -(-size // 1048576))


def at_most(size: int) -> str:
    return in_units(size // 1024, size // 1048576)


def in_units(kib: int, mib: int) -> str:
    return f"{kib:,} KiB" if kib < 100_000 else f"{mib:,} MiB"
