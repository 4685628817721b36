"""Recipes: what to train, on what and how, in TOML."""

from __future__ import annotations

import sys
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from bfedge.errors import BfedgeError
from bfedge.files import is_file
from bfedge.model.losses import BALANCE_WEIGHT, SMOOTHNESS_WEIGHT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Positive = Annotated[int, Meta(ge=1)]
Share = Annotated[float, Meta(ge=0, lt=1)]
NotNegative = Annotated[float, Meta(ge=0, le=1e6)]
AboveZero = Annotated[float, Meta(gt=0, le=1e6)]


class TrainingSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    epochs: Positive = 20
    batch_size: Positive = 64
    learning_rate: AboveZero = 3e-3
    weight_decay: NotNegative = 0.05
    warmup_share: Share = 0.1
    """Share of all steps in which the learning rate rises linearly; it falls as a cosine after that."""
    gradient_clip: AboveZero = 1.0
    label_smoothing: Share = 0.0
    augmentation: NotNegative = 0.0
    """Strength of random rotation, scaling and shifting; see `bfedge.training.augment`"""
    balance_weight: NotNegative = BALANCE_WEIGHT
    smoothness_weight: NotNegative = SMOOTHNESS_WEIGHT
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] = 0


class Recipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    data: str
    """`digits`, or a folder of images by class"""
    model: dict[str, Any]
    """Fields of ViTConfig; classes and pixel statistics come from the data"""
    training: TrainingSettings = TrainingSettings()


def built_in_recipes() -> list[str]:
    return sorted(
        f.name[:-5] for f in resources.files(__package__).joinpath("recipes").iterdir() if f.name[-5:] == ".toml"
    )


def load_recipe(name: str, overrides: dict[str, str]) -> Recipe:
    """A built-in recipe by name or a TOML file by path, with `section.field` values replaced.

    Raises BfedgeError for an unknown recipe, bad TOML, unknown fields and wrong types.
    """
    if name in built_in_recipes():
        text = resources.files(__package__).joinpath("recipes", f"{name}.toml").read_text()
    elif is_file(Path(name)):
        text = Path(name).read_text(errors="replace")
    else:
        raise BfedgeError(
            f"there is no recipe `{name}`", f"built in: {', '.join(built_in_recipes())}; or give a TOML file"
        )
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as problem:
        raise BfedgeError(f"recipe `{name}`: {problem}") from None
    for key, value in overrides.items():
        replace(values, key, value)
    try:
        return msgspec.convert(values, Recipe)
    except msgspec.ValidationError as problem:
        raise BfedgeError(f"recipe `{name}`: {problem}") from None


def replace(values: dict[str, Any], key: str, value: str) -> None:
    """Sets `model.d_model` and the like to a TOML value; what is not TOML is taken as a string."""
    section, _, field = key.rpartition(".")
    target = values.setdefault(section, {}) if section else values
    if section not in ("", "model", "training") or not isinstance(target, dict):
        raise BfedgeError(f"`{key}` is no field of a recipe", "for example `--set model.d_model=32`")
    try:
        target[field] = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        target[field] = value
