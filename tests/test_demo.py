"""`bfedge demo`: pictures of any kind, a packed model, the classes that it names; and models that come with bfedge."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from bfedge.cli import demo, main
from bfedge.cli.pictures import MOST_COLUMNS, half_blocks, read_picture, shows_pictures
from bfedge.lowered import reference
from bfedge.models import PICTURES, packaged_models, packaged_pictures
from bfedge.packed.reader import unpack
from bfedge.packed.writer import pack
from tests.cli.runs import SMALL, Result, Run, complaint, parsed
from tests.random_models import random_lowered

TINY = SMALL | {"image_height": 8, "image_width": 8, "channels": 3, "classes": 7}
LABELS = ("cup", "raccoon", "rocket", "woman", "plate", "bowl", "wolf")


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    """`bfedge ARGUMENTS` in this process."""

    def call(*arguments: object) -> Result:
        capfd.readouterr()
        status = main.run([str(a) for a in arguments])
        return Result(status, *capfd.readouterr())

    return call


def packed_model(path: Path, labels: tuple[str, ...] = LABELS, **shape: Any) -> Path:
    model = random_lowered(5, **(TINY | shape))
    object.__setattr__(model, "labels", labels)
    path.write_bytes(pack(model))
    return path


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return packed_model(tmp_path / "tiny.bfe")


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (40, 61, 3), np.uint8)).save(path)
    return path


# ----- what it says -----


def test_it_names_the_classes_that_the_reference_finds(run: Run, model: Path, photo: Path) -> None:
    found = parsed(run("demo", photo, "--model", model, "--json"), "demo")
    logits = reference.run(unpack(model.read_bytes()).model, read_picture(photo, (8, 8), 3)[None])[0].astype(float)
    shares = np.exp(logits) / np.exp(logits).sum()
    order = np.argsort(-logits)[:5]
    (picture,) = found["pictures"]
    assert [entry["class"] for entry in picture["top"]] == [LABELS[index] for index in order]
    assert [entry["probability"] for entry in picture["top"]] == pytest.approx(shares[order])
    assert (picture["file"], picture["shows"]) == (str(photo), None)


def test_the_packaged_pictures_are_classified_where_none_is_named(run: Run, model: Path) -> None:
    found = parsed(run("demo", "--model", model, "--json"), "demo")
    assert [picture["shows"] for picture in found["pictures"]] == ["cup", "rocket", "woman"]
    text = run("demo", "--model", model)
    assert text.status == 0
    assert "\x1b" not in text.out
    assert "▀" not in text.out
    for picture in found["pictures"]:
        assert f"{picture['shows']}.jpg, which shows: {picture['shows']}" in text.out
        for entry in picture["top"]:
            assert re.search(rf"  {entry['class']} +{100 * entry['probability']:.1f}%  █*\n", text.out)
    assert f"bfedge export {model} --target" in text.out


def test_a_model_without_labels_and_fewer_classes_than_five(run: Run, tmp_path: Path, photo: Path) -> None:
    bare = packed_model(tmp_path / "bare.bfe", (), classes=3, channels=1)
    found = parsed(run("demo", photo, "--model", bare, "--json"), "demo")
    assert {entry["class"] for entry in found["pictures"][0]["top"]} == {"class 0", "class 1", "class 2"}
    assert "8 x 8 pixels of grey" in run("demo", photo, "--model", bare).out


def test_names_cannot_write_to_the_terminal(run: Run, tmp_path: Path, photo: Path) -> None:
    evil = packed_model(tmp_path / "evil.bfe", tuple(f"\x1b[31m[bold]{n}" for n in range(7)))
    result = run("demo", photo, "--model", evil)
    assert result.status == 0
    assert "\x1b" not in result.out
    assert "[bold]" in result.out


def test_it_needs_neither_torch_nor_onnx(model: Path, photo: Path) -> None:
    absent = "import sys; sys.modules.update(dict.fromkeys(['torch', 'sklearn', 'onnx', 'scipy', 'matplotlib']))"
    script = f"{absent}; from bfedge.cli.main import main; main()"
    command = [sys.executable, "-c", script, "demo", str(photo), "--model", str(model), "--json"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert len(parsed(Result(result.returncode, result.stdout, result.stderr), "demo")["pictures"]) == 1


# ----- what is wrong -----


def spoil(photo: Path) -> dict[str, Path]:
    folder = photo.parent
    (folder / "text.jpg").write_text("no image")
    (folder / "empty.png").write_bytes(b"")
    (folder / "half.png").write_bytes(photo.read_bytes()[:2000])
    (folder / "folder").mkdir()
    return {name: folder / name for name in ("text.jpg", "empty.png", "half.png", "folder", "none.png")}


def test_a_bad_image_is_one_line(run: Run, model: Path, photo: Path) -> None:
    for name, path in spoil(photo).items():
        complaint(run("demo", photo, path, "--model", model), re.escape(name))


def test_other_mistakes_are_one_line(run: Run, model: Path, photo: Path, tmp_path: Path) -> None:
    complaint(run("demo", "--model", "none.bfe"), "none.bfe")
    complaint(run("demo", "--model", photo), "not a model|not a .bfe|photo.png")
    complaint(
        run("demo", "--model", packed_model(tmp_path / "digits.bfe", tuple("0123456"))), "none of these", hint=True
    )
    complaint(run("demo", photo, "--model", packed_model(tmp_path / "two.bfe", channels=2)), "2")


# ----- pictures of any kind -----

RED, WHITE, BLUE = (255, 0, 0), (255, 255, 255), (0, 0, 255)


def stripes(width: int, height: int, colours: list[tuple[int, int, int]]) -> Image.Image:
    """Columns of equal width."""
    pixels = np.array(colours, np.uint8)[np.arange(width) * len(colours) // width]
    return Image.fromarray(np.broadcast_to(pixels, (height, width, 3)).copy())


def test_the_centred_square_is_what_is_seen(tmp_path: Path) -> None:
    wide, tall = tmp_path / "wide.png", tmp_path / "tall.png"
    image = stripes(90, 30, [RED, BLUE, RED])
    image.save(wide)
    image.rotate(90, expand=True).save(tall)
    for path in (wide, tall):
        pixels = read_picture(path, (8, 8), 3)
        assert pixels.shape == (8, 8, 3)
        assert (pixels == BLUE).all()
    assert (read_picture(wide, (8, 24), 3)[:, [0, 12, 23]] == [RED, BLUE, RED]).all()


def test_it_shrinks_with_antialiasing(tmp_path: Path) -> None:
    """Fine stripes become their mean, and not one of the two."""
    path = tmp_path / "fine.png"
    stripes(256, 256, [(0, 0, 0), WHITE] * 64).save(path)
    assert np.abs(read_picture(path, (8, 8), 1).astype(int)[:, 1:-1] - 128).max() <= 3


def grey_16_bits(path: Path) -> None:
    Image.fromarray(np.full((9, 9), 32768, np.uint16)).save(path)


def half_transparent(path: Path) -> None:
    """Black, where anything is seen: grey on white."""
    Image.new("RGBA", (9, 9), (0, 0, 0, 127)).save(path)


def palette_with_transparency(path: Path) -> None:
    Image.new("P", (9, 9), 0).save(path, transparency=0)


@pytest.mark.parametrize(
    ("write", "expected"),
    [
        (grey_16_bits, 128),
        (half_transparent, 128),
        (palette_with_transparency, 255),
        (lambda path: Image.new("LA", (9, 9), (0, 0)).save(path), 255),
        (lambda path: Image.new("L", (1, 3), 77).save(path), 77),
        (lambda path: Image.new("1", (9, 9), 1).save(path), 255),
        (lambda path: Image.new("CMYK", (9, 9), (0, 0, 0, 0)).save(path, format="TIFF"), 255),
    ],
    ids=["grey of 16 bits", "alpha", "palette", "grey and alpha", "one pixel wide", "black and white", "CMYK"],
)
def test_kinds_of_images(tmp_path: Path, write: Callable[[Path], None], expected: int) -> None:
    path = tmp_path / "image.png"
    write(path)
    for channels in (1, 3):
        pixels = read_picture(path, (4, 4), channels)
        assert pixels.shape == (4, 4, channels)
        assert np.abs(pixels.astype(int) - expected).max() <= 1


def test_the_camera_s_rotation_is_undone(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated by a quarter: what is stored left is above
    stripes(16, 16, [RED, BLUE]).save(path, exif=exif, quality=95)
    pixels = read_picture(path, (4, 4), 3).astype(int)
    assert np.abs(pixels[0] - RED).max() < 40
    assert np.abs(pixels[-1] - BLUE).max() < 40


def test_the_packaged_pictures_name_their_licences() -> None:
    text = (PICTURES / "LICENSES.md").read_text()
    for file in packaged_pictures().values():
        assert f"| `{file.name}` |" in text
        assert file.stat().st_size < 10_000


# ----- pictures in a terminal -----


def terminal(**options: Any) -> Console:
    chosen: dict[str, Any] = {"force_terminal": True, "color_system": "truecolor", "width": 100, "_environ": {}}
    return Console(file=io.StringIO(), **(chosen | options))


def test_half_blocks_show_two_rows_of_pixels_a_line() -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (5, 4, 3), np.uint8)
    console = terminal()
    for line in half_blocks(pixels):
        console.print(line)
    first, *_, last = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    colours = ";".join(map(str, [38, 2, *pixels[0, 0], 48, 2, *pixels[1, 0]]))
    assert first.startswith(f"\x1b[{colours}m▀")
    assert "48;2" not in last  # an odd number of rows
    large = half_blocks(np.zeros((200, 100, 1), np.uint8))
    assert (len(large), large[0].cell_len) == (MOST_COLUMNS, MOST_COLUMNS)


def test_pictures_show_only_where_there_is_colour(
    run: Run, model: Path, monkeypatch: pytest.MonkeyPatch, photo: Path
) -> None:
    assert shows_pictures(terminal())
    assert shows_pictures(terminal(color_system="256"))
    without = [terminal(color_system="standard"), terminal(_environ={"NO_COLOR": "1"}), terminal(force_terminal=False)]
    for console in [terminal(), *without]:
        monkeypatch.setattr(demo, "out", console)
        assert run("demo", photo, "--model", model).status == 0
        shown = console.file.getvalue()  # type: ignore[attr-defined]
        assert ("▀" in shown) == (console not in without)
        assert "photo.png" in shown


# ----- models by name -----


@pytest.fixture
def named(model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """A packaged model of this name; the current folder is an empty one."""
    monkeypatch.setattr("bfedge.models.FOLDER", model.parent)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return model.stem


def test_packaged_models_go_by_their_names(run: Run, named: str, photo: Path) -> None:
    assert parsed(run("demo", photo, "--model", named, "--json"), "demo")["model"] == named
    verified = run("verify", named, "--json")
    assert json.loads(verified.out)["model"] == named
    assert verified.status == 0
    complaint(run("demo", "--model", "tinny"), "no model `tinny`", hint=True)
    assert f"hint: bfedge brings {named}" in run("verify", "tinny").err


def test_every_verb_takes_a_packaged_name(run: Run, named: str) -> None:
    """An export of it goes to the current folder, not beside the packaged file."""
    for verb in ("inspect", "plan", "export", "report"):
        result = run(verb, named)
        assert result.status == 0, result.err
    assert sorted(path.name for path in Path().iterdir()) == ["report.html", f"{named}-host"]
    assert json.loads(run("plan", named, "--json").out)["model"] == named
    for verb in ("inspect", "plan", "export", "report", "paper", "profile", "bench"):
        complaint(run(verb, "tinny"), "no model `tinny`", hint=True)


def test_pictures_become_golden_vectors(run: Run, model: Path, tmp_path: Path) -> None:
    """So a packaged model's file holds no image of the data that it was trained on."""
    result = run("export", model, "--data", PICTURES, "--out", tmp_path / "out")
    assert "golden vectors: 3 pictures of" in result.out
    golden = unpack((tmp_path / "out" / "model.bfe").read_bytes()).golden
    assert golden is not None
    expected = [read_picture(file, (8, 8), 3) for file in packaged_pictures().values()]
    assert (golden.inputs == expected).all()


def test_a_file_of_that_name_wins(run: Run, named: str, photo: Path) -> None:
    Path(named).write_text("another")
    complaint(run("demo", photo, "--model", named), f"`{named}`")


def test_a_folder_of_that_name_that_is_no_export_does_not(run: Run, named: str, photo: Path) -> None:
    """A data set may lie in one."""
    Path(named).mkdir()
    assert parsed(run("demo", photo, "--model", named, "--json"), "demo")["model"] == named


def test_the_default_is_the_packaged_model_whatever_lies_around(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("cifar100").mkdir()
    pictures = parsed(run("demo", "--json"), "demo")["pictures"]
    assert [picture["shows"] for picture in pictures] == ["cup", "rocket", "woman"]
    assert pictures[1]["top"][0]["class"] == "rocket"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs POSIX pipes")
def test_a_pipe_is_no_image(run: Run, model: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    complaint(run("demo", tmp_path / "pipe.jpg", "--model", model), "pipe.jpg")


def test_packaged_models_have_a_card() -> None:
    for file in packaged_models().values():
        assert file.with_suffix(".md").is_file()
