"""The training state in a checkpoint: what goes on from it must end with the bits of an unbroken run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import torch

from bfedge.config import config_to_dict
from bfedge.errors import BfedgeError
from bfedge.model.checkpoint import Checkpoint, check_state
from bfedge.training.recipe import Recipe

STATE_VERSION = 2
SHOWN_DIFFERENCES = 3


def comparable(recipe: Recipe) -> dict[str, Any]:
    values: dict[str, Any] = msgspec.to_builtins(recipe)
    return values


def check_origin(
    path: Path,
    checkpoint: Checkpoint,
    recipe: Recipe,
    config: dict[str, Any],
    teacher: str,
) -> None:
    """Raises BfedgeError unless the checkpoint holds the state of a training by the same recipe, data and teacher."""
    state = checkpoint.training
    if not state:
        raise BfedgeError(
            f"`{path}` has no training state to resume from",
            "only .pt checkpoints carry it; train without --resume",
        )
    version = state.get("version", 1)
    if type(version) is not int or version != STATE_VERSION:
        raise BfedgeError(
            f"the training state in `{path}` is of version {str(version)[:20]}; this bfedge goes on from "
            f"{STATE_VERSION}",
            "finish it with the bfedge that began it, or train without --resume",
        )
    found = differences(comparable(recipe), state.get("recipe"))
    if not found and config_to_dict(checkpoint.model.config) != config:
        found = ["the images have other sizes or pixel statistics"]
    if not found and state.get("teacher") != teacher:
        found = ["the teacher is another file than then"]
    if found:
        more = f" and {len(found) - SHOWN_DIFFERENCES} more" if len(found) > SHOWN_DIFFERENCES else ""
        raise BfedgeError(
            f"`{path}` was trained by another recipe or on other data: {', '.join(found[:SHOWN_DIFFERENCES])}{more}",
            "resume with the options it was started with",
        )


def differences(now: dict[str, Any], then: object, prefix: str = "") -> list[str]:
    """`training.epochs is 5, was 4` and the like."""
    if not isinstance(then, dict):
        return [f"its recipe has no table {prefix[:-1]}" if prefix else "it holds no recipe"]
    found = []
    for key in sorted({*now, *map(str, then)}):
        if isinstance(now.get(key), dict):
            found += differences(now[key], then.get(key), f"{prefix}{key}.")
        elif now.get(key) != then.get(key):
            found.append(f"{prefix}{key} is {now.get(key)!r}, was {then.get(key)!r:.60}")
    return found


def check_weights(path: Path, weights: object, model: torch.nn.Module) -> None:
    """Of the state, for `load_state_dict`. Raises BfedgeError unless they are whole, fit the model and are finite."""
    if not isinstance(weights, dict):
        raise ValueError("it holds no weights")
    check_state(path, weights, model.state_dict())


def load_moments(optimiser: torch.optim.Optimizer, state: Any) -> None:
    """AdamW's moments and steps from a state; its settings stay the recipe's. Raises ValueError unless the moments are
    whole, finite and of every parameter: torch checks none of that.
    """
    settings = [{name: value for name, value in group.items() if name != "params"} for group in optimiser.param_groups]
    optimiser.load_state_dict(state)
    for group, own in zip(optimiser.param_groups, settings, strict=True):
        parameters = group["params"]
        group.clear()
        group.update(params=parameters, **own)
    for parameter in (p for group in optimiser.param_groups for p in group["params"]):
        for name, shape in (("exp_avg", parameter.shape), ("exp_avg_sq", parameter.shape), ("step", torch.Size())):
            value = optimiser.state[parameter].get(name)
            if not isinstance(value, torch.Tensor) or value.shape != shape:
                found = list(value.shape) if isinstance(value, torch.Tensor) else "none"
                raise ValueError(f"the shape of `{name}` is {found}, it must be {list(shape)}")
            if value.untyped_storage().nbytes() < value.numel() * value.element_size():
                raise ValueError(f"`{name}` claims more values than the file holds")
            if not torch.isfinite(value).all():
                raise ValueError(f"`{name}` is not finite")
            if name != "exp_avg" and bool((value < 0).any()):
                raise ValueError(f"`{name}` is negative")
