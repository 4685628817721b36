"""Flashing a board with an nRF52840: over SWD, by Arduino's uploader, or by copying to a drive."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

from bfedge.device.exported import Exported
from bfedge.device.nrf_image import BIN, HEX, UF2, Image, read_image
from bfedge.device.nrf_swd import command as pyocd_command
from bfedge.device.nrf_swd import find_probes, flash_by_probe
from bfedge.device.progress import Progress
from bfedge.device.transport import last_line
from bfedge.errors import BfedgeError

ARDUINO = 0x2341
NANO_33_BLE = {0x005A, 0x015A, 0x025A, 0x805A}
SKETCH_BIT = 0x8000  # of the product number: the sketch's USB has it, the bootloader's not
BOSSAC_START = 0x10000  # where Arduino's bootloader puts, and starts, what it is sent
BOSSAC_SECONDS = 300
PORT_SECONDS = 8.0
PORT_POLL_SECONDS = 0.25

SOFTDEVICE_STARTS = {"not found": 0x1000, "6": 0x26000, "7": 0x27000}
"""Where a UF2 bootloader starts the program: behind Nordic's radio firmware, by its major version"""

RESET_TWICE = "press the board's reset button twice, quickly: the bootloader shows a port while the LED pulses"


def flash(
    exported: Exported,
    port: str | None = None,
    tool: str | None = None,
    probe: str | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Puts the export's firmware onto a Nano 33 BLE or another board with an nRF52840.

    tool   "pyocd" (a debug probe), "bossac" (Arduino's uploader over USB), "uf2" (a drive), or None: bossac with a
           port, else what is connected, in this order
    port   serial port, for bossac
    probe  id of a debug probe, or a part of it, if there are several; `remote:host:port` for one that is shared

    Returns tool, chip, address, bytes, seconds, verified (read back and equal: pyocd only, the bootloaders can't) and
    maybe a note.

    Raises BfedgeError before anything is written: for a file that is not what the manifest says, an image that does not
    fit or cannot start, another model, another chip, no tool or no board.
    """
    started = time.monotonic()
    report: Progress = progress or (lambda what, done, total: None)
    image = read_image(exported, HEX)
    if probe and (port or tool not in (None, "pyocd")):
        raise BfedgeError("--probe is for pyocd; bossac takes a --port, a UF2 drive neither", "leave one of them out")
    chosen = tool or choose_tool(exported, port, probe)
    if chosen == "pyocd":
        figures = flash_by_probe(image, the_probe(exported, probe), report)
    elif chosen == "bossac":
        figures = flash_by_bossac(exported, read_image(exported, BIN), port, report)
    else:
        figures = flash_by_drive(exported, report)
    return {"tool": chosen, **figures, "seconds": round(time.monotonic() - started, 1)}


def choose_tool(exported: Exported, port: str | None, probe: str | None) -> str:
    if port:
        return "bossac"
    if probe or find_probes():
        return "pyocd"
    if find_bossac() and nano_ports():
        return "bossac"
    if find_drives():
        return "uf2"
    raise BfedgeError(
        f"no {exported.profile.name} to flash: no debug probe, no Arduino port, no UF2 drive is connected",
        "; or ".join(
            [
                f"with a debug probe: `pip install pyocd`, then `{pyocd_command(exported.folder / HEX)}`",
                f"by USB: {RESET_TWICE}, `arduino-cli core install arduino:mbed_nano` installs bossac, then "
                f"`bossac --port=<port> -U -i -e -w {exported.folder / BIN} -R`",
                f"with a UF2 bootloader: copy `{exported.folder / UF2}` to its drive",
            ]
        ),
    )


def how_to_verify(exported: Exported) -> str:
    return (
        f"`bfedge verify {exported.folder} --port <adapter>` checks the model, by a USB serial adapter (3.3 V) at the "
        "pins 0 (RX) and 1 (TX): the firmware does not speak on the board's own USB"
    )


# ----- a debug probe -----


def the_probe(exported: Exported, wanted: str | None) -> Any:
    probes = find_probes(wanted)
    by_hand = f"then `{pyocd_command(exported.folder / HEX)}` does it by hand"
    if probes is None:
        raise BfedgeError("pyocd is not installed", f"`pip install pyocd`; {by_hand}")
    if not probes:
        which = f"no debug probe `{wanted}` is" if wanted else "no debug probe is"
        raise BfedgeError(f"{which} connected", f"`pyocd list` shows those that pyocd finds; {by_hand}")
    if len(probes) > 1:
        names = ", ".join(probe.unique_id for probe in probes)
        raise BfedgeError(f"there are {len(probes)} debug probes: {names}", "--probe chooses one by its id")
    return probes[0]


# ----- Arduino's uploader -----


def find_bossac() -> str | None:
    """Arduino's own build, newest first, else one from PATH; only Arduino's knows this chip."""
    homes = [Path.home() / ".arduino15", Path.home() / "Library" / "Arduino15"]
    homes += [Path(os.environ["LOCALAPPDATA"]) / "Arduino15"] if "LOCALAPPDATA" in os.environ else []
    builds = [f for home in homes for f in (home / "packages" / "arduino" / "tools" / "bossac").glob("*/bossac*")]
    builds.sort(key=lambda f: ("arduino" in f.parent.name, [int(n) for n in re.findall(r"\d+", f.parent.name)]))
    return str(builds[-1]) if builds else shutil.which("bossac")


def nano_ports() -> list[Any]:
    """Serial ports of Nano 33 BLE boards, in the sketch or in the bootloader. Empty without pyserial."""
    try:
        from serial.tools import list_ports
    except ImportError:
        return []
    return [port for port in list_ports.comports() if port.vid == ARDUINO and port.pid in NANO_33_BLE]


def flash_by_bossac(exported: Exported, image: Image, port: str | None, progress: Progress) -> dict[str, Any]:
    bossac = find_bossac()
    if bossac is None:
        raise BfedgeError(
            "Arduino's uploader bossac is not installed",
            f"`arduino-cli core install arduino:mbed_nano`, then `bossac --port={port or '<port>'} -U -i -e -w "
            f"{image.file} -R`",
        )
    if image.start != BOSSAC_START:
        raise BfedgeError(
            f"`{image.file}` starts at 0x{image.start:X}; Arduino's bootloader puts it at 0x{BOSSAC_START:X}",
            "flash it by a debug probe: --tool pyocd",
        )
    port = bootloader_port(port or the_port())
    found = bossac_says(bossac, port, ["-i"])
    chip = device_name(found)
    if chip is None or not chip.upper().startswith("NRF52840"):
        raise BfedgeError(
            f"`{bossac}` does not see an nRF52840 on `{port}`, but: {chip or last_line(found) or 'nothing'}",
            f"{RESET_TWICE}; Arduino's own bossac is needed, which `arduino-cli core install arduino:mbed_nano` brings",
        )
    progress("writing", 0, len(image.data))
    written = bossac_says(bossac, port, ["-i", "-e", "-w", str(image.file), "-R"])
    if not re.search(rf"\bWrote {len(image.data)} bytes|\bWrite {len(image.data)} bytes", written):
        raise BfedgeError(
            f"`{bossac}` did not write the image's {len(image.data)} bytes; it said: {last_line(written) or 'nothing'}"
        )
    progress("writing", len(image.data), len(image.data))
    return {
        "chip": chip,
        "port": port,
        "address": image.start,
        "bytes": len(image.data),
        "verified": False,
        "note": f"Arduino's bootloader cannot read flash back. {how_to_verify(exported)}",
    }


def the_port() -> str:
    ports = nano_ports()
    if not ports:
        raise BfedgeError("no Nano 33 BLE is connected by USB", f"{RESET_TWICE}; --port names it")
    if len(ports) > 1:
        names = ", ".join(port.device for port in ports)
        raise BfedgeError(f"there are {len(ports)} boards: {names}", "--port chooses one")
    return str(ports[0].device)


def bootloader_port(port: str) -> str:
    """Restarts the board into its bootloader by opening the port at 1200 baud, and returns the port it has then, which
    may be another one.
    """
    try:
        import serial
    except ImportError:
        raise BfedgeError("pyserial is not installed", '`pip install "bfedge[devices]"` installs it') from None
    before = nano_ports()
    touched = next((p for p in before if p.device == port), None)
    others = {str(p.device) for p in before if in_bootloader(p)}
    if port in others:
        return port
    try:
        serial.Serial(port, 1200, timeout=1).close()
    except (OSError, ValueError) as problem:
        raise BfedgeError(f"cannot open `{port}`: {problem}", RESET_TWICE) from None
    if touched is None:
        return port  # not a board's USB: nothing will come and go
    until = time.monotonic() + PORT_SECONDS
    while time.monotonic() < until:
        time.sleep(PORT_POLL_SECONDS)
        waiting = [p for p in nano_ports() if in_bootloader(p) and p.device not in others]
        same = [p for p in waiting if touched.serial_number and p.serial_number == touched.serial_number]
        found = [str(p.device) for p in same or waiting]
        if len(found) == 1:
            return found[0]
        if found:
            raise BfedgeError(
                f"{len(found)} boards went into their bootloader at once: {', '.join(found)}", "--port chooses one"
            )
    raise BfedgeError(f"the board on `{port}` did not go into its bootloader within {PORT_SECONDS:.0f} s", RESET_TWICE)


def in_bootloader(port: Any) -> bool:
    return not port.pid & SKETCH_BIT


def bossac_says(bossac: str, port: str, arguments: list[str]) -> str:
    command = [bossac, f"--port={port}", "-U", *arguments]
    try:
        result = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=BOSSAC_SECONDS, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired) as problem:
        raise BfedgeError(f"`{bossac}` failed: {problem}", RESET_TWICE) from None
    said = result.stdout + result.stderr
    if result.returncode:
        raise BfedgeError(f"`{' '.join(command)}` failed: {last_line(said) or 'it says nothing'}", RESET_TWICE)
    return said


def device_name(said: str) -> str | None:
    found = re.search(r"^Device\s*:\s*(\S+)", said, re.MULTILINE)
    return found[1] if found else None


# ----- a UF2 bootloader's drive -----


def find_drives() -> list[Path]:
    """Mounted drives with an INFO_UF2.TXT."""
    user = os.environ.get("USER", "")
    places = [Path("/media") / user, Path("/run/media") / user, Path("/media"), Path("/Volumes"), Path("/mnt")]
    places += [Path(f"{letter}:\\") for letter in "DEFGHIJKLMNOPQRSTUVWXYZ"] if os.name == "nt" else []
    found = []
    for place in places:
        try:
            candidates = [place] if os.name == "nt" else sorted(place.iterdir())
            found += [drive for drive in candidates if (drive / "INFO_UF2.TXT").is_file() and drive not in found]
        except OSError:
            continue
    return found


def flash_by_drive(exported: Exported, progress: Progress) -> dict[str, Any]:
    """Copies the .uf2 to the drive, whose bootloader writes it to flash and restarts."""
    if UF2 not in exported.files:
        raise BfedgeError(
            f"this export has no {UF2}: behind a UF2 bootloader, which is larger than Arduino's, it does not fit",
            "flash it with a debug probe or by Arduino's bootloader",
        )
    image = read_image(exported, UF2)
    drives = find_drives()
    if not drives:
        raise BfedgeError(
            "no UF2 drive is mounted",
            f"{RESET_TWICE}, mount its drive, then copy `{image.file}` to it; Arduino's own bootloader has no drive",
        )
    if len(drives) > 1:
        raise BfedgeError(f"there are {len(drives)} UF2 drives: {', '.join(map(str, drives))}", "unmount the others")
    drive = drives[0]
    board = check_drive(image, drive)
    data = image.file.read_bytes()
    progress("writing", 0, len(data))
    try:
        with open(drive / UF2, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as problem:
        raise BfedgeError(f"cannot write to `{drive}`: {problem.strerror}", "start the bootloader again") from None
    progress("writing", len(data), len(data))
    return {
        "chip": board,
        "drive": str(drive),
        "address": image.start,
        "bytes": len(image.data),
        "verified": False,
        "note": f"a UF2 drive cannot be read back. {how_to_verify(exported)}",
    }


def check_drive(image: Image, drive: Path) -> str:
    """The board that the drive names, if it has this chip and its bootloader starts programs where this one lies."""
    try:
        info = (drive / "INFO_UF2.TXT").read_text(errors="replace")
    except OSError as problem:
        raise BfedgeError(f"cannot read `{drive / 'INFO_UF2.TXT'}`: {problem.strerror}") from None
    found = re.search(r"^Board-ID:\s*(.+?)\s*$", info, re.MULTILINE | re.IGNORECASE)
    board = found[1] if found else "unnamed"
    if "nrf52840" not in board.lower():
        raise BfedgeError(f"the board of `{drive}` is `{board}`, the firmware is for the nRF52840")
    softdevice = re.search(
        r"^SoftDevice:\s*(not found|S\d+\s+(?:version\s+)?(\d+))", info, re.MULTILINE | re.IGNORECASE
    )
    start = SOFTDEVICE_STARTS.get((softdevice[2] or softdevice[1].lower()) if softdevice else "")
    if start != image.start:
        where = "an unknown address" if start is None else f"0x{start:X}"
        raise BfedgeError(
            f"the bootloader of `{drive}` starts programs at {where}, `{image.file}` is for 0x{image.start:X}",
            "flash it by a debug probe: --tool pyocd",
        )
    return board
