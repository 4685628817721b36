"""The verbs that talk to boards, through the command line: this machine, SSH, emulators, and programs behind a TCP
socket, which are honest or lie.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import socket
import subprocess
import threading
import zlib
from collections.abc import Callable, Iterator
from importlib import util
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from bfedge.cli import main
from bfedge.device.board import emulated_firmware
from bfedge.device.emulator import emulator_command
from bfedge.device.exported import read_exported
from bfedge.device.host import usable_kernels
from bfedge.device.profile import load_profile
from bfedge.export.folder import Source, export_folder
from bfedge.packed.writer import pack
from tests.boards import scripted
from tests.random_models import random_images, random_lowered
from tests.ssh_server import Server, needs_sshd

pytest.importorskip("serial", reason="needs pyserial (`pip install pyserial`)")
pytest.importorskip("onnx", reason="needs onnx (`pip install onnx`)")

Members = dict[str, Any]
Lie = Callable[[Members], Members]

needs_qemu_arm = pytest.mark.skipif(shutil.which("qemu-system-arm") is None, reason="needs qemu-system-arm")


class Result(NamedTuple):
    status: int
    out: str
    err: str

    def json(self) -> Any:
        assert self.status == 0, self
        return json.loads(self.out)


Run = Callable[..., Result]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    """`bfedge ARGUMENTS` in this process."""

    def call(*arguments: object) -> Result:
        capfd.readouterr()
        return Result(main.run([str(a) for a in arguments]), *capfd.readouterr())

    return call


def complaint(result: Result) -> str:
    """Exit status 1, one `error:` line and at most one `hint:` line; returns the first."""
    assert (result.status, result.out) == (1, ""), result
    lines = result.err.splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    assert len(errors) == 1, result.err
    assert "Traceback" not in result.err
    return errors[0]


def export(folder: Path, target: str) -> Path:
    """An export of a random model; read it, do not change it."""
    model = random_lowered(5)
    source = folder / "random.bfe"
    source.write_bytes(pack(model))
    out = folder / target
    export_folder(model, random_images(model, 3, 5), Source(source, "noise"), out, load_profile(target))
    return out


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(tmp_path_factory.mktemp("export"), "host")


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    made = Server(tmp_path)
    monkeypatch.setenv("BFEDGE_SSH", made.client)
    made.start()
    yield made
    made.stop()


# ----- this machine and SSH -----


def test_bench_on_this_machine_gives_milliseconds(run: Run, exported: Path) -> None:
    found = run("bench", exported, "--runs", 7, "--json").json()
    assert (found["verb"], found["target"], found["unit"], found["runs"]) == ("bench", "host", "ms", 7)
    assert 0 < found["fastest"] <= found["median"] <= found["slowest"] < 1000
    shown = run("bench", exported, "--runs", 7)
    assert shown.status == 0
    assert "7 inferences" in shown.out
    assert "ms" in shown.out


@pytest.mark.parametrize("kernels", usable_kernels())
def test_kernels_and_threads_can_be_chosen(run: Run, exported: Path, kernels: str) -> None:
    """The plan, the program's own statement and what it used are those of the choice."""
    options = ("--kernels", kernels, "--threads", 2)
    verified = run("verify", exported, *options, "--json").json()
    assert verified["passed"], verified
    hello = run("profile", exported, *options, "--json").json()["hello"]
    assert (hello["kernels"], hello["workers"]) == (kernels, 2)
    assert run("bench", exported, *options, "--runs", 3, "--json").json()["hello"]["kernels"] == kernels


def test_kernels_that_a_board_does_not_have_are_refused_by_it(run: Run, exported: Path) -> None:
    message = complaint(run("bench", exported, "--kernels", "avx9"))
    assert "avx9: no kernels for this processor have this name" in message


def test_a_microcontroller_has_no_threads_to_choose(run: Run, tmp_path: Path) -> None:
    nano = export(tmp_path, "nano33-ble")
    for options in (["--threads", "2"], ["--kernels", "c"]):
        message = complaint(run("profile", nano, *options, "--port", "socket://127.0.0.1:1"))
        assert message == f"error: {options[0]} cannot be chosen on nano33-ble"


@needs_sshd
def test_a_board_behind_ssh_is_flashed_verified_profiled_and_timed(run: Run, exported: Path, server: Server) -> None:
    flashed = run("flash", exported, "--host", server.host, "--json").json()
    checksum = json.loads((exported / "manifest.json").read_text())["files"]["model.bfe"]["sha256"]
    assert flashed["folder_on_board"] == str(server.cache / f"host-{checksum[:8]}")
    assert (Path(flashed["folder_on_board"]) / "model.bfe").read_bytes() == (exported / "model.bfe").read_bytes()
    verified = run("verify", exported, "--host", server.host, "--json").json()
    names = [check["name"] for check in verified["checks"] if check["name"].startswith("board")]
    assert verified["passed"]
    assert {"board, golden vectors", "board, stages", "board, workspace", "board, test images"} <= set(names)
    assert "over SSH" in run("profile", exported, "--host", server.host, "--json").json()["where"]
    assert run("bench", exported, "--host", server.host, "--runs", 3, "--json").json()["runs"] == 3
    assert len(list(server.cache.iterdir())) == 1


