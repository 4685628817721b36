"""`bfedge export`: a checkpoint to a folder that runs on a target."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bfedge.cli.models import (
    GOLDEN_CASES,
    TERNARY_ENCODINGS,
    ModelArgument,
    is_checkpoint,
    is_packaged,
    lower_checkpoint,
    open_checkpoint,
    packed_bytes,
)
from bfedge.cli.output import count, json_option, out, print_json, table
from bfedge.errors import BfedgeError
from bfedge.files import is_folder

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from bfedge.device.profile import Profile
    from bfedge.lowered.model import LoweredViT
    from bfedge.model.checkpoint import Checkpoint


@click.command("export")
@click.argument("model", type=ModelArgument())
@click.option("--target", default="host", show_default=True,
              help="A board that `bfedge devices` lists, or your own profile (board.toml).")  # fmt: skip
@click.option("--out", "out_path", type=click.Path(path_type=Path), help="Folder to write [default: NAME-TARGET].")
@click.option("--ternary", type=click.Choice(list(TERNARY_ENCODINGS)), default="2bit", show_default=True,
              help="How trits are stored: 2 bits each (fast), or five a byte (small).")  # fmt: skip
@click.option("--golden", "cases", type=click.IntRange(1, 256), default=GOLDEN_CASES, show_default=True,
              help="Number of golden vectors; a .bfe file keeps those that it has.")  # fmt: skip
@click.option("--data",
              help="Data set whose test images become golden vectors, or a folder of pictures [default: the "
              "checkpoint's data set].")  # fmt: skip
@click.option("--tile", type=click.IntRange(1, 65_536),
              help="Tokens that go through the experts together: fewer, less memory [default: as fits].")  # fmt: skip
@click.option("--cc", help="C compiler [default: $CC; for boards zig, for this machine cc, gcc, clang or zig].")
@click.option("--build", is_flag=True, help="Build the ESP-IDF project too; needs idf.py.")
@json_option
def command(
    model: Path,
    target: str,
    out_path: Path | None,
    ternary: str,
    cases: int,
    data: str | None,
    tile: int | None,
    cc: str | None,
    build: bool,
    as_json: bool,
) -> None:
    """Write a folder that runs MODEL, a checkpoint, a .bfe file or the name of a model that comes with bfedge, on a
    target: packed file, golden vectors, C sources, and what the target needs: a program, firmware, a project.
    """
    from bfedge.device.profile import load_profile
    from bfedge.export.ports import PROJECT

    profile = load_profile(target)
    beside = Path() if is_packaged(model) else model.parent
    folder = out_path or beside / f"{model.stem}-{profile.name}"
    if build:
        find_builder(profile)
    manifest, golden = export_model(model, folder, profile, ternary, cases, data, tile, cc)
    if build:
        from bfedge.export.esp_idf import build_project

        build_project(folder / PROJECT)  # where it stays: CMake notes the path
    if as_json:
        print_json("export", {"folder": str(folder), "manifest": manifest})
        return
    show_files(folder, manifest)
    out.print(f"\ngolden vectors: {golden}")
    for line in manifest.get("notes", []):
        out.print(line)
    if "compiler" in manifest:
        out.print(f"built with {manifest['compiler']['version']}")


def find_builder(profile: Profile) -> None:
    """Raises BfedgeError if there is nothing to build for this board, or nothing to build it with."""
    from bfedge.export.esp_idf import find_idf

    if profile.port != "esp_idf":
        raise BfedgeError(f"the export for {profile.name} is built already", "leave --build out")
    find_idf()


def export_model(
    path: Path,
    folder: Path,
    profile: Profile,
    ternary: str,
    cases: int,
    data: str | None = None,
    tile: int | None = None,
    cc: str | None = None,
) -> tuple[dict[str, Any], str]:
    """Exports a checkpoint or a .bfe file. Returns the manifest, and what the golden vectors are in words."""
    from bfedge.export.folder import Source, export_folder

    if is_checkpoint(path):
        opened = open_checkpoint(path)
        lowered = lower_checkpoint(opened, ternary)
        images, what, why_noise = golden_images(opened, data, cases)
    elif is_folder(path):
        raise BfedgeError(f"`{path}` is a folder", "give a checkpoint (.pt, .safetensors) or a packed file (.bfe)")
    else:
        lowered, images, what, why_noise = open_packed(path, data, cases)
    manifest = export_folder(lowered, images, Source(path, what), folder, profile, tile, cc)
    return manifest, f"{len(images)} {what}{f' ({why_noise})' if why_noise else ''}"


def show_files(folder: Path, manifest: dict[str, Any]) -> None:
    """The files of an export; those in sub-folders counted together."""
    files = table(str(folder), "bytes")
    folders: dict[str, list[int]] = {}
    for name, entry in manifest["files"].items():
        if "/" in name:
            folders.setdefault(name.split("/")[0], []).append(entry["bytes"])
        else:
            files.add_row(name, count(entry["bytes"]))
    for name, sizes in folders.items():
        files.add_row(f"{name}/ ({len(sizes)} files)", count(sum(sizes)))
    out.print(files)


def open_packed(path: Path, data: str | None, cases: int) -> tuple[LoweredViT, NDArray[np.uint8], str, str]:
    """A .bfe file, with its own golden inputs unless others are asked for."""
    from bfedge.packed.reader import unpack

    opened = unpack(packed_bytes(path, "2bit"))
    if opened.golden is not None and not data:
        return opened.model, opened.golden.inputs, f"inputs of {path.name}", ""
    shape = opened.model.shape
    if data:
        return opened.model, *data_images(data, shape.image_shape, cases), ""
    return opened.model, *noise_images(shape.image_shape, cases), "the file has none"


def golden_images(checkpoint: Checkpoint, data: str | None, cases: int) -> tuple[NDArray[np.uint8], str, str]:
    """Test images spread over the data set, or noise where the checkpoint's data set is not at hand.

    Returns the images, what they are in words, and why they are noise if they are.
    """
    config = checkpoint.model.config
    shape = (config.image_height, config.image_width, config.channels)
    source = data or checkpoint.data
    try:
        if not source:
            raise BfedgeError("the checkpoint names no data set")
        return *data_images(source, shape, cases), ""
    except BfedgeError as problem:
        if data:
            raise
        return *noise_images(shape, cases), problem.message


def data_images(source: str, shape: tuple[int, int, int], cases: int) -> tuple[NDArray[np.uint8], str]:
    """Test images, spread over the data set; of a folder that has images and no classes, those."""
    import numpy as np

    from bfedge.cli.pictures import picture_files, read_picture
    from bfedge.training.data import DIGITS, load_data

    if source != DIGITS and (files := picture_files(Path(source))):
        some = files[:cases]
        return np.stack([read_picture(file, shape[:2], shape[2]) for file in some]), f"pictures of {source}"
    test = load_data(source, shape[:2], shape[2]).test_images
    if test.shape[1:] != shape:
        raise BfedgeError(f"the images of `{source}` are {test.shape[1:]}, the model takes {shape}")
    return test[np.linspace(0, len(test) - 1, min(cases, len(test))).astype(int)], f"test images of {source}"


def noise_images(shape: tuple[int, int, int], cases: int) -> tuple[NDArray[np.uint8], str]:
    import numpy as np

    return np.random.default_rng(0).integers(0, 256, (cases, *shape), np.uint8), "images of seeded noise"
