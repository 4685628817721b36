"""Runs in this process, and the models, exports and folders that they are given."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from bfedge.cli import main
from bfedge.model.checkpoint import Checkpoint, save_checkpoint
from bfedge.packed.writer import pack
from tests.cli.runs import SMALL, Result, Run
from tests.random_models import random_lowered, random_vit


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    """`bfedge ARGUMENTS` in this process."""

    def call(*arguments: object) -> Result:
        capfd.readouterr()
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        status = main.run([str(a) for a in arguments])
        torch.set_num_threads(threads)
        return Result(status, *capfd.readouterr())

    return call


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint") / "tiny.pt"
    save_checkpoint(path, Checkpoint(random_vit(3, **SMALL), ("a", "b", "c")))
    return path


@pytest.fixture(scope="session")
def exported(checkpoint: Path) -> Path:
    """Read it, do not change it."""
    folder = checkpoint.with_name("tiny-host")
    assert main.run(["export", str(checkpoint), "--out", str(folder), "--golden", "3"]) == 0
    return folder


@pytest.fixture
def copy(exported: Path, tmp_path: Path) -> Path:
    """An exported folder to spoil."""
    return Path(shutil.copytree(exported, tmp_path / "copy"))


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    path = tmp_path / "m.bfe"
    path.write_bytes(pack(random_lowered(2)))
    return path


@pytest.fixture
def workplace(tmp_path: Path, checkpoint: Path, packed: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    shutil.copy(checkpoint, tmp_path)
    (tmp_path / "text.txt").write_text("hello, this is neither model nor recipe\n")
    (tmp_path / "text.pt").write_text("hello, this is no checkpoint\n")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("dear diary")
    save_checkpoint(tmp_path / "dense.pt", Checkpoint(random_vit(3, **SMALL, feed_forward="dense")))
    return tmp_path