@needs_sshd
@pytest.mark.parametrize("verb", ["flash", "verify", "profile", "bench"])
@pytest.mark.parametrize("name", ["bfedge-device", "model.bfe"])
def test_a_file_that_was_changed_after_the_export_does_not_reach_a_board(
    run: Run, exported: Path, server: Server, tmp_path: Path, verb: str, name: str
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(exported, copy)
    with open(copy / name, "ab") as file:
        file.write(b"\0")
    result = run(verb, copy, "--host", server.host)
    assert result.status == 1
    assert "SHA-256" in result.err + result.out or "model.bfe" in result.err
    assert "Traceback" not in result.err
    assert not server.cache.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--host", "board", "--tool", "bossac"], "--tool and --probe are not for the host"),
        (["--host", "board", "--probe", "1234"], "--tool and --probe are not for the host"),
        (["--host", "board", "--port", "/dev/ttyACM0"], "the host is not flashed by a serial port"),
        ([], "this machine needs no flashing"),
    ],
)
def test_what_flash_cannot_use_is_refused(run: Run, exported: Path, arguments: list[str], message: str) -> None:
    assert message in complaint(run("flash", exported, *arguments))


# ----- programs behind a socket -----


class Behind:
    """Starts a program for each connection, with the socket as its stdin; what it answers goes through `lie`."""

    def __init__(self, command: list[str], lie: Lie | None) -> None:
        self.command = command
        self.lie = lie
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.settimeout(0.1)
        self.stopped = False
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    @property
    def port(self) -> str:
        return f"socket://127.0.0.1:{self.listener.getsockname()[1]}"

    def serve(self) -> None:
        while not self.stopped:
            with contextlib.suppress(TimeoutError):
                connection, _ = self.listener.accept()
                with connection:
                    connection.settimeout(None)
                    self.answer(connection)

    def answer(self, connection: socket.socket) -> None:
        output = subprocess.PIPE if self.lie else connection
        with subprocess.Popen(self.command, stdin=connection, stdout=output, stderr=subprocess.DEVNULL) as process:
            for line in process.stdout or ():
                with contextlib.suppress(OSError):
                    connection.sendall(self.told(line))
            process.wait(20)

    def told(self, line: bytes) -> bytes:
        members = json.loads(line)
        del members["check"]
        assert self.lie
        members = {"version": members.pop("bfedge"), "number": members.pop("id"), **members}
        members["kind"] = members.pop("type")
        changed = self.lie(members)
        return scripted.line(**changed) if changed else b""

    def close(self) -> None:
        self.stopped = True
        self.thread.join(20)
        self.listener.close()
        assert not self.thread.is_alive()


@contextlib.contextmanager
def behind(command: list[str], lie: Lie | None = None) -> Iterator[str]:
    """The board's --port."""
    server = Behind(command, lie)
    try:
        yield server.port
    finally:
        server.close()


def program(exported: Path) -> list[str]:
    return [str(exported / "bfedge-device"), str(exported / "model.bfe")]


def test_a_board_behind_a_socket_is_verified_profiled_and_timed(run: Run, exported: Path) -> None:
    with behind(program(exported)) as port:
        verified = run("verify", exported, "--port", port, "--json").json()
        assert verified["passed"]
        images = next(check for check in verified["checks"] if check["name"] == "board, test images")
        assert images["images"] > 0
        assert images["differing_images"] == 0
        profiled = run("profile", exported, "--port", port, "--json").json()
        assert [stage["name"] for stage in profiled["stages"]][:2] == ["embed", "block 0 attention"]
        assert profiled["workspace_used"] == profiled["workspace_stated"]
        timed = run("bench", exported, "--port", port, "--runs", 5, "--json").json()
        assert (timed["unit"], timed["runs"]) == ("ms", 5)


def when(kind: str, change: Callable[[Members], object], golden: bool | None = None) -> Lie:
    """Changes the answers of a kind; results of golden cases or of images only, if so said."""

    def lie(members: Members) -> Members:
        if members["kind"] == kind and golden in (None, members.get("case") is not None):
            change(members)
        return members

    return lie


