"""An export keeps what is not its own, and what is started from it is what was exported."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.runs import Run, complaint, files, parsed, script


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
