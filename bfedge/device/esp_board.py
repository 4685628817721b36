"""An ESP32 in its bootloader, reached by esptool's Python API. esptool's own output is turned off."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bfedge.device.progress import Progress
from bfedge.device.transport import check_address
from bfedge.errors import BfedgeError

BAUD = 460800
"""While flashing. USB has no baud rate and ignores it"""
READ_BYTES = (0x10000, 0x400, 0x100)
"""Pieces that flash is read in: smaller ones where a line spoils large ones, or the other end waits less for each
acknowledgement than they take
"""
WRITE_BYTES = 0x20000
"""Written at once, whole sectors; progress is told in between"""
READ_ATTEMPTS = 4


class Board:
    """A chip that runs esptool's stub. Methods raise what esptool raises; `connected` makes one line of it."""

    def __init__(self, esptool: Any, esp: Any, port: str, progress: Progress | None) -> None:
        self.esptool = esptool
        self.esp = esp
        self.port = port
        self.progress = progress
        self.read_size = 0
        """Index in READ_BYTES"""
        self.doing: str | None = None
        """What the board is being changed by, for messages"""

    @property
    def chip(self) -> str:
        return str(self.esp.CHIP_NAME)

    def revision(self) -> int:
        """In hundredths: 2 is v0.2."""
        return int(self.esp.get_chip_revision())

    def flash_bytes(self) -> int:
        size = self.esptool.cmds.detect_flash_size(self.esp)
        if size is None:
            raise BfedgeError(
                f"the {self.chip} on `{self.port}` does not say how much flash it has",
                "check its supply, and that nothing else is wired to the flash's pins",
            )
        return int(self.esptool.util.flash_size_bytes(size))

    def read(self, offset: int, size: int, what: str = "") -> bytes:
        """Reads flash in pieces; a piece that the line has spoilt is read again, and from then on in smaller ones."""
        data = bytearray()
        while len(data) < size:
            data += self.read_piece(offset + len(data), size - len(data))
            if what and self.progress:
                self.progress(f"reading {what} back", len(data), size)
        return bytes(data)

    def read_piece(self, offset: int, most: int) -> bytes:
        for attempt in range(1, READ_ATTEMPTS + 1):
            try:
                return bytes(self.esp.read_flash(offset, min(READ_BYTES[self.read_size], most)))
            except self.esptool.util.FatalError:
                if attempt == READ_ATTEMPTS:
                    raise
                self.read_size = min(self.read_size + 1, len(READ_BYTES) - 1)
                self.esp.flush_input()
        raise AssertionError("unreachable")

    def write(self, offset: int, data: bytes, what: str) -> None:
        """`offset` is that of a sector. The rest of the last sector is erased."""
        self.doing = f"writing {what}"
        for at in range(0, len(data), WRITE_BYTES):
            piece = data[at : at + WRITE_BYTES]
            self.esptool.cmds.write_flash(self.esp, [(offset + at, piece)])
            if self.progress:
                self.progress(self.doing, at + len(piece), len(data))
        self.doing = None

    def reset(self) -> bool:
        """Starts what was flashed. False if that takes the button: a socket has no wire for it."""
        if self.port.startswith("socket:"):
            return False
        self.esptool.cmds.reset_chip(self.esp, "hard-reset")
        return True


