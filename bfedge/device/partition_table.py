"""ESP-IDF's partition table: what lies where in the flash of an ESP32. Written as the CSV that ESP-IDF builds from and
as the binary that lies at 0x8000 of the flash, and read from the latter.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from bfedge.errors import BfedgeError

TABLE_OFFSET = 0x8000
TABLE_BYTES = 0xC00
"""Of the 4 KiB sector; a signature may follow"""
FIRST_OFFSET = TABLE_OFFSET + 0x1000
SECTOR = 0x1000
"""The smallest piece of flash that can be erased"""
MMAP_PAGE = 0x10000
"""The smallest piece of flash that can be mapped into memory"""

APP, DATA = 0, 1
TYPE_NAMES = {APP: "app", DATA: "data"}
SUBTYPE_NAMES = {(APP, 0): "factory", (DATA, 1): "phy", (DATA, 2): "nvs"}
ALIGNMENT = {APP: MMAP_PAGE}
"""Of a partition's offset; a sector for all other types"""

MODEL_FILE = "model.bfe"
MODEL_PARTITION = "model"
MODEL_SUBTYPE = 0x40
"""The first of those that ESP-IDF leaves to applications; platform.c looks for it"""

ENTRY = struct.Struct("<2sBBII16sI")
MAGIC = b"\xaa\x50"
MD5_MAGIC = b"\xeb\xeb" + b"\xff" * 14
NAME_BYTES = 15


@dataclass(frozen=True)
class Partition:
    name: str
    type: int
    subtype: int
    offset: int
    size: int
    flags: int = 0

    @property
    def end(self) -> int:
        return self.offset + self.size


def check(partitions: Sequence[Partition], flash_bytes: int) -> None:
    """Raises BfedgeError if the partitions overlap, are misaligned or misnamed, or end behind the flash."""
    end, before = FIRST_OFFSET, "the partition table"
    for p in sorted(partitions, key=lambda p: p.offset):
        if not p.name or len(p.name.encode()) > NAME_BYTES or not p.name.isascii() or not p.name.isprintable():
            raise BfedgeError(f"the partition name `{p.name}` is not 1 to {NAME_BYTES} characters of ASCII")
        alignment = ALIGNMENT.get(p.type, SECTOR)
        if p.offset % alignment:
            raise BfedgeError(f"partition `{p.name}` begins at {p.offset:#x}, which is no multiple of {alignment:#x}")
        if p.size <= 0 or p.size % SECTOR:
            raise BfedgeError(f"partition `{p.name}` has {p.size} bytes, which is no multiple of {SECTOR}")
        if p.offset < end:
            raise BfedgeError(f"partition `{p.name}` begins at {p.offset:#x}, before the end of {before} at {end:#x}")
        if p.end > flash_bytes:
            raise BfedgeError(
                f"partition `{p.name}` ends at {p.end} bytes, the flash at {flash_bytes} bytes",
                f"{p.end - flash_bytes} bytes too many: take a smaller model, or a board with more flash",
            )
        end, before = p.end, f"partition `{p.name}`"
    names = [p.name for p in partitions]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise BfedgeError(f"two partitions have the name `{twice}`")


def find(partitions: Sequence[Partition], name: str) -> Partition | None:
    return next((p for p in partitions if p.name == name), None)


def to_csv(partitions: Sequence[Partition]) -> str:
    rows = [
        ", ".join(
            (
                p.name,
                TYPE_NAMES.get(p.type, f"{p.type:#x}"),
                SUBTYPE_NAMES.get((p.type, p.subtype), f"{p.subtype:#x}"),
                f"{p.offset:#x}",
                f"{p.size:#x}",
            )
        )
        for p in partitions
    ]
    return "\n".join(["# Name, Type, SubType, Offset, Size", *rows]) + "\n"


def to_binary(partitions: Sequence[Partition]) -> bytes:
    """The TABLE_BYTES that lie at TABLE_OFFSET of the flash."""
    entries = b"".join(
        ENTRY.pack(MAGIC, p.type, p.subtype, p.offset, p.size, p.name.encode(), p.flags) for p in partitions
    )
    table = entries + MD5_MAGIC + hashlib.md5(entries, usedforsecurity=False).digest()
    if len(table) >= TABLE_BYTES:
        raise BfedgeError(f"{len(partitions)} partitions do not fit into a table of {TABLE_BYTES} bytes")
    return table.ljust(TABLE_BYTES, b"\xff")


def read_binary(table: bytes, where: str) -> tuple[Partition, ...]:
    """The partitions in a binary table. `where` names it in messages.

    Raises BfedgeError if there is none, or it is damaged.
    """
    if table[:1] == b"\xff" and not table.strip(b"\xff"):
        raise BfedgeError(f"there is no partition table {where}: the flash is empty there")
    partitions: list[Partition] = []
    for at in range(0, len(table) - ENTRY.size + 1, ENTRY.size):
        entry = table[at : at + ENTRY.size]
        if entry == b"\xff" * ENTRY.size:
            return tuple(partitions)
        if entry[:2] == MD5_MAGIC[:2]:
            if entry[16:] != hashlib.md5(table[:at], usedforsecurity=False).digest():
                raise BfedgeError(f"the partition table {where} is damaged: its checksum is wrong")
            return tuple(partitions)
        magic, kind, subtype, offset, size, name, flags = ENTRY.unpack(entry)
        if magic != MAGIC:
            what = f"entry {len(partitions)} begins with {magic.hex()}, not {MAGIC.hex()}"
            raise BfedgeError(f"there is no valid partition table {where}: {what}")
        text = name.split(b"\0")[0].decode("ascii", errors="replace")
        partitions.append(Partition(text, kind, subtype, offset, size, flags))
    raise BfedgeError(f"the partition table {where} is damaged: it has no end")
