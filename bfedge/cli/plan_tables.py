"""The tables of `bfedge plan`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bfedge.cli.energy_table import show_energy
from bfedge.cli.models import GOLDEN_CASES
from bfedge.cli.output import count, out, table

if TYPE_CHECKING:
    from bfedge.measure.estimate import Estimate
    from bfedge.measure.most_experts import MostExperts
    from bfedge.measure.plan import Plan
    from bfedge.measure.target_plan import TargetPlan
    from bfedge.packed.outline import Outline


def show_model(plan: Plan) -> None:
    parts = table("file, by part", "bytes", "share")
    for part, size in plan.parts.items():
        parts.add_row(part, count(size), f"{size / plan.file_bytes:.1%}")
    parts.add_row("whole file", count(plan.file_bytes), "", style="bold")
    out.print(parts)

    memory = table("\nworking memory", "\nbytes")
    memory.add_row("workspace, all tokens at once (fastest)", count(plan.workspace_bytes))
    memory.add_row("  and weights rearranged for vector instructions", count(plan.prepared_bytes))
    memory.add_row("workspace, one token at a time (smallest)", count(plan.workspace_bytes_smallest))
    memory.add_row("one input image", count(plan.input_bytes))
    memory.add_row("logits", count(plan.output_bytes))
    out.print(memory)

    paper = plan.paper
    experts = table("\nexpert memory", "\nbytes", "\ncompression")

    def row(name: str, size: float) -> None:
        experts.add_row(name, count(round(size)), f"{paper.standard_experts / size:.1f} x")

    row("standard MoE, float32 experts", paper.standard_experts)
    row("paper's formula, 1.58 bits and FP32 angles", paper.butterfly_fp32_angles)
    row("paper's formula, 1.58 bits and FP16 angles", paper.butterfly_fp16_angles)
    row("this file: substrate and angles", paper.packed_experts)
    out.print(experts)

    work = table("\none inference", "\nmultiply-adds", "\nshare")
    whole = sum(plan.multiply_adds.values())
    for part, number in plan.multiply_adds.items():
        work.add_row(part, count(number), f"{number / whole:.1%}")
    work.add_row("in all", count(whole), "", style="bold")
    out.print(work)
    out.print(
        "\nThe paper counts experts only. What must fit on a device is the whole file, "
        f"{count(plan.file_bytes)} bytes, and a workspace."
    )


def show_golden(outline: Outline) -> None:
    """Export adds golden vectors to a model that has none."""
    from bfedge.packed.layout import Kind
    from bfedge.packed.outline import with_golden

    if not any(section.kind == Kind.golden_input for section in outline.sections):
        added = count(with_golden(outline, GOLDEN_CASES).file_bytes - outline.file_bytes)
        out.print(
            f"\nWithout golden vectors; `bfedge export` adds {GOLDEN_CASES}, {added} bytes (`--golden {GOLDEN_CASES}` "
            "plans with them)."
        )


def show_boards(boards: list[TargetPlan]) -> None:
    """One line a board."""
    rows = table(
        "\nboard",
        "\nfits",
        "\nmodel",
        "\nworking memory",
        "\ntile",
        "\nmost experts",
        "\ninstructions, millions",
        "\nenergy, mJ",
    )
    for board in boards:
        if not board.memories:
            continue
        rows.add_row(
            board.target,
            "yes" if board.fits else "no",
            memory_of(board, "model"),
            memory_of(board, "workspace"),
            tokens(board.tile) if board.fits else "",
            most(board.most_experts),
            *cost_of(board),
        )
    out.print(rows)
    out.print(
        "most experts: with everything else equal, in SRAM alone / in all of the board's memories. "
        "Instructions are estimates; energy is that of weights read. `--target BOARD` shows more."
    )
    for board in boards:
        if board.problem:
            out.print(f"{board.problem}; {board.hint}" if board.hint else board.problem)


def cost_of(board: TargetPlan) -> tuple[str, str]:
    """Instructions and energy; nothing for a board that will never run it."""
    if not board.fits:
        return "", ""
    energy = next((a.millijoules for a in board.energy if a.name == "weights read"), None)
    return (
        millions(board.estimate.instructions) if board.estimate else "n/a",
        f"{energy:.3g}" if energy is not None else "n/a",
    )


def memory_of(board: TargetPlan, what: str) -> str:
    """Bytes of the model, or of the workspace and what lies around it, and the room in the memory that holds it."""
    memory = next(m for m in board.memories if what in m.contents)
    needed = sum(size for name, size in memory.contents.items() if (name == "model") == (what == "model"))
    return f"{count(needed)} of {count(memory.room)} {memory.name}"


def tokens(tile: int) -> str:
    return "all" if tile == 0 else str(tile)


def in_tokens(tile: int) -> str:
    return {0: "all tokens", 1: "one token"}.get(tile, f"{tile} tokens")


def most(found: MostExperts | None) -> str:
    if found is None:
        return "n/a"
    return f"{count(found.on_board)}" if found.in_sram is None else f"{count(found.in_sram)} / {count(found.on_board)}"


def show_target(board: TargetPlan) -> None:
    out.print(f"\n{board.title}", style="bold")
    if board.memories:
        show_memories(board)
    show_tiles(board)
    if not board.fits:
        out.print(f"\nIt does not fit. If it did, with {in_tokens(board.tile)} at a time:")
    show_cost(board)
    if board.memories and board.fits:
        out.print(f"\nIt fits, with {in_tokens(board.tile)} through the experts at a time.")


def show_memories(board: TargetPlan) -> None:
    memories = table(f"on {board.target}", "needed", "for a model", "in all")
    for memory in board.memories:
        many = len(memory.contents) > 1
        what = "" if many else f": {next(iter(memory.contents), 'nothing')}"
        memories.add_row(f"{memory.name}{what}", count(memory.needed), count(memory.room), count(memory.size))
        for name, size in memory.contents.items() if many else ():
            memories.add_row(f"  {name}", count(size))
    out.print(memories)
    if board.program:
        out.print(
            f"besides, for the program: {count(board.program.code_bytes)} bytes of code, "
            f"{count(board.program.data_bytes)} of data, {count(board.program.stack_bytes)} of stack"
        )
    found = board.most_experts
    if found and found.in_sram is not None:
        in_sram, in_all = count(found.in_sram), count(found.on_board)
        out.print(f"most experts, everything else equal: {in_sram} in SRAM alone, {in_all} in all of its memories")
    elif found:
        out.print(f"most experts, everything else equal: {count(found.on_board)}")


def show_tiles(board: TargetPlan) -> None:
    tiles = table("\ntokens at a time", "\nworkspace", "\nwith all around it", "\nfits")
    for size in board.tiles:
        fits = (size.memory or "no") if board.memories else ""
        tiles.add_row(tokens(size.tile), count(size.workspace_bytes), count(size.working_bytes), fits)
    out.print(tiles)


def show_cost(board: TargetPlan) -> None:
    if board.estimate:
        show_instructions(board.estimate, board.routing)
    if board.milliseconds is not None:
        out.print(f"time: {board.milliseconds:,.1f} ms, estimated ({board.rate_source})")
    else:
        out.print(f"time: n/a; {why_no_time(board)}. `bfedge profile` and `bench` measure on the board")
    if board.energy:
        show_energy(board.energy)
        out.print(f"routing: {'even over all experts' if board.routing == 'even' else 'of a real input'}")


def why_no_time(board: TargetPlan) -> str:
    if board.rate_source is None:
        return "no rate was measured on this board"
    if board.estimate is None:
        return "no instructions were counted for such a board"
    return "the emulator executes other instructions than the board"


def show_instructions(found: Estimate, routing: str) -> None:
    out.print(
        f"\ninstructions: {millions(found.instructions)} million an inference, estimated from counts in the board's "
        f"emulator; off by up to {found.error:.1%} on models that were left out"
    )
    low, high = millions(found.fewest_instructions), millions(found.most_instructions)
    if routing == "even" and low != high:
        out.print(f"by routing from {low} to {high} million")
    if found.outside:
        out.print(f"outside of what was counted, so it may be off by more: {', '.join(found.outside)}")
    if found.note:
        out.print(f"the emulated machine has {found.note}")


def millions(number: float) -> str:
    """Three digits, or as many as there are in front of the point."""
    value = number / 1e6
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
