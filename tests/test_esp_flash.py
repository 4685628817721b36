"""Flashing an ESP32-S3: esptool's own protocol, against a mock of the bootloader in the chip's ROM. The mock runs in a
thread, so that a test can look at its flash and count what reaches it.
"""

from __future__ import annotations

import gc
import hashlib
import json
import os
import shutil
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bfedge.device.compiler import runtime_sources
from bfedge.device.esp_flash import flash
from bfedge.device.partition_table import DATA, TABLE_OFFSET, Partition, find, read_binary, to_binary
from bfedge.device.profile import load_profile
from bfedge.errors import BfedgeError
from bfedge.export.esp_idf import plan_partitions, write_project
from bfedge.packed.golden import golden_vectors
from bfedge.packed.writer import pack
from tests.random_models import random_images, random_lowered

esptool_cmds = pytest.importorskip("esptool.cmds", reason="needs the package esptool")
mock_server = pytest.importorskip("esp32_mock_bootloader.server", reason="needs the package esp32-mock-bootloader")
mock_protocol = pytest.importorskip("esp32_mock_bootloader.protocol")

MIB = 1 << 20
MODEL_OFFSET = 0x110000


class RecordedFlash(mock_server.FlashImage):  # type: ignore[name-defined,misc]
    """4 MiB of flash that counts the writes and can spoil a byte of what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[int] = []
        self.spoil: int | None = None

    def begin_defl(self, payload: bytes) -> None:
        self.writes.append(struct.unpack_from("<IIII", payload)[3])
        super().begin_defl(payload)

    def begin_plain(self, payload: bytes) -> None:
        if struct.unpack_from("<I", payload)[0]:  # esptool ends by beginning a write of nothing
            self.writes.append(struct.unpack_from("<IIII", payload)[3])
        super().begin_plain(payload)

    def read(self, offset: int, length: int) -> bytes:
        data = bytearray(super().read(offset, length))
        if self.spoil is not None and offset <= self.spoil < offset + length:
            data[self.spoil - offset] ^= 0x40
        return bytes(data)


class MockBoard:
    """A chip in its bootloader behind a socket."""

    def __init__(self, chip: str) -> None:
        self.chip = chip
        self.flash = RecordedFlash()
        self.stop = threading.Event()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.settimeout(0.1)
        self.port = f"socket://127.0.0.1:{self.listener.getsockname()[1]}"
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self) -> None:
        while not self.stop.is_set():
            try:
                connection, _ = self.listener.accept()
            except TimeoutError:
                continue
            line = mock_server.BootloaderConnection(sock=connection)
            mock_server.handle_client(line, self.stop, self.chip, exit_on_disconnect=True, flash=self.flash)

    def close(self) -> None:
        self.stop.set()
        self.thread.join(5)
        self.listener.close()

    def content(self, offset: int, size: int) -> bytes:
        return bytes(self.flash.data[offset : offset + size])


@pytest.fixture
def board(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], MockBoard]]:
    """Starts boards."""
    # How long the mock waits for an answer to each piece that it sends: 50 ms is short on a busy machine.
    monkeypatch.setattr(mock_server, "_CLIENT_RECV_TIMEOUT", 2.0)
    boards: list[MockBoard] = []

    def start(chip: str = "esp32s3") -> MockBoard:
        boards.append(MockBoard(chip))
        return boards[-1]

    yield start
    for started in boards:
        started.close()


def program(chip: str = "esp32s3", size: int = 3000) -> bytes:
    """An image of a program, as esptool makes it of an ELF file: one segment of code in RAM."""
    address = {"esp32s3": 0x40374000, "esp32": 0x40080000}[chip]
    code = bytes(i * 7 % 251 for i in range(size))
    names = b"\0.shstrtab\0.text\0".ljust(20, b"\0")
    header, segment = 52, 32
    at = header + segment + len(names)  # of the code
    table = at + len(code)
    sections = [
        (0, 0, 0, 0, 0, 0, 0, 0, 0, 0),
        (1, 3, 0, 0, header + segment, len(names), 0, 0, 1, 0),
        (11, 1, 6, address, at, len(code), 0, 0, 4, 0),
    ]
    identity = b"\x7fELF\x01\x01\x01".ljust(16, b"\0")
    counts = (header, segment, 1, 40, len(sections), 1)
    elf = struct.pack("<16sHHIIIIIHHHHHH", identity, 2, 94, 1, address, header, table, 0, *counts)
    elf += struct.pack("<8I", 1, at, address, address, len(code), len(code), 5, 4) + names + code
    elf += b"".join(struct.pack("<10I", *section) for section in sections)
    return bytes(esptool_cmds.elf2image(elf, chip, flash_size="4MB"))


def packed_model(seed: int = 3, **fixed: Any) -> bytes:
    model = random_lowered(seed, **fixed)
    return pack(model, golden_vectors(model, random_images(model, 2, seed)))


def write_build(project: Path, flash_mib: int = 4) -> None:
    """What `idf.py build` leaves, of a project that has model.bfe."""
    build = project / "build"
    (build / "bootloader").mkdir(parents=True, exist_ok=True)
    (build / "partition_table").mkdir(exist_ok=True)
    (build / "bootloader" / "bootloader.bin").write_bytes(program(size=1000))
    (build / "bfedge_device.bin").write_bytes(program(size=5000))
    partitions = plan_partitions(flash_mib * MIB, (project / "model.bfe").stat().st_size)
    (build / "partition_table" / "partition-table.bin").write_bytes(to_binary(partitions))
    arguments = {
        "write_flash_args": ["--flash_mode", "dio", "--flash_size", f"{flash_mib}MB", "--flash_freq", "80m"],
        "flash_settings": {"flash_mode": "dio", "flash_size": f"{flash_mib}MB", "flash_freq": "80m"},
        "flash_files": {
            "0x0": "bootloader/bootloader.bin",
            "0x10000": "bfedge_device.bin",
            "0x8000": "partition_table/partition-table.bin",
            f"{MODEL_OFFSET:#x}": "../model.bfe",
        },
        "app": {"offset": "0x10000", "file": "bfedge_device.bin", "encrypted": "false"},
        "extra_esptool_args": {"after": "hard_reset", "before": "default_reset", "stub": True, "chip": "esp32s3"},
    }
    (build / "flasher_args.json").write_text(json.dumps(arguments, indent=4))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    profile = load_profile("esp32-s3")
    memories = tuple(
        msgspec.structs.replace(m, bytes=msgspec.structs.replace(m.bytes, value=4 * MIB)) if m.kind == "flash" else m
        for m in profile.memories
    )
    folder = tmp_path_factory.mktemp("esp") / "project"
    packed = packed_model(d_model=48, heads=4, d_ff=96, layers=1, experts=2, top_k=1)
    assert len(packed) > 0x1000  # more than a sector
    write_project(folder, msgspec.structs.replace(profile, memories=memories), packed, runtime_sources())
    write_build(folder)
    return folder


@pytest.fixture
def project(built: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    folder = tmp_path / "project"
    (folder / "build").parent.mkdir()
    shutil.copy(built / "model.bfe", folder)
    shutil.copytree(built / "build", folder / "build")
    return folder


@contextmanager
def refused(words: str, *boards: MockBoard) -> Iterator[None]:
    """The block raises a message that matches, in one line, and writes to no board."""
    with pytest.raises(BfedgeError, match=words) as problem:
        yield
    assert "\n" not in problem.value.message
    assert all(board.flash.writes == [] for board in boards)
    assert all(board.content(0, 4 * MIB) == b"\xff" * (4 * MIB) for board in boards)


Start = Callable[..., MockBoard]


def test_the_whole_project_is_written_and_read_back(built: Path, board: Start, capfd: pytest.CaptureFixture) -> None:
    chip = board()
    steps: list[tuple[str, int, int]] = []
    figures = flash(built, chip.port, progress=lambda *step: steps.append(step))
    assert figures["chip"] == "ESP32-S3"
    assert figures["flash_bytes"] == 4 * MIB
    assert not figures["reset"]  # a socket has no wire for it
    files = {
        0: "bootloader/bootloader.bin",
        0x8000: "partition_table/partition-table.bin",
        0x10000: "bfedge_device.bin",
    }
    files[MODEL_OFFSET] = "../model.bfe"
    assert [f["offset"] for f in figures["files"]] == sorted(files)
    for entry in figures["files"]:
        data = (built / "build" / files[entry["offset"]]).read_bytes()
        assert chip.content(entry["offset"], len(data)) == data
        assert entry["bytes"] == len(data)
        assert entry["sha256"] == hashlib.sha256(data).hexdigest()
    partitions = read_binary(chip.content(TABLE_OFFSET, 0xC00), "in the flash")
    assert find(partitions, "model")
    assert {step[0] for step in steps} >= {"writing model.bfe", "reading model.bfe back"}
    assert all(0 <= done <= total for _, done, total in steps)
    assert "".join(capfd.readouterr()) == ""


@pytest.mark.slow
def test_a_line_that_only_carries_small_pieces_is_read_in_small_pieces(
    built: Path, board: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mock as it comes waits 50 ms for each acknowledgement, in which a socket does not carry the usual 4 KiB."""
    started = board()
    monkeypatch.setattr(mock_server, "_CLIENT_RECV_TIMEOUT", 0.05)
    assert flash(built, started.port)["files"]
    assert flash(built, started.port, model_only=True)["files"]


