"""`bfedge doctor`: what it finds, what it says of what it does not, and its exit status."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import sys
import time
from importlib import metadata, util
from pathlib import Path
from typing import Any

import pytest

from bfedge.cli import main
from bfedge.device import doctor
from bfedge.device.doctor import PACKAGES, PROGRAMS, Inventory, Tool, needs, report, take_inventory, version_in
from bfedge.device.profile import known_profiles, load_profile

PROFILES = known_profiles()


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all of PATH, with nothing in it; the home folder is empty, too."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("IDF_PATH", raising=False)
    return folder


@pytest.fixture
def no_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    install_only(monkeypatch)


def install_only(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """As if of all Python packages only these were installed."""

    def version(name: str) -> str:
        if name not in names:
            raise metadata.PackageNotFoundError(name)
        return "1.0"

    monkeypatch.setattr(metadata, "version", version)


def put(shelf: Path, name: str, script: str) -> None:
    program = shelf / name
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)


def answer(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, Any]:
    capsys.readouterr()
    status = main.run(["doctor", *arguments, "--json"])
    return status, json.loads(capsys.readouterr().out)


def all_present() -> Inventory:
    return {name: Tool(name, True, "1.0", "") for name in (*PACKAGES, *PROGRAMS)}


def without(*names: str) -> Inventory:
    return {**all_present(), **{name: Tool(name, False, None, f"get {name}") for name in names}}


def steps(target: str, inventory: Inventory) -> dict[str, bool]:
    return {step.name: step.ready for step in report(load_profile(target), inventory).steps}


@pytest.mark.parametrize("profile", PROFILES, ids=lambda p: p.name)
def test_every_tool_that_a_board_needs_has_a_command_that_installs_it(profile: Any) -> None:
    named = {tool for groups in needs(profile).values() for group in groups for tool in group}
    assert named <= {*PACKAGES, *PROGRAMS}
    assert all(group for groups in needs(profile).values() for group in groups)
    if profile.emulate:  # the table and the profile say the same
        assert PROGRAMS[profile.emulate.program] == f"sudo apt-get install {profile.emulate.package}"


def test_all_is_ready_where_all_is_installed() -> None:
    for profile in PROFILES:
        found = report(profile, all_present())
        assert found.buildable
        assert all(step.ready for step in found.steps)
    assert set(steps("host", all_present())) == {"build"}
    assert set(steps("pi", all_present())) == {"build", "emulate", "talk"}
    assert set(steps("nano33", all_present())) == {"build", "emulate", "flash", "talk"}


def test_one_of_several_tools_is_enough() -> None:
    assert steps("jetson", without("ziglang"))["build"]
    assert steps("jetson", without("aarch64-linux-gnu-gcc"))["build"]
    assert not steps("jetson", without("ziglang", "aarch64-linux-gnu-gcc"))["build"]
    assert steps("nano33", without("pyocd"))["flash"]
    assert steps("host", without("cc", "gcc", "clang"))["build"]
    assert not steps("host", without("onnx"))["build"]


def test_what_cannot_be_built_cannot_be_emulated() -> None:
    assert not steps("pi-zero", without("ziglang"))["emulate"]
    assert not steps("pi-zero", without("qemu-arm"))["emulate"]
    assert steps("esp32", without("idf.py")) == {"build": False, "emulate": True, "flash": True, "talk": True}
    assert not report(load_profile("esp32"), without("idf.py", "xtensa-lx106-elf-gcc")).buildable


def test_versions_are_those_of_the_tools(capsys: pytest.CaptureFixture[str]) -> None:
    status, found = answer(capsys)
    assert status == 0
    assert set(found["tools"]) == {*PACKAGES, *PROGRAMS}
    assert found["tools"]["onnx"] == {
        "present": True, "version": metadata.version("onnx"), "install": 'pip install "bfedge[onnx]"'
    }  # fmt: skip
    assert {target["name"] for target in found["targets"]} == {profile.name for profile in PROFILES}
    for name in ("gcc", "qemu-arm", "ssh"):
        assert found["tools"][name]["present"] == bool(shutil.which(name))
    if shutil.which("gcc"):
        said = subprocess.run(["gcc", "-dumpfullversion"], capture_output=True, text=True, check=True).stdout.strip()
        assert found["tools"]["gcc"]["version"] == said


def test_version_numbers_are_found_in_what_programs_say() -> None:
    assert version_in("qemu-arm version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)\nCopyright (c) 2003-2022") == "7.2.22"
    assert version_in("arm-none-eabi-gcc (15:12.2.rel1-1) 12.2.1 20221205\n") == "12.2.1"
    assert version_in("OpenSSH_9.2p1 Debian-2+deb12u10, OpenSSL 3.0.19 27 Jan 2026") == "9.2p1"
    assert version_in("ESP-IDF v5.3.1-dirty") == "5.3.1-dirty"
    assert version_in("no number here, not in (1.2) either") is None


def test_an_empty_machine_is_told_every_command(
    shelf: Path, no_packages: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run(["doctor"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    lines = out.splitlines()
    for command in (
        'pip install "bfedge[devices]"   (or aarch64-linux-gnu-gcc)',
        'pip install "bfedge[devices]"',
        "sudo apt-get install qemu-user",
        "sudo apt-get install qemu-system-arm",
        "sudo apt-get install qemu-system-misc",
        "sudo apt-get install gcc-xtensa-lx106",
        "sudo apt-get install openssh-client",
    ):
        assert command in lines
    assert "  to emulate jetson-nano, raspberry-pi-3, raspberry-pi-4, raspberry-pi-5, raspberry-pi-zero" in lines
    assert "  to talk to esp32-s3, nano33-ble" in lines
    assert not re.search("[\x00-\x09\x0b-\x1f]", out)  # no colours where there is no terminal


@pytest.mark.parametrize("target", [profile.name for profile in PROFILES])
def test_a_target_that_cannot_be_built_is_exit_1(
    target: str, shelf: Path, no_packages: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run(["doctor", target]) == 1
    out, err = capsys.readouterr()
    assert target in out
    assert len(err.splitlines()) == 2
    assert err.startswith(f"error: nothing can be built for {target}: ")
    assert "\nhint: " in err
    status, found = answer(capsys, target)
    assert status == 1
    assert [(t["name"], t["buildable"]) for t in found["targets"]] == [(target, False)]
    assert found["targets"][0]["steps"]["build"]["missing"]


def test_a_target_that_can_be_built_is_exit_0_whatever_else_is_missing(
    shelf: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install_only(monkeypatch, "pyelftools", "intelhex")
    put(shelf, "arm-none-eabi-gcc", 'echo "arm-none-eabi-gcc (15:12.2) 12.2.1"')
    status, found = answer(capsys, "nano33")
    assert status == 0
    assert found["tools"]["arm-none-eabi-gcc"]["version"] == "12.2.1"
    (target,) = found["targets"]
    assert {name: step["ready"] for name, step in target["steps"].items()} == {
        "build": True, "emulate": False, "flash": False, "talk": False
    }  # fmt: skip
    assert target["steps"]["emulate"]["missing"] == [["qemu-system-arm"]]
    assert target["steps"]["emulate"]["install"] == [["sudo apt-get install qemu-system-arm"]]


def test_programs_that_do_not_start_or_do_not_end_count_as_missing(
    shelf: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    install_only(monkeypatch, "onnx", "onnxruntime")
    monkeypatch.setattr(doctor, "VERSION_SECONDS", 1)
    (shelf / "cc").write_bytes(b"\x7fELF of another machine")
    (shelf / "cc").chmod(0o755)
    put(shelf, "gcc", "exec /bin/sleep 60")
    put(shelf, "clang", "cat; echo 'no version'; exit 3")  # and reads what is not there
    start = time.monotonic()
    status, found = answer(capsys, "host")
    assert time.monotonic() - start < 10
    tools = {
        name: (found["tools"][name]["present"], found["tools"][name]["version"]) for name in ("cc", "gcc", "clang")
    }
    assert tools == {"cc": (False, None), "gcc": (False, None), "clang": (True, None)}
    assert status == 0


def test_garbage_instead_of_a_version_does_no_harm(shelf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(shelf, "cc", r"printf '\377\376\000\033[31m 1.2.3\n'")
    assert main.run(["doctor"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^cc +1\.2\.3 *$", out, re.MULTILINE)
    assert "\x1b" not in out


def test_esp_idf_that_is_there_but_not_active_is_told_how_to_be(
    shelf: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("IDF_PATH", "/opt/esp-idf")
    _, found = answer(capsys, "esp32")
    assert found["targets"][0]["steps"]["build"]["install"] == [['. "$IDF_PATH/export.sh"']]


def test_arduinos_uploader_is_found_where_arduino_puts_it(
    tmp_path: Path, shelf: Path, no_packages: None, capsys: pytest.CaptureFixture[str]
) -> None:
    _, found = answer(capsys, "nano33")
    assert not found["targets"][0]["steps"]["flash"]["ready"]
    folder = tmp_path / ".arduino15/packages/arduino/tools/bossac/1.9.1-arduino2"
    folder.mkdir(parents=True)
    put(folder, "bossac", 'echo "Basic Open Source SAM-BA Application (BOSSA) Version 1.9.1-arduino2"')
    _, found = answer(capsys, "nano33")
    assert found["targets"][0]["steps"]["flash"]["uses"] == ["bossac"]
    assert found["tools"]["bossac"]["version"] == "1.9.1-arduino2"


def test_the_tools_of_a_users_own_board_are_looked_for(
    tmp_path: Path, shelf: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install_only(monkeypatch, "onnx", "onnxruntime")
    board = tmp_path / "riscv.toml"
    board.write_text(
        'name = "riscv"\ntitle = "R"\nport = "posix"\n[cpu]\nname = "R"\nmachine = "riscv64"\n'
        '[build]\ngcc = "riscv64-linux-gnu-gcc"\n[emulate]\nprogram = "qemu-riscv64"\npackage = "qemu-user"\n'
    )
    status, found = answer(capsys, str(board))
    assert status == 1
    assert found["targets"][0]["steps"]["emulate"]["install"] == [
        ["install riscv64-linux-gnu-gcc"],
        ["sudo apt-get install qemu-user"],
    ]
    put(shelf, "riscv64-linux-gnu-gcc", "echo 13.2.0")
    put(shelf, "qemu-riscv64", "echo 8.0.2")
    status, found = answer(capsys, str(board))
    assert status == 0
    assert found["targets"][0]["steps"]["emulate"]["uses"] == [
        "riscv64-linux-gnu-gcc", "onnx", "onnxruntime", "qemu-riscv64"
    ]  # fmt: skip


def test_an_unknown_target_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["doctor", "esp33"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: there is no board `esp33`; is it `esp32")


def test_listing_without_versions_runs_no_program(shelf: Path, tmp_path: Path) -> None:
    put(shelf, "gcc", f"/bin/touch {tmp_path}/ran")
    inventory = take_inventory(PROFILES, versions=False)
    assert inventory["gcc"].present
    assert not (tmp_path / "ran").exists()


def test_nothing_heavy_is_imported() -> None:
    code = (
        "import sys; from bfedge.cli import main; assert main.run(['doctor']) == 0; assert main.run(['devices']) == 0; "
        "print(sorted({'torch', 'onnx', 'esptool', 'pyocd', 'serial', 'ziglang'} & set(sys.modules)))"
    )
    env = {**os.environ, "TERM": "dumb", "COLUMNS": "40"}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=env)
    assert result.stdout.splitlines()[-1] == "[]"
    assert result.stderr == ""


@pytest.mark.skipif(not util.find_spec("ziglang"), reason="needs the Python package ziglang")
def test_zig_alone_builds_for_every_linux_board(shelf: Path) -> None:
    inventory = take_inventory(PROFILES)
    assert all(report(profile, inventory).buildable for profile in PROFILES if profile.port == "posix")
