"""`bfedge bench`: how long inferences take on a board, or how fast this machine is beside other runtimes."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from bfedge.bench.run import PARTS, bench_machine, case_count
from bfedge.cli.bench_tables import show_result
from bfedge.cli.boards import board_options, exported_for, hello_as_dict
from bfedge.cli.models import ModelArgument, model_name
from bfedge.cli.output import JSON_SCHEMA, count, json_option, out, print_json, table, track, words
from bfedge.cli.profile import show_what_counts
from bfedge.errors import BfedgeError
from bfedge.files import check_place, write_atomically

if TYPE_CHECKING:
    from bfedge.device.board import Board, Line


OF_A_BOARD = ("target", "runs", "emulate", "host", "port", "baud", "timeout")
OF_THIS_MACHINE = ("rounds", "cc", "only", "out_file", "chart")


@click.command("bench")
@click.argument("model", type=ModelArgument(), required=False)
@click.option("--target", help="For a checkpoint or .bfe file: the board to export for.")
@click.option("--runs", type=click.IntRange(1, 100_000), default=50, show_default=True, help="Inferences to time.")
@board_options
@click.option(
    "--rounds",
    type=click.IntRange(3, 10_000),
    default=31,
    show_default=True,
    help="Without MODEL: how often everybody has a turn.",
)
@click.option("--cc", metavar="COMMAND", help="Without MODEL: the C compiler to use instead of the first one found.")
@click.option("--only", type=click.Choice(PARTS), multiple=True, help="Without MODEL: this part; may be repeated.")
@click.option(
    "--out",
    "out_file",
    type=click.Path(path_type=Path),
    metavar="FILE.json",
    help="Without MODEL: write the result as JSON, too.",
)
@click.option(
    "--chart",
    type=click.Path(path_type=Path),
    metavar="FILE.svg|png",
    help="Without MODEL: draw the result; needs matplotlib.",
)
@json_option
@click.pass_context
def command(
    context: click.Context,
    model: Path | None,
    target: str | None,
    runs: int,
    line: Line,
    rounds: int,
    cc: str | None,
    only: tuple[str, ...],
    out_file: Path | None,
    chart: Path | None,
    as_json: bool,
) -> None:
    """Time inferences of MODEL on a board, by the board's own clock, over its golden cases in turn.

    In an emulator, whose time says nothing about the board's, the executed instructions of each golden case are
    counted instead.

    Without MODEL, time our kernels on this machine beside onnxruntime, torch and LiteRT, in interleaved rounds: single
    products, one layer of experts, the paper's CIFAR-100 model, and how time and memory grow. Results are checked
    before they are timed. --threads is for the whole model; products and layers are timed on one.
    """
    given = {name for name in context.params if context.get_parameter_source(name) is ParameterSource.COMMANDLINE}
    if model is not None:
        refuse(given, OF_THIS_MACHINE, "is for this machine", "leave MODEL out")
        bench_board(model, target, runs, line, as_json)
    else:
        refuse(given, OF_A_BOARD, "is for a board", "name a MODEL")
        bench_this_machine(only or PARTS, rounds, line.threads, line.kernels, cc, out_file, chart, as_json)


def refuse(given: set[str], names: tuple[str, ...], what: str, hint: str) -> None:
    for name in names:
        if name in given:
            option = "--out" if name == "out_file" else f"--{name}"
            raise BfedgeError(f"{option} {what}", hint)


def bench_board(model: Path, target: str | None, runs: int, line: Line, as_json: bool) -> None:
    from bfedge.device.board import open_board
    from bfedge.measure.board import demand_identity

    with exported_for(model, target) as exported, open_board(exported, line, counting=True) as board:
        demand_identity(board.hello, exported)
        if board.hello.model is None or board.hello.model.golden == 0:
            raise BfedgeError("the board has no golden cases to run", "export the model again and flash it")
        measure = count_instructions if board.emulated else time_runs
        result = measure(board, exported.tile, runs, board.hello.model.golden)
    result |= {
        "where": board.where,
        "note": board.note,
        "tile": exported.tile,
    }
    if as_json:
        target_name = exported.profile.name
        print_json(
            "bench", {"model": model_name(model), "target": target_name, **result, "hello": hello_as_dict(board.hello)}
        )
        return
    out.print(f"{board.hello.board}, {board.hello.cpu}: {board.where}\n")
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
        counts = board.counts(len(stages))
        if counts is None:
            raise BfedgeError(f"there is nothing to measure: {board.where}")
        totals.append(sum(region.instructions for region in counts))
    return {**dataclasses.asdict(time_board(totals)), "unit": "instructions"}


def bench_this_machine(
    parts: Sequence[str],
    rounds: int,
    threads: int,
    kernels: str | None,
    cc: str | None,
    out_file: Path | None,
    chart: Path | None,
    as_json: bool,
) -> None:
    from rich.progress import Progress

    from bfedge.bench.chart import demand_chart, write_chart

    if chart:
        demand_chart(chart)
    for path in filter(None, (out_file, chart)):
        check_place(path)  # not after minutes of measuring
    with Progress(console=words, transient=True, disable=not words.is_terminal) as progress:
        task = progress.add_task("starting", total=case_count(parts))

        def on_case(name: str) -> None:
            progress.update(task, description=name, advance=1)

        found = bench_machine(parts, rounds, threads, kernels, cc, on_case)
    result = {"command": as_command(parts, rounds, threads, kernels), **found}
    if out_file:
        text = json.dumps({"schema": JSON_SCHEMA, "verb": "bench", **result}, indent=1) + "\n"
        write_atomically(out_file, lambda name: Path(name).write_text(text))
    if chart:
        write_chart(result, chart)
    if as_json:
        print_json("bench", result)
    else:
        show_result(result)


def as_command(parts: Sequence[str], rounds: int, threads: int, kernels: str | None) -> str:
    """What gives the same measurement again."""
    words = ["bfedge bench", f"--rounds {rounds}", f"--threads {threads}"]
    words += [f"--only {part}" for part in PARTS if part in parts and set(parts) != set(PARTS)]
    return " ".join(words + ([f"--kernels {kernels}"] if kernels else []))
