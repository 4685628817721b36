"""Image files as users have them, and the files that verbs write over."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bfedge.errors import BfedgeError
from bfedge.files import write_atomically
from bfedge.training.image_folder import read_image


def test_16_bit_grey_is_scaled_and_not_cut_off(tmp_path: Path) -> None:
    ramp = np.linspace(0, 65535, 256).reshape(16, 16).round().astype(np.uint16)
    Image.fromarray(ramp).save(tmp_path / "ramp.png")
    for channels in (1, 3):
        pixels = read_image(tmp_path / "ramp.png", (16, 16), channels)
        assert (pixels[:, :, 0].ravel() == np.arange(256)).all()


def test_an_image_is_turned_upright(tmp_path: Path) -> None:
    """A camera held on its side writes how to turn the picture, and not a turned one."""
    upright = np.zeros((4, 8), np.uint8)
    upright[:, :4] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by a quarter, clockwise
    Image.fromarray(np.rot90(upright)).save(tmp_path / "side.png", exif=exif)
    assert (read_image(tmp_path / "side.png", (4, 8), 1)[:, :, 0] == upright).all()


def test_floats_and_enormous_images_are_refused(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    Image.fromarray(np.full((4, 4), 0.5, np.float32)).save(tmp_path / "floats.tiff")
    with pytest.raises(BfedgeError, match="not of 8 or 16 bits"):
        read_image(tmp_path / "floats.tiff", (4, 4), 1)
    Image.new("1", (20_000, 10_000)).save(tmp_path / "bomb.png")
    with pytest.raises(BfedgeError, match="decompression bomb"):
        read_image(tmp_path / "bomb.png", (4, 4), 1)
    assert not recwarn.list


def test_writing_over_a_link_keeps_the_link(tmp_path: Path) -> None:
    (tmp_path / "real.txt").write_text("old")
    (tmp_path / "link.txt").symlink_to("real.txt")
    write_atomically(tmp_path / "link.txt", lambda name: Path(name).write_text("new"))
    assert (tmp_path / "link.txt").is_symlink()
    assert (tmp_path / "real.txt").read_text() == "new"


def test_a_pipe_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    received: list[bytes] = []
    reader = threading.Thread(target=lambda: received.append(pipe.read_bytes()))
    reader.start()
    write_atomically(pipe, lambda name: Path(name).write_bytes(b"page"))
    reader.join(10)
    assert received == [b"page"]
    assert pipe.is_fifo()
    assert os.listdir(tmp_path) == ["pipe"]
