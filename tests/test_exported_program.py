"""The exported program under the sanitizers: it reads only the file and its workspace, whatever the file says."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

from bfedge.lowered import reference
from bfedge.packed.golden import golden_vectors
from bfedge.packed.validate import BadFileError, validate
from bfedge.packed.writer import pack, with_checksum
from tests.random_models import random_images, random_lowered


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


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(15))
def test_random_models_run_clean(sanitized_program: Path, tmp_path: Path, seed: int) -> None:
    model = random_lowered(seed)
    golden = golden_vectors(model, random_images(model, 3, seed))
    file = tmp_path / "model.bfe"
    file.write_bytes(pack(model, golden))
    for tile in (0, 1):
        result = start(sanitized_program, "--tile", tile, file) if tile else start(sanitized_program, file)
        assert result.returncode == 0
        assert "3 of 3 golden cases equal" in result.stdout
    images = random_images(model, 4, seed + 1)
    (tmp_path / "images.u8").write_bytes(images.tobytes())
    assert start(sanitized_program, file, tmp_path / "images.u8", tmp_path / "logits.f32").returncode == 0
    assert (tmp_path / "logits.f32").read_bytes() == reference.run(model, images).tobytes()


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
        result = start(sanitized_program, file)
        rule = broken_rule(altered_data)
        if rule:
            assert result.returncode == 1
            assert f"rule V{rule}" in result.stderr
        else:
            accepted += 1
            assert "golden cases equal" in result.stdout
    assert accepted > 20


@pytest.mark.slow
def test_truncated_files_and_bad_arguments_end_in_one_line(sanitized_program: Path, tmp_path: Path) -> None:
    model = random_lowered(0)
    data = pack(model, golden_vectors(model, random_images(model, 1, 0)))
    file = tmp_path / "model.bfe"
    for length in range(0, len(data), max(1, len(data) // 60)):
        file.write_bytes(data[:length])
        result = start(sanitized_program, file)
        assert result.returncode == 1
        assert result.stderr.count("\n") == 1
        assert result.stderr.startswith("error: ")
    file.write_bytes(pack(model))
    (tmp_path / "odd.u8").write_bytes(b"x" * (int(np.prod(model.shape.image_shape)) * 2 + 1))
    for arguments in ([], [file], [tmp_path / "absent.bfe"], [file, tmp_path / "odd.u8", tmp_path / "out.f32"]):
        result = start(sanitized_program, *arguments)
        assert result.returncode == 1
        assert result.stderr.strip()
        assert not (tmp_path / "out.f32").exists()