def with_logits(change: Callable[[str], str]) -> Callable[[Members], None]:
    """Changes the logits, and their checksum so that it fits."""

    def apply(members: Members) -> None:
        members["logits"] = change(members["logits"]) or None
        words = bytes.fromhex(members["logits"] or "")
        little_endian = b"".join(words[at : at + 4][::-1] for at in range(0, len(words), 4))
        members["crc32"] = f"{zlib.crc32(little_endian):08x}"

    return apply


def all_of(*lies: Lie) -> Lie:
    def lie(members: Members) -> Members:
        for one in lies:
            members = one(members)
        return members

    return lie


def only_embed_and_logits(members: Members) -> Members:
    return {} if members.get("stage") in ("attention", "experts") else members


def flip_last_bit(words: str) -> str:
    return words[:-1] + f"{int(words[-1], 16) ^ 1:x}"


fewer_logits = when("result", with_logits(lambda words: words[8:]), golden=False)

LIES: dict[str, tuple[Lie, str]] = {
    "newer protocol": (when("hello", lambda m: m.update(version=2)), "speaks protocol 2, this bfedge speaks 1"),
    "older protocol": (when("hello", lambda m: m.update(version=0)), "speaks protocol 0, this bfedge speaks 1"),
    "other board": (when("hello", lambda m: m.update(board="nano33-ble")), "was built for nano33-ble, not for host"),
    "other model": (when("hello", lambda m: m["model"].update(crc32="01234567")), "with CRC 01234567"),
    "no model": (when("hello", lambda m: m.update(model=None)), "there is no model on the board"),
    "wrong logits": (when("result", with_logits(flip_last_bit), golden=False), "board, test images: .* images differ"),
    "wrong golden": (when("result", lambda m: m.update(crc32="01234567"), golden=True), "cases differ"),
    "fewer logits": (fewer_logits, r"there are \d+ logits, its model has \d+ classes"),
    "more logits": (
        when("result", with_logits(lambda words: words + words[:8]), golden=False),
        r"there are \d+ logits, its model has \d+ classes",
    ),
    "no logits": (when("result", with_logits(lambda _: ""), golden=False), "there are no logits"),
    "fewer classes": (
        all_of(fewer_logits, when("hello", lambda m: m["model"].update(classes=m["model"]["classes"] - 1))),
        "FAIL",
    ),
    "missing stages": (only_embed_and_logits, "stages are missing"),
    "wrong stage": (when("stage", lambda m: m.update(crc32="01234567")), "board, stages: they differ from embed"),
    "workspace": (
        when("profile", lambda m: m["workspace"].update(used=m["workspace"]["used"] - 16)),
        "FAIL board, workspace: planned",
    ),
    "overwritten": (when("profile", lambda m: m["workspace"].update(intact=False)), "overwritten"),
    "stack": (when("profile", lambda m: m["stack"].update(run=100_000)), "FAIL board, stack"),
}
OF_PROFILE = {"newer protocol", "older protocol", "other board", "other model", "no model", "missing stages"}
OF_BENCH = {"newer protocol", "older protocol", "other board", "other model", "no model"}


@pytest.mark.parametrize("name", list(LIES))
def test_a_board_that_lies_is_not_verified(run: Run, exported: Path, name: str) -> None:
    lie, message = LIES[name]
    with behind(program(exported), lie) as port:
        result = run("verify", exported, "--port", port, "--images", 3)
    assert result.status == 1, result
    failed = [line for line in result.out.splitlines() if line.startswith("FAIL ")]
    assert len(failed) == 1, result
    assert re.search(message, " ".join(result.out.split())), result.out
    assert "Traceback" not in result.err


@pytest.mark.parametrize(
    ("verb", "name"),
    [*(("profile", name) for name in sorted(OF_PROFILE)), *(("bench", name) for name in sorted(OF_BENCH))],
)
def test_a_board_that_lies_is_not_measured(run: Run, exported: Path, verb: str, name: str) -> None:
    lie, message = LIES[name]
    with behind(program(exported), lie) as port:
        assert re.search(message, complaint(run(verb, exported, "--port", port)))


NOT_AS_PLANNED: dict[str, tuple[Lie, str]] = {
    "workspace used": (LIES["workspace"][0], r"workspace, as it is used: planned [\d,]+ bytes, measured"),
    "workspace stated": (
        when("profile", lambda m: m["workspace"].update(stated=m["workspace"]["stated"] + 16)),
        "workspace, as the runtime states it: planned",
    ),
    "stack": (LIES["stack"][0], r"stack of bfe_run: planned at most [\d,]+ bytes, measured 100,000"),
    "weights": (
        when("stage", lambda m: m.update(model_bytes=m["model_bytes"] + 1)),
        "weights read, embed: planned .* weights read, logits: planned",
    ),
    "rearranged weights": (
        when("hello", lambda m: m.update(prepared=m["prepared"] + 64)),
        "rearranged weights: planned",
    ),
    "too many workers": (when("hello", lambda m: m.update(workers=2**40)), "Expected `int` <= 64"),
    "no worker": (when("hello", lambda m: m.update(workers=0)), "Expected `int` >= 1"),
    "weights in place": (
        when("hello", lambda m: m.update(prepared=0)),
        "workspace, as the runtime states it: planned",
    ),
    "other stages": (
        when("stage", lambda m: m.update(block=None if m["block"] is None else m["block"] + 7)),
        "stages",
    ),
}


