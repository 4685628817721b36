"""A training that was killed goes on to the bits of an unbroken one; what it cannot go on from is refused."""

from __future__ import annotations

import dataclasses
import math
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from bfedge.errors import BfedgeError
from bfedge.model.checkpoint import load_checkpoint
from bfedge.training.loop import Trainer
from bfedge.training.results import Progress
from tests.training_runs import KilledError, digits, few, small_recipe, weights

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("teacher") / "dense.pt"
    Trainer(small_recipe(model__feed_forward="dense", training__epochs=1), digits(), path).run()
    return path


EVERYTHING = {"training__ema": 0.9, "training__subset": 140, "augmentation__mixup": 0.3, "augmentation__cutmix": 1.0}


@pytest.mark.parametrize(("epoch", "step"), [(1, None), (2, None), (3, 1)])
@pytest.mark.parametrize("with_everything", [False, True], ids=["plain", "average, subset, mixing, teacher"])
def test_a_killed_run_goes_on_to_the_same_bits(
    tmp_path: Path, teacher: Path, epoch: int, step: int | None, with_everything: bool
) -> None:
    settings = EVERYTHING | {"training__teacher": teacher} if with_everything else {}
    recipe = small_recipe(**settings, training__epochs=4)
    unbroken = Trainer(recipe, few(), tmp_path / "unbroken.pt").run()

    def after_epoch(result) -> None:
        if step is None and result.epoch == epoch:
            raise KilledError

    def after_step(progress: Progress) -> None:
        if step is not None and (progress.epoch, progress.step) == (epoch, step):
            raise KilledError

    path = tmp_path / "killed.pt"
    with pytest.raises(KilledError):
        Trainer(recipe, few(), path).run(after_step, after_epoch)
    whole = epoch if step is None else epoch - 1
    assert load_checkpoint(path).training["epoch"] == whole
    resumed = Trainer(recipe, few(), path)
    resumed.resume()
    torch.manual_seed(12345)
    seen = []
    result = resumed.run(on_epoch=lambda e: seen.append(e.epoch))
    assert seen == list(range(whole + 1, 5))
    assert weights(path) == weights(tmp_path / "unbroken.pt")
    assert result == unbroken


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
def test_a_process_killed_again_and_again_ends_with_the_same_bits(tmp_path: Path) -> None:
    """SIGKILL at random moments: in a step, in the evaluation, while the checkpoint is written."""
    fields = ["model.layers=1", "model.d_model=16", "model.d_ff=64", "training.ema=0.9", "augmentation.mixup=0.2"]
    fields += ["training.subset=256"]
    epochs = 24
    common = ["train", "digits", "--epochs", str(epochs), *(f"--set={f}" for f in fields)]
    command = [sys.executable, "-m", "bfedge", *common]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    unbroken, path = tmp_path / "unbroken" / "m.pt", tmp_path / "killed" / "m.pt"
    subprocess.run([*command, "--out", unbroken], check=True, capture_output=True, env=environment)

    draw, kills = random.Random(6), 0
    for _ in range(40):
        resume = ["--resume"] if path.exists() else []
        before = path.stat().st_mtime_ns if path.exists() else None
        with subprocess.Popen([*command, "--out", path, *resume], stderr=subprocess.PIPE, env=environment) as process:
            while (
                kills < 3 and process.poll() is None and (path.stat().st_mtime_ns if path.exists() else None) == before
            ):
                time.sleep(0.005)
            if kills < 3:
                time.sleep(draw.random() * 0.4)
                process.send_signal(signal.SIGKILL)
            err = process.communicate(timeout=300)[1].decode()
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL, err
        kills += 1
        assert load_checkpoint(path).training["epoch"] >= 1  # whole, whenever it was killed
    assert kills == 3
    assert weights(path) == weights(unbroken)
    assert load_checkpoint(path).training["epoch"] == epochs
    histories = [load_checkpoint(p).training["history"] for p in (path, unbroken)]
    for history in histories:
        for result in history:
            result.pop("seconds")
            result.pop("images_per_second")
    assert histories[0] == histories[1]


def test_a_finished_run_resumes_to_itself(tmp_path: Path) -> None:
    path = tmp_path / "m.pt"
    first = Trainer(small_recipe(), few(), path).run()
    content = path.read_bytes()
    again = Trainer(small_recipe(), few(), path)
    again.resume()
    assert again.run() == first
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ({"training__epochs": 5}, "training.epochs is 5, was 1"),
        ({"training__learning_rate": 1e-3}, "training.learning_rate is 0.001, was 0.003"),
        ({"training__seed": 5}, "training.seed is 5, was 0"),
        ({"training__ema": 0.5}, "training.ema is 0.5, was 0.0"),
        ({"augmentation__flip": "true"}, "augmentation.flip is True, was False"),
        ({"model__experts": 8}, "model.experts is 8, was 4"),
        ({"model__pooling": "class"}, "model.pooling is 'class', was 'mean'"),
    ],
)
def test_another_recipe_cannot_be_resumed(tmp_path: Path, change: dict, difference: str) -> None:
    path = tmp_path / "m.pt"
    Trainer(small_recipe(training__epochs=1), few(), path).run()
    content = path.read_bytes()
    with pytest.raises(BfedgeError, match="another recipe or on other data") as caught:
        Trainer(small_recipe(**{"training__epochs": 1, **change}), few(), path).resume()
    assert difference in caught.value.message
    assert path.read_bytes() == content


