"""Folders of images by class, and single image files."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.Image import Resampling

from bfedge.errors import BfedgeError
from bfedge.files import is_file

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".ppm", ".pgm", ".tif", ".tiff"}

Track = Callable[[Iterable[Any], str], Iterable[Any]]
"""Wraps a loop in a progress bar with a title"""


def class_names(path: Path) -> tuple[str, ...]:
    names = sorted(p.name for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))
    if len(names) < 2:
        raise BfedgeError(
            f"`{path}` has {len(names)} class folders; at least 2 are needed",
            "put the images of each class into a sub-folder of its own",
        )
    return tuple(names)


def read_classes(
    path: Path, labels: tuple[str, ...], size: tuple[int, int], channels: int, track: Track
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The images of `path/<class>/*` at one size, uint8 [n, height, width, channels], and their classes."""
    files: list[Path] = []
    targets: list[int] = []
    for target, label in enumerate(labels):
        members = sorted(f for f in (path / label).rglob("*") if f.suffix.lower() in IMAGE_SUFFIXES)
        if len(members) < 2:
            raise BfedgeError(f"class folder `{path / label}` has {len(members)} images; at least 2 are needed")
        files += members
        targets += [target] * len(members)
    try:
        images = np.empty((len(files), *size, channels), np.uint8)
    except MemoryError:
        needed = len(files) * size[0] * size[1] * channels
        raise BfedgeError(
            f"{len(files):,} images of `{path}` take {needed / 1e9:.1f} GB of memory", "use fewer"
        ) from None
    for row, file in zip(images, track(files, f"reading {path}"), strict=True):
        row[:] = read_image(file, size, channels)
    return images, np.array(targets, np.int64)


def read_image(file: Path, size: tuple[int, int], channels: int) -> NDArray[np.uint8]:
    """One image [height, width, channels], all of it resized to `size` (height, width). Raises BfedgeError if it cannot
    be decoded whole.
    """
    resized = decoded(file, channels).resize((size[1], size[0]), Resampling.BILINEAR)
    return np.asarray(resized).reshape(size[0], size[1], channels)


def decoded(file: Path, channels: int) -> Image.Image:
    """An image of 1 (grey) or 3 (RGB) channels with 8 bits: upright as its EXIF data says, what is transparent white,
    grey of 16 bits scaled. Raises BfedgeError if it cannot be decoded whole.
    """
    if channels not in (1, 3):
        raise BfedgeError(f"image files give 1 (grey) or 3 (RGB) channels, the model has {channels}")
    if not is_file(file):
        raise BfedgeError(f"cannot read the image `{file}`: there is no such file", "replace it by a whole one")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file) as opened:
                image = ImageOps.exif_transpose(opened)
                if image.mode in ("I", "F") or image.mode.startswith("I;16"):
                    image = Image.fromarray(eight_bits(np.asarray(image)))
                if image.has_transparency_data:
                    image = image.convert("RGBA")
                    image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
                return image.convert("L" if channels == 1 else "RGB")
    except UnidentifiedImageError:
        raise BfedgeError(f"cannot read the image `{file}`: it is none that Pillow knows") from None
    except Exception as problem:  # Pillow's decoders raise many kinds
        why = getattr(problem, "strerror", None) or " ".join(str(problem).split()) or type(problem).__name__
        raise BfedgeError(f"cannot read the image `{file}`: {why}", "replace it by a whole one") from None


def eight_bits(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Grey of 16 bits. Pillow would cut it off at 255. Raises ValueError for values of any other range."""
    if values.dtype.kind == "f" or values.min() < 0 or values.max() > 65535:
        raise ValueError("its values are not of 8 or 16 bits")
    return np.round(values / 257).astype(np.uint8)
