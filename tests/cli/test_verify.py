"""`bfedge verify` passes what is right, and fails whatever was altered."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest

from bfedge.cli.models import lower_checkpoint
from bfedge.config import ViTConfig
from bfedge.device.host import HostModel
from bfedge.lowered.model import shape_of
from bfedge.measure.verify import images_within_budget, runtime_logits, spread, torch_logits
from bfedge.model.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from bfedge.packed.writer import pack
from bfedge.training.data import load_data
from tests.cli.runs import SMALL, TINY_TRAINING, Result, Run, complaint, files, parsed
from tests.random_models import random_lowered, random_vit


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


# ----- many images -----

DIGITS = SMALL | {"image_height": 8, "image_width": 8, "classes": 10}


@pytest.fixture(scope="module")
def on_digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained checkpoint for real images."""
    path = tmp_path_factory.mktemp("digits") / "digits.pt"
    save_checkpoint(path, Checkpoint(random_vit(6, **DIGITS), tuple("0123456789"), "digits"))
    return path


def checks_of(result: Result) -> dict[str, dict]:
    return {check["name"]: check for check in parsed(result, "verify")["checks"]}


def test_few_images_are_compared_and_all_are_counted(run: Run, on_digits: Path) -> None:
    found = checks_of(run("verify", on_digits, "--images-compared", "7", "--target", "host", "--json"))
    assert (found["C runtime, test images"]["images"], found["C runtime, test images"]["of_images"]) == (7, 359)
    for name in ("quantised torch against reference", "ONNX in onnxruntime against quantised torch"):
        assert found[name]["images"] == 7
    assert found["board, test images"]["images"] == 7
    accuracy, in_float = found["deployed accuracy"], found["float torch against deployed"]
    assert accuracy["images"] == in_float["images"] == 359
    test = load_data("digits", None, None)
    logits = torch_logits(load_checkpoint(on_digits).model, test.test_images, lambda items, _: items, "")
    order = np.argsort(-logits, 1)
    assert accuracy["accuracy"] == in_float["deployed_accuracy"] == (order[:, 0] == test.test_targets).mean()
    assert accuracy["top5_accuracy"] == (order[:, :5] == test.test_targets[:, None]).any(1).mean()
    text = run("verify", on_digits, "--images-compared", "7").out
    assert "C runtime, test images: 7 of 359 images, 0 differing bits" in text
    assert f"deployed accuracy: {accuracy['accuracy']:.2%} of 359 images (C runtime), top-5 " in text


def test_more_images_than_are_compared_can_be_sent(run: Run, on_digits: Path) -> None:
    for sent in (3, 12):
        found = checks_of(
            run("verify", on_digits, "--images-compared", "5", "--target", "host", "--images", sent, "--json")
        )
        board = found["board, test images"]
        assert (board["images"], board["differing_images"]) == (sent, 0)


def test_a_wrong_bit_in_one_of_few_images_is_found(run: Run, on_digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Image 358 is the last of all, and so compared."""
    last = load_data("digits", None, None).test_images[-1]
    right = HostModel.run

    def wrong(model: HostModel, image: np.ndarray, **options: object) -> np.ndarray:
        logits = right(model, image, **options)
        if (image == last).all():
            logits.view(np.uint32)[3] ^= 1
        return logits

    monkeypatch.setattr(HostModel, "run", wrong)
    result = run("verify", on_digits, "--images-compared", "7", "--json")
    check = checks_of(result)["C runtime, test images"]
    assert result.status == 1
    assert (check["passed"], check["first_image"]) == (False, 358)
    assert (check["differing_images"], check["differing_logits"]) == (1, 1)


def test_accuracy_of_a_lone_file(run: Run, on_digits: Path, tmp_path: Path) -> None:
    """Without a checkpoint; a data set's classes may come in another order than the model's."""
    lowered = lower_checkpoint(load_checkpoint(on_digits), "2bit")
    accuracies = {}
    for name, labels in {"same": "0123456789", "turned": "9876543210", "other": "abcdefghij"}.items():
        file = tmp_path / f"{name}.bfe"
        file.write_bytes(pack(dataclasses.replace(lowered, labels=tuple(labels))))
        result = run("verify", file, "--data", "digits", "--json")
        if name == "other":
            complaint(result, "the classes of `digits` have other names than the model's: `0` is none of them")
            continue
        assert result.status == 0
        accuracies[name] = checks_of(result)["deployed accuracy"]["accuracy"]
    test = load_data("digits", None, None)
    logits = runtime_logits(HostModel(file.read_bytes()), test.test_images, lambda items, _: items)
    assert accuracies["same"] == (logits.argmax(1) == test.test_targets).mean()
    assert accuracies["turned"] == (logits.argmax(1) == 9 - test.test_targets).mean()


def test_data_of_other_classes_or_sizes(run: Run, packed: Path, tmp_path: Path) -> None:
    file = tmp_path / "nine.bfe"
    file.write_bytes(pack(random_lowered(7, **(DIGITS | {"classes": 9}))))
    complaint(run("verify", file, "--data", "digits"), "10 classes, the model has 9")
    complaint(run("verify", packed, "--data", "digits"), r"\(8, 8, 1\)")


def test_the_budget_takes_all_digits_and_some_tens_of_cifar_100() -> None:
    """ButterflyViT's model: 500 million multiply-adds an image."""
    digits = random_lowered(1, **(DIGITS | {"d_model": 64, "d_ff": 256, "layers": 2, "experts": 8})).shape
    assert images_within_budget(digits) > 359
    cifar = shape_of(ViTConfig(image_height=32, image_width=32, channels=3, patch_size=4, classes=100, d_model=256,
                               d_ff=1024, layers=7, heads=8, experts=8, top_k=2, rotation_layers=2))  # fmt: skip
    assert 20 <= images_within_budget(cifar) <= 100
    assert spread(10_000, 3).tolist() == [0, 5000, 9999]
    assert spread(4, 9).tolist() == [0, 1, 2, 3]
