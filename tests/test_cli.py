"""The command line: what it prints where, its exit status, and what it leaves behind."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from bfedge.cli import main
from bfedge.model.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from bfedge.packed.writer import pack
from tests.random_models import random_lowered, random_vit

SMALL = dict(image_height=4, image_width=4, channels=1, patch_size=2, d_model=12, d_ff=20, heads=2, layers=1)
SMALL |= dict(classes=3, experts=4, top_k=2, rotation_layers=2, pooling="class", projection_weights="int8")
TINY_TRAINING = ["--epochs", "1", "--set", "model.d_model=8", "--set", "model.d_ff=8", "--set", "model.layers=1"]
TINY_TRAINING += ["--set", "model.heads=1", "--set", "model.experts=2", "--set", "model.patch_size=4"]


class Result(NamedTuple):
    status: int
    out: str
    err: str


Run = Callable[..., Result]


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


def program(*arguments: object, python: tuple[str, ...] = (), **environment: str) -> Result:
    """`bfedge ARGUMENTS` in a process of its own."""
    command = [sys.executable, *python, "-c", "from bfedge.cli.main import main; main()", *map(str, arguments)]
    env = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    result = subprocess.run(command, capture_output=True, text=True, env=env)
    return Result(result.returncode, result.stdout, result.stderr)


def files(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


def complaint(result: Result, message: str, hint: bool | None = None) -> None:
    """Exit status 1, one `error:` line and at most one `hint:` line on stderr, nothing on stdout."""
    assert result.status == 1, result
    assert result.out == ""
    lines = result.err.splitlines()
    assert lines, result
    assert lines[0].startswith("error: "), result.err
    assert re.search(message, lines[0]), result.err
    assert all(line.startswith("hint: ") for line in lines[1:]), result.err
    assert len(lines) <= 2
    if hint is not None:
        assert (len(lines) == 2) == hint, result.err


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint") / "tiny.pt"
    save_checkpoint(path, Checkpoint(random_vit(3, **SMALL), ("a", "b", "c")))
    return path


@pytest.fixture(scope="module")
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


# ---------------------------------------------------------------- starting


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


# ---------------------------------------------------------------- mistakes

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


# ---------------------------------------------------------------- results


def parsed(result: Result, verb: str) -> dict[str, Any]:
    assert result.status in (0, 1), result.err
    value = json.loads(result.out)
    assert (value["schema"], value["verb"]) == (1, verb)
    return value


def test_json_of_inspect(run: Run, exported: Path) -> None:
    value = parsed(run("inspect", exported / "model.bfe", "--json"), "inspect")
    content = (exported / "model.bfe").read_bytes()
    assert value["bytes"] == len(content)
    assert value["config"]["d_model"] == 12
    assert value["config"]["tokens"] == 5
    assert value["sections"][0]["offset"] > 0
    assert all(s["offset"] + s["bytes"] <= len(content) for s in value["sections"])
    text = run("inspect", exported / "model.bfe")
    assert value["sha256"] in text.out
    assert text.err == ""


def test_json_of_plan_agrees_for_checkpoint_and_file(
    run: Run, checkpoint: Path, exported: Path, tmp_path: Path
) -> None:
    for ternary in ("2bit", "base3"):
        value = parsed(run("plan", checkpoint, "--ternary", ternary, "--json"), "plan")
        assert sum(value["parts"].values()) == value["file_bytes"]
    folder = parsed(run("plan", exported, "--json"), "plan")
    file = parsed(run("plan", exported / "model.bfe", "--json"), "plan")
    assert folder | {"model": ""} == file | {"model": ""}
    assert folder["file_bytes"] == (exported / "model.bfe").stat().st_size
    assert run("plan", exported).err == ""


def test_json_of_train(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "new" / "m.pt"
    result = run("train", *TINY_TRAINING, "--out", path, "--json", "--seed", "3")
    value = parsed(result, "train")
    assert [e["epoch"] for e in value["epochs"]] == [1]
    assert 0 <= value["deployed_accuracy"] <= 1
    assert value["checkpoint"] == str(path)
    assert "epoch   1/1" in result.err
    assert load_checkpoint(path).data == "digits"
    resumed = parsed(run("train", *TINY_TRAINING, "--out", path, "--json", "--seed", "3", "--resume"), "train")
    assert resumed["epochs"] == value["epochs"]
    complaint(run("train", *TINY_TRAINING, "--out", path, "--seed", "4", "--resume"), "another recipe", hint=True)


def test_json_of_export(run: Run, checkpoint: Path, tmp_path: Path) -> None:
    folder = tmp_path / "f"
    value = parsed(
        run("export", checkpoint, "--out", folder, "--golden", "2", "--ternary", "base3", "--json"), "export"
    )
    assert value["folder"] == str(folder)
    assert value["manifest"] == json.loads((folder / "manifest.json").read_text())
    assert set(value["manifest"]["files"]) == files(folder).keys() - {"manifest.json"}
    assert value["manifest"]["golden"]["cases"] == 2
    assert list(tmp_path.iterdir()) == [folder]
    # exporting again replaces the folder
    assert run("export", checkpoint, "--out", folder, "--golden", "1").status == 0
    assert json.loads((folder / "manifest.json").read_text())["golden"]["cases"] == 1
    assert list(tmp_path.iterdir()) == [folder]


def test_exporting_twice_gives_the_same_bytes(run: Run, checkpoint: Path, exported: Path, tmp_path: Path) -> None:
    assert run("export", checkpoint, "--out", tmp_path / "again", "--golden", "3").status == 0
    first, second = files(exported), files(tmp_path / "again")
    assert first.keys() == second.keys()
    assert {name for name in first if first[name] != second[name]} <= {"golden.npz", "bfedge-device", "manifest.json"}
    golden = [np.load(folder / "golden.npz") for folder in (exported, tmp_path / "again")]
    assert golden[0]["outputs"].tobytes() == golden[1]["outputs"].tobytes()
    for archive in golden:
        archive.close()


def test_golden_vectors_do_not_come_from_the_current_folder_by_accident(
    run: Run, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This checkpoint names no data set, and two folders of images lie where the command happens to run."""
    from PIL import Image

    for name in ("holiday", "work"):
        (tmp_path / name).mkdir()
        for number in range(3):
            Image.new("L", (4, 4), 50 * number).save(tmp_path / name / f"{number}.png")
    monkeypatch.chdir(tmp_path)
    value = parsed(run("export", checkpoint, "--out", "f", "--json"), "export")
    assert value["manifest"]["golden"]["inputs"] == "images of seeded noise"


