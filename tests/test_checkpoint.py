"""Checkpoints: what is saved comes back to the bit, and nothing but a whole, harmless checkpoint is opened."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from bfedge.config import config_to_dict
from bfedge.errors import BfedgeError
from bfedge.model.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from bfedge.model.vit import ViT
from tests.random_models import random_vit

SMALL = dict(image_height=4, image_width=4, channels=1, patch_size=2, d_model=12, d_ff=20, heads=2, layers=1)
SMALL |= dict(classes=3, experts=4, top_k=2, rotation_layers=2, pooling="class", projection_weights="int8")
LABELS = ("cat", "dog", "räksmörgås")

Contents = dict[str, Any]
Change = Callable[[Contents], object]


def small_vit(seed: int = 0) -> ViT:
    return random_vit(seed, **SMALL)


def files(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


def refused(path: Path) -> BfedgeError:
    """The error of opening `path`: one clear line that names the file, and nothing in the folder has changed."""
    before = files(path.parent)
    with pytest.raises(BfedgeError) as caught:
        load_checkpoint(path)
    assert files(path.parent) == before
    error = caught.value
    assert str(path) in error.message
    assert "\n" not in error.message
    assert "\n" not in (error.hint or "")
    assert len(error.message) < 400 + len(str(path))
    return error


def written(path: Path, change: Change) -> Path:
    """A good checkpoint, changed by `change`, at `path`."""
    good = path.with_name("good.pt")
    save_checkpoint(good, Checkpoint(small_vit(), LABELS, "digits"))
    contents = torch.load(good, weights_only=True)
    good.unlink()
    change(contents)
    if path.suffix == ".pt":
        torch.save(contents, path)
    else:
        state = contents.pop("state_dict")
        del contents["training"]
        save_file(state, path, {"bfedge": json.dumps(contents)})
    return path


# ---------------------------------------------------------------- round trip


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("number", range(6))
def test_round_trip(tmp_path: Path, suffix: str, number: int) -> None:
    model = random_vit(number)
    labels = tuple(f"class {i}" for i in range(model.config.classes))
    path = tmp_path / f"folder/that is new/m{suffix}"
    save_checkpoint(path, Checkpoint(model, labels, "digits"))
    assert [f.name for f in path.parent.iterdir()] == [path.name]
    loaded = load_checkpoint(path)
    assert loaded.model.config == model.config
    assert loaded.labels == labels
    assert loaded.data == "digits"
    assert loaded.training == {}
    state, expected = loaded.model.state_dict(), model.state_dict()
    assert list(state) == list(expected)
    for name, tensor in state.items():
        assert tensor.dtype == expected[name].dtype
        assert tensor.numpy().tobytes() == expected[name].numpy().tobytes(), name


def test_signs_of_zero_and_subnormal_numbers_survive(tmp_path: Path) -> None:
    model = small_vit()
    with torch.no_grad():
        model.norm.bias[:3] = torch.tensor([-0.0, 1e-45, -1e-40])
    for suffix in (".pt", ".safetensors"):
        path = tmp_path / f"m{suffix}"
        save_checkpoint(path, Checkpoint(model))
        assert (
            load_checkpoint(path).model.norm.bias.detach().numpy().tobytes()
            == model.norm.bias.detach().numpy().tobytes()
        )


@pytest.mark.parametrize("feed_forward", ["standard", "dense"])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_baselines_have_checkpoints_too(tmp_path: Path, feed_forward: str, suffix: str) -> None:
    model = random_vit(0, **SMALL, feed_forward=feed_forward)
    path = tmp_path / f"m{suffix}"
    save_checkpoint(path, Checkpoint(model))
    loaded = load_checkpoint(path).model
    assert loaded.config.feed_forward == feed_forward
    assert all(torch.equal(t, model.state_dict()[n]) for n, t in loaded.state_dict().items())


def test_training_state_comes_back_from_pt_only(tmp_path: Path) -> None:
    training = {"epoch": 3, "generator": torch.Generator().get_state(), "history": [{"loss": 0.5}]}
    for suffix, kept in ((".pt", True), (".safetensors", False)):
        path = tmp_path / f"m{suffix}"
        save_checkpoint(path, Checkpoint(small_vit(), training=training))
        loaded = load_checkpoint(path).training
        assert bool(loaded) == kept
        if kept:
            assert loaded["epoch"] == 3
            assert torch.equal(loaded["generator"], training["generator"])


def test_a_checkpoint_holds_plain_values_only(tmp_path: Path) -> None:
    path = tmp_path / "m.pt"
    save_checkpoint(path, Checkpoint(small_vit(), LABELS))
    contents = torch.load(path, weights_only=True)
    assert contents["config"] == config_to_dict(small_vit().config)
    assert contents["labels"] == list(LABELS)
    assert all(type(t) is torch.Tensor for t in contents["state_dict"].values())


@pytest.mark.parametrize("name", ["m", "m.pth", "m.bfe", "m.pt.gz"])
def test_other_names_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(BfedgeError, match=r"\.pt or \.safetensors"):
        save_checkpoint(tmp_path / name, Checkpoint(small_vit()))
    assert not files(tmp_path)


# ---------------------------------------------------------------- files that are damaged or something else


@pytest.mark.parametrize("suffix", [".pt", ".safetensors", ""])
def test_a_missing_file(tmp_path: Path, suffix: str) -> None:
    assert "there is no checkpoint" in refused(tmp_path / f"none{suffix}").message
    (tmp_path / "folder.pt").mkdir()
    refused(tmp_path / "folder.pt")


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("kept", [0, 1, 3, 4, 8, 64, 0.1, 0.3, 0.5, 0.9, 0.99, -64, -1])
def test_a_truncated_file(tmp_path: Path, suffix: str, kept: float) -> None:
    path = written(tmp_path / f"m{suffix}", lambda c: None)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole)) if isinstance(kept, float) else kept])
    assert "damaged, truncated or not a checkpoint" in refused(path).message


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize(
    "content",
    [
        b"hello, this is no checkpoint\n",
        b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
        b"\x7fELF\x02\x01",
        bytes(4096),
        b"PK\x03\x04",
    ],
    ids=["text", "png", "elf", "zeros", "zip"],
)
def test_a_file_of_another_kind(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"m{suffix}"
    path.write_bytes(content)
    assert "damaged, truncated or not a checkpoint" in refused(path).message


def test_the_one_format_under_the_others_name(tmp_path: Path) -> None:
    for suffix, other in ((".pt", ".safetensors"), (".safetensors", ".pt")):
        path = written(tmp_path / f"m{suffix}", lambda c: None)
        refused(path.rename(tmp_path / f"n{other}"))


class Bomb:
    """A pickle of this runs code when it is opened without care."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.canary),)


