"""Chosen files out of a tar archive that nobody vouches for, read into memory; nothing is unpacked to disk."""

from __future__ import annotations

import gzip
import io
import tarfile
import zlib
from pathlib import Path, PurePosixPath

from bfedge.errors import BfedgeError

GZIP = b"\x1f\x8b"
LARGEST_FILE = 160 * 2**20
"""CIFAR-100's training images take 149 MiB"""
LARGEST_ARCHIVE = 512 * 2**20
"""Unpacked; a small archive can claim to hold terabytes"""


class Bounded:
    """Reads a stream up to `LARGEST_ARCHIVE` bytes, then raises BfedgeError."""

    def __init__(self, stream: io.BufferedIOBase, path: Path, limit: int) -> None:
        self.stream = stream
        self.path = path
        self.limit = limit
        self.left = limit

    def read(self, size: int) -> bytes:
        content = self.stream.read(size)
        self.left -= len(content)
        if self.left < 0:
            raise BfedgeError(f"`{self.path}` unpacks to more than {self.limit:,} bytes")
        return content


def read_archive(
    path: Path, wanted: set[str], largest_file: int = LARGEST_FILE, largest_archive: int = LARGEST_ARCHIVE
) -> dict[str, bytes]:
    """The regular files of these names, in whatever folder of a .tar or .tar.gz; of two with one name the first.

    Raises BfedgeError if the archive is damaged or cut off, or larger than the limits.
    """
    try:
        with open(path, "rb") as raw:
            is_gzip = raw.read(2) == GZIP
            raw.seek(0)
            with gzip.open(raw) if is_gzip else raw as stream:
                bounded = Bounded(stream, path, largest_archive)
                return wanted_files(bounded, path, wanted, largest_file)
    except (tarfile.TarError, EOFError, zlib.error, OSError, ValueError, OverflowError, RecursionError) as problem:
        what = getattr(problem, "strerror", None) or str(problem) or type(problem).__name__
        raise BfedgeError(
            f"cannot read the archive `{path}`: {what}", "it is damaged, cut off or no .tar.gz; download it again"
        ) from None


def wanted_files(stream: Bounded, path: Path, wanted: set[str], largest_file: int) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    with tarfile.open(fileobj=stream, mode="r|") as archive:  # type: ignore[call-overload]
        for member in archive:
            if member.size > stream.limit:  # tarfile would try to pass over it, past the end of the file
                raise BfedgeError(f"`{path}` claims to hold a file of {member.size:.3g} bytes", "it is damaged")
            name = PurePosixPath(member.name).name
            if name not in wanted or name in found or not member.isreg() or member.issparse():
                continue
            check_size(path, name, member.size, largest_file)
            content = archive.extractfile(member)
            found[name] = content.read() if content else b""
            if len(found[name]) != member.size:
                raise BfedgeError(f"`{path}` is cut off in {name}", "download it again")
            if found.keys() == wanted:
                break
    return found


def check_size(path: Path, name: str, size: int, largest: int = LARGEST_FILE) -> None:
    if size > largest:
        raise BfedgeError(f"`{path}`: {name} has {size:,} bytes; at most {largest:,} are read")
