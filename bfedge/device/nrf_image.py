"""The firmware in an export for an nRF52840, and everything about it that can be checked without the board."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from bfedge.device.exported import Exported
from bfedge.device.flash_images import (
    UF2_BLOCK,
    UF2_FAMILY,
    UF2_HAS_FAMILY,
    UF2_LAST_MAGIC,
    UF2_MAGIC,
    UF2_NOT_FLASH,
)
from bfedge.errors import BfedgeError
from bfedge.packed.validate import read_checked

HEX, BIN, UF2 = "firmware.hex", "firmware.bin", "firmware.uf2"
EXPORT_AGAIN = "export the model again"

PAGE_BYTES = 4096
RAM_START, RAM_END = 0x20000000, 0x20040000
MODEL_ALIGNMENT = 16


@dataclass(frozen=True)
class Image:
    file: Path
    start: int
    """Address in flash of the first byte"""
    data: bytes

    @property
    def end(self) -> int:
        return self.start + len(self.data)


def read_image(exported: Exported, name: str) -> Image:
    """The firmware `name` of the export, checked: the file's hash, that it lies in the board's flash and can start,
    and that the model in it is the export's model.bfe, valid.

    Raises BfedgeError, with the numbers, if one of these does not hold.
    """
    file = exported.folder / name
    data = read_listed(exported, name)
    if name == HEX:
        image = parse_hex(file, data)
    elif name == UF2:
        image = parse_uf2(file, data)
    else:
        image = Image(file, parse_hex(file, read_listed(exported, HEX)).start, data)
    check_place(image, flash_bytes(exported))
    check_vectors(image)
    check_model(image, exported)
    return image


def read_listed(exported: Exported, name: str) -> bytes:
    """A file of the export, as the manifest has it."""
    exported.check(name)
    file = exported.folder / name
    try:
        return file.read_bytes()
    except OSError as problem:
        raise BfedgeError(f"cannot read `{file}`: {problem.strerror}", EXPORT_AGAIN) from None


def flash_bytes(exported: Exported) -> int:
    sizes = [int(memory.bytes.value) for memory in exported.profile.memories if memory.kind == "flash"]
    if not sizes:
        raise BfedgeError(f"the profile {exported.profile.name} has no flash memory", "add one to it")
    return sizes[0]


def parse_hex(file: Path, text: bytes) -> Image:
    """Intel HEX: records of type 0 (data), 1 (end) and 4 (upper half of the address); 3 and 5 say where to start, which
    the vector table does too. Gaps are filled with 0xFF, as erased flash is.
    """
    damaged = f"`{file}` is no Intel HEX file: line "
    parts: list[tuple[int, bytes]] = []
    upper = 0
    ended = False
    for number, line in enumerate(text.splitlines(), 1):
        try:
            record = bytes.fromhex(line.decode("ascii").removeprefix(":"))
        except ValueError:
            record = b""
        if ended or not line.startswith(b":") or len(record) < 5 or len(record) != 5 + record[0] or sum(record) % 256:
            raise BfedgeError(f"{damaged}{number}", EXPORT_AGAIN)
        address, kind, payload = int.from_bytes(record[1:3], "big"), record[3], record[4:-1]
        if kind == 0:
            parts.append((upper + address, payload))
        elif kind == 4 and len(payload) == 2:
            upper = int.from_bytes(payload, "big") << 16
        elif kind not in (1, 3, 5):
            raise BfedgeError(f"{damaged}{number}", EXPORT_AGAIN)
        ended = kind == 1
    if not ended:
        raise BfedgeError(f"`{file}` ends before its end record", EXPORT_AGAIN)
    return joined(file, parts)


def parse_uf2(file: Path, data: bytes) -> Image:
    """Blocks of 512 bytes, all for the nRF52840's flash."""
    parts = []
    if len(data) % UF2_BLOCK.size:
        raise BfedgeError(f"`{file}` is no UF2 file: {len(data)} bytes are not whole blocks", EXPORT_AGAIN)
    for number, block in enumerate(UF2_BLOCK.iter_unpack(data)):
        first, second, flags, address, size, _, _, family, payload, last = block
        if (first, second, last) != (*UF2_MAGIC, UF2_LAST_MAGIC) or size > len(payload) or flags & UF2_NOT_FLASH:
            raise BfedgeError(f"`{file}` is no UF2 file: block {number}", EXPORT_AGAIN)
        if flags & UF2_HAS_FAMILY and family != UF2_FAMILY:
            raise BfedgeError(
                f"`{file}` is for another chip: family 0x{family:08X}, the nRF52840's is 0x{UF2_FAMILY:08X}"
            )
        parts.append((address, payload[:size]))
    return joined(file, parts)


def joined(file: Path, parts: list[tuple[int, bytes]]) -> Image:
    parts = sorted(part for part in parts if part[1])
    if not parts:
        raise BfedgeError(f"`{file}` is empty", EXPORT_AGAIN)
    start, end = parts[0][0], max(address + len(piece) for address, piece in parts)
    if end - start > 1 << 24:
        raise BfedgeError(f"`{file}` reaches from 0x{start:X} to 0x{end:X}: more than a chip has", EXPORT_AGAIN)
    data = bytearray(b"\xff" * (end - start))
    for address, piece in parts:
        data[address - start : address - start + len(piece)] = piece
    return Image(file, start, bytes(data))


def check_place(image: Image, flash: int) -> None:
    if image.end > flash:
        raise BfedgeError(
            f"`{image.file}` ends at {image.end} bytes of flash, the board has {flash}: {image.end - flash} too many",
            "a smaller model is needed; `bfedge plan` says what fits",
        )
    if image.start % PAGE_BYTES:
        raise BfedgeError(f"`{image.file}` starts at 0x{image.start:X}, not at a page of flash", EXPORT_AGAIN)


def check_vectors(image: Image) -> None:
    """The first two words: where the stack starts, and where the program does (odd: Thumb instructions)."""
    if len(image.data) < 8:
        raise BfedgeError(f"`{image.file}` has {len(image.data)} bytes, too few for a vector table", EXPORT_AGAIN)
    stack, reset = struct.unpack_from("<2I", image.data)
    if not RAM_START < stack <= RAM_END or stack % 8:
        raise BfedgeError(
            f"`{image.file}` is no program for the nRF52840: its stack would start at 0x{stack:08X}, RAM is "
            f"0x{RAM_START:08X} to 0x{RAM_END:08X}",
            EXPORT_AGAIN,
        )
    if reset % 2 == 0 or not image.start <= reset < image.end:
        raise BfedgeError(
            f"`{image.file}` is no program for its place: it would start at 0x{reset:08X}, the image is "
            f"0x{image.start:08X} to 0x{image.end:08X}",
            EXPORT_AGAIN,
        )


def check_model(image: Image, exported: Exported) -> None:
    read_listed(exported, exported.model.name)
    packed, _ = read_checked(exported.model)
    at = image.data.find(packed)
    while at >= 0 and (image.start + at) % MODEL_ALIGNMENT:
        at = image.data.find(packed, at + 1)
    if at < 0:
        raise BfedgeError(
            f"`{image.file}` does not hold the model in `{exported.model}` ({len(packed)} bytes)", EXPORT_AGAIN
        )
