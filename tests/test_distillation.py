"""Learning from a teacher."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from bfedge.errors import BfedgeError
from bfedge.model.layers import float_arithmetic
from bfedge.training.loop import Trainer
from bfedge.training.teacher import distillation_loss
from tests.training_runs import QUICK, digits, few, small_recipe

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("teacher") / "dense.pt"
    Trainer(small_recipe(**QUICK, model__feed_forward="dense", training__epochs=3), digits(), path).run()
    return path


def test_the_loss_is_the_divergence_of_the_softened_predictions() -> None:
    ours, theirs = torch.randn(5, 7), torch.randn(5, 7)
    p, q = (torch.softmax(x.double() / 3, -1) for x in (theirs, ours))
    expected = (p * (p / q).log()).sum(-1).mean() * 9
    assert float(distillation_loss(ours, theirs, 3)) == pytest.approx(float(expected), rel=1e-5)
    assert float(distillation_loss(ours, ours, 3)) == pytest.approx(0, abs=1e-6)


def test_the_teacher_alone_teaches_what_the_labels_say(tmp_path: Path, teacher: Path) -> None:
    """The labels mean nothing here and have no share in the loss."""
    wrong = dataclasses.replace(digits(), train_targets=(digits().train_targets + 3) % 10)
    recipe = small_recipe(
        **QUICK, training__epochs=4, training__teacher=teacher, training__distillation=1, training__temperature=2
    )
    assert Trainer(recipe, wrong, tmp_path / "m.pt").run().deployed_accuracy > 0.7


def test_the_loss_is_shared_as_the_recipe_says(tmp_path: Path, teacher: Path) -> None:
    settings = dict(training__teacher=teacher, training__temperature=4, training__distillation=0.3)
    trainer = Trainer(small_recipe(**settings), few(), tmp_path / "m.pt")
    assert trainer.teacher
    images, targets = torch.from_numpy(few().train_images[:32]).float(), torch.from_numpy(few().train_targets[:32])
    trainer.model.train()
    with torch.no_grad(), float_arithmetic(trainer.teacher.model):
        theirs = trainer.teacher.model(images)
    ours = trainer.model(images).detach()
    trainer.epoch = 1
    losses = trainer.train_step(images, targets, 1)
    labels = F.cross_entropy(ours, targets, label_smoothing=0.1)
    imitation = distillation_loss(ours, theirs, 4)
    expected = 0.7 * labels + 0.3 * imitation + 0.05 * losses.balance + 0.005 * losses.smoothness
    assert float(losses.total.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)


def test_the_teacher_stays_as_it_is(tmp_path: Path, teacher: Path) -> None:
    trainer = Trainer(small_recipe(training__teacher=teacher), few(), tmp_path / "m.pt")
    assert trainer.teacher
    before = [p.clone() for p in trainer.teacher.model.parameters()]
    trainer.run()
    assert all(torch.equal(a, b) for a, b in zip(before, trainer.teacher.model.parameters(), strict=True))
    assert not trainer.teacher.model.training


def test_a_teacher_that_does_not_fit(tmp_path: Path, teacher: Path) -> None:
    def error(data, **settings: object) -> str:
        with pytest.raises(BfedgeError) as caught:
            Trainer(small_recipe(**{"training__teacher": teacher, **settings}), data, tmp_path / "m.pt")
        assert "\n" not in caught.value.message
        return caught.value.message

    wide = dataclasses.replace(
        few(), train_images=few().train_images.repeat(2, 2), test_images=few().test_images.repeat(2, 2)
    )
    assert "has image_width 8, the model 16" in error(wide, model__image_width=16)
    more = dataclasses.replace(few(), labels=(*few().labels, "ten"))
    assert "has classes 10, the model 11" in error(more)
    named = dataclasses.replace(few(), labels=("0", "1", "two", *few().labels[3:]))
    assert "class 2 is `2` and not `two`" in error(named)
    assert "there is no checkpoint" in error(few(), training__teacher=tmp_path / "none.pt")
    (tmp_path / "text.pt").write_text("no checkpoint")
    assert "text.pt" in error(few(), training__teacher=tmp_path / "text.pt")
