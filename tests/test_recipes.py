"""Recipes: the built-in ones, files that extend others, fields that are replaced, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bfedge.errors import BfedgeError
from bfedge.training.data import DIGITS, DataSet
from bfedge.training.loop import Trainer, load_recipe_data, model_config
from bfedge.training.recipe import built_in_recipes, load_recipe
from tests.training_runs import digits


def cifar_like() -> DataSet:
    """The shapes of CIFAR-100, 2 images a class."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (200, 32, 32, 3), np.uint8)
    targets = np.arange(200) % 100
    return DataSet(images, targets, images[:100], targets[:100], tuple(map(str, range(100))))


@pytest.mark.parametrize("name", built_in_recipes())
def test_the_built_in_recipes_are_complete(name: str) -> None:
    recipe = load_recipe(name, {})
    data = load_recipe_data(recipe) if recipe.data == DIGITS else cifar_like()
    config = model_config(recipe, data)
    assert config.classes == len(data.labels)


def test_the_built_in_recipes_are_the_documented_ones() -> None:
    assert built_in_recipes()[0] == "digits"
    variants = {"-standard", "-dense", "-strong", "-small", "-small-standard", "-small-dense", "-demo"}
    assert set(built_in_recipes()) == {"digits", "cifar100"} | {f"cifar100{v}" for v in variants}


def test_the_papers_recipe_is_what_the_paper_states() -> None:
    """ButterflyViT, section 4, and Algorithm 2's class token."""
    recipe = load_recipe("cifar100", {})
    stated = dict(layers=7, d_model=256, d_ff=1024, experts=8, top_k=2, rotation_layers=2, pooling="class")
    assert {name: recipe.model[name] for name in stated} == stated
    assert recipe.model.get("feed_forward", "butterfly") == "butterfly"
    assert recipe.training.epochs == 50
    assert 0 < recipe.training.warmup_share < 1
    assert (recipe.training.balance_weight, recipe.training.smoothness_weight) == (0.05, 0.005)


@pytest.mark.parametrize("family", ["cifar100", "cifar100-small"])
@pytest.mark.parametrize("baseline", ["standard", "dense"])
def test_the_baselines_differ_in_the_feed_forward_layer_only(family: str, baseline: str) -> None:
    ours, theirs = load_recipe(family, {}), load_recipe(f"{family}-{baseline}", {})
    assert theirs.model == ours.model | {"feed_forward": baseline}
    assert (theirs.data, theirs.augmentation, theirs.training) == (ours.data, ours.augmentation, ours.training)


def test_overrides() -> None:
    recipe = load_recipe(
        "digits",
        {
            "data": '"x"',
            "model.experts": "16",
            "training.seed": "-3",
            "model.pooling": "class",
            "augmentation.flip": "true",
            "training.compile": "false",
            "training.precision": "bf16",
        },
    )
    assert recipe.data == "x"
    assert recipe.model["experts"] == 16
    assert recipe.model["pooling"] == "class"
    assert recipe.training.seed == -3
    assert recipe.augmentation.flip
    assert recipe.training.compile is False
    assert recipe.training.precision == "bf16"
    assert recipe.model["d_model"] == load_recipe("digits", {}).model["d_model"]


def test_a_recipe_file(tmp_path: Path) -> None:
    file = tmp_path / "r.toml"
    file.write_text('data = "digits"\n[model]\nd_model = 8\n[training]\nepochs = 2\n')
    recipe = load_recipe(str(file), {"training.epochs": "3"})
    assert recipe.training.epochs == 3
    assert recipe.training.batch_size == 64
    assert recipe.model == {"d_model": 8}


# ---------------------------------------------------------------- extends


def test_a_file_extends_a_built_in_recipe(tmp_path: Path) -> None:
    file = tmp_path / "r.toml"
    file.write_text('extends = "digits"\n[training]\nepochs = 2\n')
    base, recipe = load_recipe("digits", {}), load_recipe(str(file), {"model.layers": "1"})
    assert recipe.training.epochs == 2
    assert recipe.training.learning_rate == base.training.learning_rate
    assert recipe.augmentation == base.augmentation
    assert recipe.model == base.model | {"layers": 1}


def test_a_file_extends_one_beside_itself_and_so_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "recipes"
    (folder / "mine").mkdir(parents=True)
    (folder / "base.toml").write_text('data = "a"\n[model]\nd_model = 8\nd_ff = 16\n')
    (folder / "mine" / "middle.toml").write_text('extends = "../base.toml"\ndata = "b"\n[model]\nd_ff = 32\n')
    (folder / "mine" / "last.toml").write_text('extends = "middle.toml"\n[training]\nepochs = 7\n[model]\nlayers = 1\n')
    monkeypatch.chdir(tmp_path)
    recipe = load_recipe("recipes/mine/last.toml", {})
    assert (recipe.data, recipe.training.epochs) == ("b", 7)
    assert recipe.model == {"d_model": 8, "d_ff": 32, "layers": 1}


