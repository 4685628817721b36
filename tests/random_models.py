"""Random models of every shape that the format allows, small enough to run hundreds of."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bfedge.config import ViTConfig, config_from_dict, padded_width
from bfedge.lowered.lower import lower
from bfedge.lowered.model import LoweredViT
from bfedge.model.vit import ViT


def random_config(seed: int, **fixed: Any) -> ViTConfig:
    """Widths that are and are not powers of two, 1 to full rotation depth, 1-16 experts, top-1 to top-4, odd
    patch grids.
    """
    r = np.random.default_rng(seed)
    heads = int(r.integers(1, 4))
    d_model = int(2 ** r.integers(2, 7)) * heads if r.random() < 0.3 else max(2, heads * int(r.integers(1, 20)))
    d_ff = int(2 ** r.integers(1, 8)) if r.random() < 0.3 else int(r.integers(2, 90))
    experts = int(r.integers(1, 17))
    patch = int(r.integers(1, 4))
    deepest = min(padded_width(d_model), padded_width(d_ff)).bit_length() - 1
    depth: int | str = int(r.integers(1, deepest + 2))
    values: dict[str, Any] = dict(
        image_height=patch * int(r.integers(1, 5)),
        image_width=patch * int(r.integers(1, 5)),
        channels=int(r.integers(1, 4)),
        patch_size=patch,
        classes=int(r.integers(1, 12)),
        d_model=d_model,
        d_ff=d_ff,
        layers=int(r.integers(1, 4)),
        heads=heads,
        experts=experts,
        top_k=int(r.integers(1, min(4, experts) + 1)),
        rotation_layers="full" if depth == deepest + 1 else depth,
        pooling=str(r.choice(["mean", "class"])),
        projection_weights=str(r.choice(["int8", "ternary"])),
        angles=str(r.choice(["float16", "int8"])),
    )
    return config_from_dict(values | fixed)


def random_vit(seed: int, **fixed: Any) -> ViT:
    """A torch model whose every parameter is random, angles over the whole turn included."""
    torch.manual_seed(seed)
    model = ViT(random_config(seed, **fixed)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("angles"):
                parameter.normal_(0, 1.5)
            elif parameter.ndim == 1 or "position" in name:
                parameter.add_(torch.randn_like(parameter) * 0.3)
    return model


def random_lowered(seed: int, **fixed: Any) -> LoweredViT:
    """Ternary encodings alternate with the seed."""
    return lower(random_vit(seed, **fixed), ternary="trits3" if seed % 2 else "trits2")


def random_images(model: LoweredViT, count: int, seed: int) -> NDArray[np.uint8]:
    """Noise, and an all-black and an all-white image among it."""
    images = np.random.default_rng(seed).integers(0, 256, (count, *model.shape.image_shape), np.uint8)
    images[:1] = 0
    images[1:2] = 255
    return images
