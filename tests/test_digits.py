"""The main job on real data: README's commands print what the README shows, and the figures hold."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bfedge.device.host import HostModel
from bfedge.device.profile import known_profiles, load_profile
from bfedge.lowered import reference
from bfedge.measure.verify import onnx_logits, torch_logits
from bfedge.model.checkpoint import load_checkpoint
from bfedge.packed.reader import unpack
from bfedge.training.data import load_data

pytestmark = pytest.mark.slow
README = Path(__file__).parent.parent / "README.md"
VARYING = re.compile(
    r"(CRC [0-9a-f]{8}, runtime|emulated by|built with|runtime 0[.]) ?.*|[\d.,]+(e-\d+)?|[▁▂▃▄▅▆▇█]+|[0-9a-f]{64}"
)
EMULATOR = "qemu-system-arm"
"""Of the board that the README shows"""


def bfedge(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from bfedge.cli.main import main; main()", *arguments]
    environment = {**os.environ, "COLUMNS": "120"}
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment)


def readme_commands(emulated: bool = False) -> list[tuple[str, list[str]]]:
    """Each `$ bfedge ...` of the console blocks, and the lines that it prints; those in an emulator, or all others."""
    commands: list[tuple[str, list[str]]] = []
    for block in re.findall(r"```console\n(.*?)```", README.read_text(), re.S):
        for line in block.splitlines():
            if line.startswith("$ "):
                commands.append((line[2:], []))
            else:
                commands[-1][1].append(line)
    return [
        (command, lines)
        for command, lines in commands
        if command.startswith("bfedge") and ("--emulate" in command) == emulated
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where README's commands have run."""
    folder = tmp_path_factory.mktemp("digits")
    outputs = []
    for command, _ in readme_commands():
        result = bfedge(folder, *command.split()[1:])
        assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
        outputs.append(result.stdout)
    (folder / "outputs.json").write_text(json.dumps(outputs))
    return folder


def same_words(line: str) -> str:
    return " ".join(VARYING.sub("#", line).split())


def test_readme_shows_what_its_commands_print(folder: Path) -> None:
    """Numbers that depend on the machine aside; `...` stands for lines left out."""
    outputs = json.loads((folder / "outputs.json").read_text())
    commands = readme_commands()
    assert len(commands) >= 4
    for (command, shown), output in zip(commands, outputs, strict=True):
        assert_prints(command, shown, output)


@pytest.mark.skipif(not shutil.which(EMULATOR), reason=f"`{EMULATOR}` is not installed (apt: qemu-system-arm)")
def test_readme_shows_what_its_commands_print_in_an_emulator(folder: Path) -> None:
    commands = readme_commands(emulated=True)
    assert len(commands) >= 2
    for command, shown in commands:
        result = bfedge(folder, *command.split()[1:])
        assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
        assert_prints(command, shown, result.stdout)


@pytest.mark.parametrize("board", [p.name for p in known_profiles() if p.emulate])
def test_digits_gives_the_reference_bits_on_every_board(folder: Path, board: str) -> None:
    """Golden vectors, test images, every stage, workspace and stack, in the board's emulator."""
    emulate = load_profile(board).emulate
    needed = [emulate.program, *(["xtensa-lx106-elf-gcc"] if board == "esp32-s3" else [])] if emulate else []
    missing = [program for program in needed if not shutil.which(program)]
    if missing:
        pytest.skip(f"`{missing[0]}` is not installed (`bfedge doctor {board}` says how)")
    out = f"on-{board}"
    result = bfedge(folder, "export", "digits.pt", "--target", board, "--out", out)
    assert result.returncode == 0, result.stderr
    result = bfedge(folder, "verify", out, "--emulate", "--data", "digits", "--json")
    assert result.returncode == 0, result.stdout + result.stderr
    checks = {check["name"]: check for check in json.loads(result.stdout)["checks"]}
    assert checks["board, golden vectors"]["cases"] == 8
    assert checks["board, golden vectors"]["differing_cases"] == 0
    assert checks["board, test images"]["differing_images"] == 0
    assert checks["board, stages"]["stages"] == 6
    # Weights in flash used in place, or in memory rearranged for vector instructions.
    in_place = board in ("raspberry-pi-zero", "nano33-ble", "esp32-s3")
    assert checks["board, workspace"]["used"] == (36_944 if in_place else 105_872)


def assert_prints(command: str, shown: list[str], output: str) -> None:
    printed = [same_words(line) for line in output.splitlines()]
    for line in shown:
        if line.strip() and line.strip() != "...":
            assert same_words(line) in printed, f"`{command}` does not print: {line}\n{output}"


def test_digits_accuracy_bits_and_onnx(folder: Path) -> None:
    checkpoint = load_checkpoint(folder / "digits.pt")
    data = load_data("digits", None, None)
    packed = (folder / "digits-host" / "model.bfe").read_bytes()
    lowered, runtime = unpack(packed).model, HostModel(packed)

    expected = reference.run(lowered, data.test_images)
    got = np.stack([runtime.run(image) for image in data.test_images])
    assert got.tobytes() == expected.tobytes()

    result = bfedge(folder, "verify", "digits-host", "--checkpoint", "digits.pt", "--json")
    checks = {check["name"]: check for check in json.loads(result.stdout)["checks"]}
    in_float = checks["float torch against deployed"]
    assert in_float["float_accuracy"] >= 0.97
    assert in_float["drop_in_points"] <= 0.3
    assert in_float["deployed_accuracy"] == (expected.argmax(1) == data.test_targets).mean()

    quantised = torch_logits(checkpoint.model, data.test_images, lambda items, _: items, "")
    onnx = onnx_logits((folder / "digits-host" / "model.onnx").read_bytes(), data.test_images, lambda items, _: items)
    assert np.abs(onnx - quantised).max() <= 1e-4
    assert (onnx.argmax(1) == quantised.argmax(1)).all()


def test_manifest_names_every_file_with_its_hash(folder: Path) -> None:
    manifest = json.loads((folder / "digits-host" / "manifest.json").read_text())
    files = {str(f.relative_to(folder / "digits-host")) for f in (folder / "digits-host").rglob("*") if f.is_file()}
    assert set(manifest["files"]) == files - {"manifest.json"}
    assert "-ffp-contract=off" in manifest["compiler"]["flags"]


def test_the_same_checkpoint_gives_the_same_bytes(folder: Path) -> None:
    first = (folder / "digits-host" / "model.bfe").read_bytes()
    first_onnx = (folder / "digits-host" / "model.onnx").read_bytes()
    assert bfedge(folder, "export", "digits.pt", "--out", "again").returncode == 0
    assert (folder / "again" / "model.bfe").read_bytes() == first
    assert (folder / "again" / "model.onnx").read_bytes() == first_onnx
