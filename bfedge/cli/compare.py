"""`bfedge compare`: models of the same data side by side, beside what the papers say."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from bfedge.cli.models import is_checkpoint, open_checkpoint
from bfedge.cli.output import count, json_option, needs, out, print_json, table, track, words
from bfedge.errors import BfedgeError
from bfedge.files import check_place

if TYPE_CHECKING:
    from bfedge.compare.run import Comparison
    from bfedge.compare.sections import Section
    from bfedge.compare.study import Subject, TestSet
    from bfedge.model.checkpoint import Checkpoint

IMAGES, ROUNDS, BATCH = 256, 9, 64
VERSIONS = ("bfedge", "python", "numpy", "torch", "matplotlib")


@click.command("compare")
@click.argument("checkpoints", metavar="[CHECKPOINT]...", type=click.Path(path_type=Path), nargs=-1)
@click.option("--data", help="Data set whose test images the models see [default: the checkpoints'].")
@click.option("--images", type=click.IntRange(1, 1_000_000), default=IMAGES, show_default=True, metavar="N",
              help="Test images for everything but accuracy, evenly from all. Accuracy is that of all.")  # fmt: skip
@click.option("--times/--no-times", default=True, help="Whether torch's training steps and inferences are timed.")
@click.option(
    "--time-layers",
    is_flag=True,
    help="Time untrained layers of the paper's shape with 8 and 64 experts, too; needs no CHECKPOINT.",
)
@click.option("--rounds", type=click.IntRange(3, 10_000), default=ROUNDS, show_default=True,
              help="How often everybody has a turn when times are taken.")  # fmt: skip
@click.option("--batch", type=click.IntRange(1, 65_536), default=BATCH, show_default=True,
              help="Images in a batch when times are taken.")  # fmt: skip
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True,
              help="Where torch computes; auto is the GPU if there is one.")  # fmt: skip
@click.option("--threads", type=click.IntRange(1, 4096), default=1, show_default=True,
              help="Threads of torch on the CPU.")  # fmt: skip
@click.option("--out", "out_path", type=click.Path(path_type=Path), metavar="FILE.md",
              help="Write the tables as Markdown, with commands, recipes, machine and versions.")  # fmt: skip
@click.option("--plot", type=click.Path(path_type=Path), metavar="FILE.svg|png",
              help="Draw the learning curves; needs matplotlib.")  # fmt: skip
@json_option
@click.pass_context
def command(
    context: click.Context,
    checkpoints: tuple[Path, ...],
    data: str | None,
    images: int,
    times: bool,
    time_layers: bool,
    rounds: int,
    batch: int,
    device: str,
    threads: int,
    out_path: Path | None,
    plot: Path | None,
    as_json: bool,
) -> None:
    """Compare models that were trained on the same data: sizes, accuracy, learning curves, how alike experts are, what
    rounding costs and static rounding would cost, activation outliers, routing, and the time that torch takes; all
    beside what the papers say.

    Typically a butterfly model, a standard mixture of experts and a dense model, and variants of them. A file at --out
    that has results keeps what stands around them.
    """
    if not checkpoints and not time_layers:
        raise BfedgeError("no checkpoint to compare", "`bfedge train` writes them; --time-layers needs none")
    if not checkpoints and (data or plot):
        raise BfedgeError("--data and --plot are for checkpoints, and none is given")
    try:
        import torch

        from bfedge.bench.chart import demand_chart
        from bfedge.bench.machine import load
        from bfedge.compare.markdown import demand_place
        from bfedge.compare.run import Comparison
        from bfedge.compare.study import open_subjects
        from bfedge.training.execution import choose_device
    except ImportError as problem:
        raise needs("train", problem) from None
    if out_path:
        demand_place(out_path)
    if plot:
        demand_chart(plot)
        check_place(plot)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        subjects = open_subjects([(path, opened(path)) for path in checkpoints])
        if plot and not any(subject.training for subject in subjects):
            raise BfedgeError("no checkpoint says how it was trained, so there are no curves to plot")
        source = (data or common_data(subjects)) if subjects else ""
        test = test_set(subjects[0], source, images) if subjects else None
        comparison = Comparison(subjects, test, choose_device(device), track)
        origin = origin_of(comparison, command_line(context), source, threads)
        if checkpoints:
            comparison.study_models()
        if checkpoints and times:
            comparison.time_models(rounds, batch)
        if time_layers:
            comparison.time_layers(rounds, batch)
    finally:
        torch.set_num_threads(before)
    origin["machine"]["load_at_the_end"] = load()
    report(comparison, origin, out_path, plot, as_json)


def opened(path: Path) -> Checkpoint:
    if not is_checkpoint(path):
        raise BfedgeError(f"`{path}` is no checkpoint (.pt or .safetensors)", "`bfedge train` writes them")
    return open_checkpoint(path)


def common_data(subjects: list[Subject]) -> str:
    first = subjects[0]
    for subject in subjects:
        if not subject.checkpoint.data:
            raise BfedgeError(f"`{subject.path}` does not say what it was trained on", "--data names the data set")
        if subject.checkpoint.data != first.checkpoint.data:
            raise BfedgeError(
                f"`{first.path}` was trained on `{first.checkpoint.data}`, `{subject.path}` on "
                f"`{subject.checkpoint.data}`",
                "if that is the same data, say where it is with --data",
            )
    return first.checkpoint.data


def test_set(subject: Subject, source: str, most: int) -> TestSet:
    from bfedge.cli.verify import test_images
    from bfedge.compare.study import TestSet
    from bfedge.lowered.model import shape_of
    from bfedge.measure.verify import spread

    checkpoint = subject.checkpoint
    images, targets, _ = test_images(shape_of(checkpoint.model.config), checkpoint, source, checkpoint.labels)
    assert targets is not None
    words.print(f"{count(len(images))} test images of {source}")
    return TestSet(images, targets, images[spread(len(images), most)])


def command_line(context: click.Context) -> str:
    """As it was given, with the names of files for their paths."""
    found = ["bfedge", "compare"]
    for parameter in context.command.params:
        name = str(parameter.name)
        value: Any = context.params.get(name)
        if context.get_parameter_source(name) is not ParameterSource.COMMANDLINE:
            continue
        if isinstance(parameter, click.Argument):
            found += [path.name for path in value or ()]
        elif isinstance(value, bool):
            found.append((parameter.opts if value else parameter.secondary_opts)[0])
        else:
            found += [parameter.opts[0], Path(value).name if name in ("data", "out_path", "plot") else str(value)]
    return shlex.join(found)


def origin_of(comparison: Comparison, command_line: str, source: str, threads: int) -> dict[str, Any]:
    """How the figures came about."""
    import torch

    from bfedge.bench.machine import machine, versions

    gpu = torch.cuda.get_device_name(comparison.device) if comparison.device.type == "cuda" else None
    return {
        "command": command_line,
        "data": Path(source).name or source,
        "test_images": len(comparison.test.images) if comparison.test else None,
        "images_of_statistics": len(comparison.test.of_statistics) if comparison.test else None,
        "gpu": gpu,
        "threads": threads,
        "machine": machine(),
        "versions": {name: found for name, found in versions("").items() if name in VERSIONS},
    }


def report(
    comparison: Comparison, origin: dict[str, Any], out_path: Path | None, plot: Path | None, as_json: bool
) -> None:
    from bfedge.cli.compare_json import comparison_as_dict
    from bfedge.compare.markdown import markdown, write_markdown
    from bfedge.compare.plot import write_plot

    sections = list(comparison.sections())
    if out_path:
        seen = os.path.relpath(plot, out_path.parent) if plot else None
        write_markdown(out_path, markdown(sections, comparison.subjects, origin, seen))
        words.print(f"wrote {out_path}")
    if plot:
        write_plot(plot, {s.name: s.training.epochs for s in comparison.subjects if s.training})
        words.print(f"wrote {plot}")
    if as_json:
        print_json("compare", comparison_as_dict(comparison, origin))
        return
    for section in sections:
        show(section)


def show(section: Section) -> None:
    out.print(section.title, style="bold")
    out.print(section.text, style="dim")
    rows = table(*section.columns)
    if not section.figures:
        for column in rows.columns:
            column.justify = "left"
    for row in section.rows:
        rows.add_row(*row)
    out.print(rows)
    out.print()
