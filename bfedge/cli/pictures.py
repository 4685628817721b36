"""Pictures of any size as a model takes them, and as a terminal shows them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.color import Color
from rich.style import Style
from rich.text import Text

from bfedge.files import is_file, is_folder

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from rich.console import Console

MOST_COLUMNS = 32
"""Of a picture in a terminal"""
UPPER_HALF = "\N{UPPER HALF BLOCK}"


def read_picture(file: Path, size: tuple[int, int], channels: int) -> NDArray[np.uint8]:
    """One image [height, width, channels], cropped at its centre to the shape of `size` (height, width), then resized
    with antialiasing. Raises BfedgeError if it cannot be decoded whole.
    """
    from PIL.Image import Resampling

    from bfedge.training.image_folder import decoded

    image = decoded(file, channels)
    cropped = image.crop(centre(image.size, (size[1], size[0])))
    resized = cropped.resize((size[1], size[0]), Resampling.LANCZOS)
    return np.asarray(resized).reshape(size[0], size[1], channels)


def picture_files(folder: Path) -> list[Path]:
    """The image files of a folder that has no sub-folders, sorted; none where it has, is none or cannot be read."""
    from bfedge.training.image_folder import IMAGE_SUFFIXES

    try:
        found = sorted(folder.iterdir())
    except (OSError, ValueError):
        return []
    if any(is_folder(path) for path in found):
        return []
    return [path for path in found if path.suffix.lower() in IMAGE_SUFFIXES and is_file(path)]


def centre(image: tuple[int, int], shape: tuple[int, int]) -> tuple[int, int, int, int]:
    """The largest box (left, upper, right, lower) in the middle of an image that has a shape's proportions. Sizes are
    width and height.
    """
    scale = min(image[0] / shape[0], image[1] / shape[1])
    width, height = (max(1, round(side * scale)) for side in shape)
    left, upper = (image[0] - width) // 2, (image[1] - height) // 2
    return left, upper, left + width, upper + height


def shows_pictures(console: Console) -> bool:
    """Whether a console has the colours and characters for it."""
    colours = console.color_system in ("256", "truecolor") and not console.no_color
    return console.is_terminal and colours and has_blocks(console)


def has_blocks(console: Console) -> bool:
    return console.encoding.lower().startswith("utf")


def half_blocks(pixels: NDArray[np.uint8]) -> list[Text]:
    """Lines of a terminal, two rows of pixels each, at most MOST_COLUMNS wide."""
    shrunk = at_most(pixels, MOST_COLUMNS)
    height, width, channels = shrunk.shape
    colours = np.broadcast_to(shrunk, (height, width, 3)) if channels == 1 else shrunk
    lines = []
    for row in range(0, height, 2):
        line = Text()
        for column in range(width):
            upper = Color.from_rgb(*colours[row, column])
            lower = Color.from_rgb(*colours[row + 1, column]) if row + 1 < height else None
            line.append(UPPER_HALF, Style(color=upper, bgcolor=lower))
        lines.append(line)
    return lines


def at_most(pixels: NDArray[np.uint8], columns: int) -> NDArray[np.uint8]:
    """Not wider than that, and in proportion."""
    from PIL import Image

    height, width, channels = pixels.shape
    if width <= columns:
        return pixels
    image = Image.fromarray(pixels[..., 0] if channels == 1 else pixels)
    rows = max(1, round(height * columns / width))
    return np.asarray(image.resize((columns, rows), Image.Resampling.BOX)).reshape(rows, columns, channels)
