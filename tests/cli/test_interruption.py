"""Training that is interrupted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bfedge.model.checkpoint import load_checkpoint
from tests.cli.runs import TINY_TRAINING, Result, Run, complaint, files


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
def test_an_interrupted_training_says_how_to_go_on(tmp_path: Path) -> None:
    path = tmp_path / "m.pt"
    arguments = ["train", *TINY_TRAINING, "--epochs", "2000", "--out", str(path)]
    command = [sys.executable, "-c", "from bfedge.cli.main import main; main()", *arguments]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env) as process:
        deadline = time.monotonic() + 120
        while not path.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert out == ""
    assert "Traceback" not in err
    last = err.splitlines()[-2:]
    assert last[0].startswith("error: interrupted in epoch ")
    assert last[1] == "hint: the same command with --resume goes on"
    assert load_checkpoint(path).training["epoch"] >= 1
    assert [f.name for f in tmp_path.iterdir()] == ["m.pt"]


def test_an_interrupted_training_before_the_first_epoch(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("bfedge.training.loop.Trainer.train_step", interrupted)
    result = run("train", *TINY_TRAINING, "--out", tmp_path / "m.pt")
    described, _, error = result.err.rpartition("error: ")
    assert "1 epoch of" in described
    complaint(Result(result.status, result.out, f"error: {error}"), "interrupted before the first epoch", hint=False)
    assert not files(tmp_path)
