"""Data sets: digits and folders of images; tests/test_cifar.py has CIFAR."""

from __future__ import annotations

import dataclasses
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bfedge.errors import BfedgeError
from bfedge.training.data import DIGITS, DataSet, load_data


@pytest.fixture(scope="module")
def digits() -> DataSet:
    return load_data(DIGITS, None, None)


# ---------------------------------------------------------------- digits


def test_digits_are_what_they_should_be(digits: DataSet) -> None:
    assert digits.train_images.dtype == digits.test_images.dtype == np.uint8
    assert digits.train_images.shape[1:] == digits.test_images.shape[1:] == (8, 8, 1)
    assert len(digits.train_images) + len(digits.test_images) == 1797
    assert len(digits.train_images) == len(digits.train_targets)
    assert len(digits.test_images) == len(digits.test_targets)
    assert digits.labels == tuple("0123456789")
    assert digits.train_images.max() == 255
    assert digits.train_images.min() == 0
    for target in range(10):
        train, test = (digits.train_targets == target).sum(), (digits.test_targets == target).sum()
        assert 0.19 < test / (train + test) < 0.21


def test_digits_have_no_test_image_among_the_training_images(digits: DataSet) -> None:
    train = {image.tobytes() for image in digits.train_images}
    assert len(train) == len(digits.train_images)
    assert not train & {image.tobytes() for image in digits.test_images}


def test_digits_are_the_same_every_time(digits: DataSet) -> None:
    again = load_data(DIGITS, None, None)
    for field in ("train_images", "train_targets", "test_images", "test_targets"):
        assert np.array_equal(getattr(again, field), getattr(digits, field))


def test_pixel_statistics(digits: DataSet) -> None:
    mean, std = digits.pixel_statistics
    assert mean == pytest.approx([digits.train_images.mean() / 255])
    assert std == pytest.approx([digits.train_images.std() / 255])
    black = dataclasses.replace(digits, train_images=np.zeros((4, 2, 2, 3), np.uint8))
    assert black.pixel_statistics == ([0, 0, 0], [1e-3, 1e-3, 1e-3])


def random_data(shape: tuple[int, ...]) -> DataSet:
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    return DataSet(images, np.zeros(len(images), np.int64), images[:1], np.zeros(1, np.int64), ("a", "b"))


@pytest.mark.parametrize("shape", [(7, 5, 3, 1), (2000, 32, 32, 3), (1, 1, 1, 4)])
def test_pixel_statistics_are_those_of_the_floats(shape: tuple[int, ...]) -> None:
    data = random_data(shape)
    scaled = data.train_images.reshape(-1, shape[-1]) / 255.0
    mean, std = data.pixel_statistics
    assert mean == pytest.approx(scaled.mean(0))
    assert std == pytest.approx(np.maximum(scaled.std(0), 1e-3))


def test_pixel_statistics_need_no_floats_of_all_images() -> None:
    """Which would take 8 times the memory of the images, twice: 1.2 GB each for CIFAR."""
    data = random_data((10_000, 32, 32, 3))
    tracemalloc.start()
    assert len(data.pixel_statistics[0]) == 3
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.5 * data.train_images.nbytes


# ---------------------------------------------------------------- folders of images


def write_images(folder: Path, count: int, colour: tuple[int, int, int], mode: str = "RGB", size: int = 12) -> None:
    folder.mkdir(parents=True)
    for number in range(count):
        shade = tuple(min(255, c + number) for c in colour)
        Image.new("RGB", (size + number, size), shade).convert(mode).save(folder / f"{number:02}.png")


CLASSES = {"blue": (0, 0, 200), "green": (0, 200, 0), "red": (200, 0, 0)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, colour in CLASSES.items():
        write_images(tmp_path / "images" / name, 7, colour)
    return tmp_path / "images"


def test_a_folder_of_classes(folder: Path) -> None:
    (folder / ".hidden").mkdir()
    (folder / "readme.txt").write_text("not a class")
    (folder / "red" / "notes.txt").write_text("not an image")
    data = load_data(str(folder), (6, 8), 3)
    assert data.labels == ("blue", "green", "red")
    assert data.train_images.shape == (18, 6, 8, 3)  # of 7 images, the third is for testing
    assert data.train_images.dtype == np.uint8
    assert len(data.train_images) + len(data.test_images) == 21
    assert sorted(set(data.test_targets)) == [0, 1, 2]
    for images, targets in ((data.train_images, data.train_targets), (data.test_images, data.test_targets)):
        assert np.array_equal(images.mean((1, 2)).argmax(1), 2 - targets)  # red is channel 0
    again = load_data(str(folder), (6, 8), 3)
    assert np.array_equal(again.test_images, data.test_images)


def test_a_folder_with_train_and_test(tmp_path: Path) -> None:
    for part, count in (("train", 4), ("test", 2)):
        for name, colour in CLASSES.items():
            write_images(tmp_path / part / name, count, colour)
    data = load_data(str(tmp_path), (5, 5), 3)
    assert data.train_images.shape == (12, 5, 5, 3)
    assert data.test_images.shape == (6, 5, 5, 3)
    assert data.train_targets.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert data.test_targets.tolist() == [0, 0, 1, 1, 2, 2]
    (tmp_path / "test" / "red").rename(tmp_path / "test" / "violet")
    with pytest.raises(BfedgeError, match="do not have the same classes"):
        load_data(str(tmp_path), (5, 5), 3)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "1", "LA"])
