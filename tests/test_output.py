"""What verbs print, as tables and as JSON, of values that are out of the ordinary."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest

from bfedge.cli import main
from bfedge.cli.output import SafeConsole, finite, table, track
from bfedge.packed.outline import lay_out
from bfedge.packed.validate import SectionEntry
from bfedge.packed.writer import sections_of, with_checksum
from tests.tiny_model import tiny_model


def test_an_optional_section_that_nobody_knows_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A newer bfedge may write sections of kinds and encodings that this one leaves alone."""
    sections = [*sections_of(tiny_model(), None), (0x8001, 0xFFFF, 99, b"new")]
    plan = lay_out(tiny_model().shape, (SectionEntry(k, b, e, 0, len(data)) for k, b, e, data in sections))
    body = b"".join(data + bytes(-len(data) % 16) for *_, data in sections)
    path = tmp_path / "newer.bfe"
    path.write_bytes(with_checksum(plan.head + body))
    assert main.run(["inspect", str(path)]) == 0
    assert re.search(r"kind 0x8001 +99 ", capsys.readouterr().out)
    assert main.run(["inspect", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["sections"][-1]["encoding"] == "99"


def test_json_has_null_for_what_is_not_a_number() -> None:
    values = {"worst": float("nan"), "checks": [{"largest": (1.5, float("-inf"))}], "count": 3, "name": None}
    printed = json.dumps(finite(values), allow_nan=False)
    assert json.loads(printed) == {"worst": None, "checks": [{"largest": [1.5, None]}], "count": 3, "name": None}


def test_names_neither_speak_to_the_terminal_nor_are_markup(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()
    console = SafeConsole(file=shown, force_terminal=True, markup=False, width=80)
    monkeypatch.setattr("bfedge.cli.output.words", console)
    name = "q[/b][bold]\x1b]0;title\x07"
    assert list(track([1, 2], f"reading {name}")) == [1, 2]
    console.print(name)
    rows = table("name")
    rows.add_row(name)
    console.print(rows)
    assert "\x1b]" not in shown.getvalue()
    assert shown.getvalue().count("q[/b][bold]") >= 3
