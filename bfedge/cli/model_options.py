"""Options that describe a model which need not exist: --d-model 256 --experts 64 ..."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any

import click
from click.core import ParameterSource

from bfedge.config import ViTConfig, config_from_dict
from bfedge.errors import BfedgeError

IMAGE = re.compile(r"(\d{1,6})x(\d{1,6})(?:x(\d{1,3}))?")

OPTIONS = {
    "d_model": (click.INT, 256, "Width of the residual."),
    "d_ff": (click.INT, None, "Width of the experts [default: 4 x d-model]."),
    "layers": (click.INT, 7, "Transformer blocks."),
    "heads": (click.INT, 8, "Heads of attention."),
    "experts": (click.INT, 8, "Experts of a layer."),
    "top_k": (click.INT, 2, "Experts that a token takes."),
    "rotation_layers": (click.STRING, "2", "Givens layers of a rotation, or `full`."),
    "image": (click.STRING, "32x32x3", "Height, width and channels."),
    "patch_size": (click.INT, 4, "Pixels of a patch's side."),
    "classes": (click.INT, 100, "Classes."),
    "pooling": (click.Choice(["class", "mean"]), "class", "A class token, or the mean of all."),
    "projection_weights": (click.Choice(["int8", "ternary"]), "int8", "Of attention and down projection."),
    "angles": (click.Choice(["float16", "int8"]), "float16", "What those of the rotations are stored as."),
}
"""Type, default (ButterflyViT's model for CIFAR-100), and help"""


def model_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The command takes them as one `described`: a ViTConfig, or None if none of them was given."""

    @functools.wraps(command)
    def with_config(**options: Any) -> Any:
        values = {name: options.pop(name) for name in OPTIONS}
        context = click.get_current_context()
        given = [name for name in OPTIONS if context.get_parameter_source(name) is ParameterSource.COMMANDLINE]
        return command(described=described_config(values) if given else None, **options)

    wrapped: Callable[..., Any] = with_config
    for name, (kind, default, text) in reversed(OPTIONS.items()):
        option = f"--{name.replace('_', '-')}"
        wrapped = click.option(
            option, type=kind, default=default, show_default=default is not None, help=f"Without MODEL: {text}"
        )(wrapped)
    return wrapped


def described_config(values: dict[str, Any]) -> ViTConfig:
    """Raises BfedgeError for what can't be a model."""
    found = IMAGE.fullmatch(values.pop("image"))
    if not found:
        raise BfedgeError("--image is height x width x channels, as in 32x32x3")
    height, width, channels = (int(number or 3) for number in found.groups())
    depth = values["rotation_layers"]
    if depth != "full" and not re.fullmatch(r"\d{1,3}", depth):
        raise BfedgeError(f"--rotation-layers is `{depth}`; it must be a number, or `full`")
    return config_from_dict(
        {
            **values,
            "d_ff": 4 * values["d_model"] if values["d_ff"] is None else values["d_ff"],
            "rotation_layers": depth if depth == "full" else int(depth),
            "image_height": height,
            "image_width": width,
            "channels": channels,
        }
    )
