"""Trained models that come with bfedge, and pictures to try them on. Beside each file stands what it is: `NAME.md` for
a model, pictures/LICENSES.md for the pictures.
"""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent
PICTURES = FOLDER / "pictures"


def packaged_models() -> dict[str, Path]:
    """Packed files by name."""
    return {file.stem: file for file in sorted(FOLDER.glob("*.bfe"))}


def packaged_pictures() -> dict[str, Path]:
    """Image files by the class that they show, as CIFAR-100 calls it."""
    return {file.stem: file for file in sorted(PICTURES.glob("*.jpg"))}
