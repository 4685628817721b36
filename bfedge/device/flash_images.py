"""Images of firmware for the tools and bootloaders that write flash: Intel's hex, plain bytes, and UF2, which is blocks
of 512 bytes that a bootloader takes from what looks like a USB drive.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Collection
from functools import partial
from pathlib import Path
from typing import Literal

from bfedge.device.firmware import open_elf
from bfedge.errors import BfedgeError
from bfedge.files import write_atomically

ImageKind = Literal["hex", "bin", "uf2"]

UF2_FAMILY = 0xADA52840
"""The nRF52840, in Microsoft's list of families"""
UF2_MAGIC = (0x0A324655, 0x9E5D5157)
UF2_LAST_MAGIC = 0x0AB16F30
UF2_NOT_FLASH, UF2_HAS_FAMILY = 0x1, 0x2000
"""Flags of a block"""
UF2_PAYLOAD = 256
"""Bytes in a block"""
UF2_BLOCK = struct.Struct("<8I476sI")


def write_images(
    elf: Path, folder: Path, name: str, kinds: Collection[ImageKind] = ("hex", "bin", "uf2")
) -> list[Path]:
    """Writes what the flash holds as `<name>.<kind>`: hex (Intel's), bin (starts where the firmware does), uf2. Returns
    the files.

    A bootloader that takes UF2 files wants a program that was linked behind it: Adafruit's at 0x26000.
    """
    address, data = flash_contents(elf)
    written = []
    for kind in kinds:
        path = folder / f"{name}.{kind}"
        image = to_image(kind, data, address)
        write_atomically(path, partial(write_bytes, image))
        written.append(path)
    return written


def write_bytes(data: bytes, file: str) -> None:
    Path(file).write_bytes(data)


def to_image(kind: ImageKind, data: bytes, address: int) -> bytes:
    if kind == "bin":
        return data
    if kind == "uf2":
        return to_uf2(data, address)
    return to_hex(data, address)


def flash_contents(elf: Path) -> tuple[int, bytes]:
    """Where the image starts, and its bytes; what nothing was placed in is 0xFF, like erased flash."""
    with open_elf(elf) as file:
        pieces = sorted(
            (segment["p_paddr"], segment.data()) for segment in file.iter_segments("PT_LOAD") if segment["p_filesz"]
        )
    if not pieces:
        raise BfedgeError(f"`{elf}` holds nothing to write to flash")
    start = pieces[0][0]
    image = bytearray()
    for address, data in pieces:
        image += b"\xff" * (address - start - len(image)) + data
    return start, bytes(image)


def to_hex(data: bytes, address: int) -> bytes:
    try:
        from intelhex import IntelHex
    except ImportError:
        raise BfedgeError("writing .hex needs intelhex", "`pip install 'bfedge[devices]'` installs it") from None
    image = IntelHex()
    image.frombytes(data, address)
    text = io.StringIO()
    image.write_hex_file(text)
    return text.getvalue().encode("ascii")


def to_uf2(data: bytes, address: int) -> bytes:
    """Blocks that write `data` to flash at `address`, a multiple of 256; the last one is filled with 0xFF."""
    if address % UF2_PAYLOAD:
        raise ValueError(f"the address {address:#x} is no multiple of {UF2_PAYLOAD}")
    pieces = [data[at : at + UF2_PAYLOAD].ljust(UF2_PAYLOAD, b"\xff") for at in range(0, len(data), UF2_PAYLOAD)]
    blocks = []
    for number, piece in enumerate(pieces):
        where = address + number * UF2_PAYLOAD
        head = (*UF2_MAGIC, UF2_HAS_FAMILY, where, UF2_PAYLOAD, number, len(pieces), UF2_FAMILY)
        blocks.append(UF2_BLOCK.pack(*head, piece, UF2_LAST_MAGIC))
    return b"".join(blocks)