def test_model_only_replaces_the_model_and_nothing_else(project: Path, board: Start) -> None:
    chip = board()
    flash(project, chip.port)
    before = chip.content(0, MODEL_OFFSET)
    chip.flash.writes.clear()
    model = packed_model(5)
    (project / "model.bfe").write_bytes(model)
    (figures,) = flash(project, chip.port, model_only=True)["files"]
    assert figures == {
        "name": "model.bfe",
        "offset": MODEL_OFFSET,
        "bytes": len(model),
        "sha256": hashlib.sha256(model).hexdigest(),
    }
    assert chip.flash.writes == [MODEL_OFFSET]
    assert chip.content(MODEL_OFFSET, len(model)) == model
    assert chip.content(0, MODEL_OFFSET) == before


@pytest.mark.slow
def test_a_large_model_is_written_and_read_back_in_pieces(project: Path, board: Start) -> None:
    model = pack(random_lowered(4, d_model=128, d_ff=512, heads=4, layers=7, experts=4, top_k=2, rotation_layers=2))
    assert len(model) > 3 << 17
    chip = board()
    (project / "model.bfe").write_bytes(model)
    table = to_binary(plan_partitions(4 * MIB, len(model)))
    chip.flash.data[TABLE_OFFSET : TABLE_OFFSET + len(table)] = table
    flash(project, chip.port, model_only=True)
    assert chip.content(MODEL_OFFSET, len(model)) == model


