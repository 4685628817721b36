"""`bfedge profile`: what a board measures of itself."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from bfedge.cli.boards import board_options, exported_for, hello_as_dict
from bfedge.cli.energy_table import energy_as_dicts, show_energy
from bfedge.cli.models import ModelArgument, model_name
from bfedge.cli.output import count, json_option, out, print_json, table
from bfedge.errors import BfedgeError

if TYPE_CHECKING:
    from bfedge.device.board import Line
    from bfedge.measure.against_plan import Comparison
    from bfedge.measure.board_profile import BoardProfile


@click.command("profile")
@click.argument("model", type=ModelArgument())
@click.option("--target", help="For a checkpoint or .bfe file: the board to export for.")
@board_options
@json_option
def command(
    model: Path,
    target: str | None,
    line: Line,
    as_json: bool,
) -> None:
    """Run MODEL on a board and show what the board measured: time or executed instructions by stage, weights read,
    energy, and memory against the plan. A difference between the two is an error.

    MODEL is an exported folder; a checkpoint or .bfe file is exported first, for --target. What is run is golden
    case 0.
    """
    from bfedge.device.board import open_board
    from bfedge.measure.against_plan import compare, energy_of
    from bfedge.measure.board import demand_identity
    from bfedge.measure.board_profile import profile_board

    with (
        exported_for(model, target) as exported,
        open_board(exported, line, counting=True, count_bytes=True) as board,
    ):
        demand_identity(board.hello, exported)
        found = profile_board(board, exported.tile)
        packed = exported.model.read_bytes()
        compared, energy = compare(found, exported, packed, line), energy_of(found, exported, packed)
    if as_json:
        listed = [{**dataclasses.asdict(c), "agrees": c.agrees} for c in compared]
        print_json(
            "profile",
            {
                "model": model_name(model),
                "sha256": hashlib.sha256(packed).hexdigest(),
                "target": exported.profile.name,
                **as_dict(found),
                "against_plan": listed,
                "energy": energy_as_dicts(energy),
            },
        )
    else:
        show(found)
        show_comparisons(compared)
        if energy:
            show_energy(energy)
    different = [c for c in compared if not c.agrees]
    if different:
        raise BfedgeError(
            f"the board is not as planned: {'; '.join(in_words(c) for c in different)}",
            "export and flash the model again; if that changes nothing, please report it",
        )


def in_words(compared: Comparison) -> str:
    return f"{compared.what}: planned {planned_bytes(compared)} bytes, measured {or_unknown(compared.measured)}"


def verdict(compared: Comparison) -> str:
    if compared.measured is None:
        return "not compared"
    return "" if compared.agrees else "DIFFERS"


def planned_bytes(compared: Comparison) -> str:
    return f"{'at most ' if compared.is_bound else ''}{count(compared.planned)}"


def as_dict(found: BoardProfile) -> dict[str, Any]:
    values = {field.name: getattr(found, field.name) for field in dataclasses.fields(found)}
    values["hello"] = hello_as_dict(found.hello)
    values["clock"] = msgspec.to_builtins(found.clock)
    values["stages"] = [dataclasses.asdict(stage) for stage in found.stages]
    totals = ("instructions", "model_bytes", "activation_bytes", "milliseconds")
    return {**values, **{name: getattr(found, name) for name in totals}}


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
        "weights read": True,
        "other bytes moved": found.activation_bytes is not None,
    }
    rows = table("stage", *(name for name, wanted in columns.items() if wanted))

    def add(
        name: str, ticks: int | None, instructions: int | None, model_bytes: int, others: int | None, **style: Any
    ) -> None:
        time = milliseconds(ticks, clock)
        cells = {
            "instructions": or_unknown(instructions),
            "cycles": or_unknown(ticks),
            "ms": "n/a" if time is None else f"{time:.3f}",
            "weights read": count(model_bytes),
            "other bytes moved": or_unknown(others),
        }
        rows.add_row(name, *(cells[column] for column, wanted in columns.items() if wanted), **style)

    for stage in found.stages:
        add(stage.name, stage.ticks, stage.instructions, stage.model_bytes, stage.activation_bytes)
    totals = (found.ticks, found.instructions, found.model_bytes, found.activation_bytes)
    add("one inference", *totals, style="bold")
    out.print(rows)
    if found.instructions is not None:
        show_what_counts(found.note)

    if found.free_memory is not None:
        out.print(f"\nfree memory: {count(found.free_memory)} bytes")


def show_comparisons(compared: list[Comparison]) -> None:
    """Stage by stage only where they differ."""
    from bfedge.measure.against_plan import WEIGHTS_READ

    rows = table("\nmemory, in bytes", "\nplanned", "\nmeasured", "\n")
    for c in compared:
        if not (c.what.startswith(WEIGHTS_READ) and c.agrees):
            rows.add_row(c.what, planned_bytes(c), or_unknown(c.measured), verdict(c))
    out.print(rows)
    stages = [c for c in compared if c.what.startswith(WEIGHTS_READ)]
    if all(c.agrees for c in stages):
        out.print(f"weights read are those planned in each of {len(stages)} stages")


def show_what_counts(note: str | None) -> None:
    """What the instructions of an emulator are, and are not."""
    out.print("instructions are executed ones, counted exactly by the emulator; they are not cycles")
    if note:
        out.print(f"the emulated machine has {note}")


def or_unknown(number: int | None) -> str:
    return "n/a" if number is None else count(number)
