"""Arguments that name a model: a checkpoint, a packed file, an exported folder, or a model that comes with bfedge."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bfedge.cli.output import needs
from bfedge.errors import BfedgeError
from bfedge.files import is_folder
from bfedge.models import packaged_models

if TYPE_CHECKING:
    from bfedge.lowered.model import LoweredViT, TernaryEncoding
    from bfedge.model.checkpoint import Checkpoint

CHECKPOINT_SUFFIXES = (".pt", ".safetensors")
GOLDEN_CASES = 8
"""Golden vectors that `bfedge export` adds, unless told otherwise"""
TERNARY_ENCODINGS: dict[str, TernaryEncoding] = {"2bit": "trits2", "base3": "trits3"}


class ModelArgument(click.ParamType):
    """A path, or the name of a packaged model; the command takes it as a path."""

    name = "model"

    def convert(self, value: str | Path, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        return find_model(value)


def find_model(name: str | Path) -> Path:
    """The path `name` if there is such a file or folder, else the packaged model of that name. A folder of a packaged
    model's name must be an export to come before it: the data set may lie in one.

    Raises BfedgeError for what looks like a name and is neither; other paths are left to those who open them.
    """
    path = Path(name)
    packaged = packaged_models()
    is_other_folder = is_folder(path) and not os.path.lexists(path / "model.bfe")
    if os.path.lexists(path) and not (str(name) in packaged and is_other_folder):
        return path
    if str(name) in packaged:
        return packaged[str(name)]
    if path.name == str(name) and not path.suffix:
        known = f"bfedge brings {', '.join(packaged)}" if packaged else "`bfedge export` writes a folder"
        raise BfedgeError(f"there is no model `{name}`: no file, no folder, and none that comes with bfedge", known)
    return path


def is_packaged(path: Path) -> bool:
    return path in packaged_models().values()


def model_name(path: Path) -> str:
    """As it was named on the command line."""
    return path.stem if is_packaged(path) else str(path)


def is_checkpoint(path: Path) -> bool:
    return path.suffix in CHECKPOINT_SUFFIXES


def open_checkpoint(path: Path) -> Checkpoint:
    try:
        from bfedge.model.checkpoint import load_checkpoint
    except ImportError as problem:
        raise needs("train", problem) from None
    return load_checkpoint(path)


def lower_checkpoint(checkpoint: Checkpoint, ternary: str) -> LoweredViT:
    from bfedge.lowered.lower import lower

    return lower(checkpoint.model, checkpoint.labels, TERNARY_ENCODINGS[ternary])


def packed_bytes(path: Path, ternary: str) -> bytes:
    """The packed file of a checkpoint, of a .bfe file or of an exported folder. Raises BfedgeError if there is none."""
    from bfedge.packed.validate import read_checked

    if is_checkpoint(path):
        from bfedge.packed.writer import pack

        return pack(lower_checkpoint(open_checkpoint(path), ternary))
    return read_checked(path / "model.bfe" if is_folder(path) else path)[0]
