"""Reads what `bfedge export` wrote."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from bfedge.device.profile import Profile, violations
from bfedge.errors import BfedgeError
from bfedge.files import is_file, is_folder

MANIFEST = "manifest.json"
MANIFEST_SCHEMA = 2


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
    image_bytes: int | None = None
    """Of flash that firmware was linked to take, model included; None where there is no firmware"""
    compiler: str | None = None

    @property
    def model(self) -> Path:
        return self.folder / "model.bfe"

    @property
    def runtime(self) -> Path:
        return self.folder / "runtime"

    def check(self, *names: str) -> None:
        """Raises BfedgeError if one of these files is missing, is not what the manifest says, or is a bad model."""
        from bfedge.packed.validate import read_checked

        for name in names:
            path = self.folder / name
            if not is_file(path):
                raise BfedgeError(f"there is no file `{path}`", "export the model again")
            if sha256(path) != self.files.get(name):
                raise BfedgeError(
                    f"`{path}` is not the file that was exported: it has not the manifest's SHA-256",
                    "export the model again",
                )
            if path == self.model:
                read_checked(path)


def sha256(file: Path) -> str:
    """In hexadecimal. Raises BfedgeError if the file cannot be read."""
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError as problem:
        raise BfedgeError(f"cannot read `{file}`: {problem.strerror}") from None


def read_exported(folder: Path) -> Exported:
    """Raises BfedgeError if the folder is not one that `bfedge export` of this version wrote."""
    if not is_folder(folder):
        raise BfedgeError(f"`{folder}` is not a folder", "`bfedge export` writes one")
    path = folder / MANIFEST
    try:
        manifest: dict[str, Any] = json.loads(path.read_text())
        if manifest["schema"] != MANIFEST_SCHEMA:
            raise BfedgeError(
                f"`{path}` has schema {manifest['schema']}, this bfedge reads {MANIFEST_SCHEMA}",
                "export the model again",
            )
        exported = Exported(
            folder=folder,
            profile=msgspec.convert(manifest["profile"], Profile),
            tile=msgspec.convert(manifest["tile"], int),
            arena_bytes=msgspec.convert(manifest["arena_bytes"], int),
            files={name: msgspec.convert(entry["sha256"], str) for name, entry in manifest["files"].items()},
            image_bytes=msgspec.convert(manifest.get("firmware", {}).get("flash_bytes"), int | None),
            compiler=msgspec.convert(manifest.get("compiler", {}).get("version"), str | None),
        )
        if next(violations(exported.profile), None) is not None or exported.model.name not in exported.files:
            raise ValueError
        return exported
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise BfedgeError(f"`{path}` is missing or damaged", "export the model again") from None
