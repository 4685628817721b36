"""Flashing an nRF52840: pyocd with a simulated chip behind its probe server, bossac, and a folder as a drive."""

from __future__ import annotations

import gc
import hashlib
import json
import os
import pty
import shutil
import struct
import threading
import tty
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from bfedge.device import nrf_flash
from bfedge.device.exported import Exported, read_exported
from bfedge.device.nrf_flash import flash
from bfedge.device.profile import load_profile
from bfedge.errors import BfedgeError
from bfedge.packed.golden import golden_vectors
from bfedge.packed.writer import pack
from tests.random_models import random_images, random_lowered

pytest.importorskip("pyocd", reason="needs pyocd (`pip install pyocd`)")
pytest.importorskip("serial", reason="needs pyserial (`pip install pyserial`)")

from tests.simulated_nrf52840 import FLASH_BYTES, Chip, shared_probe

# pyocd leaves its register descriptions open.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed file .*svd_data.zip:ResourceWarning")

START = 0x10000
BOOTLOADER = struct.pack("<2I", 0x20040000, 0x101) + bytes(range(200))


def intel_hex(start: int, data: bytes) -> str:
    def record(address: int, kind: int, payload: bytes) -> str:
        body = bytes([len(payload), address >> 8 & 0xFF, address & 0xFF, kind]) + payload
        return f":{(body + bytes([-sum(body) & 0xFF])).hex().upper()}\n"

    lines = []
    for at in range(0, len(data), 16):
        if at == 0 or (start + at) % 0x10000 == 0:
            lines.append(record(0, 4, ((start + at) >> 16).to_bytes(2, "big")))
        lines.append(record((start + at) & 0xFFFF, 0, data[at : at + 16]))
    return "".join(lines) + record(0, 1, b"")


def uf2(start: int, data: bytes, family: int = 0xADA52840) -> bytes:
    pieces = [data[at : at + 256] for at in range(0, len(data), 256)]
    blocks = []
    for i, piece in enumerate(pieces):
        head = struct.pack("<8I", 0x0A324655, 0x9E5D5157, 0x2000, start + 256 * i, len(piece), i, len(pieces), family)
        blocks.append(head + piece.ljust(476, b"\0") + struct.pack("<I", 0x0AB16F30))
    return b"".join(blocks)


def firmware(packed: bytes, start: int = START, stack: int = 0x20001000, entry: int | None = None) -> bytes:
    """A vector table, something like code, and the model at a page."""
    entry = start + 0x41 if entry is None else entry
    code = struct.pack("<2I", stack, entry) + bytes(i * 7 % 256 for i in range(4088))
    return code + packed


def packed_model(seed: int = 3) -> bytes:
    model = random_lowered(seed)
    return pack(model, golden_vectors(model, random_images(model, 2, seed)))


def write_export(folder: Path, image: bytes, start: int = START, uf2_start: int = START) -> Exported:
    """An export as far as flashing is concerned."""
    folder.mkdir(exist_ok=True)
    (folder / "model.bfe").write_bytes(packed_model())
    (folder / "firmware.hex").write_text(intel_hex(start, image))
    (folder / "firmware.bin").write_bytes(image)
    (folder / "firmware.uf2").write_bytes(uf2(uf2_start, image))
    return seal(folder)


