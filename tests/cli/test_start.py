"""Help, and what runs without the optional packages."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from bfedge.cli import main
from tests.cli.runs import complaint, files, program


@pytest.fixture(scope="module")
def without_extras(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A PYTHONPATH on which the optional packages cannot be imported."""
    folder = tmp_path_factory.mktemp("blocked")
    for package in ("torch", "onnx", "onnxruntime", "sklearn", "PIL", "safetensors"):
        (folder / package).mkdir()
        (folder / package / "__init__.py").write_text(
            f"raise ModuleNotFoundError('no {package} here', name='{package}')\n"
        )
    return str(folder)


def test_help_and_version_need_none_of_the_extras(without_extras: str) -> None:
    for arguments in (["--help"], ["-h"], ["--version"], *([verb, "--help"] for verb in main.VERBS)):
        result = program(*arguments, PYTHONPATH=without_extras)
        assert (result.status, result.err) == (0, ""), arguments
        assert "bfedge" in result.out
    assert all(verb in program("--help").out for verb in main.VERBS)


def test_help_imports_no_heavy_package() -> None:
    result = program("--help", python=("-X", "importtime"))
    imported = {line.split("|")[-1].strip() for line in result.err.splitlines()}
    assert "click" in imported
    assert not imported & {"torch", "onnx", "onnxruntime", "numpy", "rich", "msgspec", "sklearn"}


def test_a_packed_file_needs_none_of_the_extras(without_extras: str, packed: Path) -> None:
    for verb in ("inspect", "plan", "verify"):
        result = program(verb, packed, "--json", PYTHONPATH=without_extras)
        assert result.status == 0, result.err
        assert json.loads(result.out)["verb"] == verb


def test_what_needs_an_extra_says_so(without_extras: str, checkpoint: Path, tmp_path: Path) -> None:
    for verb in ("train", "export", "verify", "plan"):
        arguments = [] if verb == "train" else [checkpoint]
        result = program(verb, *arguments, PYTHONPATH=without_extras)
        complaint(result, "needs the package `(torch|onnx|safetensors)`", hint=True)
        assert "pip install" in result.err
    assert not files(tmp_path)


@pytest.mark.parametrize("verb", [[], ["inspect"], ["export"]])
def test_help_is_quick(verb: list[str]) -> None:
    def once() -> float:
        started = time.perf_counter()
        assert program(*verb, "--help").status == 0
        return time.perf_counter() - started

    assert min(once() for _ in range(5)) < 0.4
