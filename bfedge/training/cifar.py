"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009) from their official files, Python and binary version."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bfedge.errors import BfedgeError
from bfedge.files import is_file, is_folder
from bfedge.training.archive import check_size, read_archive
from bfedge.training.plain_pickle import byte_array, read_plain_pickle

OFFICIAL_PAGE = "https://www.cs.toronto.edu/~kriz/cifar.html"
PIXELS = 3 * 32 * 32

Part = tuple[NDArray[np.uint8], NDArray[np.int64]]


@dataclass(frozen=True)
class Version:
    """One of the four forms in which the two data sets are published."""

    name: str
    folder: str
    train: tuple[str, ...]
    test: str
    names: str
    """The file with the names of the classes"""
    classes: int
    checksums: dict[str, str]
    """MD5 (32 digits) or SHA-1 (40) of the files, as far as they are published"""
    target: str | int
    """Where the class of an image is: a key of the pickle, or a byte of the record"""
    names_key: str = ""
    """In the pickle of names"""

    @property
    def files(self) -> tuple[str, ...]:
        return (*self.train, self.test, self.names)


VERSIONS = (
    Version(
        name="CIFAR-100 (Python version)",
        folder="cifar-100-python",
        train=("train",),
        test="test",
        names="meta",
        classes=100,
        checksums={
            "train": "16019d7e3df5f24257cddd939b257f8d",
            "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
            "meta": "7973b15100ade9c7d40fb424638fde48",
        },
        target="fine_labels",
        names_key="fine_label_names",
    ),
    Version(
        name="CIFAR-100 (binary version)",
        folder="cifar-100-binary",
        train=("train.bin",),
        test="test.bin",
        names="fine_label_names.txt",
        classes=100,
        checksums={
            "train.bin": "e207cd2e05b73b1393c74c7f5e7bea451d63e08e",
            "test.bin": "8fb6623e830365ff53cf14adec797474f5478006",
        },
        target=1,
    ),
    Version(
        name="CIFAR-10 (Python version)",
        folder="cifar-10-batches-py",
        train=("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5"),
        test="test_batch",
        names="batches.meta",
        classes=10,
        checksums={
            "data_batch_1": "c99cafc152244af753f735de768cd75f",
            "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
            "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
            "data_batch_4": "634d18415352ddfa80567beed471001a",
            "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
            "test_batch": "40351d587109b95175f43aff81a1287e",
            "batches.meta": "5ff9c542aee3614f3951f8cda6e48888",
        },
        target="labels",
        names_key="label_names",
    ),
    Version(
        name="CIFAR-10 (binary version)",
        folder="cifar-10-batches-bin",
        train=("data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin", "data_batch_5.bin"),
        test="test_batch.bin",
        names="batches.meta.txt",
        classes=10,
        checksums={
            "data_batch_1.bin": "aadd24acce27caa71bf4b10992e9e7b2d74c2540",
            "data_batch_2.bin": "c0ba65cce70568cd57b4e03e9ac8d2a5367c1795",
            "data_batch_3.bin": "1dd00a74ab1d17a6e7d73e185b69dbf31242f295",
            "data_batch_4.bin": "aab85764eb3584312d3c7f65fd2fd016e36a258e",
            "data_batch_5.bin": "26e2849e66a845b7f1e4614ae70f4889ae604628",
            "test_batch.bin": "67eb016db431130d61cd03c7ad570b013799c88c",
        },
        target=0,
    ),
)


def cifar_folder(path: Path) -> Path | None:
    """The folder with the files of one version: `path` or an official sub-folder of it; None if there is none.

    Raises BfedgeError if there are several.
    """
    images = {name for version in VERSIONS for name in (*version.train, version.test)}
    places = [path, *(path / version.folder for version in VERSIONS)]
    found = [place for place in places if any(is_file(place / name) for name in images)]
    if len(found) > 1:
        raise BfedgeError(
            f"`{path}` holds more than one data set: {', '.join(p.name for p in found)}", f"--data {found[1]} names one"
        )
    return found[0] if found else None