def seal(folder: Path) -> Exported:
    files = [f for f in sorted(folder.iterdir()) if f.name != "manifest.json"]
    manifest = {
        "schema": 2,
        "target": "nano33-ble",
        "profile": msgspec.to_builtins(load_profile("nano33-ble")),
        "tile": 0,
        "arena_bytes": 4096,
        "files": {
            f.name: {"bytes": f.stat().st_size, "sha256": hashlib.sha256(f.read_bytes()).hexdigest()} for f in files
        },
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return read_exported(folder)


@pytest.fixture
def exported(tmp_path: Path) -> Exported:
    return write_export(tmp_path / "export", firmware(packed_model()))


@pytest.fixture
def chip() -> Chip:
    chip = Chip()
    chip.flash[: len(BOOTLOADER)] = BOOTLOADER
    return chip


@pytest.fixture(autouse=True)
def no_boards_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Whatever is connected to the machine that runs the tests must not be flashed by them."""
    monkeypatch.setattr(nrf_flash, "nano_ports", list)
    monkeypatch.setattr(nrf_flash, "find_drives", list)
    real = nrf_flash.find_probes
    monkeypatch.setattr(nrf_flash, "find_probes", lambda probe=None: real(probe) if probe else [])
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    yield
    gc.collect()  # what pyocd leaves open is closed here, and not in another test


# ----- over SWD -----


def test_the_image_is_written_read_back_and_started_and_nothing_else_changes(exported: Exported, chip: Chip) -> None:
    image = (exported.folder / "firmware.bin").read_bytes()
    chip.flash[START : START + 65536] = b"\x5a" * 65536  # an older program, longer than this one
    before = bytes(chip.flash)
    seen: list[tuple[str, int, int]] = []
    with shared_probe(chip) as probe:
        figures = flash(exported, probe=probe, progress=lambda *step: seen.append(step))
    assert chip.flash[START : START + len(image)] == image
    last_page = -(-len(image) // 4096) * 4096
    assert chip.flash[: len(BOOTLOADER)] == BOOTLOADER
    assert chip.flash[START + last_page :] == before[START + last_page :]
    assert not chip.halted
    seconds = figures.pop("seconds")
    assert 0 < seconds < 60
    assert figures == {
        "tool": "pyocd",
        "chip": "nRF52840",
        "probe": probe,
        "address": START,
        "bytes": len(image),
        "verified": True,
    }
    assert ("writing", len(image), len(image)) in seen


def test_a_missing_bootloader_is_noted(exported: Exported) -> None:
    with shared_probe(Chip()) as probe:
        figures = flash(exported, probe=probe)
    assert "without a bootloader nothing starts this program" in figures["note"]


@pytest.mark.parametrize(
    ("chip", "message"),
    [
        (Chip(part=0x52832), r"is an nRF52832 \(part 0x52832\); the firmware is for the nRF52840 \(0x52840\)"),
        (Chip(part=0x12345678), r"is not Nordic's \(part 0x12345678\)"),
        (Chip(has_ficr=False), r"is no nRF52840: it has nothing at 0x10000100"),
    ],
)
def test_another_chip_is_refused_untouched(exported: Exported, chip: Chip, message: str) -> None:
    with shared_probe(chip) as probe, pytest.raises(BfedgeError, match=message):
        flash(exported, probe=probe)
    assert chip.flash == b"\xff" * FLASH_BYTES
    assert chip.routines_run == 0
    assert not chip.mass_erased


def test_a_locked_chip_is_not_erased_to_open_it(exported: Exported) -> None:
    """pyocd's default would erase it, Arduino's bootloader too, while it connects."""
    chip = Chip(locked=True)
    chip.flash[: len(BOOTLOADER)] = BOOTLOADER
    with shared_probe(chip) as probe, pytest.raises(BfedgeError) as refused:
        flash(exported, probe=probe)
    assert "erase --target nrf52840 --mass" in str(refused.value.hint)
    assert not chip.mass_erased
    assert chip.flash[: len(BOOTLOADER)] == BOOTLOADER


def test_flash_that_does_not_keep_what_is_written_is_reported(exported: Exported, chip: Chip) -> None:
    image = (exported.folder / "firmware.bin").read_bytes()
    at = next(i for i, byte in enumerate(image) if i > 5000 and byte & 1)
    chip.flips = lambda address: 1 if address == START + at else 0
    with shared_probe(chip) as probe, pytest.raises(BfedgeError) as wrong:
        flash(exported, probe=probe)
    assert f"at 0x{START + at:X} it has 0x{image[at] & 0xFE:02X}, not 0x{image[at]:02X}" in wrong.value.message


def test_a_probe_that_is_not_there_is_named_with_the_command(exported: Exported) -> None:
    with pytest.raises(BfedgeError, match="no debug probe is connected") as refused:
        flash(exported, tool="pyocd")
    assert f"pyocd flash --target nrf52840 -O auto_unlock=false {exported.folder / 'firmware.hex'}" in str(
        refused.value.hint
    )
    with pytest.raises(BfedgeError, match="probe remote:localhost:1: "):
        flash(exported, probe="remote:localhost:1")


def test_without_any_board_all_three_commands_are_given(exported: Exported, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BfedgeError, match="no nano33-ble to flash") as refused:
        flash(exported)
    hint = str(refused.value.hint)
    assert f"`pyocd flash --target nrf52840 -O auto_unlock=false {exported.folder / 'firmware.hex'}`" in hint
    assert f"`bossac --port=<port> -U -i -e -w {exported.folder / 'firmware.bin'} -R`" in hint
    assert f"copy `{exported.folder / 'firmware.uf2'}`" in hint


# ----- what is wrong with the files -----


def change_hex(folder: Path) -> None:
    text = (folder / "firmware.hex").read_text()
    (folder / "firmware.hex").write_text(text.replace("0", "1", 1))


def change_model(folder: Path) -> None:
    data = bytearray((folder / "model.bfe").read_bytes())
    data[-1] ^= 1
    (folder / "model.bfe").write_bytes(data)


def remove_hex(folder: Path) -> None:
    (folder / "firmware.hex").unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (change_hex, "firmware.hex` is not the file that was exported"),
        (change_model, "model.bfe` is not the file that was exported"),
        (remove_hex, "there is no file .*firmware.hex`"),
    ],
)
def test_files_that_are_not_the_export_s_are_refused(
    exported: Exported, chip: Chip, damage: Callable[[Path], None], message: str
) -> None:
    damage(exported.folder)
    with shared_probe(chip) as probe, pytest.raises(BfedgeError, match=message):
        flash(exported, probe=probe)
    assert chip.routines_run == 0


PACKED = packed_model()
TOO_LARGE = firmware(PACKED).ljust(FLASH_BYTES - START + 1, b"\x11")


@pytest.mark.parametrize(
    ("image", "start", "message"),
    [
        (TOO_LARGE, START, r"ends at 1048577 bytes of flash, the board has 1048576: 1 too many"),
        (firmware(PACKED, stack=0x20040008), START, "its stack would start at 0x20040008, RAM is 0x20000000 to 0x2004"),
        (firmware(PACKED, stack=0x20000FFC), START, "its stack would start at 0x20000FFC"),
        (firmware(PACKED, entry=START + 0x40), START, "it would start at 0x00010040"),
        (firmware(PACKED, entry=0x101), START, "it would start at 0x00000101, the image is 0x00010000 to "),
        (firmware(PACKED, start=0x10100), 0x10100, "starts at 0x10100, not at a page"),
        (firmware(packed_model(4)), START, r"does not hold the model in .*model.bfe` \(\d+ bytes\)"),
        (b"\1\2\3\4", START, "has 4 bytes, too few for a vector table"),
    ],
)
def test_an_image_that_cannot_run_there_is_refused(
    tmp_path: Path, chip: Chip, image: bytes, start: int, message: str
) -> None:
    """Every hash is right: what is wrong is in the image."""
    exported = write_export(tmp_path / "export", image, start)
    with shared_probe(chip) as probe, pytest.raises(BfedgeError, match=message):
        flash(exported, probe=probe)
    assert chip.routines_run == 0


@pytest.mark.parametrize(
    "text",
    [
        "",
        "garbage\n",
        ":00000001FF\n",
        ":0400000001020304F3\n:00000001FF\n",
        ":0400000001020304F2\n",
        ":02\n:00000001FF\n",
    ],
)
def test_a_damaged_hex_file_is_refused(exported: Exported, chip: Chip, text: str) -> None:
    (exported.folder / "firmware.hex").write_text(text)
    resealed = seal(exported.folder)
    with shared_probe(chip) as probe, pytest.raises(BfedgeError, match=r"Intel HEX|is empty|ends before|too few"):
        flash(resealed, probe=probe)
    assert chip.routines_run == 0


# ----- by Arduino's uploader -----


class SamBa(threading.Thread):
    """The bootloader of an Arduino Zero (SAMD21) on a pseudo-terminal: the chip that bossac was written for."""

    words = {0x0: 0x20007FFC, 0xE000ED00: 0x410CC601, 0x41002018: 0x10010305}  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.server, self.client = pty.openpty()
        tty.setraw(self.client)
        self.port = os.ttyname(self.client)
        self.commands: list[str] = []

    def run(self) -> None:
        while command := self.read_until(b"#"):
            self.answer(command.decode())

    def read_until(self, end: bytes) -> bytes:
        read = b""
        while not read.endswith(end):
            byte = self.read(1)
            if not byte:
                return b""
            read += byte
        return read

    def read(self, count: int) -> bytes:
        try:
            return os.read(self.server, count)
        except OSError:
            return b""

    def answer(self, command: str) -> None:
        self.commands.append(command)
        numbers = [int(number, 16) for number in command[1:-1].split(",") if number]
        if command[0] == "N":
            os.write(self.server, b"\n\r")
        elif command[0] == "V":
            os.write(self.server, b"v2.0 [Arduino:XYZ] Dec 20 2016 15:36:39\n\r")
        elif command[0] in "who":  # read a word, a half, a byte
            size = {"w": 4, "h": 2, "o": 1}[command[0]]
            os.write(self.server, struct.pack("<I", self.words.get(numbers[0], 0))[:size])
        elif command[0] == "S":  # bytes into RAM
            left = numbers[1]
            while left:
                left -= len(self.read(left))

    def close(self) -> None:
        os.close(self.client)
        os.close(self.server)


@pytest.fixture
def samd21() -> Iterator[SamBa]:
    board = SamBa()
    board.start()
    yield board
    board.close()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("bossac") is None, reason="needs bossac (package bossa-cli)")
def test_bossac_with_another_chip_is_refused_before_it_erases(exported: Exported, samd21: SamBa) -> None:
    """The real bossac, and the protocol that it speaks."""
    with pytest.raises(BfedgeError, match=r"does not see an nRF52840 on .*, but: ATSAMD21"):
        flash(exported, port=samd21.port)
    assert samd21.commands
    assert not [command for command in samd21.commands if command[0] in "XYG"]  # erase, write, go


ARDUINO_BOSSAC = """#!/bin/sh
echo "$@" >> "{log}"
echo "Device       : {chip}"
echo "Version      : Arduino Bootloader (SAM-BA extended) 2.0 [Arduino:IKXYZ]"
for last; do :; done
if [ "$last" = -R ]; then
    echo "Write $(wc -c < "{image}") bytes to flash (7 pages)"
    printf '[====] 50%% (3/7 pages)\\r[========] 100%% (7/7 pages)\\n'
    echo "{end}"
    exit {status}
fi
"""


def install_arduino_bossac(exported: Exported, chip: str = "nRF52840-QIAA", end: str = "Done", status: int = 0) -> Path:
    """A stand-in where the Arduino IDE puts its own build, which says what that does. Returns its record of calls."""
    folder = Path(os.environ["HOME"]) / ".arduino15/packages/arduino/tools/bossac/1.9.1-arduino2"
    folder.mkdir(parents=True)
    log = folder / "calls"
    script = ARDUINO_BOSSAC.format(log=log, chip=chip, image=exported.folder / "firmware.bin", end=end, status=status)
    (folder / "bossac").write_text(script)
    (folder / "bossac").chmod(0o755)
    old = folder.parent / "1.7.0-arduino3"
    old.mkdir()
    (old / "bossac").write_text("#!/bin/sh\nexit 9\n")
    return log


def test_bossac_is_asked_for_the_chip_and_then_writes(exported: Exported, samd21: SamBa) -> None:
    log = install_arduino_bossac(exported)
    figures = flash(exported, port=samd21.port)
    image = exported.folder / "firmware.bin"
    assert log.read_text().splitlines() == [
        f"--port={samd21.port} -U -i",
        f"--port={samd21.port} -U -i -e -w {image} -R",
    ]
    assert figures["chip"] == "nRF52840-QIAA"
    assert figures["bytes"] == image.stat().st_size
    assert figures["verified"] is False
    assert f"`bfedge verify {exported.folder} --port <adapter>`" in figures["note"]
    assert "does not speak on the board's own USB" in figures["note"]


def test_bossac_s_own_failure_is_passed_on(exported: Exported, samd21: SamBa) -> None:
    install_arduino_bossac(exported, end="SAM-BA operation failed", status=1)
    with pytest.raises(BfedgeError, match="failed: SAM-BA operation failed"):
        flash(exported, port=samd21.port)


def test_an_image_for_another_place_is_not_given_to_bossac(tmp_path: Path, samd21: SamBa) -> None:
    exported = write_export(tmp_path / "export", firmware(packed_model(), start=0x26000), start=0x26000)
    log = install_arduino_bossac(exported)
    with pytest.raises(BfedgeError, match="starts at 0x26000; Arduino's bootloader puts it at 0x10000"):
        flash(exported, port=samd21.port)
    assert not log.exists()


class Port:
    vid = 0x2341

    def __init__(self, device: str, pid: int, serial_number: str | None = None) -> None:
        self.device = device
        self.pid = pid
        self.serial_number = serial_number


def test_the_board_is_restarted_into_its_bootloader_and_found_on_its_new_port(
    exported: Exported, samd21: SamBa, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = install_arduino_bossac(exported)
    sketch, bootloader = Port(samd21.port, 0x805A), Port("/dev/ttyACM7", 0x005A)
    answers = [[sketch], [sketch], [sketch], [], [bootloader]]
    monkeypatch.setattr(nrf_flash, "nano_ports", lambda: answers.pop(0) if len(answers) > 1 else answers[0])
    assert flash(exported, tool="bossac")["port"] == "/dev/ttyACM7"
    assert all(line.startswith("--port=/dev/ttyACM7 ") for line in log.read_text().splitlines())


@pytest.mark.parametrize("serials", [("A", "B"), (None, None)])
def test_of_two_boards_the_one_that_was_chosen_is_flashed(
    exported: Exported, samd21: SamBa, monkeypatch: pytest.MonkeyPatch, serials: tuple[str | None, str | None]
) -> None:
    """The other one waits in its bootloader all the time, and comes first in the list."""
    install_arduino_bossac(exported)
    mine, other = serials
    waiting = Port("/dev/ttyACM0", 0x005A, other)
    before = [waiting, Port(samd21.port, 0x805A, mine)]
    answers = [before, [waiting], [waiting, Port("/dev/ttyACM7", 0x005A, mine)]]
    monkeypatch.setattr(nrf_flash, "nano_ports", lambda: answers.pop(0) if len(answers) > 1 else answers[0])
    monkeypatch.setattr(nrf_flash, "PORT_POLL_SECONDS", 0.01)
    assert flash(exported, samd21.port)["port"] == "/dev/ttyACM7"


def test_of_two_boards_that_restart_at_once_the_serial_number_tells(
    exported: Exported, samd21: SamBa, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = install_arduino_bossac(exported)
    before = [Port(samd21.port, 0x805A, "A"), Port("/dev/ttyACM1", 0x805A, "B")]
    after = [Port("/dev/ttyACM8", 0x005A, "B"), Port("/dev/ttyACM7", 0x005A, "A")]
    answers = [before, after]
    monkeypatch.setattr(nrf_flash, "nano_ports", lambda: answers.pop(0) if len(answers) > 1 else answers[0])
    monkeypatch.setattr(nrf_flash, "PORT_POLL_SECONDS", 0.01)
    assert flash(exported, samd21.port)["port"] == "/dev/ttyACM7"
    log.unlink()
    for port in before + after:
        port.serial_number = None
    answers[:] = [before, after]
    with pytest.raises(BfedgeError, match=r"2 boards went into their bootloader at once: /dev/ttyACM8, /dev/ttyACM7"):
        flash(exported, samd21.port)
    assert not log.exists()


def test_a_probe_is_not_for_the_other_tools(exported: Exported) -> None:
    for port, tool in (("/dev/ttyACM0", None), (None, "bossac"), (None, "uf2")):
        with pytest.raises(BfedgeError, match="--probe is for pyocd"):
            flash(exported, port, tool, probe="1234")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize("name", ["firmware.hex", "model.bfe"])
def test_a_pipe_in_place_of_a_file_does_not_hang(exported: Exported, chip: Chip, name: str) -> None:
    (exported.folder / name).unlink()
    os.mkfifo(exported.folder / name)
    with shared_probe(chip) as probe, pytest.raises(BfedgeError, match=f"there is no file .*{name}"):
        flash(exported, probe=probe)
    assert chip.routines_run == 0


def test_a_port_that_does_not_open_is_refused(exported: Exported) -> None:
    install_arduino_bossac(exported)
    with pytest.raises(BfedgeError, match="cannot open `/dev/does-not-exist`") as refused:
        flash(exported, port="/dev/does-not-exist")
    assert "reset button twice" in str(refused.value.hint)


def test_a_missing_bossac_is_named_with_its_installation(exported: Exported, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(BfedgeError, match="bossac is not installed") as refused:
        flash(exported, port="/dev/ttyACM0")
    assert "arduino-cli core install arduino:mbed_nano" in str(refused.value.hint)


# ----- by a drive -----

INFO = "UF2 Bootloader 0.6.2 lib/nrfx\nModel: Nano\nBoard-ID: {board}\nDate: Oct 19 2021\nSoftDevice: {softdevice}\n"


@pytest.fixture
def drive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "NANO33BOOT"
    folder.mkdir()
    monkeypatch.setattr(nrf_flash, "find_drives", lambda: [folder])
    return folder


def test_a_drive_gets_the_file(tmp_path: Path, drive: Path) -> None:
    image = firmware(packed_model(), start=0x26000)
    exported = write_export(tmp_path / "export", image, start=0x26000, uf2_start=0x26000)
    (drive / "INFO_UF2.TXT").write_text(INFO.format(board="nRF52840-Nano33-v1", softdevice="S140 version 6.1.1"))
    figures = flash(exported)
    assert (drive / "firmware.uf2").read_bytes() == (exported.folder / "firmware.uf2").read_bytes()
    assert figures["tool"] == "uf2"
    assert f"`bfedge verify {exported.folder} --port <adapter>`" in figures["note"]
    assert figures["bytes"] == len(image)


@pytest.mark.parametrize(
    ("board", "softdevice", "message"),
    [
        ("SAMD21G18A-Zero-v0", "not found", "is `SAMD21G18A-Zero-v0`, the firmware is for the nRF52840"),
        ("nRF52840-Nano33-v1", "S140 version 6.1.1", "starts programs at 0x26000, .* is for 0x10000"),
        ("nRF52840-Nano33-v1", "not found", "starts programs at 0x1000, .* is for 0x10000"),
        ("nRF52840-Nano33-v1", "S999", "starts programs at an unknown address, .* is for 0x10000"),
    ],
)
def test_a_drive_that_would_not_start_the_program_gets_nothing(
    exported: Exported, drive: Path, board: str, softdevice: str, message: str
) -> None:
    (drive / "INFO_UF2.TXT").write_text(INFO.format(board=board, softdevice=softdevice))
    with pytest.raises(BfedgeError, match=message):
        flash(exported, tool="uf2")
    assert [f.name for f in drive.iterdir()] == ["INFO_UF2.TXT"]


def test_a_uf2_file_for_another_chip_is_refused(exported: Exported, drive: Path) -> None:
    image = firmware(packed_model())
    (exported.folder / "firmware.uf2").write_bytes(uf2(START, image, family=0xE48BFF56))
    with pytest.raises(BfedgeError, match="another chip: family 0xE48BFF56, the nRF52840's is 0xADA52840"):
        flash(seal(exported.folder), tool="uf2")
    assert list(drive.iterdir()) == []


def test_an_export_that_does_not_fit_behind_a_uf2_bootloader_says_so(exported: Exported, drive: Path) -> None:
    (exported.folder / "firmware.uf2").unlink()
    with pytest.raises(BfedgeError, match=r"this export has no firmware\.uf2: behind a UF2 bootloader"):
        flash(seal(exported.folder), tool="uf2")
    assert list(drive.iterdir()) == []


def test_drives_are_found_by_their_information(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    for name in ("A", "B"):
        (tmp_path / name).mkdir()
    (tmp_path / "B" / "INFO_UF2.TXT").write_text("")
    monkeypatch.setattr(nrf_flash, "Path", lambda place: tmp_path if str(place) == "/mnt" else Path("/nonexistent"))
    assert nrf_flash.find_drives() == [tmp_path / "B"]


def test_an_export_s_profile_without_flash_is_refused(exported: Exported, chip: Chip) -> None:
    without = replace(exported, profile=msgspec.structs.replace(exported.profile, memories=()))
    with shared_probe(chip) as probe, pytest.raises(BfedgeError, match="has no flash memory"):
        flash(without, probe=probe)