@pytest.mark.parametrize("place", ["state_dict", "config", "training", "labels", "root"])
def test_code_in_a_checkpoint_is_not_run(tmp_path: Path, place: str) -> None:
    canary = tmp_path / "canary"
    folder = tmp_path / "in"
    folder.mkdir()

    def change(contents: Contents) -> None:
        if place == "root":
            contents["bomb"] = Bomb(canary)
        elif place == "labels":
            contents["labels"][0] = Bomb(canary)
        else:
            contents[place]["norm.weight"] = Bomb(canary)

    path = written(folder / "m.pt", change)
    assert "may run code" in refused(path).message
    assert not canary.exists()
    torch.load(path, weights_only=False)  # the bomb is a live one
    assert canary.exists()


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_code_in_a_bare_pickle_is_not_run(tmp_path: Path, protocol: int, suffix: str) -> None:
    canary = tmp_path / "canary"
    folder = tmp_path / "in"
    folder.mkdir()
    path = folder / f"m{suffix}"
    path.write_bytes(pickle.dumps({"format": "bfedge-checkpoint", "state_dict": Bomb(canary)}, protocol))
    refused(path)
    assert not canary.exists()
    pickle.loads(path.read_bytes())
    assert canary.exists()


def test_a_model_pickled_whole_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.pt"
    torch.save(small_vit(), path)
    assert "may run code" in refused(path).message


