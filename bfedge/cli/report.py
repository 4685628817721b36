"""`bfedge report`: one HTML file about a model."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bfedge.cli.models import (
    GOLDEN_CASES,
    TERNARY_ENCODINGS,
    ModelArgument,
    is_checkpoint,
    lower_checkpoint,
    model_name,
    open_checkpoint,
    packed_bytes,
)
from bfedge.cli.output import count, json_option, needs, out, print_json, track, words
from bfedge.errors import BfedgeError
from bfedge.files import is_file, is_folder, write_atomically

if TYPE_CHECKING:
    from bfedge.device.profile import Profile
    from bfedge.lowered.model import Shape
    from bfedge.packed.reader import PackedModel
    from bfedge.report.collect import Drawn, Images, Subject
    from bfedge.report.data import Fact

MOST_DIGITS = 9
"""Of the number of an image"""
ALL = "all"


@click.command("report")
@click.argument("model", type=ModelArgument())
@click.option("--profile", "profiles", type=click.Path(path_type=Path), multiple=True, metavar="FILE.json",
              help="What `bfedge profile --json` printed; may be given several times.")  # fmt: skip
@click.option("--data", help="Data set whose test images are used [default: the checkpoint's, else golden vectors].")
@click.option("--image", help="Whose routing is drawn: the number of a test image, or a file [default: 0].")
@click.option("--target", "targets", multiple=True,
              help="A board to plan for; may be given several times [default: all].")  # fmt: skip
@click.option("--ternary", type=click.Choice(list(TERNARY_ENCODINGS)), default="2bit", show_default=True,
              help="How a checkpoint's trits would be stored.")  # fmt: skip
@click.option("--out", "out_path", type=click.Path(path_type=Path), default=Path("report.html"), show_default=True,
              help="File to write.")  # fmt: skip
@json_option
def command(
    model: Path,
    profiles: tuple[Path, ...],
    data: str | None,
    image: str | None,
    targets: tuple[str, ...],
    ternary: str,
    out_path: Path,
    as_json: bool,
) -> None:
    """Write a page about MODEL, a checkpoint, a .bfe file or an exported folder: what it takes of which board, memory
    against experts, energy, what boards measured, where an image's patches go, and whether it computes what it should.

    The page is one file that needs no network.
    """
    try:
        import jinja2  # noqa: F401
        import matplotlib  # noqa: F401
    except ImportError as problem:
        raise needs("report", problem) from None
    from bfedge.report.collect import collect
    from bfedge.report.page import figures, render
    from bfedge.report.words import printable

    demand_place(out_path, inputs_of(model, profiles, image))
    boards = boards_of(targets)
    subject = open_subject(model, ternary, data, image)
    report = collect(subject, boards, profiles, track, lambda message: words.print(printable(message)))
    text = render(report).encode()
    write_atomically(out_path, lambda file: Path(file).write_bytes(text))
    shown = figures(report)
    if as_json:
        values = {"path": printable(str(out_path)), "bytes": len(text), "sha256": hashlib.sha256(text).hexdigest()}
        print_json("report", {"model": printable(model_name(model)), **values, "figures": shown})
        return
    for figure in shown:
        if not figure["present"]:
            words.print(f"note: no figure `{figure['id']}`: {figure['why']}")
    out.print(f"wrote {printable(str(out_path))}, {count(len(text))} bytes")


def inputs_of(model: Path, profiles: tuple[Path, ...], image: str | None) -> Iterator[Path]:
    """Files that are read."""
    from bfedge.device.exported import MANIFEST, read_exported

    if is_folder(model):
        yield model / MANIFEST
        yield from (model / name for name in read_exported(model).files)
    else:
        yield model
    yield from profiles
    if image:
        yield Path(image)


def demand_place(path: Path, inputs: Iterable[Path]) -> None:
    """Raises BfedgeError if the page cannot be written, or would replace what it is made from."""
    if is_folder(path):
        raise BfedgeError(f"`{path}` is a folder", "--out names the file to write")
    if is_file(path):
        for file in inputs:
            if is_file(file) and path.samefile(file):
                raise BfedgeError(
                    f"--out `{path}` is `{file}`, which the page is made from", "--out names the page to write"
                )
    place = Path(os.path.realpath(path))
    if not is_folder(place.parent):
        raise BfedgeError(f"cannot write `{path}`: there is no folder `{path.parent}`", "make it first")
    if is_file(place) or not os.path.lexists(place):  # no device, which takes what it gets
        try:
            tempfile.NamedTemporaryFile(prefix=f".{place.name}.", dir=place.parent).close()
        except OSError as problem:
            raise BfedgeError(f"cannot write `{path}`: {problem.strerror}") from None


def boards_of(names: tuple[str, ...]) -> list[Profile]:
    from bfedge.device.profile import known_profiles, load_profile

    if not names or ALL in names:
        return known_profiles()
    boards: dict[str, Profile] = {}
    for name in names:
        board = load_profile(name)
        if boards.setdefault(board.name, board) != board:
            raise BfedgeError(f"two boards are called `{board.name}`", "give one of them another name in its profile")
    return list(boards.values())


def open_subject(path: Path, ternary: str, data: str | None, image: str | None) -> Subject:
    """The model, images to try it with, and where it is from."""
    import numpy as np

    from bfedge.cli.export import golden_images, noise_images
    from bfedge.cli.verify import check_manifest, test_images
    from bfedge.packed.golden import golden_vectors
    from bfedge.packed.reader import unpack
    from bfedge.packed.writer import pack
    from bfedge.report.collect import NOISE, Images, Subject

    checkpoint = open_checkpoint(path) if is_checkpoint(path) else None
    golden_from = f"golden inputs of {path.name}, whose origin is not recorded"
    if checkpoint:
        lowered = lower_checkpoint(checkpoint, ternary)
        inputs, _, _ = golden_images(checkpoint, data, GOLDEN_CASES)
        packed = pack(lowered, golden_vectors(lowered, inputs))
    else:
        packed = packed_bytes(path, ternary)
    opened = unpack(packed)
    facts = [*hashes(path, packed, opened), *versions()]
    if is_folder(path):
        exported_from, golden_from = read_manifest(path)
        facts += exported_from
    shape = opened.model.shape
    pixels, classes, what = test_images(shape, checkpoint, data, opened.model.labels)
    images = Images(pixels, classes, NOISE if classes is None else what, are_data=classes is not None)
    if classes is None and checkpoint is None and opened.golden:
        inputs = opened.golden.inputs
        if not np.array_equal(inputs, noise_images(shape.image_shape, len(inputs))[0]):
            images = Images(inputs, None, golden_from, are_data=True)
    drawn = drawn_image(image, images, shape)
    name = path.name or path.resolve().name
    checks = (check_manifest(path),) if is_folder(path) else ()
    return Subject(name, packed, images, drawn, tuple(facts), checks)


def drawn_image(wanted: str | None, images: Images, shape: Shape) -> Drawn | None:
    """The image whose routing is drawn: by its number, or from a file; None if there is none."""
    from bfedge.report.collect import Drawn

    if wanted is None and not images.are_data:
        return None
    if wanted is None or wanted.isdecimal():
        if len(wanted or "") > MOST_DIGITS:
            raise BfedgeError(f"there is no image of {len(wanted or '')} digits", "--image takes a number, or a file")
        number = int(wanted or 0)
        if not images.are_data:
            raise BfedgeError(f"there is no test image {number}: no data set is at hand", "--data names one")
        if number >= len(images.pixels):
            raise BfedgeError(f"there is no image {number}; of {images.what} there are {len(images.pixels)}, from 0")
        true_class = None if images.classes is None else int(images.classes[number])
        return Drawn(images.pixels[number], f"number {number} of {images.what}", true_class)
    from bfedge.training.image_folder import read_image

    file = Path(wanted)
    if not is_file(file):
        raise BfedgeError(f"there is no image `{wanted}`", "--image takes the number of a test image, or a file")
    return Drawn(read_image(file, shape.image_shape[:2], shape.channels), file.name)


def hashes(path: Path, packed: bytes, opened: PackedModel) -> list[Fact]:
    from bfedge.device.exported import sha256
    from bfedge.report.data import Fact

    checked = opened.checked
    facts = [Fact("checkpoint, SHA-256", sha256(path))] if is_checkpoint(path) else []
    features = [feature.name or "" for feature in type(checked.features) if feature in checked.features]
    return [
        *facts,
        Fact("packed file, SHA-256", hashlib.sha256(packed).hexdigest()),
        Fact("packed file, CRC-32", f"{checked.crc:08x}"),
        Fact("format", f"{checked.version[0]}.{checked.version[1]}, needs {', '.join(features)}"),
    ]


def versions() -> list[Fact]:
    import numpy as np

    import bfedge
    from bfedge.report.data import Fact

    return [
        Fact("bfedge", bfedge.__version__),
        Fact("Python", platform.python_version()),
        Fact("NumPy", np.__version__),
    ]


def read_manifest(folder: Path) -> tuple[list[Fact], str]:
    """Where an exported folder is from, and what its golden inputs are. Raises BfedgeError if it is not one of this
    version, or its packed file is not the one that was exported.
    """
    from bfedge.device.exported import MANIFEST, read_exported
    from bfedge.report.data import Fact

    exported = read_exported(folder)
    exported.check(exported.model.name)
    manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text())
    source, golden, compiler, made_by = (
        value if isinstance(value, dict) else {}
        for value in (manifest.get(name) for name in ("source", "golden", "compiler", "versions"))
    )
    facts = [
        Fact("exported for", exported.profile.title),
        Fact("exported from", str(source.get("file", "n/a"))),
        Fact("its SHA-256", str(source.get("sha256", "n/a"))),
        Fact("exported by", ", ".join(f"{name} {version}" for name, version in made_by.items())),
    ]
    if compiler:
        facts.append(Fact("built with", str(compiler.get("version", "n/a"))))
    return facts, str(golden.get("inputs", f"golden inputs of {folder.name}"))
