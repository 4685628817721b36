"""Reads what `bfedge export` wrote."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from bfedge.device.profile import Profile
from bfedge.errors import BfedgeError
from bfedge.files import is_folder

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Exported:
    """An exported folder."""

    folder: Path
    profile: Profile
    tile: int
    """Tokens that go through the experts together, 0 for all"""
    arena_bytes: int
    """For image, logits, workspace and guard"""
    files: dict[str, str]
    """SHA-256 by name"""

    @property
    def model(self) -> Path:
        return self.folder / "model.bfe"

    @property
    def runtime(self) -> Path:
        return self.folder / "runtime"


def read_exported(folder: Path) -> Exported:
    """Raises BfedgeError if the folder is not one that `bfedge export` of this version wrote."""
    if not is_folder(folder):
        raise BfedgeError(f"`{folder}` is not a folder", "`bfedge export` writes one")
    path = folder / MANIFEST
    try:
        manifest: dict[str, Any] = json.loads(path.read_text())
        return Exported(
            folder=folder,
            profile=msgspec.convert(manifest["profile"], Profile),
            tile=msgspec.convert(manifest["tile"], int),
            arena_bytes=msgspec.convert(manifest["arena_bytes"], int),
            files={name: msgspec.convert(entry["sha256"], str) for name, entry in manifest["files"].items()},
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise BfedgeError(f"`{path}` is missing or damaged", "export the model again") from None