# ---------------------------------------------------------------- tensors that do not fit

NAME = "norm.weight"


def put(tensor: object, name: str = NAME) -> Change:
    return lambda contents: contents["state_dict"].update({name: tensor})


STATES: dict[str, tuple[Change, str]] = {
    "missing": (lambda c: c["state_dict"].pop(NAME), rf"lacks `{NAME}`"),
    "extra": (put(torch.zeros(1), "more"), "unknown `more`"),
    "one missing, one extra": (
        lambda c: c["state_dict"].update(x=c["state_dict"].pop(NAME)),
        "lacks .* and has unknown `x`",
    ),
    "none at all": (lambda c: c["state_dict"].clear(), "lacks .* more"),
    "longer": (put(torch.ones(13)), r"has shape \[13\], the configuration demands \[12\]"),
    "transposed": (put(torch.ones(12, 1)), r"shape \[12, 1\]"),
    "scalar": (put(torch.tensor(1.0)), r"shape \[\]"),
    "float64": (put(torch.ones(12, dtype=torch.float64)), f"`{NAME}` is not a float32 tensor"),
    "float16": (put(torch.ones(12, dtype=torch.float16)), f"`{NAME}` is not a float32 tensor"),
    "integers": (put(torch.ones(12, dtype=torch.int32)), f"`{NAME}` is not a float32 tensor"),
    "NaN": (put(torch.tensor([1.0] * 11 + [float("nan")])), f"`{NAME}` has 1 values that are not finite"),
    "Inf": (put(torch.tensor([float("inf")] * 11 + [1.0])), f"`{NAME}` has 11 values that are not finite"),
    "-Inf": (put(torch.tensor([-float("inf")] * 12)), f"`{NAME}` has 12 values that are not finite"),
}
PT_ONLY: dict[str, tuple[Change, str]] = {
    "a list": (put([1.0] * 12), f"`{NAME}` is not a float32 tensor"),
    "None": (put(None), f"`{NAME}` is not a float32 tensor"),
    "sparse": (put(torch.ones(12).to_sparse()), f"`{NAME}` is not a float32 tensor"),
    "a stride bomb": (put(torch.zeros(1).expand(1 << 34)), NAME),
    "a stride bomb of the right shape": (put(torch.zeros(1).expand(12)), "claims more values than the file holds"),
    "on the meta device": (put(torch.ones(12, device="meta")), NAME),
    "a name that is a number": (put(torch.zeros(1), 3), "unknown `3`"),  # type: ignore[arg-type]
    "no dictionary": (lambda c: c.update(state_dict=[1, 2]), "not a bfedge checkpoint"),
}


@pytest.mark.parametrize(
    ("suffix", "case"),
    [(".pt", c) for c in {**STATES, **PT_ONLY}] + [(".safetensors", c) for c in STATES if c != "none at all"],
)
def test_tensors_that_do_not_fit(tmp_path: Path, suffix: str, case: str) -> None:
    change, message = {**STATES, **PT_ONLY}[case]
    error = refused(written(tmp_path / f"m{suffix}", change))
    with pytest.raises(BfedgeError, match=message):
        raise error


# ---------------------------------------------------------------- headers that do not fit


def configured(**fields: object) -> Change:
    return lambda contents: contents["config"].update(fields)


