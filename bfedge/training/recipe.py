"""Recipes: what to train, on what and how, in TOML."""

from __future__ import annotations

import sys
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from bfedge.errors import BfedgeError
from bfedge.files import is_file
from bfedge.model.losses import BALANCE_WEIGHT, SMOOTHNESS_WEIGHT
from bfedge.training.augment import Augmentation

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Positive = Annotated[int, Meta(ge=1, le=2**63 - 1)]
Share = Annotated[float, Meta(ge=0, lt=1)]
Portion = Annotated[float, Meta(ge=0, le=1)]
NotNegative = Annotated[float, Meta(ge=0, le=1e6)]
AboveZero = Annotated[float, Meta(gt=0, le=1e6)]

TABLES = ("model", "augmentation", "training")


class TrainingSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    epochs: Positive = 20
    batch_size: Positive = 64
    """Images a step; several processes divide them evenly."""
    learning_rate: AboveZero = 3e-3
    angle_rate: AboveZero = 1.0
    """Factor on the learning rate of the rotations' angles"""
    weight_decay: NotNegative = 0.05
    warmup_share: Share = 0.1
    """Share of all steps in which the learning rate rises linearly; it falls as a cosine after that."""
    gradient_clip: AboveZero = 1.0
    label_smoothing: Share = 0.0
    balance_weight: NotNegative = BALANCE_WEIGHT
    smoothness_weight: NotNegative = SMOOTHNESS_WEIGHT
    subset: Count = 0
    """Training images to use, chosen by the seed and spread evenly over the classes; 0 for all"""
    ema: Share = 0.0
    """Decay of the running average of the weights that is evaluated and saved; 0 for none"""
    teacher: str = ""
    """Checkpoint whose predictions are learnt too; empty for none"""
    distillation: Portion = 0.5
    """Share of the teacher's predictions in the loss, beside that of the labels"""
    temperature: AboveZero = 2.0
    """Softens the predictions of teacher and model where they are compared."""
    evaluate_every: Positive = 1
    """Epochs from one evaluation on the test images to the next; after the last epoch there always is one."""
    precision: Literal["auto", "float32", "bf16"] = "auto"
    """Of matrix products in training; `auto` is bf16 on GPUs that have it and float32 elsewhere. CPUs have no bf16."""
    compile: bool | Literal["auto"] = "auto"
    """Whether torch.compile fuses the training step; `auto` where `bf16` is chosen and shapes are fixed."""
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] = 0


class Recipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    data: str
    """A data set as `bfedge.training.data.load_data` takes it"""
    model: dict[str, Any]
    """Fields of ViTConfig; classes and pixel statistics come from the data"""
    augmentation: Augmentation = Augmentation()
    training: TrainingSettings = TrainingSettings()


def built_in_recipes() -> list[str]:
    """`digits`, which needs no data, first."""
    files = resources.files(__package__).joinpath("recipes").iterdir()
    return sorted(
        (f.name[:-5] for f in files if f.name.endswith(".toml")),
        key=lambda name: (name != "digits", name),
    )


def load_recipe(name: str, overrides: dict[str, str]) -> Recipe:
    """A built-in recipe by name or a TOML file by path, with `table.field` values replaced.

    A recipe that begins with `extends = "other"` (a built-in name, or a path relative to its own file) holds only what
    differs from the other one. Raises BfedgeError for an unknown recipe, a circle of them, bad TOML, unknown fields
    and wrong types.
    """
    values = read_recipe(name, Path(), ())
    for key, value in overrides.items():
        replace(values, key, value)
    try:
        return msgspec.convert(values, Recipe)
    except msgspec.ValidationError as problem:
        raise BfedgeError(f"recipe `{name}`: {problem}") from None


def read_recipe(name: str, folder: Path, above: tuple[str, ...]) -> dict[str, Any]:
    """The values of a recipe over those that it extends; `above` names the recipes that led to it."""
    path = folder / name
    if name in built_in_recipes():
        text = resources.files(__package__).joinpath("recipes", f"{name}.toml").read_text()
        identity = name
    elif is_file(path):
        text = path.read_text(errors="replace")
        identity = str(path.resolve())
    else:
        of = f", which `{above[-1]}` extends" if above else ""
        raise BfedgeError(
            f"there is no recipe `{name}`{of}",
            f"built in: {', '.join(built_in_recipes())}; or give a TOML file",
        )
    if identity in above:
        raise BfedgeError(f"recipe `{name}` extends itself: {' -> '.join((*above, identity))}")
    try:
        values = tomllib.loads(text)
    except (ValueError, RecursionError) as problem:  # also numbers and nesting without end
        raise BfedgeError(f"recipe `{name}`: {problem}") from None
    base = values.pop("extends", None)
    if base is None:
        return values
    if not isinstance(base, str):
        raise BfedgeError(f"recipe `{name}`: extends is {base!r}; it must be the name of a recipe")
    return merged(read_recipe(base, path.parent, (*above, identity)), values)


def merged(base: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """`values` over `base`, tables field by field."""
    both = {
        key: base[key] | value
        for key, value in values.items()
        if isinstance(value, dict) and isinstance(base.get(key), dict)
    }
    return base | values | both


def replace(values: dict[str, Any], key: str, value: str) -> None:
    """Sets `model.d_model` and the like to a TOML value; what is not TOML is taken as a string."""
    section, _, field = key.rpartition(".")
    target = values.setdefault(section, {}) if section else values
    if section not in ("", *TABLES) or not isinstance(target, dict):
        raise BfedgeError(f"`{key}` is no field of a recipe", "for example `--set model.d_model=32`")
    try:
        target[field] = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        target[field] = value
    except (ValueError, RecursionError) as problem:
        raise BfedgeError(f"`{key}`: {problem}") from None
