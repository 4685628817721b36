"""`bfedge report`: the page in a real browser, its numbers against the plan's, and what it refuses."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from bfedge.cli.main import run
from bfedge.device.profile import known_profiles
from bfedge.measure.experts import ImageRouting
from bfedge.measure.plan import plan
from bfedge.measure.target_plan import plan_target
from bfedge.packed.golden import golden_vectors
from bfedge.packed.outline import outline_of
from bfedge.packed.writer import pack
from bfedge.report import collect, words
from bfedge.report.model_sections import BROADEST, TALLEST, cell
from bfedge.report.page import plan_pill
from bfedge.report.pictures import averaged, layer_picture
from bfedge.report.profiles import read_measured
from tests.chromium import PACKAGE, Chromium, find_chromium
from tests.fixed_models import DIGITS, Drawer

HOSTILE = "<img src=x onerror='document.title=1'>\"&{{ 7*7 }}"
"""In names of files, classes and boards; a name of a file has no slash"""
TURNING = "\u202e\u2067"
"""Turns the text that follows it"""
WINDOWS = [(360, False), (360, True), (1280, False), (1280, True)]
"""Width, and whether the system is dark"""
READABLE = 4.5
"""Contrast of text (WCAG 2.1, level AA)"""

TOO_FAINT = """
(() => {
  const parse = c => { const n = c.match(/[\\d.]+/g).map(Number); return n.length < 4 ? [...n, 1] : n; };
  const over = (a, b) => [0, 1, 2].map(i => a[i] * a[3] + b[i] * (1 - a[3]));
  const light = c => { const [r, g, b] = c.map(v => (v /= 255) <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
                       return .2126 * r + .7152 * g + .0722 * b; };
  const back = e => { if (!e) return [255, 255, 255];
                      const c = parse(getComputedStyle(e).backgroundColor);
                      return c[3] === 1 ? c : over(c, back(e.parentElement)); };
  const found = [];
  for (const e of document.body.querySelectorAll("*")) {
    const own = [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
    if (!own || !e.checkVisibility() || e.closest(".patches, script, [aria-hidden=true]")) continue;
    const style = getComputedStyle(e), ground = back(e);
    const ink = over(parse(e instanceof SVGElement ? style.fill : style.color), ground);
    const [high, low] = [light(ink), light(ground)].sort((a, b) => b - a);
    if ((high + .05) / (low + .05) < LEAST) found.push(e.textContent.trim().slice(0, 40));
    seen.count = (seen.count || 0) + 1;
  }
  return found;
})()
"""


@dataclasses.dataclass
class Written:
    model: Path
    profile: Path
    page: Path
    result: dict[str, Any]


def report(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    capsys.readouterr()
    assert run(["report", *map(str, arguments), "--json"]) == 0
    printed: dict[str, Any] = json.loads(capsys.readouterr().out)
    return printed


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    capsys.readouterr()
    assert run(["report", *map(str, arguments)]) == 1
    return capsys.readouterr().err


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    """A page with every figure, of a model whose classes, file and profile have hostile names."""
    folder = tmp_path_factory.mktemp("report")
    drawn = dataclasses.replace(
        Drawer(DIGITS).model(), labels=tuple(f"{HOSTILE}{TURNING}{index}" for index in range(10))
    )
    images = load_digits().images[:3, :, :, None].astype(np.uint8) * 15
    model = folder / f"{HOSTILE}.bfe"
    model.write_bytes(pack(drawn, golden_vectors(drawn, images)))
    with pytest.MonkeyPatch.context() as patch:
        profile, page, printed = folder / "host.json", folder / "page.html", folder / "printed.json"
        patch.setattr("sys.stdout", profile.open("w"))
        assert run(["profile", str(model), "--target", "host", "--json"]) == 0
        measured = json.loads(flushed(profile))
        measured["where"] = measured["hello"]["cpu"] = measured["stages"][0]["name"] = HOSTILE
        profile.write_text(json.dumps(measured))
        patch.setattr("sys.stdout", printed.open("w"))
        assert run(["report", str(model), "--profile", str(profile), "--out", str(page), "--json"]) == 0
        result = json.loads(flushed(printed))
    return Written(model, profile, page, result)


def flushed(path: Path) -> str:
    import sys

    sys.stdout.close()
    return path.read_text()


@pytest.fixture(scope="module")
def browser() -> Iterator[Chromium]:
    if not find_chromium():
        pytest.skip(f"there is no Chromium (apt: {PACKAGE})")
    with Chromium() as browser:
        yield browser


@pytest.mark.parametrize(("width", "dark"), WINDOWS)
def test_the_page_opens_from_disk_and_shows_every_figure(
    browser: Chromium, written: Written, width: int, dark: bool
) -> None:
    browser.problems.clear()
    browser.requests.clear()
    browser.show(written.page, width, dark=dark)
    assert browser.problems == []
    assert browser.requests == [written.page.absolute().as_uri()]
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    shown = {figure["id"] for figure in written.result["figures"] if figure["present"]}
    assert len(shown) == 12
    for figure in shown:
        box = browser.evaluate(
            f"(e => e && e.checkVisibility() && [e.offsetWidth, e.offsetHeight])(document.getElementById('{figure}'))"
        )
        assert box, figure
        assert min(box) > 60, figure
    empty = "[...document.querySelectorAll('svg, img')].filter(e => e.getBoundingClientRect().width < 60).length"
    assert browser.evaluate(empty) == 0
    broken = "[...document.images].filter(e => !e.complete || !e.naturalWidth).length"
    assert browser.evaluate(broken) == 0


@pytest.mark.parametrize(("width", "dark"), WINDOWS)
def test_text_is_readable_in_light_and_dark(browser: Chromium, written: Written, width: int, dark: bool) -> None:
    browser.show(written.page, width, dark=dark)
    page = browser.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", page))) < 3 * 128) == dark
    browser.evaluate("document.querySelectorAll('details').forEach(e => e.open = true), window.seen = {}, 0")
    assert browser.evaluate(TOO_FAINT.replace("LEAST", str(READABLE))) == []
    assert browser.evaluate("seen.count") > 200
    assert browser.evaluate("document.documentElement.scrollWidth") <= width


def test_the_button_changes_light_and_dark(browser: Chromium, written: Written) -> None:
    browser.show(written.page, 360, dark=False)
    colour = "getComputedStyle(document.body).backgroundColor"
    before = browser.evaluate(colour)
    browser.evaluate("document.querySelector('.toggle').click()")
    assert browser.evaluate(colour) != before
    browser.show(written.page, 360, dark=True)
    assert browser.evaluate(colour) != before


def test_names_are_text_and_never_markup(browser: Chromium, written: Written) -> None:
    browser.problems.clear()
    browser.show(written.page, 1280)
    assert browser.evaluate("document.querySelector('h1').textContent") == written.model.name
    assert browser.evaluate("document.title").startswith(HOSTILE)
    assert browser.evaluate("[...document.querySelectorAll('[onerror], [src=x]')].length") == 0
    assert browser.evaluate("[...document.scripts].length") == 1
    text = browser.evaluate("document.body.textContent")
    assert f"“{HOSTILE}" in text  # the class that the model says
    assert text.count(HOSTILE) >= 5
    assert not set(TURNING) & set(text)
    assert browser.problems == []  # nor did the page's policy have to stop anything


def test_a_page_has_the_plans_numbers(written: Written) -> None:
    outline = outline_of(written.model.read_bytes())
    whole = plan(outline)
    text = re.sub(r"<[^>]*>", " ", written.page.read_text())
    for size in (*whole.parts.values(), *whole.multiply_adds.values()):
        assert f"{size:,}" in text or words.amount(size) in text
    boards = [board for board in known_profiles() if board.memories]
    assert len(boards) >= 4
    for board in boards:
        planned = plan_target(board, outline, whole, written.model.name)
        assert board.title in text
        for memory in planned.memories:
            assert f"{memory.name}: {memory.needed:,} of {memory.room:,} bytes" in written.page.read_text()
    assert f"{outline.file_bytes:,} bytes" in text


def test_the_same_inputs_give_the_same_page(
    written: Written, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    again = report(capsys, written.model, "--profile", written.profile, "--out", tmp_path / "again.html")
    assert again["sha256"] == written.result["sha256"]
    assert again["bytes"] == (tmp_path / "again.html").stat().st_size


def test_what_is_left_out_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A model without golden vectors, labels, data or profile, and a board that it does not fit."""
    shape = dataclasses.replace(DIGITS, d_ff=8192, experts=2, image_height=2, image_width=2)
    (tmp_path / "bare.bfe").write_bytes(pack(Drawer(shape).model()))
    out = tmp_path / "bare.html"
    result = report(capsys, tmp_path / "bare.bfe", "--target", "nano33", "--out", out)
    left_out = {figure["id"]: figure["why"] for figure in result["figures"] if not figure["present"]}
    assert set(left_out) == {"stages", "routing", "shares"}
    page = out.read_text()
    for figure, why in left_out.items():
        assert f'id="{figure}-missing"' in page
        assert why.split(";")[0] in page
    assert "does not fit" in page
    assert "images of seeded noise" in page
    assert re.search("Outside of what was counted: .*d_ff", page)
    assert "fits 0 of 1 boards" in page


def test_a_difference_from_the_plan_is_shown(
    written: Written, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    measured = json.loads(written.profile.read_text())
    row = next(row for row in measured["against_plan"] if row["what"] == "workspace, as it is used")
    row["measured"] += 16
    (tmp_path / "off.json").write_text(json.dumps(measured))
    report(capsys, written.model, "--profile", tmp_path / "off.json", "--target", "pi", "--out", tmp_path / "off.html")
    page = (tmp_path / "off.html").read_text()
    assert "plan differs from measurement: 1" in page
    assert f"{row['measured']:,}" in page
    assert "plan differs" not in written.page.read_text()


def test_profiles_that_are_refused(written: Written, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def with_profile(content: bytes) -> str:
        (tmp_path / "profile.json").write_bytes(content)
        return refused(capsys, written.model, "--profile", tmp_path / "profile.json", "--out", tmp_path / "no.html")

    good = json.loads(written.profile.read_text())
    assert "another model" in with_profile(json.dumps({**good, "sha256": "0" * 64}).encode())
    assert "no JSON" in with_profile(b'{"schema": 1,')
    assert "no JSON" in with_profile(b"\xff\xfe\x00")
    assert "no JSON" in with_profile(b"[" * 100_000)
    for broken in ({}, [], 1, {**good, "verb": "plan"}, {**good, "schema": 2}, {**good, "stages": []},
                   {**good, "tile": -1}, {**good, "energy": [{"name": 1}]}, {**good, "hello": None}):  # fmt: skip
        assert "is no profile" in with_profile(json.dumps(broken).encode())
    row, part = good["against_plan"][0], {"what": "", "unit": "", "origin": "exact", "where": "", "source": None}
    for wrong in ({**row, "planned": -1}, {**row, "planned": 10**400}, {**row, "measured": 2**63}):
        assert "is no profile" in with_profile(json.dumps({**good, "against_plan": [wrong]}).encode())
    for amount in (-1, 1e300):
        account = {"name": "", "meaning": "", "parts": [{**part, "amount": amount, "pj_per_unit": 1}]}
        assert "is no profile" in with_profile(json.dumps({**good, "energy": [account]}).encode())
    del good["hello"]["kernels"]
    assert "another version of bfedge" in with_profile(json.dumps(good).encode())
    assert "larger than" in with_profile(b" " * (2**22 + 1))
    assert "there is no file" in refused(capsys, written.model, "--profile", tmp_path / "none.json")
    assert not (tmp_path / "no.html").exists()


def test_options_that_are_refused(
    written: Written, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "of golden inputs" in refused(capsys, written.model, "--image", "3")
    assert "there is no image `x.png`" in refused(capsys, written.model, "--image", "x.png")
    (tmp_path / "x.png").write_bytes(b"no picture")
    assert "cannot read the image" in refused(capsys, written.model, "--image", "x.png")
    assert "there is no board `pii`" in refused(capsys, written.model, "--target", "pii")
    assert "is a folder" in refused(capsys, written.model, "--out", tmp_path)
    assert "there is no folder `none`" in refused(capsys, written.model, "--out", "none/page.html")
    assert "of 5000 digits" in refused(capsys, written.model, "--image", "9" * 5000)
    assert "neither `digits` nor a folder" in refused(capsys, written.model, "--data", "nowhere")
    assert "none.bfe" in refused(capsys, tmp_path / "none.bfe")
    assert [path.name for path in tmp_path.iterdir()] == ["x.png"]


def test_a_page_never_replaces_what_it_is_made_from(
    written: Written, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "link").symlink_to(written.model)
    before = [path.read_bytes() for path in (written.model, written.profile)]
    for out in (written.model, tmp_path / "link", written.profile):
        assert "made from" in refused(capsys, written.model, "--profile", written.profile, "--out", out)
    assert [path.read_bytes() for path in (written.model, written.profile)] == before


def test_a_changed_export_is_not_verified(written: Written, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, page = tmp_path / "exported", tmp_path / "page.html"
    assert run(["export", str(written.model), "--target", "nano33", "--out", str(folder)]) == 0
    assert "made from" in refused(capsys, folder, "--out", folder / "model.bfe")
    (folder / "golden.npz").write_bytes(b"")
    report(capsys, folder, "--target", "pi", "--out", page)
    assert "not verified" in page.read_text()
    assert "not verified" not in written.page.read_text()
    assert "changed or missing: golden.npz" in page.read_text()


def test_large_models_are_tried_with_as_many_images_as_there_is_time_for(
    written: Written, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a file's name says nothing about its golden inputs."""
    monkeypatch.setattr(collect, "SECONDS", 0.0)
    model, out = tmp_path / os.fsdecode(b"noise\xff.bfe"), tmp_path / "page.html"
    model.write_bytes(written.model.read_bytes())
    assert run(["report", str(model), "--target", "pi", "--out", str(out)]) == 0
    assert "the first of 3" in capsys.readouterr().err
    text = out.read_text()
    assert "1 golden input of noise\\xff.bfe, whose origin is not recorded, the first of 3, 0 differing bits" in text
    assert 'id="routing"' in text


def test_two_boards_of_one_name_are_refused(
    written: Written, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    board = (Path(__file__).parents[1] / "devices/nano33-ble.toml").read_text()
    for title in ("one", "other"):
        changed = re.sub("(?m)^aliases = .*", "", board.replace('name = "nano33-ble"', 'name = "mine"'))
        (tmp_path / f"{title}.toml").write_text(re.sub("(?m)^title = .*", f'title = "{title}"', changed))
    one, other = tmp_path / "one.toml", tmp_path / "other.toml"
    assert "two boards are called `mine`" in refused(capsys, written.model, "--target", one, "--target", other)


def test_a_plan_that_nothing_was_compared_with_is_not_confirmed(written: Written, tmp_path: Path) -> None:
    good = json.loads(written.profile.read_text())
    sha256 = hashlib.sha256(written.model.read_bytes()).hexdigest()

    def pill(*changes: dict[str, Any]) -> str:
        profiles = []
        for change in changes:
            (tmp_path / "changed.json").write_text(json.dumps({**good, **change}))
            profiles.append(read_measured(tmp_path / "changed.json", sha256))
        assert collect.without_repeats([*profiles, *profiles]) == tuple(profiles)
        return plan_pill(profiles)["text"]

    unknown = [{**row, "measured": None} for row in good["against_plan"]]
    assert pill({}) == "measured as planned"
    assert pill({"against_plan": []}) == pill({"against_plan": unknown}) == "measured, not compared with the plan"
    assert pill({"emulated": True}) == "emulated as planned"
    assert pill({}, {"emulated": True}) == "measured and emulated as planned"


@given(st.integers(1, 1000), st.integers(1, 1000))
def test_pictures_of_long_images_are_neither_high_nor_flat(rows: int, columns: int) -> None:
    width, height = cell(rows, columns)
    assert 1 / TALLEST - 1e-9 <= width * columns / (height * rows) <= BROADEST + 1e-9
    assert (width == height) == (columns <= BROADEST * rows and rows <= TALLEST * columns)


@given(st.integers(0, 2**32), st.integers(1, 9), st.integers(1, 9), st.integers(1, 40), st.booleans())
def test_each_patch_is_drawn_once_in_its_experts_colour(
    seed: int, rows: int, columns: int, experts: int, class_token: bool
) -> None:
    random = np.random.default_rng(seed)
    tokens, top_k = rows * columns + class_token, int(random.integers(1, min(experts, 4) + 1))
    selected = np.stack([np.sort(random.choice(experts, top_k, replace=False)) for _ in range(tokens)])[None]
    weights = random.dirichlet(np.ones(top_k), tokens).astype(np.float32)[None]
    picture = layer_picture(ImageRouting(selected, weights, rows, columns, class_token), 0, experts)
    drawn: dict[tuple[int, int], str] = {}
    for shown in picture.experts:
        cells = [
            (int(row), column)
            for start, row, width, end in re.findall(r"M(\d+) (\d+)h(\d+)v1H(\d+)z", shown.path)
            for column in range(int(start), int(start) + int(width))
            if start == end
        ]
        assert len(cells) == shown.patches
        assert not drawn.keys() & cells
        drawn |= dict.fromkeys(cells, shown.name)
    assert len(drawn) == rows * columns
    assert len({shown.colour for shown in picture.experts}) == len(picture.experts)
    named = {shown.name for shown in picture.experts}
    for index in range(rows * columns):
        token = index + class_token
        best = str(selected[0, token, weights[0, token].argmax()])
        cell = drawn[index // columns, index % columns]
        assert cell == best or ("others" in cell and best not in named)


@given(st.integers(1, 300), st.integers(1, 50))
def test_averages_keep_the_mean_of_equal_shares(size: int, most: int) -> None:
    values = np.arange(size, dtype=float)
    found = averaged(values, most)
    assert len(found) == min(size, most)
    assert (np.diff(found) > 0).all()
    if size % most == 0:
        assert found.mean() == pytest.approx(values.mean())


@given(st.integers(0, 2**50))
def test_sizes_read_back_to_half_a_percent(number: int) -> None:
    value, unit = words.size(number).replace(",", "").split()
    factor = 1024 ** ["B", "KiB", "MiB", "GiB", "TiB"].index(unit)
    assert float(value) * factor == pytest.approx(number, rel=0.005)


@given(st.floats(1e-9, 1e6))
def test_energies_and_times_read_back_to_half_a_percent(number: float) -> None:
    value, unit = words.energy(number).replace(",", "").split()
    assert float(value) * {"mJ": 1, "µJ": 1e-3, "nJ": 1e-6, "pJ": 1e-9}[unit] == pytest.approx(number, rel=0.006)
    value, unit = words.milliseconds(number).replace(",", "").split()
    assert float(value) * {"s": 1e3, "ms": 1, "µs": 1e-3, "ns": 1e-6}[unit] == pytest.approx(number, rel=0.006)


def test_what_is_unknown_reads_so() -> None:
    for write in (words.count, words.size, words.amount, words.energy, words.milliseconds, words.percent, words.times):
        assert write(None) == "n/a"