def test_circles_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('extends = "sub/../b.toml"\n')
    (tmp_path / "sub").mkdir()
    (tmp_path / "b.toml").write_text('extends = "./a.toml"\n')
    with pytest.raises(BfedgeError, match=r"extends itself: .*a\.toml -> .*b\.toml -> .*a\.toml"):
        load_recipe(str(tmp_path / "a.toml"), {})
    (tmp_path / "self.toml").write_text('extends = "self.toml"\n')
    with pytest.raises(BfedgeError, match="extends itself"):
        load_recipe(str(tmp_path / "self.toml"), {})


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('extends = "nothing"', r"no recipe `nothing`, which `.*r\.toml` extends"),
        ("extends = 3", "extends is 3"),
        ('extends = ""', "no recipe"),
        ('extends = "/"', "no recipe"),
        ('extends = "digits"\nmodel = 3', "model"),
        ('extends = "digits"\n[model]\nextends = "digits"', "extends"),
    ],
)
def test_bad_extensions(tmp_path: Path, line: str, message: str) -> None:
    file = tmp_path / "r.toml"
    file.write_text(line + "\n")
    with pytest.raises(BfedgeError, match=message):
        Trainer(load_recipe(str(file), {}), digits(), tmp_path / "m.pt")


# ---------------------------------------------------------------- what is refused

GOOD = 'data = "digits"\n[model]\nd_model = 8\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data = ", "Invalid value"),
        ("data = 'a\nb'", "recipe"),
        ("\x00", "recipe"),
        ("", "data"),
        ("data = 3\n[model]\n", "data"),
        ('data = "digits"\nmodel = 3\n', "model"),
        (GOOD + "[training]\nepoch = 3\n", "epoch"),
        (GOOD + '[training]\nepochs = "3"\n', "epochs"),
        (GOOD + "[training]\nepochs = 0\n", "epochs"),
        (GOOD + "[training]\nepochs = true\n", "epochs"),
        (GOOD + "[training]\nbatch_size = 2.5\n", "batch_size"),
        (GOOD + "[training]\nlearning_rate = -1\n", "learning_rate"),
        (GOOD + "[training]\nlearning_rate = nan\n", "learning_rate"),
        (GOOD + "[training]\nwarmup_share = 1\n", "warmup_share"),
        (GOOD + "[training]\nseed = 1e3\n", "seed"),
        (GOOD + "[training]\nsubset = -1\n", "subset"),
        (GOOD + "[training]\nema = 1\n", "ema"),
        (GOOD + "[training]\nema = nan\n", "ema"),
        (GOOD + "[training]\nevaluate_every = 0\n", "evaluate_every"),
        (GOOD + "[training]\ndistillation = 1.5\n", "distillation"),
        (GOOD + "[training]\ntemperature = 0\n", "temperature"),
        (GOOD + '[training]\nprecision = "fp16"\n', "precision"),
        (GOOD + '[training]\ncompile = "yes"\n', "compile"),
        (GOOD + "[training]\nteacher = 3\n", "teacher"),
        (GOOD + "[augmentation]\nshear = 3\n", "shear"),
        (GOOD + "[other]\n", "other"),
        (GOOD + f"[training]\nepochs = {'9' * 5000}\n", "r.toml"),
        (GOOD + f"[training]\nepochs = {'[' * 5000}{']' * 5000}\n", "r.toml"),
    ],
)
def test_bad_recipe_files(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "r.toml"
    file.write_text(text)
    with pytest.raises(BfedgeError) as caught:
        load_recipe(str(file), {})
    assert message in caught.value.message
    assert f"`{file}`" in caught.value.message


def test_a_recipe_that_is_no_text(tmp_path: Path) -> None:
    file = tmp_path / "r.toml"
    file.write_bytes(bytes(range(256)))
    with pytest.raises(BfedgeError, match="recipe"):
        load_recipe(str(file), {})


@pytest.mark.parametrize("name", ["nonsense", "digits.toml", "", "../digits", "x" * 300])
def test_an_unknown_recipe(name: str) -> None:
    with pytest.raises(BfedgeError, match="there is no recipe") as caught:
        load_recipe(name, {})
    assert "built in: digits" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("model.d_model", "12x", "d_model"),
        ("model.colour", "1", "colour"),
        ("model.layers", "0", "layers"),
        ("model.layers", "true", "layers"),
        ("model.layers", "1e12", "layers"),
        ("model.layers", str(10**30), "layers"),
        ("model.classes", "11", "classes"),
        ("model.image_height", "16", "image_height"),
        ("training.epochs", "many", "epochs"),
        ("training.epochs", "", "epochs"),
        ("training.epochs", str(10**30), "epochs"),
        ("training.speed", "1", "speed"),
        ("training.seed", str(10**30), "seed"),
        ("training.learning_rate", "inf", "learning_rate"),
        ("training", "3", "training"),
        ("augmentation", "3", "augmentation"),
        ("model", "3", "model"),
        ("extends", '"digits"', "extends"),
        ("x", "1", "x"),
        ("x.y", "1", "x.y"),
        ("model.a.b", "1", "model.a.b"),
    ],
)
def test_bad_overrides(tmp_path: Path, key: str, value: str, message: str) -> None:
    with pytest.raises(BfedgeError) as caught:
        Trainer(load_recipe("digits", {key: value}), digits(), tmp_path / "m.pt")
    assert message in caught.value.message
    assert "\n" not in caught.value.message