HEADERS: dict[str, tuple[Change, str]] = {
    "a string for a number": (configured(d_model="12"), "d_model"),
    "a truth value for a number": (configured(d_model=True), "d_model"),
    "a float for a number": (configured(d_model=1e12), "d_model"),
    "a fraction": (configured(layers=1.5), "layers"),
    "nothing for a number": (configured(layers=None), "layers"),
    "too many": (configured(layers=10**12), "layers is 1000000000000; it must be 1 to 256"),
    "more than 64 bits": (configured(layers=2**70), "layers"),
    "negative": (configured(d_ff=-1), "d_ff"),
    "zero": (configured(heads=0), "heads"),
    "heads that do not divide": (configured(heads=5), "not a multiple of heads"),
    "an unknown field": (configured(colour="blue"), "colour"),
    "an unknown choice": (configured(pooling="max"), "pooling"),
    "another depth word": (configured(rotation_layers="half"), "rotation_layers"),
    "a text as statistics": (configured(pixel_mean="0.5"), "pixel_mean"),
    "a deviation of zero": (configured(pixel_std=[0.0]), "pixel_std must be positive"),
    "a deviation that is no number": (configured(pixel_std=[float("nan")]), "pixel_std"),
    "a missing field": (lambda c: c["config"].pop("d_model"), "d_model"),
    "another shape": (configured(d_model=24), "does not fit its own configuration"),
    "another feed-forward layer": (configured(feed_forward="dense"), "does not fit its own configuration"),
    "no configuration": (lambda c: c.pop("config"), "not a bfedge checkpoint"),
    "a list as configuration": (lambda c: c.update(config=[1]), "not a bfedge checkpoint"),
    "another format": (lambda c: c.update(format="other"), "not a bfedge checkpoint"),
    "no format": (lambda c: c.pop("format"), "not a bfedge checkpoint"),
    "a later version": (lambda c: c.update(version=2), "has checkpoint version 2; this bfedge reads 1"),
    "no version": (lambda c: c.pop("version"), "version None"),
    "a list as version": (lambda c: c.update(version=[1]), "version"),
    "too few labels": (lambda c: c["labels"].pop(), "labels do not fit the 3 classes"),
    "too many labels": (lambda c: c["labels"].append("x"), "labels do not fit"),
    "numbers as labels": (lambda c: c.update(labels=[1, 2, 3]), "labels do not fit"),
    "a text as labels": (lambda c: c.update(labels="abc"), "labels do not fit"),
    "a label of two lines": (lambda c: c.update(labels=["a\nb", "c", "d"]), "labels do not fit"),
    "a label that is no text": (lambda c: c.update(labels=["\ud800", "c", "d"]), "labels do not fit"),
}
PT_HEADERS: dict[str, tuple[Change, str]] = {
    "a tensor as number": (configured(d_model=torch.tensor(12)), "d_model"),
    "a tensor as version": (lambda c: c.update(version=torch.zeros(3)), "version"),
    "a tensor as format": (lambda c: c.update(format=torch.zeros(3)), "not a bfedge checkpoint"),
    "a tensor as labels": (lambda c: c.update(labels=torch.zeros(3)), "labels do not fit"),
    "a number as field": (lambda c: c["config"].update({1: 2}), "configuration"),
}


@pytest.mark.parametrize(
    ("suffix", "case"), [(".pt", c) for c in {**HEADERS, **PT_HEADERS}] + [(".safetensors", c) for c in HEADERS]
)
def test_headers_that_do_not_fit(tmp_path: Path, suffix: str, case: str) -> None:
    change, message = {**HEADERS, **PT_HEADERS}[case]
    error = refused(written(tmp_path / f"m{suffix}", change))
    with pytest.raises(BfedgeError, match=message):
        raise error


@pytest.mark.parametrize(
    "contents", [[], 3, "text", {}, {"state_dict": {}}, torch.zeros(3), {"model": {"w": torch.zeros(2)}}]
)
def test_a_torch_file_that_is_no_checkpoint(tmp_path: Path, contents: object) -> None:
    path = tmp_path / "m.pt"
    torch.save(contents, path)
    assert "not a bfedge checkpoint" in refused(path).message