@pytest.mark.parametrize("name", list(NOT_AS_PLANNED))
def test_a_difference_between_plan_and_board_is_an_error(run: Run, exported: Path, name: str) -> None:
    lie, message = NOT_AS_PLANNED[name]
    with behind(program(exported), lie) as port:
        result = run("profile", exported, "--port", port)
    assert result.status == 1
    assert re.search(message, " ".join(result.err.split())), result
    assert "Traceback" not in result.err


def test_a_board_that_is_as_planned_is_said_to_be(run: Run, exported: Path) -> None:
    with behind(program(exported)) as port:
        found = run("profile", exported, "--port", port, "--json").json()
        shown = run("profile", exported, "--port", port).out
    compared = {c["what"]: c for c in found["against_plan"]}
    assert all(c["agrees"] for c in compared.values())
    for stage in found["stages"]:
        assert compared[f"weights read, {stage['name']}"]["planned"] == stage["model_bytes"] > 0
    assert compared["workspace, as it is used"]["measured"] == found["workspace_used"]
    assert "weights read are those planned in each of" in shown
    assert "DIFFERS" not in shown


@pytest.mark.parametrize("verb", ["profile", "bench", "verify"])
def test_a_board_that_says_nothing_is_given_up(run: Run, exported: Path, verb: str) -> None:
    with behind(program(exported), lambda members: {}) as port:
        result = run(verb, exported, "--port", port, "--timeout", 1)
    assert result.status == 1
    said = " ".join(result.out.split()) if verb == "verify" else complaint(result)
    assert f"the board on {port} says nothing (1 s)" in said


@pytest.mark.parametrize("verb", ["profile", "bench", "verify"])
def test_a_port_without_a_number_is_one_clear_line(run: Run, exported: Path, verb: str) -> None:
    result = run(verb, exported, "--port", "socket://board")
    assert result.status == 1
    assert "`socket://board` does not say which TCP port" in " ".join((result.out + result.err).split())


# ----- emulated boards -----


@pytest.fixture(scope="module")
def nano(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("arm-none-eabi-gcc") is None:
        pytest.skip("needs arm-none-eabi-gcc (Debian: gcc-arm-none-eabi)")
    return export(tmp_path_factory.mktemp("nano"), "nano33-ble")


@needs_qemu_arm
@pytest.mark.slow
def test_bench_in_an_emulator_counts_instructions_and_the_same_again(run: Run, nano: Path) -> None:
    first, second = (run("bench", nano, "--emulate", "--runs", 2, "--json").json() for _ in range(2))
    assert first["unit"] == "instructions"
    assert first["median"] > 10_000
    assert [first[k] for k in ("runs", "median", "fastest", "slowest")] == [
        second[k] for k in ("runs", "median", "fastest", "slowest")
    ]


@needs_qemu_arm
@pytest.mark.slow
def test_firmware_behind_a_socket_is_verified_and_profiled(run: Run, nano: Path, tmp_path: Path) -> None:
    read = read_exported(nano)
    command = emulator_command(read.profile, emulated_firmware(read, tmp_path / "firmware.elf"))
    with behind(command) as port:
        verified = run("verify", nano, "--port", port, "--images", 2, "--json").json()
        assert verified["passed"]
        assert "board, test images" in [check["name"] for check in verified["checks"]]
        profiled = run("profile", nano, "--port", port, "--json").json()
        assert profiled["hello"]["board"] == "nano33-ble"
        flash = next(c for c in profiled["against_plan"] if c["what"] == "flash of program and model")
        assert flash["planned"] == flash["measured"] == (nano / "firmware.bin").stat().st_size
        assert "no clock" in complaint(run("bench", nano, "--port", port, "--runs", 2))
    lie, message = LIES["workspace"]
    with behind(command, lie) as port:
        result = run("verify", nano, "--port", port, "--images", 1)
    assert result.status == 1
    assert message in result.out


# ----- a debug probe -----


@pytest.mark.skipif(util.find_spec("pyocd") is None, reason="needs pyocd (`pip install pyocd`)")
def test_a_probe_is_chosen_by_its_id(run: Run, nano: Path) -> None:
    assert "no debug probe `no-such-probe` is connected" in complaint(run("flash", nano, "--probe", "no-such-probe"))
    assert "--probe is for pyocd" in complaint(run("flash", nano, "--probe", "1", "--tool", "bossac"))