@pytest.mark.parametrize("chip", ["esp32", "esp32c3", "esp32s2", "esp8266"])
@pytest.mark.parametrize("model_only", [False, True])
def test_another_chip_is_refused_by_its_name(built: Path, board: Start, chip: str, model_only: bool) -> None:
    other = board(chip)
    name = {"esp32": "ESP32", "esp32c3": "ESP32-C3", "esp32s2": "ESP32-S2", "esp8266": "ESP8266"}[chip]
    with refused(f"is an {name}, not an ESP32-S3", other):
        flash(built, other.port, model_only=model_only)


def test_a_damaged_model_is_refused(project: Path, board: Start) -> None:
    chip = board()
    file = project / "model.bfe"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 4
    file.write_bytes(data)
    for model_only in (False, True):
        with refused(r"model\.bfe`: corrupt.*rule V6", chip):
            flash(project, chip.port, model_only=model_only)
    file.unlink()
    with refused(r"cannot read .*model\.bfe", chip):
        flash(project, chip.port)


@pytest.mark.parametrize("place", ["project", "export"])
def test_a_model_that_is_not_the_exported_one_is_refused(project: Path, board: Start, place: str) -> None:
    chip = board()
    name = "model.bfe" if place == "project" else "project/model.bfe"
    folder = project if place == "project" else project.parent
    sha = hashlib.sha256((project / "model.bfe").read_bytes()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps({"files": {name: {"sha256": sha}}}))
    flash(project, board().port, model_only=False)
    (project / "model.bfe").write_bytes(packed_model(5))
    with refused("not the file that was exported", chip):
        flash(project, chip.port, model_only=True)


@pytest.mark.parametrize("name", ["bootloader/bootloader.bin", "bfedge_device.bin"])
def test_a_damaged_program_is_refused(project: Path, board: Start, name: str) -> None:
    chip = board()
    file = project / "build" / name
    good = file.read_bytes()
    for at, words in ((0, "no valid program"), (200, "damaged: its checksum"), (len(good) - 1, "damaged: its SHA-256")):
        spoilt = bytearray(good)
        spoilt[at] ^= 0x10
        file.write_bytes(spoilt)
        with refused(words, chip):
            flash(project, chip.port)
    for length in (0, 10, 100, len(good) - 33, len(good) - 1):
        file.write_bytes(good[:length])
        with refused("no valid program|damaged", chip):
            flash(project, chip.port)


