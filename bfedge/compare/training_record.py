"""What a checkpoint says of its training: the recipe, and what every epoch gave."""

from __future__ import annotations

import dataclasses
import json
import math
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from bfedge.errors import BfedgeError
from bfedge.model.checkpoint import Checkpoint
from bfedge.training.recipe import Recipe
from bfedge.training.results import EpochResult
from bfedge.training.state import STATE_VERSION


@dataclass(frozen=True)
class TrainingRecord:
    recipe: Recipe
    values: dict[str, Any]
    """The same as plain values"""
    epochs: tuple[EpochResult, ...]

    @property
    def seconds(self) -> float:
        """Of all training steps, without evaluation."""
        return sum(epoch.seconds for epoch in self.epochs)

    @property
    def images_per_second(self) -> float | None:
        images = sum(epoch.images_per_second * epoch.seconds for epoch in self.epochs)
        return images / self.seconds if self.seconds > 0 else None


def training_record(path: Path, checkpoint: Checkpoint) -> TrainingRecord | None:
    """None if the checkpoint has none (a .safetensors file) or that of another version of bfedge. Raises BfedgeError if
    it is damaged.
    """
    state = checkpoint.training
    if not state or state.get("version") != STATE_VERSION:
        return None
    try:
        recipe = msgspec.convert(state.get("recipe"), Recipe)
        epochs = msgspec.convert(state.get("history"), tuple[EpochResult, ...])
        check_epochs(epochs)
    except ValueError as problem:  # msgspec's is one
        raise BfedgeError(f"the training state in `{path}` is damaged ({problem})") from None
    return TrainingRecord(recipe, msgspec.to_builtins(recipe), epochs)


def check_epochs(epochs: tuple[EpochResult, ...]) -> None:
    """Raises ValueError for what no training gives."""
    for place, epoch in enumerate(epochs, 1):
        values = [value for value in dataclasses.astuple(epoch) if isinstance(value, float)]
        shares = [*epoch.expert_load, *([] if epoch.accuracy is None else [epoch.accuracy])]
        if epoch.epoch != place or not all(map(math.isfinite, values)) or not all(0 <= share <= 1 for share in shares):
            raise ValueError(f"result {place} is none of an epoch")
        if min(epoch.seconds, epoch.images_per_second) < 0:
            raise ValueError(f"epoch {place} took {epoch.seconds} s")


def as_toml(values: dict[str, Any]) -> str:
    """A recipe as `bfedge train` reads it, without what is empty."""
    tables = {key: value for key, value in values.items() if isinstance(value, dict)}
    lines = [f"{key} = {toml_value(value)}" for key, value in values.items() if key not in tables]
    for table, fields in tables.items():
        lines += ["", f"[{table}]", *(f"{key} = {toml_value(value)}" for key, value in fields.items())]
    return "\n".join(lines) + "\n"


def toml_value(value: Any) -> str:
    """JSON's form is TOML's for strings, numbers, truth values and lists of them."""
    return json.dumps(value, ensure_ascii=False)


def public_values(record: TrainingRecord) -> dict[str, Any]:
    """Without the folders that data and teacher lay in."""
    values = json.loads(json.dumps(record.values))
    values["data"] = Path(values["data"]).name or values["data"]
    values["training"]["teacher"] = Path(values["training"]["teacher"]).name
    found: dict[str, Any] = values
    return found


def train_command(name: str, values: dict[str, Any], base: dict[str, Any], config: dict[str, Any]) -> str:
    """`bfedge train recipe.toml ...` that trains by `values` where recipe.toml holds `base`. `config` is the model's,
    for fields that only the base names.
    """
    settings = []
    for table in sorted({*base, *values}):
        now, then = values.get(table), base.get(table)
        if not isinstance(now, dict) or not isinstance(then, dict):
            settings += [(table, now)] * (now != then)
            continue
        for key in sorted({*now, *then}):
            value = now.get(key, config.get(key))
            if value != then.get(key):
                settings.append((f"{table}.{key}", value))
    words = [f"--set {shlex.quote(f'{key}={toml_value(value)}')}" for key, value in settings]
    return " ".join(["bfedge train recipe.toml", *words, f"--out {shlex.quote(name)}"])
