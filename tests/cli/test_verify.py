"""`bfedge verify` passes what is right, and fails whatever was altered."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from bfedge.model.checkpoint import Checkpoint, save_checkpoint
from bfedge.packed.writer import pack
from tests.cli.runs import SMALL, TINY_TRAINING, Result, Run, complaint, files, parsed
from tests.random_models import random_lowered, random_vit


def verdict(result: Result) -> dict[str, bool]:
    return {check["name"]: check["passed"] for check in parsed(result, "verify")["checks"]}


def test_verify_passes_an_export(run: Run, exported: Path, checkpoint: Path) -> None:
    before = files(exported)
    result = run("verify", exported, "--checkpoint", checkpoint, "--json")
    checks = verdict(result)
    assert result.status == 0
    assert all(checks.values())
    assert set(checks) == {
        "C runtime, golden vectors",
        "C runtime, noise",
        "manifest",
        "board has the model",
        "board, golden vectors",
        "board, stages",
        "board, workspace",
        "board, stack",
        "board, test images",
        "packed file against checkpoint",
        "quantised torch against reference",
        "float torch against deployed",
        "ONNX in onnxruntime against quantised torch",
    }
    assert files(exported) == before
    text = run("verify", exported, "--checkpoint", checkpoint)
    assert text.status == 0
    assert text.out.splitlines()[-1] == "verified"
    assert "FAIL" not in text.out


def test_a_packed_file_is_exported_like_its_checkpoint(run: Run, exported: Path, tmp_path: Path) -> None:
    """With its own golden inputs; without any, with noise."""
    assert run("export", exported / "model.bfe", "--out", tmp_path / "again").status == 0
    assert (tmp_path / "again" / "model.bfe").read_bytes() == (exported / "model.bfe").read_bytes()
    bare = tmp_path / "bare.bfe"
    bare.write_bytes(pack(random_lowered(2)))
    assert "seeded noise" in run("export", bare, "--golden", "3").out
    assert run("verify", tmp_path / "bare-host").status == 0


def test_verify_passes_a_checkpoint_and_a_lone_file(run: Run, exported: Path, checkpoint: Path) -> None:
    assert run("verify", checkpoint).status == 0
    assert run("verify", checkpoint, "--ternary", "base3").status == 0
    assert run("verify", exported / "model.bfe").status == 0
    assert run("verify", exported / "model.bfe", "--checkpoint", checkpoint).status == 0
    assert run("verify", exported).status == 0


@pytest.mark.parametrize("position", [0, 40, 0.3, 0.6, -1])
def test_verify_fails_after_one_byte(run: Run, copy: Path, checkpoint: Path, position: float) -> None:
    file = copy / "model.bfe"
    content = bytearray(file.read_bytes())
    index = int(position * len(content)) if isinstance(position, float) else position
    content[index] ^= 1
    file.write_bytes(content)
    complaint(run("verify", copy, "--checkpoint", checkpoint), ".")
    complaint(run("verify", copy, "--json"), ".")
    complaint(run("inspect", file), ".")
    complaint(run("plan", copy), ".")


def test_verify_fails_for_another_models_file(run: Run, copy: Path, checkpoint: Path) -> None:
    """Of the same shape: only the weights tell."""
    (copy / "model.bfe").write_bytes(pack(random_lowered(4, **SMALL)))
    result = run("verify", copy, "--checkpoint", checkpoint, "--json")
    checks = verdict(result)
    assert result.status == 1
    assert not checks["manifest"]
    assert not checks["packed file against checkpoint"]
    assert checks["C runtime, noise"]
    result = run("verify", copy)
    assert result.status == 1
    assert result.out.splitlines()[-1] == "not verified"


@pytest.mark.parametrize(
    "change", [{"d_model": 16}, {"classes": 4}, {"image_height": 6}, {"channels": 3}, {"layers": 2}]
)
def test_verify_fails_for_a_file_of_another_shape(run: Run, copy: Path, checkpoint: Path, change: dict) -> None:
    (copy / "model.bfe").write_bytes(pack(random_lowered(4, **(SMALL | change))))
    for model in (copy, copy / "model.bfe"):
        result = run("verify", model, "--checkpoint", checkpoint)
        assert result.status == 1, result.err
        assert "Traceback" not in result.err
    assert run("verify", copy).status == 1


def test_verify_fails_for_another_onnx_file(run: Run, copy: Path, checkpoint: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.pt"
    save_checkpoint(other, Checkpoint(random_vit(4, **SMALL)))
    assert run("export", other, "--out", tmp_path / "other").status == 0
    shutil.copy(tmp_path / "other" / "model.onnx", copy)
    result = run("verify", copy, "--checkpoint", checkpoint, "--json")
    checks = verdict(result)
    assert result.status == 1
    assert not checks["manifest"]
    assert not checks["ONNX in onnxruntime against quantised torch"]
    assert checks["packed file against checkpoint"]


@pytest.mark.parametrize("position", [0, 0.2, 0.5, 0.8, -1])
def test_verify_fails_for_an_altered_onnx_file(run: Run, copy: Path, position: float) -> None:
    file = copy / "model.onnx"
    content = bytearray(file.read_bytes())
    content[int(position * len(content)) if isinstance(position, float) else position] ^= 0x10
    file.write_bytes(content)
    result = run("verify", copy)
    assert result.status == 1, result.out
    assert "Traceback" not in result.err


@pytest.mark.parametrize(
    "name", ["model.bfe", "model.onnx", "bfedge-device", "manifest.json", "runtime/include/bfedge.h"]
)
def test_verify_fails_without_a_file(run: Run, copy: Path, name: str) -> None:
    (copy / name).unlink()
    result = run("verify", copy)
    assert result.status == 1
    assert "Traceback" not in result.err


def test_verify_fails_for_an_altered_program(run: Run, copy: Path) -> None:
    (copy / "bfedge-device").write_text("#!/bin/sh\necho all is well\n")
    result = run("verify", copy, "--json")
    checks = verdict(result)
    assert result.status == 1
    assert not checks["manifest"]
    assert not checks["board"]


def test_verify_fails_if_accuracy_drops(run: Run, tmp_path: Path) -> None:
    """An untrained model on real images, and a limit that nothing meets."""
    path = tmp_path / "m.pt"
    assert run("train", *TINY_TRAINING, "--out", path).status == 0
    checks = verdict(run("verify", path, "--json"))
    assert checks["float torch against deployed"]
    assert "C runtime, test images" in checks
    result = run("verify", path, "--json", "--max-drop", "-200")
    assert result.status == 1
    assert [name for name, passed in verdict(result).items() if not passed] == ["float torch against deployed"]
