"""Flashing an nRF52840 over SWD, by pyocd and a debug probe."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bfedge.device.nrf_image import Image
from bfedge.device.progress import Progress
from bfedge.errors import BfedgeError

FICR_PART = 0x10000100
NRF52840 = 0x52840
ERASED = b"\xff\xff\xff\xff"

# By default pyocd erases a locked chip while it connects, the bootloader included, before anyone asked what chip it is.
OPTIONS = {"auto_unlock": False, "hide_programming_progress": True}


def command(file: Path) -> str:
    return f"pyocd flash --target nrf52840 -O auto_unlock=false {file}"


def find_probes(probe: str | None = None) -> list[Any] | None:
    """The debug probes that are connected, or those whose id contains `probe`; `remote:host:port` names one that a
    `pyocd server` shares. None without pyocd.
    """
    try:
        from pyocd.core.helpers import ConnectHelper
    except ImportError:
        return None
    probes: list[Any] = ConnectHelper.get_all_connected_probes(blocking=False, unique_id=probe)
    return probes


def flash_by_probe(image: Image, probe: Any, progress: Progress) -> dict[str, Any]:
    """Writes the image and reads it back. Nothing is written to another chip than an nRF52840.

    Returns chip, address, bytes, verified, and `note` if nothing on the board would start the program.
    """
    with session(probe, "cortex_m", "attach") as target:
        check_part(target, probe)
    with session(probe, "nrf52840", "halt") as target:
        note = missing_bootloader(target, image)
        write(target, image, progress)
        progress("reading back", 0, len(image.data))
        found = bytes(target.read_memory_block8(image.start, len(image.data)))
        progress("reading back", len(image.data), len(image.data))
        if found != image.data:
            wrong = next(i for i, byte in enumerate(image.data) if found[i] != byte)
            raise BfedgeError(
                f"the board does not hold what was written: at 0x{image.start + wrong:X} it has 0x{found[wrong]:02X}, "
                f"not 0x{image.data[wrong]:02X}",
                "flash again; if it stays so, look at the cables and the supply",
            )
        target.reset()
    figures = {"chip": "nRF52840", "probe": probe.unique_id, "address": image.start, "bytes": len(image.data)}
    return figures | {"verified": True} | ({"note": note} if note else {})


@contextmanager
def session(probe: Any, target: str, connect_mode: str) -> Iterator[Any]:
    """An open session's target. What pyocd says goes wrong becomes a BfedgeError."""
    from pyocd.core import exceptions
    from pyocd.core.session import Session

    log = logging.getLogger("pyocd")
    level = log.level
    log.setLevel(logging.CRITICAL)  # everything that goes wrong arrives as an exception
    try:
        with Session(probe, options=OPTIONS | {"target_override": target, "connect_mode": connect_mode}) as opened:
            yield opened.target
    except (exceptions.Error, OSError, KeyError, TimeoutError) as problem:
        what = str(problem) or type(problem).__name__
        raise BfedgeError(
            f"probe {probe.unique_id}: {what}",
            "is the board connected to the probe and powered, and no other program using it? A chip that is locked "
            "(APPROTECT) opens only by erasing all of it, Arduino's bootloader too: "
            "`pyocd erase --target nrf52840 --mass`",
        ) from None
    finally:
        log.setLevel(level)


def check_part(target: Any, probe: Any) -> None:
    from pyocd.core import exceptions

    try:
        part = int(target.read32(FICR_PART))
    except exceptions.TransferError:
        raise BfedgeError(
            f"the chip on probe {probe.unique_id} is no nRF52840: it has nothing at 0x{FICR_PART:X}, where that says "
            "what it is"
        ) from None
    if part != NRF52840:
        name = f"an nRF{part:X}" if 0x51000 <= part < 0x60000 else "not Nordic's"
        raise BfedgeError(
            f"the chip on probe {probe.unique_id} is {name} (part 0x{part:X}); the firmware is for the nRF52840 "
            f"(0x{NRF52840:X})"
        )


def missing_bootloader(target: Any, image: Image) -> str | None:
    """What starts the program is the bootloader at 0, where the processor starts."""
    if image.start == 0 or bytes(target.read_memory_block8(4, 4)) != ERASED:
        return None
    return (
        f"the flash below 0x{image.start:X} is empty: without a bootloader nothing starts this program. Arduino's is "
        "in the IDE: Tools > Burn Bootloader, or bootloaders/nano33ble/bootloader.hex of the mbed_nano core"
    )


def write(target: Any, image: Image, progress: Progress) -> None:
    """Erases and writes the pages that the image covers, and no others."""
    from pyocd.flash.loader import FlashLoader

    total = len(image.data)
    loader = FlashLoader(
        target.session,
        progress=lambda share: progress("writing", round(share * total), total),
        chip_erase="sector",
        smart_flash=False,
        trust_crc=False,
        keep_unwritten=True,
    )
    loader.add_data(image.start, image.data)
    loader.commit()
