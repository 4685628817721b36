"""`bfedge bench`: how long inferences take on a board."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from bfedge.cli.boards import board_options, exported_for
from bfedge.cli.output import count, json_option, out, print_json, table, track
from bfedge.cli.profile import show_what_counts
from bfedge.errors import BfedgeError

if TYPE_CHECKING:
    from bfedge.device.board import Board, Line


@click.command("bench")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--target", help="For a checkpoint or .bfe file: the board to export for.")
@click.option("--runs", type=click.IntRange(1, 100_000), default=50, show_default=True, help="Inferences to time.")
@board_options
@json_option
def command(
    model: Path,
    target: str | None,
    runs: int,
    line: Line,
    as_json: bool,
) -> None:
    """Time inferences of MODEL on a board, by the board's own clock, over its golden cases in turn.

    In an emulator, whose time says nothing about the board's, the executed instructions of each golden case are
    counted instead.
    """
    from bfedge.device.board import open_board
    from bfedge.measure.board import demand_identity

    with exported_for(model, target) as exported, open_board(exported, line, counting=True) as board:
        demand_identity(board.hello, exported)
        if board.hello.model is None or board.hello.model.golden == 0:
            raise BfedgeError("the board has no golden cases to run", "export the model again and flash it")
        measure = count_instructions if board.emulated else time_runs
        result = measure(board, exported.tile, runs, board.hello.model.golden)
    result |= {
        "board": board.hello.board,
        "cpu": board.hello.cpu,
        "where": board.where,
        "note": board.note,
        "tile": exported.tile,
    }
    if as_json:
        hello = msgspec.to_builtins(board.hello)
        print_json("bench", {"model": str(model), "target": exported.profile.name, **result, "hello": hello})
        return
    out.print(f"{result['board']}, {result['cpu']}: {result['where']}\n")
    rows = table(f"{result['runs']} inferences", result["unit"])
    for name in ("fastest", "first_quartile", "median", "third_quartile", "slowest"):
        value = result[name]
        rows.add_row(name.replace("_", " "), f"{value:.3f}" if result["unit"] == "ms" else count(round(value)))
    out.print(rows)
    if board.emulated:
        show_what_counts(board.note)


def time_runs(board: Board, tile: int, runs: int, cases: int) -> dict[str, Any]:
    from bfedge.measure.board_profile import milliseconds, refuse_wrong, time_board

    board.session.golden(0, tile)  # the first run finds cold caches
    results = [board.session.golden(run % cases, tile) for run in track(range(runs), "inferences")]
    for result in results:
        refuse_wrong(result)
    ticks = [result.ticks for result in results if result.ticks is not None]
    clock = board.hello.clock
    if len(ticks) != len(results) or clock is None:
        raise BfedgeError("this board has no clock")
    timing = dataclasses.asdict(time_board(ticks))
    if clock.hz:
        for name in ("median", "fastest", "slowest", "first_quartile", "third_quartile"):
            timing[name] = milliseconds(timing[name], clock)
    return {**timing, "unit": "ms" if clock.hz else clock.unit}


def count_instructions(board: Board, tile: int, runs: int, cases: int) -> dict[str, Any]:
    from bfedge.measure.board_profile import refuse_wrong, time_board

    totals = []
    for case in track(range(min(runs, cases)), "golden cases"):
        stages, found = board.session.profile(case, tile)
        refuse_wrong(found)
        counts = [number for number in board.count_instructions(len(stages)) if number is not None]
        if len(counts) != len(stages):
            raise BfedgeError(f"there is nothing to measure: {board.where}")
        totals.append(sum(counts))
    return {**dataclasses.asdict(time_board(totals)), "unit": "instructions"}
