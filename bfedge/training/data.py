"""Data sets in memory: uint8 images [n, height, width, channels] and their classes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bfedge.errors import BfedgeError
from bfedge.files import is_file, is_folder
from bfedge.training.cifar import OFFICIAL_PAGE, cifar_folder, load_cifar
from bfedge.training.image_folder import Track, class_names, read_classes

DIGITS = "digits"
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
        values = np.arange(256) / 255.0
        channels = self.train_images.shape[-1]
        counts = np.zeros((channels, 256), np.int64)
        for images in np.array_split(self.train_images, max(1, self.train_images.size // 2**22)):
            counts += [np.bincount(images[..., c].ravel(), minlength=256) for c in range(channels)]
        shares = counts / counts.sum(1, keepdims=True)
        mean = shares @ values
        std = np.sqrt((shares * (values - mean[:, None]) ** 2).sum(1))
        return mean.tolist(), np.maximum(std, 1e-3).tolist()


def load_data(
    source: str,
    size: tuple[int, int] | None,
    channels: int | None,
    track: Track = lambda items, _: items,
) -> DataSet:
    """`digits`, or a path: an official archive of CIFAR-10 or CIFAR-100 or the folder of its files, or a folder of
    images by class.

    Images of a folder are resized to `size` (height, width) and converted to `channels` (1 or 3). `track` shows
    progress. Raises BfedgeError if there is nothing usable, naming the file at fault.
    """
    if source == DIGITS:
        return load_digits_data()
    path = Path(source)
    if source and is_file(path):
        return load_cifar_data(path)
    if not source or not is_folder(path):
        raise BfedgeError(
            f"data set `{source}` is neither `{DIGITS}` nor a folder nor an archive",
            f"--data PATH names an archive of CIFAR-10 or CIFAR-100 (from {OFFICIAL_PAGE}), or a folder with one "
            "sub-folder of images for each class",
        )
    if folder := cifar_folder(path):
        return load_cifar_data(folder)
    if size is None or channels is None:
        raise BfedgeError("a folder of images needs image_height, image_width and channels in the model configuration")
    return load_image_folder(path, size, channels, track)


def load_digits_data() -> DataSet:
    """scikit-learn's digits: 1,797 real scans of 8 x 8 pixels; every fifth image of each class is for testing."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise BfedgeError("the digits data set needs scikit-learn", 'pip install "bfedge[train]" installs it') from None
    digits = load_digits()
    images = np.rint(digits.images * (255.0 / 16.0)).astype(np.uint8)[..., None]
    return split(images, digits.target.astype(np.int64), tuple(str(n) for n in digits.target_names))


def load_cifar_data(path: Path) -> DataSet:
    train, test, labels = load_cifar(path)
    return DataSet(*train, *test, labels)


def load_image_folder(path: Path, size: tuple[int, int], channels: int, track: Track) -> DataSet:
    """Either `train/<class>/*` and `test/<class>/*`, or `<class>/*` with every fifth image of a class for testing."""
    if (path / "train").is_dir() and (path / "test").is_dir():
        labels = class_names(path / "train")
        if class_names(path / "test") != labels:
            raise BfedgeError(f"`{path}/train` and `{path}/test` do not have the same classes")
        train = read_classes(path / "train", labels, size, channels, track)
        test = read_classes(path / "test", labels, size, channels, track)
        return DataSet(*train, *test, labels)
    labels = class_names(path)
    return split(*read_classes(path, labels, size, channels, track), labels)


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