def load_cifar(path: Path, versions: tuple[Version, ...] = VERSIONS) -> tuple[Part, Part, tuple[str, ...]]:
    """Images uint8 [n, 32, 32, 3] and classes for training, those for testing, and the names of the classes.

    `path` is an archive (.tar.gz, read without unpacking it) or the folder of the files. CIFAR-100 has its 100 fine
    classes. Raises BfedgeError for missing and damaged files and for wrong checksums.
    """
    wanted = {name for version in versions for name in version.files}
    files = read_folder(path, wanted) if is_folder(path) else read_archive(path, wanted)
    version = max(versions, key=lambda v: len(files.keys() & set(v.files)))
    missing = [name for name in version.files if name not in files]
    if missing:
        nothing = len(missing) == len(version.files)
        raise BfedgeError(
            f"`{path}` holds neither CIFAR-10 nor CIFAR-100"
            if nothing
            else f"`{path}`: {version.name} lacks {', '.join(missing)}",
            f"the official archives are at {OFFICIAL_PAGE}; --data PATH names one",
        )
    for name in version.files:
        check_sum(path, name, files[name], version.checksums.get(name))
    try:
        labels = class_names(files[version.names], version)
        train = joined([read_rows(name, files.pop(name), version) for name in version.train])
        return train, joined([read_rows(version.test, files.pop(version.test), version)]), labels
    except ValueError as problem:
        raise BfedgeError(f"`{path}`: {problem}", f"the official archives are at {OFFICIAL_PAGE}") from None


def read_folder(path: Path, wanted: set[str]) -> dict[str, bytes]:
    found = {}
    try:
        for name in sorted(wanted):
            if is_file(path / name):
                check_size(path, name, (path / name).stat().st_size)
                found[name] = (path / name).read_bytes()
    except OSError as problem:
        raise BfedgeError(f"cannot read `{problem.filename}`: {problem.strerror}") from None
    return found


def check_sum(path: Path, name: str, content: bytes, expected: str | None) -> None:
    if expected is None:
        return
    kind = "MD5" if len(expected) == 32 else "SHA-1"
    found = hashlib.new(kind.replace("-", ""), content, usedforsecurity=False).hexdigest()
    if found != expected:
        raise BfedgeError(
            f"`{path}`: {name} has {kind} {found}, the official file {expected}",
            f"it is damaged or another file; download the archive again from {OFFICIAL_PAGE}",
        )


def class_names(content: bytes, version: Version) -> tuple[str, ...]:
    if version.names_key:
        names = dictionary(content, version.names).get(version.names_key)
    else:
        names = content.decode("utf-8", "replace").split()
    if not (isinstance(names, list) and all(isinstance(name, str) and name for name in names)):
        raise ValueError(f"{version.names} has no names of classes")
    if len(names) != version.classes:
        raise ValueError(f"{version.names} names {len(names)} classes, {version.name} has {version.classes}")
    return tuple(names)


def joined(parts: list[Part]) -> Part:
    """The images of several files, their colours last instead of first."""
    images = np.empty((sum(len(rows) for rows, _ in parts), 32, 32, 3), np.uint8)
    start = 0
    for rows, _ in parts:
        images[start : start + len(rows)] = rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        start += len(rows)
    return images, np.concatenate([targets for _, targets in parts])


def read_rows(name: str, content: bytes, version: Version) -> Part:
    """One file's pixels uint8 [n, 3072] and classes. Raises ValueError if it has not the version's form."""
    if isinstance(version.target, str):
        rows, targets = pickled_rows(name, content, version.target)
    else:
        rows, targets = binary_rows(name, content, version.target)
    if len(rows) == 0 or targets.min() < 0 or targets.max() >= version.classes:
        raise ValueError(f"{name} has no images, or classes other than 0 to {version.classes - 1}")
    return rows, targets


def pickled_rows(name: str, content: bytes, key: str) -> Part:
    values = dictionary(content, name)
    try:
        rows = byte_array(values.get("data"))
    except ValueError as problem:
        raise ValueError(f"{name}: its data are {problem}") from None
    targets = values.get(key)
    if rows.ndim != 2 or rows.shape[1] != PIXELS:
        raise ValueError(f"{name} has data of shape {list(rows.shape)}, not [images, {PIXELS}]")
    if not (isinstance(targets, list) and len(targets) == len(rows) and all(type(t) is int for t in targets)):
        raise ValueError(f"{name} does not have one class for each of its {len(rows)} images")
    try:
        return rows, np.array(targets, np.int64)
    except OverflowError:
        raise ValueError(f"{name} has classes beyond 64 bits") from None


def binary_rows(name: str, content: bytes, target: int) -> Part:
    """Records of one byte for each kind of class, then the pixels."""
    record = target + 1 + PIXELS
    if len(content) % record:
        raise ValueError(f"{name} has {len(content)} bytes, no multiple of a record's {record}")
    records = np.frombuffer(content, np.uint8).reshape(-1, record)
    return records[:, target + 1 :], records[:, target].astype(np.int64)


def dictionary(content: bytes, name: str) -> dict[str, Any]:
    try:
        values = read_plain_pickle(content)
    except ValueError as problem:
        raise ValueError(f"{name} is {problem}") from None
    if not isinstance(values, dict):
        raise ValueError(f"{name} holds no dictionary")
    return values
