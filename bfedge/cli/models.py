"""Arguments that name a model: a checkpoint, a packed file or an exported folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bfedge.cli.output import needs
from bfedge.errors import BfedgeError
from bfedge.lowered.model import LoweredViT, TernaryEncoding

if TYPE_CHECKING:
    from bfedge.model.checkpoint import Checkpoint

CHECKPOINT_SUFFIXES = (".pt", ".safetensors")
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
    """The packed file of a checkpoint, of a .bfe file or of an exported folder."""
    from bfedge.packed.reader import read_packed
    from bfedge.packed.writer import pack

    if is_checkpoint(path):
        return pack(lower_checkpoint(open_checkpoint(path), ternary))
    if path.is_dir():
        path = path / "model.bfe"
    if not path.exists():
        raise BfedgeError(
            f"there is no `{path}`", "give a checkpoint, a .bfe file or a folder that `bfedge export` wrote"
        )
    return read_packed(path)
