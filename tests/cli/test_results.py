"""What the verbs print: JSON on stdout, words on stderr."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from bfedge.model.checkpoint import load_checkpoint
from tests.cli.runs import TINY_TRAINING, Run, complaint, files, parsed


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
