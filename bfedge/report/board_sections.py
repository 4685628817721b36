"""What the page shows of boards: where the model lies, and whether it fits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from bfedge.measure.estimate import Estimate
from bfedge.measure.most_experts import FORMAT_LIMIT
from bfedge.measure.target_plan import MemoryPlan, TargetPlan
from bfedge.report.data import Fact, Measured, Report
from bfedge.report.words import amount, count, milliseconds, percent, size

CONTENTS = {
    "model": "c0",
    "workspace": "c2",
    "rearranged weights": "c6",
    "image": "c1",
    "logits": "c4",
    "guard": "c7",
}
OTHER = "c9"
SMALLEST_PIECE = 0.7
"""Percent of a bar"""


def boards_context(report: Report) -> dict[str, Any]:
    boards = by_size(report.boards)
    found = {name for board in boards for memory in board.memories for name in memory.contents}
    names = titles(boards)
    legend = [{"name": name, "colour": CONTENTS.get(name, OTHER)} for name in [*CONTENTS, *sorted(found - {*CONTENTS})]]
    return {
        "boards": [board_view(board, names[board.target], report) for board in boards],
        "board_legend": [item for item in legend if item["name"] in found]
        + ([{"name": "kept for other programs and the system", "colour": "kept"}] if boards else []),
    }


def by_size(boards: Sequence[TargetPlan]) -> list[TargetPlan]:
    """The smallest first: where it is tight."""
    return sorted(boards, key=lambda board: sum(memory.size for memory in board.memories))


def titles(boards: Sequence[TargetPlan]) -> dict[str, str]:
    """By board's name, which is added where two have the same title."""
    often = Counter(board.title for board in boards)
    return {
        board.target: f"{board.title} ({board.target})" if often[board.title] > 1 else board.title for board in boards
    }


def board_view(board: TargetPlan, title: str, report: Report) -> dict[str, Any]:
    return {
        "title": title,
        "processor": report.processors[board.target],
        "fits": board.fits,
        "verdict": f"fits, {tokens_at_once(board.tile)}" if board.fits else "does not fit",
        "problem": "" if board.fits else "; ".join(filter(None, (board.problem, board.hint))),
        "memories": [memory_view(memory) for memory in board.memories],
        "facts": board_facts(board, report.measured),
        "note": estimate_note(board.estimate),
        "numbers": board_numbers(board),
        "tiles": [
            (
                tokens_at_once(tile.tile),
                count(tile.workspace_bytes),
                count(tile.working_bytes),
                tile.memory or "does not fit",
            )
            for tile in board.tiles
        ],
    }


def tokens_at_once(tile: int) -> str:
    return {0: "all tokens at once", 1: "one token at a time"}.get(tile, f"{tile} tokens at a time")


def memory_view(memory: MemoryPlan) -> dict[str, Any]:
    """Bars end at the memory's size; what is too large ends where the bar does."""
    over = memory.needed > memory.room
    whole = max(memory.needed, memory.size)
    return {
        "name": memory.name,
        "needed": memory.needed,
        "room": memory.room,
        "over": over,
        "limit": 100 * memory.room / whole,
        "kept": 0 if over else 100 * (memory.size - memory.room) / whole,
        "contents": list(pieces(memory, whole)),
    }


def pieces(memory: MemoryPlan, whole: int) -> Iterator[dict[str, Any]]:
    """Of a bar; what is too small to be seen by itself is one piece, in the colour of the largest."""
    small = 0.0
    for name, item in memory.contents.items():
        percent = 100 * item / whole
        if percent < SMALLEST_PIECE:
            small += percent
        else:
            yield {"percent": percent, "colour": CONTENTS.get(name, OTHER)}
    if small:
        yield {"percent": small, "colour": CONTENTS.get(max(memory.contents, key=memory.contents.__getitem__), OTHER)}


def board_facts(board: TargetPlan, measured: Sequence[Measured]) -> list[Fact]:
    facts = []
    most = board.most_experts
    if most:
        facts.append(Fact("most experts a layer", experts(most.on_board)))
        if most.in_sram is not None:
            facts.append(Fact("in SRAM alone", experts(most.in_sram)))
    facts.append(Fact("instructions, estimated", instructions(board)))
    times = [found.milliseconds(found.ticks) for found in measured if found.target == board.target]
    time = next((time for time in times if time is not None), None)
    if time is not None:
        facts.append(Fact("time, measured", milliseconds(time)))
    else:
        facts.append(Fact("time, estimated", milliseconds(board.milliseconds)))
    if board.program:
        facts.append(Fact("program's code", size(board.program.code_bytes)))
    return facts


def instructions(board: TargetPlan) -> str:
    found = board.estimate
    if found is None:
        return "n/a"
    off = f"± {percent(found.error)}"
    if board.routing != "even" or found.fewest_instructions == found.most_instructions:
        return f"{amount(found.instructions)} {off}"
    return f"{amount(found.fewest_instructions)} to {amount(found.most_instructions)} as routing has it, {off}"


def estimate_note(found: Estimate | None) -> str:
    notes = []
    if found and found.note:
        notes.append(f"Instructions are of an emulator that has {found.note}.")
    if found and found.outside:
        notes.append(f"Outside of what was counted: {', '.join(found.outside)}.")
    return " ".join(notes)


def experts(most: int) -> str:
    if not most:
        return "none"
    return f"{count(most)}, the format's limit" if most == FORMAT_LIMIT else count(most)


def board_numbers(board: TargetPlan) -> list[tuple[str, str]]:
    rows = []
    for memory in board.memories:
        rows += [(f"{memory.name}: {name}", count(item)) for name, item in memory.contents.items()]
        rows += [(f"{memory.name}: room", count(memory.room)), (f"{memory.name}: all", count(memory.size))]
    if board.program:
        program = board.program
        rows += [
            ("program: code", count(program.code_bytes)),
            ("program: data", count(program.data_bytes)),
            ("program: stack", count(program.stack_bytes)),
        ]
    return [*rows, ("weights read an inference", count(board.weights_read_bytes))]
