"""Every `--json` output has a schema in bfedge/schemas, which it keeps and which is strict. conftest.py checks what
other tests print; here the real command runs, and the schemas themselves are tested.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from jsonschema import Draft202012Validator

from bfedge.cli import main
from bfedge.cli.output import print_json
from bfedge.device import nrf_flash
from bfedge.device.profile import load_profile
from bfedge.models import packaged_pictures
from tests import test_esp_flash as esp
from tests import test_nrf_flash as nrf
from tests.schemas import FOLDER, SUFFIX, checked_json, schemas, validator, violation
from tests.simulated_nrf52840 import Chip, shared_probe

RECORDED = sorted((Path(__file__).parents[1] / "docs" / "bench").glob("*.json"))
TINY = [f"--set=model.{field}" for field in ("d_model=8", "d_ff=8", "layers=1", "heads=1", "experts=2", "patch_size=4")]


def test_every_verb_has_a_schema_and_every_schema_a_use() -> None:
    assert {path.name for path in FOLDER.iterdir()} == {f"{name}{SUFFIX}" for name in schemas()}
    assert schemas().keys() >= {*main.VERBS, "common", "manifest"}
    for verb in schemas().keys() - {"common", "manifest"}:
        assert importlib.import_module(f"bfedge.cli.{verb}").command.name == verb
        assert schemas()[verb]["title"] == f"bfedge {verb} --json"
        assert schemas()[verb]["properties"]["schema"]["const"] == 1
        assert schemas()[verb]["properties"]["verb"]["const"] == verb


@pytest.mark.parametrize("name", schemas())
def test_schemas_are_valid(name: str) -> None:
    Draft202012Validator.check_schema(schemas()[name])


# ----- what the command prints -----


def in_this_process(folder: Path, arguments: list[str]) -> str:
    shown = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(shown):
        patch.chdir(folder)
        assert main.run(arguments) == 0
    return shown.getvalue()


def in_its_own_process(folder: Path, arguments: list[str]) -> str:
    command = [sys.executable, "-c", "from bfedge.cli.main import main; main()", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What verbs print about one small model: those that need torch in this process, which has it, the others as users
    run them.
    """
    folder = tmp_path_factory.mktemp("outputs")
    commands = {
        "train": (in_this_process, ["digits", "--epochs", "1", *TINY, "--out", "d.pt"]),
        "export": (in_this_process, ["d.pt", "--golden", "2"]),
        "verify": (in_this_process, ["d-host", "--checkpoint", "d.pt"]),
        "profile": (in_its_own_process, ["d-host"]),
        "bench": (in_its_own_process, ["d-host", "--runs", "3"]),
        "plan": (in_its_own_process, ["d-host", "--target", "esp32"]),
        "inspect": (in_its_own_process, ["d-host/model.bfe"]),
        "demo": (in_its_own_process, [str(packaged_pictures()["cup"]), "--model", "d-host"]),
        "compare": (in_this_process, ["d.pt", "--images", "16", "--batch", "4", "--rounds", "3"]),
        "devices": (in_its_own_process, ["esp32"]),
        "doctor": (in_its_own_process, ["host"]),
    }
    found = {}
    for verb, (run, arguments) in commands.items():
        shown = run(folder, [verb, *arguments, "--json"])
        assert violation(shown) is None
        found[verb] = json.loads(shown)
    validator("manifest").validate(json.loads((folder / "d-host" / "manifest.json").read_text()))
    return found | {"bench, this machine": json.loads(RECORDED[0].read_text())}


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.name)
def test_recorded_runs_keep_the_schema(path: Path) -> None:
    assert violation(path.read_text()) is None


MAPPINGS = {
    "export": r"manifest\.files\.",
    "plan": r"parts\.|boards\.\d+\.memories\.\d+\.contents\.",
    "compare": r"times\.\d+\.cases\.\d+\.kinds\.",
    "devices": r"devices\.\d+\.steps\.",
    "doctor": r"tools\.|targets\.\d+\.steps\.",
}
"""Objects, by verb, whose members are named by what they are about, so that any of them may be absent"""


def test_a_member_that_is_missing_or_unknown_breaks_the_schema(outputs: dict[str, Any]) -> None:
    """Wherever in the output it is."""
    for output in map(shortened, outputs.values()):
        verb = output["verb"]
        check = validator(verb).is_valid
        assert check(output), verb
        for place, members in objects(output):
            is_mapping = bool(re.fullmatch(MAPPINGS.get(verb, "none"), place))
            members["unknown"] = []
            assert not check(output), f"{verb}: {place} takes any member"
            del members["unknown"]
            for name in list(members):
                kept = dict(members)
                del members[name]
                assert check(output) == is_mapping, f"{verb}: without {place}{name}"
                members.clear()
                members.update(kept)


def shortened(value: Any, name: str = "") -> Any:
    """A copy with one object of each kind in a list, by its members, and few files and tools."""
    if isinstance(value, dict):
        kept = list(value)[:2] if name in ("files", "tools") else list(value)
        return {key: shortened(value[key], key) for key in kept}
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return list({kind(item): item for item in map(shortened, value)}.values())
    return value


def kind(value: Any) -> object:
    if isinstance(value, dict):
        return frozenset((key, kind(item)) for key, item in value.items())
    return frozenset(map(kind, value)) if isinstance(value, list) else None