def test_a_program_for_another_chip_or_revision_is_refused(project: Path, board: Start) -> None:
    chip = board()
    file = project / "build" / "bfedge_device.bin"
    file.write_bytes(program("esp32"))
    with refused("is a program for ESP32, not for ESP32-S3", chip):
        flash(project, chip.port)
    newer = bytearray(program())
    struct.pack_into("<H", newer, 15, 102)  # the first revision that it can run on, in hundredths
    file.write_bytes(newer[:-32] + hashlib.sha256(newer[:-32]).digest())
    with refused(r"has revision 0\.00, `bfedge_device\.bin` is for 1\.02 to", chip):
        flash(project, chip.port)


def test_a_build_that_is_not_whole_is_refused(project: Path, board: Start) -> None:
    chip = board()
    arguments = project / "build" / "flasher_args.json"
    good = json.loads(arguments.read_text())

    def change(**files: str | None) -> None:
        merged = {**good["flash_files"], **files}
        arguments.write_text(json.dumps({**good, "flash_files": {k: v for k, v in merged.items() if v}}))

    for files, words in (
        ({"0x8000": None}, "lists no partition table at 0x8000"),
        ({f"{MODEL_OFFSET:#x}": None}, "does not write `model.bfe`"),
        ({"0x10000": "absent.bin"}, "cannot read .*absent"),
        ({"0x7fe0": "bfedge_device.bin"}, "would reach into `partition-table.bin` at 0x8000"),
        ({"0x3fff000": "bfedge_device.bin"}, "there is no partition"),
        ({"0x9000": "bfedge_device.bin", "0x10000": "bootloader/bootloader.bin"}, None),
        ({"0xf000": "bfedge_device.bin"}, "has 5072 bytes, partition `phy_init` 4096"),
    ):
        change(**files)
        if words:
            with refused(words, chip):
                flash(project, chip.port)
    for text in (
        "",
        "[]",
        '{"flash_files": 3}',
        '{"flash_files": {"x": "y"}, "flash_settings": {"flash_size": "4MB"}}',
    ):
        arguments.write_text(text)
        with refused("not what ESP-IDF writes", chip):
            flash(project, chip.port)
    arguments.unlink()
    with refused("is not built", chip):
        flash(project, chip.port)


def test_a_damaged_partition_table_of_the_build_is_refused(project: Path, board: Start) -> None:
    chip = board()
    file = project / "build" / "partition_table" / "partition-table.bin"
    table = bytearray(file.read_bytes())
    table[8] ^= 1
    file.write_bytes(table)
    with refused("the partition table in `partition-table.bin` is damaged", chip):
        flash(project, chip.port)


def test_a_board_with_less_flash_than_the_project_is_for_is_refused(project: Path, board: Start) -> None:
    chip = board()
    write_build(project, flash_mib=8)
    with refused(rf"has {4 * MIB} bytes, the project is for {8 * MIB}", chip):
        flash(project, chip.port)


@pytest.mark.parametrize(
    ("partitions", "words"),
    [
        (None, "no partition table on the board .*: the flash is empty there"),
        ([Partition("factory", 0, 0, 0x10000, MIB)], "no partition `model`; there are: factory"),
        ([Partition("model", DATA, 0x40, 0x20000, 0x1000)], r"the model has \d+ bytes, partition `model` .* 4096"),
        ([Partition("model", DATA, 0x40, 0x3FF000, MIB)], r"the model has \d+ bytes, partition `model` .* 4096"),
        ([Partition("model", 0, 0x10, 0x20000, MIB)], "has type 0x0 and subtype 0x10, not 0x1 and 0x40"),
        ([Partition("model", DATA, 0x40, 0, MIB)], "before the end of the partition table"),
    ],
)
def test_model_only_needs_a_board_with_room_for_the_model(
    built: Path, board: Start, partitions: list[Partition] | None, words: str
) -> None:
    chip = board()
    if partitions:
        table = to_binary(partitions)
        chip.flash.data[TABLE_OFFSET : TABLE_OFFSET + len(table)] = table
    before = chip.content(0, 4 * MIB)
    with pytest.raises(BfedgeError, match=words) as problem:
        flash(built, chip.port, model_only=True)
    assert "without --model-only" in str(problem.value.hint)
    assert "\n" not in problem.value.message
    assert chip.flash.writes == []
    assert chip.content(0, 4 * MIB) == before


