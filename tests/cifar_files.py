"""Small files of the form in which CIFAR-10 and CIFAR-100 are published, as official ones or altered."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import io
import tarfile
from pathlib import Path

import numpy as np

from bfedge.training.cifar import VERSIONS, Version

CIFAR100_PYTHON, CIFAR100_BINARY, CIFAR10_PYTHON, CIFAR10_BINARY = VERSIONS
EACH = 20
"""Images a file"""


# ---------------------------------------------------------------- pickles as Python 2 wrote them, protocol 2


def pickled(value: object) -> bytes:
    return b"\x80\x02" + operations(value) + b"."


def operations(value: object) -> bytes:
    if isinstance(value, dict):
        return b"}(" + b"".join(operations(k) + operations(v) for k, v in value.items()) + b"u"
    if isinstance(value, list):
        return b"](" + b"".join(operations(item) for item in value) + b"e"
    if isinstance(value, str):
        return b"U" + bytes([len(value)]) + value.encode("ascii")
    if isinstance(value, int):
        return b"K" + bytes([value]) if 0 <= value < 256 else b"J" + value.to_bytes(4, "little", signed=True)
    assert isinstance(value, np.ndarray)
    return array_operations(value)


def array_operations(array: np.ndarray, dtype: str = "u1") -> bytes:
    shape = operations(array.shape[0]) + operations(array.shape[1]) + b"\x86"
    kind = (
        b"cnumpy\ndtype\n"
        + operations(dtype)
        + b"K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    )
    content = array.tobytes()
    return b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01" + (
        shape + kind + b"\x89T" + len(content).to_bytes(4, "little") + content + b"tb"
    )


# ---------------------------------------------------------------- archives of the official form


@dataclasses.dataclass
class Sample:
    """The contents of one data set, from which all its forms are made."""

    rows: list[np.ndarray]
    """Of each training file, then of the test file: uint8 [EACH, 3072]"""
    classes: list[list[int]]
    names: list[str]


def make_sample(version: Version) -> Sample:
    generator = np.random.default_rng(version.classes)
    count = len(version.train) + 1
    return Sample(
        [generator.integers(0, 256, (EACH, 3072), np.uint8) for _ in range(count)],
        [generator.integers(0, version.classes, EACH).tolist() for _ in range(count)],
        [f"kind_{number}" for number in range(version.classes)],
    )


def make_files(version: Version, sample: Sample) -> dict[str, bytes]:
    files = {}
    for name, rows, classes in zip((*version.train, version.test), sample.rows, sample.classes, strict=True):
        coarse = [number // 5 for number in classes]
        if isinstance(version.target, str):
            values = {"filenames": [f"{n}.png" for n in classes], "data": rows, "coarse_labels": coarse}
            files[name] = pickled({"batch_label": "batch 1 of 1", version.target: classes, **values})
        else:
            before = [coarse, classes] if version.target == 1 else [classes]
            files[name] = np.concatenate([np.array(before, np.uint8).T, rows], 1).tobytes()
    if version.names_key:
        files[version.names] = pickled({"num_vis": 3072, version.names_key: sample.names})
    else:
        files[version.names] = "".join(f"{name}\n" for name in sample.names).encode() + b"\n"
    return files


def with_sums(version: Version, files: dict[str, bytes]) -> tuple[Version, ...]:
    """The known versions, one with the checksums of these files."""
    kind = "md5" if isinstance(version.target, str) else "sha1"
    sums = {name: hashlib.new(kind, files[name]).hexdigest() for name in version.checksums}
    return tuple(dataclasses.replace(version, checksums=sums) if v is version else v for v in VERSIONS)


def unchecked(version: Version) -> tuple[Version, ...]:
    return (dataclasses.replace(version, checksums={}),)


def write_folder(path: Path, files: dict[str, bytes]) -> Path:
    path.mkdir(parents=True)
    for name, content in files.items():
        (path / name).write_bytes(content)
    return path


def member(name: str, content: bytes = b"", **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, content


def write_archive(path: Path, members: list[tuple[tarfile.TarInfo, bytes]]) -> Path:
    buffer = io.BytesIO()
    for info, content in members:
        buffer.write(info.tobuf(tarfile.PAX_FORMAT))
        buffer.write(content + bytes(-len(content) % 512))
    buffer.write(bytes(1024))
    content = buffer.getvalue()
    path.write_bytes(gzip.compress(content, 1) if path.name.endswith("gz") else content)
    return path


def official(version: Version, files: dict[str, bytes]) -> list[tuple[tarfile.TarInfo, bytes]]:
    """A folder, the files in another order than the table's, and one that nobody needs."""
    members = [member(f"{version.folder}/{name}", content) for name, content in sorted(files.items())]
    return [
        member(version.folder, type=tarfile.DIRTYPE),
        member(f"{version.folder}/readme.html", b"<html>"),
        *members,
    ]