@pytest.mark.parametrize("channels", [1, 3])
def test_images_of_every_kind_are_converted(tmp_path: Path, mode: str, channels: int) -> None:
    write_images(tmp_path / "dark", 3, (5, 5, 5), mode)
    write_images(tmp_path / "light", 3, (250, 250, 250), mode)
    data = load_data(str(tmp_path), (4, 4), channels)
    assert data.train_images.shape == (4, 4, 4, channels)
    assert data.train_images[data.train_targets == 0].max() < 20
    assert data.train_images[data.train_targets == 1].min() > 235


def test_rows_and_columns_are_not_mixed_up(tmp_path: Path) -> None:
    pixels = np.zeros((4, 6), np.uint8)
    pixels[0] = 255  # the top row is white
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in range(3):
            Image.fromarray(pixels).save(tmp_path / name / f"{number}.png")
    data = load_data(str(tmp_path), (4, 6), 1)
    assert all(np.array_equal(image[..., 0], pixels) for image in data.train_images)


def test_reading_a_folder_reports_every_image(folder: Path) -> None:
    seen: list[tuple[int, str]] = []

    def track(items, title: str):
        for number, item in enumerate(items):
            seen.append((number, title))
            yield item

    data = load_data(str(folder), (4, 4), 3, track)
    assert seen == [(number, f"reading {folder}") for number in range(21)]
    assert np.array_equal(data.train_images, load_data(str(folder), (4, 4), 3).train_images)


def truncate(file: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    Image.fromarray(noise).save(file)
    file.write_bytes(file.read_bytes()[:1500])


@pytest.mark.parametrize(
    "spoil",
    [
        truncate,
        lambda f: f.write_text("this is text"),
        lambda f: f.write_bytes(b""),
        lambda f: f.write_bytes(bytes(99)),
    ],
    ids=["truncated", "text", "empty", "zeros"],
)
def test_an_unreadable_image_is_named(folder: Path, spoil) -> None:
    file = folder / "green" / "03.png"
    file.unlink()
    spoil(file)
    with pytest.raises(BfedgeError, match="cannot read the image") as caught:
        load_data(str(folder), (8, 8), 3)
    assert f"`{file}`" in caught.value.message


def test_a_folder_with_an_images_name_and_a_dead_link_are_named(folder: Path) -> None:
    (folder / "red" / "dead.png").symlink_to(folder / "nowhere.png")
    with pytest.raises(BfedgeError, match=r"cannot read the image .*dead\.png"):
        load_data(str(folder), (8, 8), 3)
    (folder / "red" / "dead.png").unlink()
    (folder / "red" / "sub.png").mkdir()
    with pytest.raises(BfedgeError, match=r"cannot read the image .*sub\.png"):
        load_data(str(folder), (8, 8), 3)


def test_an_empty_class_folder(folder: Path) -> None:
    (folder / "yellow").mkdir()
    with pytest.raises(BfedgeError, match=r"class folder .*yellow` has 0 images"):
        load_data(str(folder), (8, 8), 3)


@pytest.mark.parametrize("classes", [0, 1])
def test_one_class_is_not_enough(tmp_path: Path, classes: int) -> None:
    if classes:
        write_images(tmp_path / "only", 5, (1, 2, 3))
    with pytest.raises(BfedgeError, match=f"has {classes} class folders; at least 2 are needed") as caught:
        load_data(str(tmp_path), (8, 8), 3)
    assert caught.value.hint


def test_what_is_no_data_set(tmp_path: Path, folder: Path) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    for source in ("mnist", str(tmp_path / "none"), "", "a" * 5000, "nul\0"):
        with pytest.raises(BfedgeError, match="neither `digits` nor a folder nor an archive") as caught:
            load_data(source, (8, 8), 1)
        assert "--data PATH" in (caught.value.hint or "")
        assert "https://www.cs.toronto.edu/~kriz/cifar.html" in (caught.value.hint or "")
    with pytest.raises(BfedgeError, match="cannot read the archive"):
        load_data(str(file), (8, 8), 1)
    with pytest.raises(BfedgeError, match="needs image_height"):
        load_data(str(folder), None, 3)
    with pytest.raises(BfedgeError, match="needs image_height"):
        load_data(str(folder), (8, 8), None)
    with pytest.raises(BfedgeError, match=r"1 .grey. or 3 .RGB. channels, the model has 2"):
        load_data(str(folder), (8, 8), 2)