def test_other_data_cannot_be_resumed(tmp_path: Path) -> None:
    path = tmp_path / "m.pt"
    Trainer(small_recipe(training__epochs=1), few(), path).run()
    other = dataclasses.replace(few(), train_images=255 - few().train_images)
    with pytest.raises(BfedgeError, match="another recipe or on other data: the images have other"):
        Trainer(small_recipe(training__epochs=1), other, path).resume()


def test_another_teacher_cannot_be_resumed(tmp_path: Path, teacher: Path) -> None:
    path, mine = tmp_path / "m.pt", tmp_path / "teacher.pt"
    mine.write_bytes(teacher.read_bytes())
    recipe = small_recipe(training__epochs=1, training__teacher=mine)
    Trainer(recipe, few(), path).run()
    Trainer(recipe, few(), path).resume()
    Trainer(small_recipe(training__epochs=1, model__feed_forward="dense"), few(), mine).run()
    with pytest.raises(BfedgeError, match="the teacher is another file"):
        Trainer(recipe, few(), path).resume()


def test_resuming_needs_a_checkpoint_with_training_state(tmp_path: Path) -> None:
    with pytest.raises(BfedgeError, match="there is no checkpoint"):
        Trainer(small_recipe(), few(), tmp_path / "none.pt").resume()
    path = tmp_path / "m.safetensors"
    Trainer(small_recipe(training__epochs=1), few(), path).run()
    with pytest.raises(BfedgeError, match="no training state"):
        Trainer(small_recipe(training__epochs=1), few(), path).resume()


@pytest.mark.parametrize(
    "damage",
    [
        lambda t: t.pop("optimiser"),
        lambda t: t.pop("weights"),
        lambda t: t.update(weights=3),
        lambda t: t["weights"].pop("head.bias"),
        lambda t: t["weights"].update({"head.bias": torch.zeros(3)}),
        lambda t: t["weights"].update({"head.bias": torch.full((10,), torch.nan)}),
        lambda t: t["weights"].update({"head.bias": torch.zeros(1).expand(10)}),
        lambda t: t.pop("epoch"),
        lambda t: t.update(epoch="two"),
        lambda t: t.update(epoch=2),
        lambda t: t.update(epoch=-1),
        lambda t: t.update(history=[{"loss": 1}]),
        lambda t: t.update(history=[]),
        lambda t: t.update(version=1),
        lambda t: t.pop("version"),
        lambda t: t["optimiser"].pop("param_groups"),
        lambda t: t["optimiser"]["state"][0].update(exp_avg=torch.zeros(1, 2, 3)),
        lambda t: t["optimiser"]["state"][0].update(exp_avg=torch.zeros(1).expand(1 << 34)),
        lambda t: t["optimiser"]["state"][0]["exp_avg_sq"].view(-1)[:1].fill_(torch.nan),
        lambda t: t["optimiser"]["state"].pop(0),
        lambda t: t["optimiser"]["state"][0].pop("exp_avg"),
        lambda t: t.update(optimiser=[1]),
        lambda t: t.update(optimiser=3),
        lambda t: t["optimiser"].update(state=3),
        lambda t: t["optimiser"]["state"][0]["exp_avg_sq"].view(-1)[:1].fill_(-1),
        lambda t: t["optimiser"]["state"][0].update(step=torch.tensor(-1.0)),
        lambda t: t.update(epoch=math.inf),
        lambda t: t.update(version=torch.zeros(2)),
        lambda t: t["history"][0].update(loss="low"),
        lambda t: t["history"][0].update(expert_load=3),
    ],
)  # fmt: skip
def test_damaged_training_state_is_refused(tmp_path: Path, damage) -> None:
    path = tmp_path / "m.pt"
    recipe = small_recipe(training__epochs=2, training__ema=0.5)

    def stop(_: object) -> None:
        raise KilledError

    with pytest.raises(KilledError):
        Trainer(recipe, few(), path).run(on_epoch=stop)
    contents = torch.load(path, weights_only=True)
    damage(contents["training"])
    torch.save(contents, path)
    trainer = Trainer(recipe, few(), path)
    with pytest.raises(BfedgeError, match=r"training state|head\.bias") as caught:
        trainer.resume()
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    "change",
    [{"rate": 7.0}, {"rate": "x"}, {"betas": (0.1,)}, {"amsgrad": True}, {"weight_decay": 9.0}, {"eps": None}],
    ids=str,
)
def test_the_optimisers_settings_are_the_recipes_whatever_the_file_says(tmp_path: Path, change: dict) -> None:
    recipe, path, altered = small_recipe(training__epochs=2), tmp_path / "m.pt", tmp_path / "altered.pt"

    def stop(_: object) -> None:
        raise KilledError

    with pytest.raises(KilledError):
        Trainer(recipe, few(), path).run(on_epoch=stop)
    contents = torch.load(path, weights_only=True)
    for group in contents["training"]["optimiser"]["param_groups"]:
        group.update(change)
        group.pop("lr")
    torch.save(contents, altered)
    for file in (path, altered):
        trainer = Trainer(recipe, few(), file)
        trainer.resume()
        trainer.run()
    one, other = (load_checkpoint(file).model.state_dict() for file in (path, altered))
    assert all(torch.equal(one[name], other[name]) for name in one)
