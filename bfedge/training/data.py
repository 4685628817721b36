"""Data sets in memory: uint8 images [n, height, width, channels] and their classes."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bfedge.errors import BfedgeError
from bfedge.files import is_folder

DIGITS = "digits"
IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".ppm", ".pgm", ".tif", ".tiff"}
TEST_SHARE = 0.2


@dataclass(frozen=True)
class DataSet:
    train_images: NDArray[np.uint8]
    train_targets: NDArray[np.int64]
    test_images: NDArray[np.uint8]
    test_targets: NDArray[np.int64]
    labels: tuple[str, ...]

    @property
    def pixel_statistics(self) -> tuple[list[float], list[float]]:
        """Mean and standard deviation per channel of the training pixels scaled to 0..1."""
        scaled = self.train_images.reshape(-1, self.train_images.shape[-1]) / 255.0
        return scaled.mean(0).tolist(), np.maximum(scaled.std(0), 1e-3).tolist()


def load_data(source: str, size: tuple[int, int] | None, channels: int | None) -> DataSet:
    """`digits`, or the path of a folder of images by class.

    Images of a folder are resized to `size` (height, width) and converted to `channels` (1 or 3). Raises
    BfedgeError if there is nothing usable, naming the file at fault.
    """
    if source == DIGITS:
        return load_digits_data()
    path = Path(source)
    if not source or not is_folder(path):
        raise BfedgeError(
            f"data set `{source}` is neither `{DIGITS}` nor a folder",
            "give a folder with one sub-folder of images for each class",
        )
    if size is None or channels is None:
        raise BfedgeError("a folder of images needs image_height, image_width and channels in the model configuration")
    return load_image_folder(path, size, channels)


def load_digits_data() -> DataSet:
    """scikit-learn's digits: 1,797 real scans of 8 x 8 pixels; every fifth image of each class is for testing."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise BfedgeError("the digits data set needs scikit-learn", 'pip install "bfedge[train]" installs it') from None
    digits = load_digits()
    images = np.rint(digits.images * (255.0 / 16.0)).astype(np.uint8)[..., None]
    return split(images, digits.target.astype(np.int64), tuple(str(n) for n in digits.target_names))


def load_image_folder(path: Path, size: tuple[int, int], channels: int) -> DataSet:
    """Either `train/<class>/*` and `test/<class>/*`, or `<class>/*` with every fifth image of a class for testing."""
    if (path / "train").is_dir() and (path / "test").is_dir():
        labels = class_names(path / "train")
        if class_names(path / "test") != labels:
            raise BfedgeError(f"`{path}/train` and `{path}/test` do not have the same classes")
        train = read_classes(path / "train", labels, size, channels)
        test = read_classes(path / "test", labels, size, channels)
        return DataSet(*train, *test, labels)
    labels = class_names(path)
    return split(*read_classes(path, labels, size, channels), labels)


def class_names(path: Path) -> tuple[str, ...]:
    names = sorted(p.name for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))
    if len(names) < 2:
        raise BfedgeError(
            f"`{path}` has {len(names)} class folders; at least 2 are needed",
            "put the images of each class into a sub-folder of its own",
        )
    return tuple(names)


def read_classes(
    path: Path, labels: tuple[str, ...], size: tuple[int, int], channels: int
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    images, targets = [], []
    for target, label in enumerate(labels):
        files = sorted(f for f in (path / label).rglob("*") if f.suffix.lower() in IMAGE_SUFFIXES)
        if len(files) < 2:
            raise BfedgeError(f"class folder `{path / label}` has {len(files)} images; at least 2 are needed")
        images += [read_image(file, size, channels) for file in files]
        targets += [target] * len(files)
    return np.stack(images), np.array(targets, np.int64)


def read_image(file: Path, size: tuple[int, int], channels: int) -> NDArray[np.uint8]:
    """One image [height, width, channels] of 8 or 16 bits a channel, upright as its EXIF data says. Raises BfedgeError
    if it cannot be decoded whole.
    """
    try:
        from PIL import Image, ImageOps
    except ImportError:
        raise BfedgeError("reading images needs Pillow", 'pip install "bfedge[train]" installs it') from None
    if channels not in (1, 3):
        raise BfedgeError(f"image files give 1 (grey) or 3 (RGB) channels, the model has {channels}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file) as opened:
                image = ImageOps.exif_transpose(opened)
                if image.mode in ("I", "F") or image.mode.startswith("I;16"):
                    image = Image.fromarray(eight_bits(np.asarray(image)))
                grey_or_colour = image.convert("L" if channels == 1 else "RGB")
                pixels = np.asarray(grey_or_colour.resize((size[1], size[0]), Image.Resampling.BILINEAR))
    except Exception as problem:  # Pillow's decoders raise many kinds
        raise BfedgeError(f"cannot read the image `{file}`: {problem}", "replace it by a whole one") from None
    return pixels.reshape(size[0], size[1], channels)


def eight_bits(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Grey of 16 bits. Pillow would cut it off at 255. Raises ValueError for values of any other range."""
    if values.dtype.kind == "f" or values.min() < 0 or values.max() > 65535:
        raise ValueError("its values are not of 8 or 16 bits")
    return np.round(values / 257).astype(np.uint8)


def split(images: NDArray[np.uint8], targets: NDArray[np.int64], labels: tuple[str, ...]) -> DataSet:
    """Every fifth image of each class (from its third on, and at least one) is for testing: no seed, no drift
    between runs.
    """
    test = np.zeros(len(targets), bool)
    for target in range(len(labels)):
        members = np.flatnonzero(targets == target)
        chosen = members[2 :: round(1 / TEST_SHARE)]
        test[chosen if len(chosen) else members[-1:]] = True
    return DataSet(images[~test], targets[~test], images[test], targets[test], labels)