def objects(value: Any, place: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every object in a value, and its path with a dot behind it."""
    if isinstance(value, dict):
        yield place, value
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in list(items):
        yield from objects(item, f"{place}{key}.")


@pytest.mark.parametrize(
    ("verb", "change"),
    [
        ("train", {"deployed_accuracy": 98.3}),
        ("train", {"seconds": None}),
        ("export", {"schema": 2}),
        ("inspect", {"crc32": "0xDEADBEEF"}),
        ("inspect", {"bytes": 1024.5}),
        ("verify", {"checks": []}),
        ("bench", {"median": "0.05 ms"}),
        ("bench", {"verb": "profile"}),
        ("profile", {"tile": -1}),
        ("devices", {"devices": {}}),
    ],
)
def test_values_of_another_kind_break_the_schema(outputs: dict[str, Any], verb: str, change: dict[str, Any]) -> None:
    assert not validator(verb).is_valid(outputs[verb] | change)


# ----- boards that are flashed -----

Run = Callable[..., dict[str, Any]]


@pytest.fixture
def flashed(capfd: pytest.CaptureFixture[str]) -> Run:
    """`bfedge flash ARGUMENTS --json` in this process."""

    def call(*arguments: object) -> dict[str, Any]:
        capfd.readouterr()
        status = main.run(["flash", *map(str, arguments), "--json"])
        shown, words = capfd.readouterr()
        assert status == 0, words
        assert violation(shown) is None
        found: dict[str, Any] = json.loads(shown)
        return found

    return call


@pytest.fixture
def nano(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[nrf.Exported]:
    """An export for a Nano 33 BLE; boards of this machine stay out of it."""
    monkeypatch.setattr(nrf_flash, "nano_ports", list)
    monkeypatch.setattr(nrf_flash, "find_drives", list)
    monkeypatch.setenv("HOME", str(tmp_path))
    yield nrf.write_export(tmp_path / "nano", nrf.firmware(nrf.packed_model()))
    gc.collect()  # pyocd leaves files open


@pytest.mark.filterwarnings("ignore:unclosed file .*svd_data.zip:ResourceWarning")
def test_flashing_by_a_probe(flashed: Run, nano: nrf.Exported) -> None:
    with shared_probe(Chip()) as probe:
        found = flashed(nano.folder, "--probe", probe)
    assert (found["tool"], found["verified"]) == ("pyocd", True)
    assert "without a bootloader" in found["note"]


def test_flashing_by_arduino_s_uploader(flashed: Run, nano: nrf.Exported) -> None:
    nrf.install_arduino_bossac(nano)
    board = nrf.SamBa()
    board.start()
    assert flashed(nano.folder, "--port", board.port)["port"] == board.port
    board.close()


def test_flashing_by_a_drive(flashed: Run, nano: nrf.Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drive = tmp_path / "drive"
    drive.mkdir()
    monkeypatch.setattr(nrf_flash, "find_drives", lambda: [drive])
    image = nrf.firmware(nrf.packed_model(), start=0x26000)
    behind = nrf.write_export(tmp_path / "behind", image, start=0x26000, uf2_start=0x26000)
    info = nrf.INFO.format(board="nRF52840-Nano33-v1", softdevice="S140 version 6.1.1")
    (drive / "INFO_UF2.TXT").write_text(info)
    assert flashed(behind.folder, "--tool", "uf2")["drive"] == str(drive)


def test_flashing_an_esp32_s3(flashed: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(esp.mock_server, "_CLIENT_RECV_TIMEOUT", 2.0)
    project = tmp_path / "project"
    project.mkdir()
    model = esp.packed_model()
    for folder in (tmp_path, project):
        (folder / "model.bfe").write_bytes(model)
    esp.write_build(project)
    sums = {name: {"sha256": esp.hashlib.sha256(model).hexdigest()} for name in ("model.bfe", "project/model.bfe")}
    profile = msgspec.to_builtins(load_profile("esp32"))
    manifest = {"schema": 2, "profile": profile, "tile": 0, "arena_bytes": 4096, "files": sums}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    board = esp.MockBoard("esp32s3")
    found = flashed(tmp_path, "--port", board.port)
    assert [file["name"] for file in found["files"]][-1] == "model.bfe"
    assert found["reset"] is False
    assert len(flashed(tmp_path, "--port", board.port, "--model-only")["files"]) == 1
    board.close()


# ----- the check itself -----


def test_what_breaks_a_schema_is_noted(capsys: pytest.CaptureFixture[str]) -> None:
    assert checked_json.take_violations() == []
    print_json("train", {"checkpoint": "m.pt"})
    print_json("fly", {})
    assert capsys.readouterr().out.count('"schema": 1') == 2
    missing, unknown = checked_json.take_violations()
    assert "schemas/train.schema.json: $: 'parameters' is a required property" in missing
    assert unknown == "there is no schemas/fly.schema.json"
    assert "NaN is no JSON" in str(violation('{"verb": "train", "seconds": NaN}'))


def test_a_test_whose_output_breaks_its_schema_fails(tmp_path: Path) -> None:
    """A suite of one test, under this conftest.py."""
    repository = Path(__file__).parents[1]
    (tmp_path / "conftest.py").write_text("from tests.conftest import *\n")
    (tmp_path / "test_it.py").write_text(
        "from bfedge.cli.output import print_json\ndef test_prints():\n    print_json('train', {})\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(repository)}
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert result.returncode == 1
    assert "FAILED test_it.py::test_prints - Failed: schemas/train.schema.json: $: " in result.stdout
