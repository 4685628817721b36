"""The C tests, and the exported program, under the sanitizers: it reads only the file and its workspace, whatever the
file says.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bfedge.device.compiler import runtime_sources
from bfedge.device.host import HostModel
from bfedge.lowered import reference
from bfedge.packed.golden import golden_vectors
from bfedge.packed.validate import BadFileError, validate
from bfedge.packed.writer import pack, with_checksum
from tests.random_models import random_images, random_lowered


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("cmake") or not shutil.which("ninja"), reason="needs cmake and ninja")
def test_the_c_tests_pass(tmp_path: Path) -> None:
    flags = ["-DCMAKE_C_FLAGS=-fsanitize=address,undefined -fno-sanitize-recover=all", "-DCMAKE_C_FLAGS_RELEASE=-O1"]
    for command in (
        ["cmake", "-S", runtime_sources(), "-B", tmp_path, "-G", "Ninja", *flags],
        ["cmake", "--build", tmp_path],
        ["ctest", "--test-dir", tmp_path, "--output-on-failure", "--parallel", "2"],
    ):
        result = subprocess.run(command, capture_output=True, text=True, timeout=600)
        assert result.returncode == 0, result.stdout + result.stderr
    assert "100% tests passed" in result.stdout


def start(program: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    result = subprocess.run([str(program), *map(str, arguments)], capture_output=True, text=True, timeout=120)
    assert "Sanitizer" not in result.stderr, result.stderr
    assert "runtime error" not in result.stderr, result.stderr
    return result


def broken_rule(data: bytes) -> int:
    """0 if Python accepts the file."""
    try:
        validate(data)
    except BadFileError as refused:
        return refused.rule
    return 0


def answers(output: str) -> list[dict[str, Any]]:
    """What the program said, `ready` aside."""
    ready, *lines = [json.loads(line) for line in output.splitlines()]
    assert ready["type"] == "ready"
    return lines


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(15))
def test_random_models_run_clean(sanitized_program: Path, tmp_path: Path, seed: int) -> None:
    model = random_lowered(seed)
    golden = golden_vectors(model, random_images(model, 3, seed))
    file = tmp_path / "model.bfe"
    file.write_bytes(pack(model, golden))
    image = random_images(model, 4, seed + 1)[3]
    for tile in (0, 1):
        commands = [f"{case + 1} golden {case} {tile}" for case in range(3)]
        commands += ["4 hello", f"5 profile 0 {tile}", f"6 image {tile} {image.tobytes().hex()}"]
        result = start(sanitized_program, file, *commands)
        assert result.returncode == 0, result.stdout
        said = answers(result.stdout)
        assert [answer["differing"] for answer in said[:3]] == [0, 0, 0]
        assert said[3]["model"]["golden"] == 3
        profile = said[-2]
        assert (
            profile["workspace"]["stated"]
            == profile["workspace"]["used"]
            == HostModel(file.read_bytes()).workspace_bytes(tile)
        )
        assert profile["workspace"]["intact"]
        logits = np.frombuffer(bytes.fromhex(said[-1]["logits"]), ">u4").astype(np.uint32)
        assert logits.tobytes() == reference.run(model, image[None])[0].tobytes()


@pytest.mark.slow
def test_altered_files_with_a_right_checksum_are_refused_or_run_clean(sanitized_program: Path, tmp_path: Path) -> None:
    """Accepted ones are run: whatever passes validation must be safe to compute with."""
    model = random_lowered(21, d_model=12, d_ff=20, heads=2, layers=1, classes=3, experts=3, top_k=2)
    data = pack(model, golden_vectors(model, random_images(model, 2, 21)))
    r = np.random.default_rng(0)
    file = tmp_path / "model.bfe"
    accepted = 0
    for _ in range(400):
        altered = bytearray(data)
        for _ in range(r.integers(1, 6)):
            altered[r.integers(20, len(data))] = r.choice([0, 1, 0x7F, 0x80, 0xFF, r.integers(256)])
        altered_data = with_checksum(bytes(altered))
        file.write_bytes(altered_data)
        hello, *golden = answers(start(sanitized_program, file, "1 hello", "2 golden 0 0", "3 golden 1 1").stdout)
        rule = broken_rule(altered_data)
        if rule:
            assert hello["refused"]["rule"] == rule
            assert [answer["code"] for answer in golden] == ["no-model", "no-model"]
        else:
            accepted += 1
            assert [answer["type"] for answer in golden] == ["result", "result"]
    assert accepted > 20


@pytest.mark.slow
def test_truncated_files_are_refused_by_name(sanitized_program: Path, tmp_path: Path) -> None:
    model = random_lowered(0)
    data = pack(model, golden_vectors(model, random_images(model, 1, 0)))
    file = tmp_path / "model.bfe"
    for length in range(0, len(data), max(1, len(data) // 60)):
        file.write_bytes(data[:length])
        hello, golden = answers(start(sanitized_program, file, "1 hello", "2 golden 0 0").stdout)
        assert hello["model"] is None
        assert hello["refused"]["status"] in ("not a model", "truncated")
        assert golden["code"] == "no-model"


@pytest.mark.slow
def test_commands_of_any_bytes_are_answered_or_skipped(sanitized_program: Path, tmp_path: Path) -> None:
    model = random_lowered(2)
    file = tmp_path / "model.bfe"
    file.write_bytes(pack(model, golden_vectors(model, random_images(model, 1, 2))))
    r = np.random.default_rng(3)
    words = [
        b"hello",
        b"golden",
        b"image",
        b"profile",
        b"0",
        b"1",
        b"4294967295",
        b"ff",
        b"*",
        b" ",
        b"\n",
        b"\r\n",
        b"\0",
        b"\xff",
    ]
    for _ in range(60):
        pieces = [words[r.integers(len(words))] if r.random() < 0.8 else r.bytes(r.integers(0, 40)) for _ in range(60)]
        result = subprocess.run(
            [sanitized_program, file], input=b" ".join(pieces) + b"\n7 golden 0 0\n", capture_output=True, timeout=120
        )
        assert b"Sanitizer" not in result.stderr
        assert b"runtime error" not in result.stderr
        last = json.loads(result.stdout.splitlines()[-1])
        assert (last["id"], last["type"], last["differing"]) == (7, "result", 0) or b"quit" in b"".join(pieces)
