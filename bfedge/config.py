"""The configuration of a model: plain data, shared by training, lowering and planning. Needs no torch."""

from __future__ import annotations

import math
from typing import Any, Literal

import msgspec
import numpy as np

from bfedge.errors import BfedgeError

# FORMAT.md bounds these fields so that every accumulator and offset provably fits (NUMERICS.md, sections 3 and 5).
BOUNDS = {
    "image_height": (1, 4096),
    "image_width": (1, 4096),
    "channels": (1, 16),
    "patch_size": (1, 64),
    "classes": (1, 65536),
    "d_model": (2, 16384),
    "d_ff": (2, 16384),
    "layers": (1, 256),
    "heads": (1, 16384),
    "experts": (1, 4096),
    "top_k": (1, 16),
}
MAX_TOKENS = 4096
MAX_PATCH_COLUMNS = 16384


Angles = Literal["float16", "int8"]


def padded_width(width: int) -> int:
    """The next power of two: the width a rotation works on."""
    return 1 << (width - 1).bit_length()


def attention_scale(d_model: int, heads: int) -> float:
    """log2(e) / sqrt(head dimension) as a binary32: scores are exponents of 2 (NUMERICS.md, section 7)."""
    return float(np.float32(math.log2(math.e) / math.sqrt(d_model // heads)))


class ViTConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Shape of a vision transformer whose feed-forward layers are butterfly experts or one of the two baselines.

    Raises BfedgeError on construction by `config_from_dict`, naming the field and its bounds.
    """

    image_height: int
    image_width: int
    channels: int
    patch_size: int
    classes: int
    d_model: int
    d_ff: int
    layers: int
    heads: int
    experts: int = 8
    top_k: int = 2
    feed_forward: Literal["butterfly", "standard", "dense"] = "butterfly"
    rotation_layers: int | Literal["full"] = 2
    """Givens layers a rotation: ButterflyViT uses 2, ButterflyMoE `full`, log2 of the padded width."""
    pooling: Literal["mean", "class"] = "mean"
    projection_weights: Literal["int8", "ternary"] = "int8"
    """Weights of attention and down projection. Patch embedding, router and head are always int8."""
    angles: Angles = "float16"
    """Of the experts' rotations, as deployed: binary16, or whole 256ths of a turn."""
    pixel_mean: tuple[float, ...] = (0.5,)
    pixel_std: tuple[float, ...] = (0.5,)
    """Per channel, of pixels scaled to 0..1; one value serves all channels."""

    @property
    def patches(self) -> int:
        return (self.image_height // self.patch_size) * (self.image_width // self.patch_size)

    @property
    def tokens(self) -> int:
        return self.patches + (self.pooling == "class")

    @property
    def patch_columns(self) -> int:
        return self.patch_size * self.patch_size * self.channels

    @property
    def theta_layers(self) -> int:
        """Givens layers of the input rotations."""
        return rotation_depth(self.rotation_layers, self.d_model)

    @property
    def phi_layers(self) -> int:
        """Givens layers of the output rotations."""
        return rotation_depth(self.rotation_layers, self.d_ff)


def rotation_depth(rotation_layers: int | str, width: int) -> int:
    full = padded_width(width).bit_length() - 1
    return full if rotation_layers == "full" else int(rotation_layers)


def config_from_dict(values: dict[str, Any]) -> ViTConfig:
    """Builds and checks a configuration. Raises BfedgeError for unknown fields, wrong types and values out of
    bounds.
    """
    try:
        config = msgspec.convert(values, ViTConfig)
    except msgspec.ValidationError as problem:
        raise BfedgeError(f"model configuration: {problem}") from None
    check_config(config)
    return config


def config_to_dict(config: ViTConfig) -> dict[str, Any]:
    """Plain Python values; `config_from_dict` turns them back."""
    values: dict[str, Any] = msgspec.to_builtins(config)
    return values | {"pixel_mean": list(config.pixel_mean), "pixel_std": list(config.pixel_std)}


def check_config(config: ViTConfig) -> None:
    """Raises BfedgeError unless the configuration can be trained, packed and run."""

    def need(condition: bool, message: str) -> None:
        if not condition:
            raise BfedgeError(f"model configuration: {message}")

    for name, (low, high) in BOUNDS.items():
        value = getattr(config, name)
        need(low <= value <= high, f"{name} is {value}; it must be {low} to {high}")
    for side in ("image_height", "image_width"):
        value = getattr(config, side)
        need(value % config.patch_size == 0, f"{side} {value} is not a multiple of patch_size {config.patch_size}")
    need(
        config.patch_columns <= MAX_PATCH_COLUMNS,
        f"a patch has {config.patch_columns} values; at most {MAX_PATCH_COLUMNS} are possible",
    )
    need(
        config.tokens <= MAX_TOKENS,
        f"{config.tokens} tokens; at most {MAX_TOKENS} are possible (a larger patch_size makes fewer)",
    )
    need(config.d_model % config.heads == 0, f"d_model {config.d_model} is not a multiple of heads {config.heads}")
    if config.feed_forward != "dense":
        need(config.top_k <= config.experts, f"top_k {config.top_k} is more than the {config.experts} experts")
    if config.rotation_layers != "full":
        deepest = min(padded_width(config.d_model), padded_width(config.d_ff)).bit_length() - 1
        need(
            1 <= config.rotation_layers <= deepest,
            f"rotation_layers is {config.rotation_layers}; d_model {config.d_model} and d_ff {config.d_ff} allow "
            f'1 to {deepest}, or "full"',
        )
    for name in ("pixel_mean", "pixel_std"):
        values = getattr(config, name)
        need(
            len(values) in (1, config.channels),
            f"{name} has {len(values)} values; give one, or one for each of the {config.channels} channels",
        )
        need(all(abs(v) < 1e6 for v in values), f"{name} must be finite")
    need(all(v > 1e-6 for v in config.pixel_std), "pixel_std must be positive")
