"""`bfedge profile`: what a board measures of itself."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from bfedge.cli.boards import board_options, exported_for
from bfedge.cli.output import count, json_option, out, print_json, table

if TYPE_CHECKING:
    from bfedge.device.board import Line
    from bfedge.measure.board_profile import BoardProfile


@click.command("profile")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--target", help="For a checkpoint or .bfe file: the board to export for.")
@board_options
@json_option
def command(
    model: Path,
    target: str | None,
    line: Line,
    as_json: bool,
) -> None:
    """Run MODEL on a board and show what the board measured: time or executed instructions by stage, workspace,
    stack, free memory.

    MODEL is an exported folder; a checkpoint or .bfe file is exported first, for --target.
    """
    from bfedge.device.board import open_board
    from bfedge.measure.board import demand_identity
    from bfedge.measure.board_profile import profile_board

    with exported_for(model, target) as exported, open_board(exported, line, counting=True) as board:
        demand_identity(board.hello, exported)
        found = profile_board(board, exported.tile)
    if as_json:
        print_json("profile", {"model": str(model), "target": exported.profile.name, **as_dict(found)})
    else:
        show(found)


def as_dict(found: BoardProfile) -> dict[str, Any]:
    values = {field.name: getattr(found, field.name) for field in dataclasses.fields(found)}
    values["hello"] = msgspec.to_builtins(found.hello)
    values["hello"].pop("id")
    values["clock"] = msgspec.to_builtins(found.clock)
    values["stages"] = [dataclasses.asdict(stage) for stage in found.stages]
    return {**values, "instructions": found.instructions, "model_bytes": found.model_bytes}


def show(found: BoardProfile) -> None:
    from bfedge.measure.board_profile import milliseconds

    hello, clock = found.hello, found.clock
    out.print(f"{hello.board}, {hello.cpu}: {found.where}")
    out.print(f"runtime {hello.runtime}, kernels {hello.kernels or 'unknown'}, {hello.compiler}, {hello.flags}\n")

    cycles = clock is not None and clock.unit == "cycles"
    columns = {
        "instructions": found.emulated,
        "cycles": cycles,
        "ms": clock is not None and bool(clock.hz),
        "model bytes": True,
    }
    rows = table("stage", *(name for name, wanted in columns.items() if wanted))

    def add(name: str, ticks: int | None, instructions: int | None, model_bytes: int, **style: Any) -> None:
        time = milliseconds(ticks, clock)
        cells = {
            "instructions": or_unknown(instructions),
            "cycles": or_unknown(ticks),
            "ms": "n/a" if time is None else f"{time:.3f}",
            "model bytes": count(model_bytes),
        }
        rows.add_row(name, *(cells[column] for column, wanted in columns.items() if wanted), **style)

    for stage in found.stages:
        add(stage.name, stage.ticks, stage.instructions, stage.model_bytes)
    add("one inference", found.ticks, found.instructions, found.model_bytes, style="bold")
    out.print(rows)
    if found.instructions is not None:
        show_what_counts(found.note)

    memory = table("\nmemory", "\nbytes")
    memory.add_row("workspace, as stated", count(found.workspace_stated))
    memory.add_row("workspace, as used", count(found.workspace_used))
    memory.add_row("stack of bfe_run", or_unknown(found.stack_run))
    memory.add_row("stack of bfe_open", or_unknown(found.stack_open))
    memory.add_row("stack of the whole program", or_unknown(found.stack_total))
    memory.add_row("free memory", or_unknown(found.free_memory))
    out.print(memory)


def show_what_counts(note: str | None) -> None:
    """What the instructions of an emulator are, and are not."""
    out.print("instructions are executed ones, counted exactly by the emulator; they are not cycles")
    if note:
        out.print(f"the emulated machine has {note}")


def or_unknown(number: int | None) -> str:
    return "n/a" if number is None else count(number)
