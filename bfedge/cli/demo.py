"""`bfedge demo`: a trained model at work on pictures, in the C runtime on this machine."""

from __future__ import annotations

import shlex
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
from rich.text import Text

from bfedge.cli.models import ModelArgument, model_name, packed_bytes
from bfedge.cli.output import json_option, out, print_json
from bfedge.cli.pictures import half_blocks, has_blocks, read_picture, shows_pictures
from bfedge.errors import BfedgeError
from bfedge.models import packaged_models, packaged_pictures
from bfedge.report.words import printable

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bfedge.device.host import HostModel
    from bfedge.lowered.model import LoweredViT

DEFAULT_MODEL = "cifar100"
TOP = 5
RUNS = 5
"""Of each picture, for the time; the one before them is not counted"""
BAR = 24


@dataclass(frozen=True)
class Picture:
    file: Path
    shows: str | None
    """Its class, where that is known"""
    pixels: NDArray[np.uint8]
    """As the model sees them"""


@dataclass(frozen=True)
class Answer:
    best: list[tuple[int, float]]
    """Classes and their probabilities, the likeliest first"""
    milliseconds: float


@click.command("demo")
@click.argument("images", type=click.Path(path_type=Path), nargs=-1)
@click.option("--model", type=ModelArgument(), default=lambda: packaged_models().get(DEFAULT_MODEL, DEFAULT_MODEL),
              show_default=DEFAULT_MODEL,
              help="A model that comes with bfedge, a .bfe file, an exported folder or a checkpoint.")  # fmt: skip
@json_option
def command(images: tuple[Path, ...], model: Path, as_json: bool) -> None:
    """Classify IMAGES with a trained model, or without any a few pictures that come with bfedge: the likeliest classes,
    and how long an inference takes on this machine.

    Images may have any size: they are cropped to a square at their centre and resized to what the model takes.
    """
    from bfedge.device.host import HostModel
    from bfedge.packed.reader import unpack

    packed = packed_bytes(model, "2bit")
    lowered, runtime = unpack(packed).model, HostModel(packed)
    pictures = read_pictures(images, lowered)
    names = [class_name(lowered, index) for index in range(lowered.shape.classes)]
    shown = model_name(model)
    if not as_json:
        height, width, channels = lowered.shape.image_shape
        as_seen = f"{height} x {width} pixels{' of grey' if channels == 1 else ''}"
        out.print(f"{printable(shown)}: {len(names):,} classes, {len(packed):,} bytes")
        out.print(f"cropped at the centre and resized to {as_seen}, as the model sees them")
        out.print(f"C runtime on one thread, kernels {runtime.kernels}")
    answers = []
    for picture in pictures:
        answers.append(classify(runtime, picture.pixels))
        if not as_json:
            show(picture, answers[-1], names)
    if as_json:
        listed = [as_dict(picture, answer, names) for picture, answer in zip(pictures, answers, strict=True)]
        print_json("demo", {"model": shown, "kernels": runtime.kernels, "threads": 1, "pictures": listed})
    else:
        show_what_next(shown)


def read_pictures(files: tuple[Path, ...], model: LoweredViT) -> list[Picture]:
    """All before the first is classified: a mistake shows at once."""
    shape = model.shape
    if files:
        known: list[tuple[Path, str | None]] = [(file, None) for file in files]
    else:
        known = [(file, shows) for shows, file in packaged_pictures().items() if shows in model.labels]
        if not known:
            raise BfedgeError(
                f"bfedge brings pictures of {', '.join(packaged_pictures())}, and the model knows none of these",
                "name images of your own",
            )
    return [Picture(file, shows, read_picture(file, shape.image_shape[:2], shape.channels)) for file, shows in known]


def classify(runtime: HostModel, pixels: NDArray[np.uint8]) -> Answer:
    logits = runtime.run(pixels)
    seconds = []
    for _ in range(RUNS):
        start = time.perf_counter()
        runtime.run(pixels)
        seconds.append(time.perf_counter() - start)
    powers = np.exp(logits.astype(np.float64) - float(logits.max()))
    probabilities = powers / powers.sum()
    best = np.argsort(-logits, kind="stable")[:TOP]
    return Answer([(int(i), float(probabilities[i])) for i in best], 1000 * statistics.median(seconds))


def class_name(model: LoweredViT, index: int) -> str:
    return model.labels[index] if model.labels else f"class {index}"


def show(picture: Picture, answer: Answer, names: list[str]) -> None:
    """The picture on the left where the terminal can show it, the answer on the right."""
    shows = f", which shows: {picture.shows}" if picture.shows else ""
    lines = [Text.assemble((" ".join(printable(picture.file.name).split()), "bold"), shows)]
    width = max(len(printable(names[index])) for index, _ in answer.best)
    block = "\N{FULL BLOCK}" if has_blocks(out) else "#"
    for index, probability in answer.best:
        right = "green" if names[index] == picture.shows else "none"
        bar = block * round(BAR * probability)
        lines.append(Text(f"  {printable(names[index]):<{width}}  {probability:6.1%}  {bar}", style=right))
    lines.append(Text(f"  {answer.milliseconds:.3g} ms an inference, median of {RUNS}", style="dim"))
    drawn = half_blocks(picture.pixels) if shows_pictures(out) else []
    out.print()
    if drawn:
        space = (len(drawn) - len(lines)) // 2
        lines = [Text()] * max(0, space) + lines
        beside = " " * drawn[0].cell_len
        for number in range(max(len(drawn), len(lines))):
            left = drawn[number] if number < len(drawn) else Text(beside)
            out.print(Text.assemble(left, "  ", lines[number] if number < len(lines) else ""))
    else:
        for line in lines:
            out.print(line)


def show_what_next(model: str) -> None:
    model = shlex.quote(model)
    steps = {
        "bfedge demo PHOTO.jpg ...": "your own pictures",
        f"bfedge plan {model}": "which boards it fits, and what it takes there",
        f"bfedge export {model} --target raspberry-pi-4": "a program for a board; `bfedge devices` lists all",
    }
    width = max(map(len, steps))
    out.print("\nnext")
    for step, what in steps.items():
        out.print(f"  {printable(step):<{width}}  {what}")


def as_dict(picture: Picture, answer: Answer, names: list[str]) -> dict[str, Any]:
    return {
        "file": printable(str(picture.file)),
        "shows": picture.shows,
        "milliseconds": answer.milliseconds,
        "top": [{"class": names[index], "index": index, "probability": share} for index, share in answer.best],
    }