def test_names_with_brackets_are_no_markup(run: Run, checkpoint: Path, tmp_path: Path) -> None:
    folder = tmp_path / "[/b] [red]x"  # two folders: `[` and `b] [red]x`
    folder.mkdir(parents=True)
    shutil.copy(checkpoint, folder / "tiny.pt")
    result = run("export", folder / "tiny.pt", "--out", folder / "out")
    assert result.status == 0, result.err
    assert str(folder / "out") in result.out
    for verb, path in (
        ("inspect", folder / "out" / "model.bfe"),
        ("plan", folder / "tiny.pt"),
        ("verify", folder / "out"),
    ):
        result = run(verb, path)
        assert result.status == 0, result.err
    assert str(folder) in run("inspect", folder / "out" / "model.bfe").out


# ---------------------------------------------------------------- export keeps what is not its own


def test_an_export_replaces_no_folder_that_merely_has_a_manifest(run: Run, checkpoint: Path, tmp_path: Path) -> None:
    """A web project has a manifest.json too."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "manifest.json").write_text('{"name": "my web application", "start_url": "."}')
    (folder / "index.html").write_text("years of work")
    before = files(folder)
    complaint(run("export", checkpoint, "--out", folder), "holds files that bfedge did not write", hint=True)
    assert files(folder) == before


def test_an_export_deletes_no_file_that_was_added(run: Run, copy: Path, checkpoint: Path) -> None:
    shutil.copy(checkpoint, copy / "tiny.pt")
    (copy / "notes.txt").write_text("mine")
    run("export", copy / "tiny.pt", "--out", copy)
    assert (copy / "tiny.pt").exists()
    assert (copy / "notes.txt").read_text() == "mine"


def test_an_export_into_the_current_folder(
    run: Run, copy: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(copy)
    names = files(copy).keys()
    result = run("export", checkpoint, "--out", ".")
    assert files(copy).keys() == names, result.err
    assert result.status in (0, 1)


def test_a_failing_compiler_leaves_the_old_export(run: Run, copy: Path, checkpoint: Path, tmp_path: Path) -> None:
    compiler = tmp_path / "cc"
    compiler.write_text(
        '#!/bin/sh\n[ "$1" = --version ] && echo "fake cc 1.0" && exit 0\necho "no, sorry" >&2; exit 1\n'
    )
    compiler.chmod(0o755)
    before = files(tmp_path)
    for out in (copy, tmp_path / "new"):
        result = run("export", checkpoint, "--out", out, "--cc", compiler)
        err = "".join(line for line in result.err.splitlines(True) if not line.startswith("note: "))
        complaint(result._replace(err=err), "failed: no, sorry", hint=True)
        assert files(tmp_path) == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cc", "copy"]


def script(path: Path, text: bytes) -> Path:
    path.write_bytes(text)
    path.chmod(0o755)
    return path


def test_compilers_that_cannot_start_or_say_odd_things(run: Run, checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "new"
    no_interpreter = script(tmp_path / "a", b"#!/no/such/shell\n")
    result = run("export", checkpoint, "--out", out, "--cc", no_interpreter)
    assert result.status == 1
    assert "is no C compiler" in result.err
    lines = b"#!/bin/sh\nprintf '\\377'; [ \"$1\" = --version ] || { printf '\\377' >&2; exit 1; }\n"
    not_text = script(tmp_path / "b", lines)
    result = run("export", checkpoint, "--out", out, "--cc", not_text)
    assert result.status == 1
    assert "Traceback" not in result.err
    assert not out.exists()


def test_a_compiler_named_by_a_relative_path(run: Run, workplace: Path) -> None:
    script(workplace / "mycc", f'#!/bin/sh\nexec {shutil.which("cc")} "$@"\n'.encode())
    result = run("export", "tiny.pt", "--out", "new", "--cc", "./mycc")
    assert result.status == 0, result.err
    assert run("verify", "new").status == 0


def test_ending_an_export_leaves_nothing_half_written(checkpoint: Path, tmp_path: Path) -> None:
    """By SIGTERM, as `kill` and `timeout` send it, in the middle of compiling."""
    started = tmp_path / "started"
    lines = f'#!/bin/sh\n[ "$1" = --version ] && echo 1 && exit 0\ntouch {started}\nsleep 2\n'
    slow = script(tmp_path / "slow", lines.encode())
    folder = tmp_path / "work"
    folder.mkdir()
    command = [sys.executable, "-c", "from bfedge.cli.main import main; main()", "export", str(checkpoint)]
    process = subprocess.Popen([*command, "--out", str(folder / "new"), "--cc", str(slow)], stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while not started.exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.terminate()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert err.splitlines()[-1] == b"error: interrupted"
    assert not any(folder.iterdir())


@pytest.mark.parametrize("change", [{"schema": 99}, {"files": {}}, {"tile": "all"}, {"profile": {"name": "x"}}])
def test_a_changed_manifest_is_refused(run: Run, copy: Path, change: dict) -> None:
    file = copy / "manifest.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    for verb in ("verify", "profile", "bench", "flash"):
        result = run(verb, copy)
        assert result.status == 1
        assert "manifest.json" in result.err


def test_no_export_runs_another_program_than_qemu(run: Run, copy: Path) -> None:
    """A manifest may come from anywhere."""
    file = copy / "manifest.json"
    manifest = json.loads(file.read_text())
    manifest["profile"]["emulate"] = {"program": str(script(copy.parent / "evil", b"#!/bin/sh\ntouch canary\n"))}
    file.write_text(json.dumps(manifest))
    assert run("profile", copy, "--emulate").status == 1
    assert not (copy.parent / "canary").exists()


def test_a_changed_program_is_not_started(run: Run, copy: Path) -> None:
    canary = copy.parent / "canary"
    script(copy / "bfedge-device", f"#!/bin/sh\ntouch {canary}\n".encode())
    for verb in ("verify", "profile", "bench"):
        result = run(verb, copy)
        assert result.status == 1
        assert "SHA-256" in result.err + result.out
    assert not canary.exists()


def test_the_plan_states_the_workspace_that_the_board_uses(run: Run, exported: Path) -> None:
    planned = parsed(run("plan", exported, "--target", "pi", "--json"), "plan")["boards"][0]
    found = parsed(run("profile", exported, "--json"), "profile")
    assert planned["workspace_bytes"] == found["workspace_stated"] == found["workspace_used"]


def test_without_a_home_folder_the_cache_is_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bfedge.files import cache_folder

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "bfedge"
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    for home in ("relative", str(tmp_path / "file" / "home")):
        monkeypatch.setenv("HOME", home)
        assert cache_folder().parent == tmp_path


# ---------------------------------------------------------------- verify


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


# ---------------------------------------------------------------- Ctrl-C


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
    complaint(result, "interrupted before the first epoch was done", hint=False)
    assert not files(tmp_path)