@contextmanager
def connected(port: str, chip: str, progress: Progress | None = None) -> Iterator[Board]:
    """A chip of this kind on `port`, running the stub. Nothing of its flash is changed.

    Raises BfedgeError for a port that is absent, busy or silent, for another chip, for a chip whose fuses forbid plain
    flashing, and when the line breaks while it is in use.
    """
    check_address(port)
    esptool = import_esptool()
    import serial

    failures = (esptool.util.FatalError, serial.SerialException, OSError, struct.error)
    try:
        rom = esptool.cmds.detect_chip(port)
    except (*failures, ValueError) as problem:
        raise port_problem(port, problem) from None
    with rom:
        board = Board(esptool, rom, port, progress)
        try:
            check_chip(rom, esptool.targets.CHIP_DEFS[chip].CHIP_NAME, port)
            board.esp = esptool.cmds.run_stub(rom)
            if not port.startswith("socket:"):  # whoever is behind a socket keeps its own rate
                board.esp.change_baud(BAUD)
            esptool.cmds.attach_flash(board.esp)
            yield board
        except failures as problem:
            during = f" while {board.doing}" if board.doing else ""
            raise BfedgeError(
                f"the line to the board on `{port}` failed{during}: {first_line(problem)}",
                "what is on the board is incomplete: flash again" if board.doing else "try again, or another cable",
            ) from None


def check_chip(rom: Any, wanted: str, port: str) -> None:
    if wanted != rom.CHIP_NAME:
        raise BfedgeError(f"the chip on `{port}` is an {rom.CHIP_NAME}, not an {wanted}", "is it the right port?")
    locks = {
        "secure download mode": rom.secure_download_mode,
        "secure boot": not rom.secure_download_mode and rom.get_secure_boot_enabled(),
        "flash encryption": not rom.secure_download_mode and rom.get_flash_encryption_enabled(),
    }
    on = [name for name, is_on in locks.items() if is_on]
    if on:
        raise BfedgeError(
            f"the {wanted} on `{port}` has {' and '.join(on)} fused on and takes no plain image",
            "sign or encrypt and flash by ESP-IDF's own tools, or take another board",
        )


def port_problem(port: str, problem: Exception) -> BfedgeError:
    """Why there is no connection, from esptool's words."""
    words = str(problem)
    if "Failed to connect" in words:
        return BfedgeError(
            f"no ESP32 answers on `{port}`",
            "hold BOOT, press and let go of RESET, let go of BOOT, and try again; is it the right port, the cable one "
            "for data, and does no other program use the port?",
        )
    if isinstance(problem, ValueError):
        return BfedgeError(f"cannot open `{port}`: {first_line(problem)}")
    if "Could not open" not in words:
        return BfedgeError(f"no ESP32 was recognised on `{port}`: {first_line(problem)}")
    if "Errno 2]" in words or "FileNotFoundError" in words:
        return BfedgeError(f"there is no port `{port}`", f"ports of this machine: {', '.join(ports()) or 'none'}")
    if "Errno 13]" in words or "Permission denied" in words:
        return BfedgeError(
            f"no permission to open `{port}`", "on Linux: `sudo usermod -aG dialout $USER`, and log in again"
        )
    if "exclusively lock" in words or "Access is denied" in words or "Errno 16]" in words:
        return BfedgeError(f"`{port}` is in use by another program", "close the serial monitor")
    if "refused" in words:
        return BfedgeError(f"nobody listens on `{port}`")
    cause = words.partition("\n(")[2].partition(")\n")[0]
    return BfedgeError(f"cannot open `{port}`: {cause or first_line(problem)}")


def ports() -> list[str]:
    from serial.tools import list_ports

    return sorted(port.device for port in list_ports.comports())


def import_esptool() -> Any:
    """The modules of esptool 5, made silent. Raises BfedgeError if it is missing or too old."""
    how = '`pip install "bfedge[devices]"` installs it'
    try:
        import esptool
        import esptool.bin_image
        import esptool.cmds
        import esptool.logger
        import esptool.targets
        import esptool.util
    except ImportError as problem:
        raise BfedgeError(f"flashing an ESP32 needs the package `{problem.name or 'esptool'}`", how) from None
    if not hasattr(esptool.cmds, "attach_flash"):
        raise BfedgeError(f"flashing an ESP32 needs esptool 5 or later, this is {esptool.__version__}", how)
    esptool.logger.log.set_verbosity("silent")
    return esptool


def first_line(problem: Exception) -> str:
    lines = str(problem).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(problem).__name__
