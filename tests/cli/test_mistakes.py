"""A user's mistakes: one line that says what to do, exit status 1, and nothing changed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.cli.runs import TINY_TRAINING, Result, Run, complaint, files, program

MISTAKES: list[tuple[list[str], str]] = [
    (["fly"], "fly"),
    (["--fast"], "--fast"),
    (["inspect"], "(?i)missing argument"),
    (["inspect", "m.bfe", "more"], "(?i)unexpected extra argument"),
    (["inspect", "m.bfe", "--colour"], "--colour"),
    (["inspect", "none.bfe"], "none.bfe"),
    (["inspect", "."], "cannot read"),
    (["inspect", "text.txt"], "."),
    (["plan", "none.bfe"], "none.bfe"),
    (["plan", "none.pt"], "none.pt"),
    (["plan", "."], "model.bfe"),
    (["plan", "text.txt"], "."),
    (["plan", "text.pt"], "text.pt"),
    (["verify", "none.bfe"], "none.bfe"),
    (["verify", "none"], "none"),
    (["verify", "none.pt"], "none.pt"),
    (["verify", "m.bfe", "--checkpoint", "none.pt"], "none.pt"),
    (["verify", "m.bfe", "--max-drop", "much"], "much"),
    (["verify", "m.bfe", "--data", "nowhere"], "nowhere"),
    (["export", "none.pt"], "none.pt"),
    (["export", "text.txt"], "."),
    (["export", "tiny.pt", "--build"], "is built already"),
    (["export", "tiny.pt", "--target", "esp32-s3", "--build"], "no idf.py"),
    (["export", "tiny.pt", "--target", "."], "."),
    (["verify", "tiny.pt", "--emulate", "--host", "board"], "exclude each other"),
    (["verify", "tiny.pt", "--max-drop", "nan"], "no number of points"),
    (["profile", "tiny.pt", "--timeout", "nan"], "no number of seconds"),
    (["profile", "tiny.pt", "--host", ""], "need a value"),
    (["bench", "tiny.pt", "--port", ""], "need a value"),
    (["profile", "tiny.pt", "--target", "pi"], "where is the raspberry-pi-4"),
    (["profile", "tiny.pt", "--emulate"], "no emulator for `host`"),
    (["profile", "m.bfe", "--port", "/dev/none"], "/dev/none"),
    (["flash", "tiny.pt"], "not a folder"),
    (["flash", "."], "manifest.json"),
    (["plan", "m.bfe", "--target", "toaster"], "no board `toaster`"),
    (["devices", "toaster"], "no board `toaster`"),
    (["doctor", "toaster"], "no board `toaster`"),
    (["export", "text.pt"], "text.pt"),
    (["export", "tiny.pt", "--target", "toaster"], "toaster"),
    (["export", "tiny.pt", "--ternary", "1bit"], "1bit"),
    (["export", "tiny.pt", "--golden", "0"], "0"),
    (["export", "tiny.pt", "--golden", "257"], "257"),
    (["export", "tiny.pt", "--data", "nowhere"], "nowhere"),
    (["export", "tiny.pt", "--data", "digits"], r"\(8, 8, 1\)"),
    (["export", "tiny.pt", "--cc", "false"], "false"),
    (["export", "tiny.pt", "--cc", "nonexistent-cc -O2"], "nonexistent-cc"),
    (["export", "tiny.pt", "--cc", "  "], "."),
    (["export", "tiny.pt", "--cc", "cc '"], "."),
    (["export", "tiny.pt", "--out", "text.txt"], "text.txt"),
    (["export", "tiny.pt", "--out", "text.txt/folder"], "text.txt"),
    (["export", "tiny.pt", "--out", "full"], "holds files that bfedge did not write"),
    (["export", "tiny.pt", "--out", "."], "."),
    (["export", "dense.pt"], "dense feed-forward"),
    (["train", "nonsense"], "nonsense"),
    (["train", "text.txt"], "text.txt"),
    (["train", "x" * 300], "xxx"),
    (["train", "--out", "m.bin"], "m.bin"),
    (["train", "--data", "nowhere"], "nowhere"),
    (["train", "--epochs", "0"], "epochs"),
    (["train", "--epochs", "two"], "two"),
    (["train", "--seed", "99999999999999999999999"], "seed"),
    (["train", "--set", "model.d_model"], "has no value"),
    (["train", "--set", "model.colour=1"], "colour"),
    (["train", "--set", "model.layers=many"], "layers"),
    (["train", "--set", "training.speed=1"], "speed"),
    (["train", "--resume"], "model.pt"),
    (["train", "--resume", "--out", "tiny.pt"], "no training state"),
    (["train", "--resume", "--out", "text.pt"], "text.pt"),
    (["train", *TINY_TRAINING, "--out", "text.txt/m.pt"], "text.txt"),
    (["plan", "x" * 300], "xxx"),
    (["export", "x" * 300 + ".pt"], "xxx"),
    (["plan", "[/b].bfe"], r"\[/b\]\.bfe"),
]


@pytest.mark.parametrize(("arguments", "message"), MISTAKES, ids=[" ".join(a)[:60] for a, _ in MISTAKES])
def test_a_mistake_is_one_line_and_changes_nothing(
    workplace: Path, run: Run, arguments: list[str], message: str
) -> None:
    before = files(workplace)
    folders = sorted(p for p in workplace.rglob("*") if p.is_dir())
    result = run(*arguments)
    assert files(workplace) == before
    assert sorted(p for p in workplace.rglob("*") if p.is_dir()) == folders
    # an export that will fail may say beforehand that its golden vectors are noise
    err = "".join(line for line in result.err.splitlines(True) if not line.startswith("note: "))
    complaint(Result(result.status, result.out, err), message)


def test_a_mistake_in_a_process_of_its_own(workplace: Path) -> None:
    before = files(workplace)
    for arguments in (["export", "tiny.pt", "--target", "toaster"], ["inspect", "none.bfe"], ["fly"]):
        complaint(program(*arguments), arguments[-1])
    complaint(program("export", "tiny.pt", "--target", "toaster"), "no board `toaster`", hint=True)
    assert "nano33-ble" in program("export", "tiny.pt", "--target", "toaster").err
    assert files(workplace) == before


def test_no_verb_shows_the_help(run: Run) -> None:
    result = run()
    assert "Commands:" in result.out + result.err
    assert "error: Usage" not in result.err


def test_a_pickle_that_would_run_code(workplace: Path, run: Run) -> None:
    import pickle

    class Bomb:
        def __reduce__(self) -> tuple:
            return os.mkdir, (str(workplace / "canary"),)

    for number, name in enumerate(("zip.pt", "bare.pt", "bare4.pt")):
        if number:
            (workplace / name).write_bytes(pickle.dumps({"state_dict": Bomb()}, 2 * number))
        else:
            torch.save({"state_dict": Bomb()}, workplace / name)
        complaint(run("plan", name), re.escape(name))
        assert not (workplace / "canary").exists()


def test_an_internal_error_is_ours(run: Run, packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> bytes:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr("bfedge.packed.validate.validate", broken)
    result = run("inspect", packed)
    assert result.status == 2
    assert result.out == ""
    assert "ZeroDivisionError: oops" in result.err
    assert result.err.splitlines()[-2:] == [
        "error: this is a bug in bfedge",
        "hint: please report it with the lines above",
    ]


@pytest.mark.parametrize(
    ("problem", "message"), [(KeyboardInterrupt(), "interrupted"), (MemoryError(), "too little memory")]
)
def test_interruption_and_lack_of_memory(
    run: Run, packed: Path, monkeypatch: pytest.MonkeyPatch, problem: BaseException, message: str
) -> None:
    def stopped(*_: object) -> bytes:
        raise problem

    monkeypatch.setattr("bfedge.packed.validate.validate", stopped)
    result = run("inspect", packed)
    assert result.err.count("error: ") == 1
    complaint(result._replace(err=result.err.lstrip("\n")), message)


def test_a_reader_that_goes_away_is_no_error(packed: Path) -> None:
    command = f'"{sys.executable}" -c "from bfedge.cli.main import main; main()" inspect "{packed}" --json | true'
    result = subprocess.run(["sh", "-c", command], capture_output=True, text=True)
    assert "Traceback" not in result.stderr
    assert "error" not in result.stderr
