"""Arguments that name a model: a checkpoint, a packed file or an exported folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bfedge.cli.output import needs
from bfedge.files import is_folder
from bfedge.lowered.model import LoweredViT, TernaryEncoding

if TYPE_CHECKING:
    from bfedge.model.checkpoint import Checkpoint

CHECKPOINT_SUFFIXES = (".pt", ".safetensors")
GOLDEN_CASES = 8
"""Golden vectors that `bfedge export` adds, unless told otherwise"""
TERNARY_ENCODINGS: dict[str, TernaryEncoding] = {"2bit": "trits2", "base3": "trits3"}


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