@pytest.mark.parametrize(
    "metadata", [None, {}, {"bfedge": "[]"}, {"bfedge": "3"}, {"bfedge": "{"}, {"bfedge": "[" * 100_000}]
)
def test_a_safetensors_file_that_is_no_checkpoint(tmp_path: Path, metadata: dict[str, str] | None) -> None:
    path = tmp_path / "m.safetensors"
    save_file(small_vit().state_dict(), path, metadata)
    assert "a checkpoint" in refused(path).message or "bfedge checkpoint" in refused(path).message


def test_a_huge_configuration_takes_no_memory(tmp_path: Path) -> None:
    """Shapes are compared before anything of the configured size exists: 8 GB of it would be needed here."""
    change = configured(d_model=16384, d_ff=16384, heads=1, layers=1, experts=1)
    program = (
        "import resource, sys, pathlib\n"
        "from bfedge.model.checkpoint import load_checkpoint\n"
        "try: load_checkpoint(pathlib.Path(sys.argv[1]))\n"
        "except Exception as problem: print(type(problem).__name__)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)\n"
    )
    path = written(tmp_path / "m.pt", change)
    run = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True)
    error, megabytes = run.stdout.split()
    assert error == "BfedgeError"
    assert int(megabytes) < 1500


# ---------------------------------------------------------------- failed saves


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("existing", [True, False])
def test_a_failed_save_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, existing: bool
) -> None:
    path = tmp_path / f"m{suffix}"
    if existing:
        save_checkpoint(path, Checkpoint(small_vit(0)))
    before = files(tmp_path)

    def full(_: object, target: str, *__: object) -> None:
        Path(target).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("torch.save", full)
    monkeypatch.setattr("bfedge.model.checkpoint.save_file", full)
    with pytest.raises(BfedgeError, match="No space left on device") as caught:
        save_checkpoint(path, Checkpoint(small_vit(1)))
    assert str(path) in caught.value.message
    assert files(tmp_path) == before
    monkeypatch.undo()
    if existing:
        load_checkpoint(path)


def test_an_interrupted_save_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.pt"
    save_checkpoint(path, Checkpoint(small_vit(0)))
    before = files(tmp_path)

    def interrupted(_: object, target: str) -> None:
        Path(target).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr("torch.save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(path, Checkpoint(small_vit(1)))
    assert files(tmp_path) == before


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on the size of files")
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_save_that_the_system_cuts_off_changes_nothing(tmp_path: Path, suffix: str) -> None:
    """What torch and safetensors themselves raise when a write fails."""
    path = tmp_path / f"m{suffix}"
    save_checkpoint(path, Checkpoint(small_vit(0)))
    before = files(tmp_path)
    program = (
        "import pathlib, resource, sys\n"
        "from bfedge.model.checkpoint import Checkpoint, save_checkpoint\n"
        "from tests.test_checkpoint import small_vit\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "try: save_checkpoint(pathlib.Path(sys.argv[1]), Checkpoint(small_vit(1)))\n"
        "except Exception as problem: print(type(problem).__name__, problem)\n"
    )
    root = Path(__file__).parent.parent
    run = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, cwd=root)
    assert files(tmp_path) == before
    assert run.stdout.startswith("BfedgeError cannot write"), run.stdout + run.stderr


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    before = files(tmp_path)
    with pytest.raises(BfedgeError, match="cannot write"):
        save_checkpoint(tmp_path / "file" / "m.pt", Checkpoint(small_vit()))
    (tmp_path / "folder.pt").mkdir()
    with pytest.raises(BfedgeError, match="cannot write"):
        save_checkpoint(tmp_path / "folder.pt", Checkpoint(small_vit()))
    assert files(tmp_path) == before
    assert sorted(f.name for f in tmp_path.iterdir()) == ["file", "folder.pt"]