@pytest.mark.parametrize(
    ("address", "bits", "words"), [(0x60007038, 1 << 20, "secure boot"), (0x60007034, 1 << 18, "flash encryption")]
)
def test_a_chip_whose_fuses_forbid_plain_images_is_refused(
    built: Path, board: Start, monkeypatch: pytest.MonkeyPatch, address: int, bits: int, words: str
) -> None:
    chip = board()
    monkeypatch.setattr(mock_server.registers, "read_reg_value", lambda _, at: bits if at == address else 0)
    with refused(f"has {words} fused on", chip):
        flash(built, chip.port)


def test_flash_that_does_not_keep_what_is_written_is_noticed(built: Path, board: Start) -> None:
    chip = board()
    chip.flash.spoil = MODEL_OFFSET + 1000
    with pytest.raises(BfedgeError, match=r"does not hold what was written: `model\.bfe` differs at byte 1000 of"):
        flash(built, chip.port)


# pyserial does not close a socket whose other end has gone; Python does, and warns.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_line_that_breaks_while_writing_ends_in_one_line(
    built: Path, board: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    chip = board()

    def break_line(self: RecordedFlash, payload: bytes) -> None:
        chip.stop.set()

    monkeypatch.setattr(RecordedFlash, "write_defl_block", break_line)
    with pytest.raises(BfedgeError, match=r"the line to the board .* failed while writing bootloader\.bin") as problem:
        flash(built, chip.port)
    assert "\n" not in problem.value.message
    assert "flash again" in str(problem.value.hint)
    del problem
    gc.collect()


def test_a_port_that_is_absent_busy_or_silent_ends_in_one_line(built: Path, tmp_path: Path) -> None:
    with refused("there is no port `/dev/no-such-port`"):
        flash(built, "/dev/no-such-port")
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with refused(f"nobody listens on `socket://127.0.0.1:{port}`"):
        flash(built, f"socket://127.0.0.1:{port}")
    with refused("`socket://board` does not say which TCP port"):
        flash(built, "socket://board")
    with refused("cannot open `not a url://`"):
        flash(built, "not a url://")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize("name", ["model.bfe", "build/bootloader/bootloader.bin"])
def test_a_pipe_in_place_of_a_file_does_not_hang(project: Path, name: str) -> None:
    (project / name).unlink()
    os.mkfifo(project / name)
    with refused(f"{Path(name).name}` is not a file"):
        flash(project, "socket://127.0.0.1:1")


@pytest.mark.slow
def test_a_silent_port_ends_in_one_line(built: Path, capfd: pytest.CaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, refused("no ESP32 answers on"):
        flash(built, f"socket://127.0.0.1:{silent.getsockname()[1]}")
    assert "".join(capfd.readouterr()) == ""


@pytest.mark.skipif(os.name != "posix", reason="needs pseudo terminals")
def test_a_serial_port_in_use_is_refused(built: Path) -> None:
    import serial

    master, slave = os.openpty()
    try:
        with serial.Serial(os.ttyname(slave), exclusive=True), refused("is in use by another program"):
            flash(built, os.ttyname(slave))
    finally:
        os.close(master)
        os.close(slave)


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="needs pseudo terminals")
def test_a_serial_port_works_as_a_socket_does(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mock_server, "_CLIENT_RECV_TIMEOUT", 2.0)
    image = RecordedFlash()
    stop = threading.Event()
    terminal = mock_server.PtyMasterTransport.create()
    line = mock_server.BootloaderConnection(pty=terminal)
    thread = threading.Thread(
        target=mock_server.handle_client,
        args=(line, stop, "esp32s3"),
        kwargs={"exit_on_disconnect": True, "flash": image},
        daemon=True,
    )
    thread.start()
    try:
        figures = flash(built, terminal.client_path)
    finally:
        stop.set()
        thread.join(5)
        terminal.close()
    assert figures["reset"]
    model = (built / "model.bfe").read_bytes()
    assert bytes(image.data[MODEL_OFFSET : MODEL_OFFSET + len(model)]) == model
