"""RandAugment (Cubuk et al. 2020) for a whole batch at once: each image takes random ones of 14 operations.

The geometric operations of an image are combined and resample it once, before its operations on colours.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

OPERATIONS = (
    *("identity", "auto_contrast", "equalise", "solarise", "posterise"),
    *("brightness", "contrast", "saturation", "sharpness"),
    *("rotate", "shear_x", "shear_y", "translate_x", "translate_y"),
)
HIGHEST_MAGNITUDE = 10.0
# What the highest magnitude does, as in the paper's search space (AutoAugment, Cubuk et al. 2019).
MOST_ROTATION = 30 * torch.pi / 180
MOST_SHEAR = 0.3
MOST_TRANSLATION = 0.45
"""Of the image's width or height"""
MOST_BLENDING = 0.9
MOST_BITS_LOST = 4

GREY_WEIGHTS = (0.299, 0.587, 0.114)
"""ITU-R BT.601"""


def random_operations(n: int, each: int, magnitude: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """For n images the numbers in `OPERATIONS` of `each` operations, and their amounts in -1..1: both [n, each]."""
    chosen = torch.randint(len(OPERATIONS), (n, each), generator=generator)
    sign = torch.randint(2, (n, each), generator=generator) * 2 - 1
    return chosen, sign * (magnitude / HIGHEST_MAGNITUDE)


def geometry(chosen: Tensor, amounts: Tensor, height: int, width: int) -> Tensor:
    """The combined geometric operations as [n, 3, 3], from pixels in the result to pixels in the image; see
    `bfedge.training.augment.resampled`.
    """
    total = torch.eye(3).expand(len(chosen), 3, 3)
    for operation, amount in zip(chosen.unbind(1), amounts.unbind(1), strict=True):
        matrix = torch.eye(3).repeat(len(chosen), 1, 1)
        angle = amount * MOST_ROTATION * (operation == OPERATIONS.index("rotate"))
        matrix[:, 0, 0] = matrix[:, 1, 1] = angle.cos()
        matrix[:, 1, 0] = angle.sin()
        matrix[:, 0, 1] = amount * MOST_SHEAR * (operation == OPERATIONS.index("shear_x")) - angle.sin()
        matrix[:, 1, 0] += amount * MOST_SHEAR * (operation == OPERATIONS.index("shear_y"))
        matrix[:, 0, 2] = amount * MOST_TRANSLATION * width * (operation == OPERATIONS.index("translate_x"))
        matrix[:, 1, 2] = amount * MOST_TRANSLATION * height * (operation == OPERATIONS.index("translate_y"))
        total = total @ matrix
    return total


def recolour(images: Tensor, chosen: Tensor, amounts: Tensor) -> Tensor:
    """The operations on colours, one after the other: float images [n, height, width, channels] in 0..255."""
    images = images.clone()
    for operation, amount in zip(chosen.unbind(1), amounts.unbind(1), strict=True):
        for name, change in COLOUR_OPERATIONS.items():
            rows = (operation == OPERATIONS.index(name)).nonzero()[:, 0]
            if len(rows):
                here = rows.to(images.device)
                images[here] = change(images[here], amount[rows].to(images.device)[:, None, None, None]).clamp(0, 255)
    return images


def auto_contrast(images: Tensor, _: Tensor) -> Tensor:
    """Stretches each channel to 0..255."""
    low, high = images.amin((1, 2), keepdim=True), images.amax((1, 2), keepdim=True)
    return torch.where(high > low, (images - low) * (255 / (high - low).clamp(min=1e-3)), images)


def equalise(images: Tensor, _: Tensor) -> Tensor:
    """Makes the values of each channel equally frequent, as far as whole numbers allow."""
    n, height, width, channels = images.shape
    values = images.round().long().permute(0, 3, 1, 2).reshape(n * channels, height * width)
    counts = torch.zeros(n * channels, 256, dtype=torch.int64, device=images.device)
    counts.scatter_add_(1, values, torch.ones_like(values))
    brightest = counts.gather(1, values.amax(1, keepdim=True))
    step = (height * width - brightest) // 255
    below = counts.cumsum(1) - counts
    table = ((below + step // 2) // step.clamp(min=1)).clamp(max=255)
    equal = torch.where(step > 0, table.gather(1, values), values)
    return equal.view(n, channels, height, width).permute(0, 2, 3, 1).to(images.dtype)


def solarise(images: Tensor, amount: Tensor) -> Tensor:
    """Inverts what is brighter than a threshold: nothing at 0, all at 1."""
    return torch.where(images >= 256 * (1 - amount.abs()), 255 - images, images)


def posterise(images: Tensor, amount: Tensor) -> Tensor:
    """Keeps the highest bits of each value, 8 at amount 0."""
    step = 2 ** (amount.abs() * MOST_BITS_LOST).round()
    return torch.where(step > 1, (images / step).floor() * step, images)


def brightness(images: Tensor, amount: Tensor) -> Tensor:
    return blended(images, torch.zeros_like(images), amount)


def contrast(images: Tensor, amount: Tensor) -> Tensor:
    return blended(images, grey(images).mean((1, 2), keepdim=True), amount)


def saturation(images: Tensor, amount: Tensor) -> Tensor:
    return blended(images, grey(images), amount)


def sharpness(images: Tensor, amount: Tensor) -> Tensor:
    """Against the image smoothed by a kernel of 3 x 3; the border stays."""
    if min(images.shape[1:3]) < 3:
        return images
    planes = images.permute(0, 3, 1, 2)
    inner = planes[:, :, 1:-1, 1:-1]
    smooth = (9 * F.avg_pool2d(planes, 3, stride=1) + 4 * inner) / 13
    smoothed = planes.clone()
    smoothed[:, :, 1:-1, 1:-1] = smooth
    return blended(images, smoothed.permute(0, 2, 3, 1), amount)


def blended(images: Tensor, plain: Tensor, amount: Tensor) -> Tensor:
    """Away from `plain` for amounts above 0, towards it below; 0 changes nothing."""
    return images + MOST_BLENDING * amount * (images - plain)


def grey(images: Tensor) -> Tensor:
    """[n, height, width, 1]; the mean where the channels are not red, green and blue."""
    if images.shape[-1] != 3:
        return images.mean(-1, keepdim=True)
    return (images * images.new_tensor(GREY_WEIGHTS)).sum(-1, keepdim=True)


COLOUR_OPERATIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "auto_contrast": auto_contrast,
    "equalise": equalise,
    "solarise": solarise,
    "posterise": posterise,
    "brightness": brightness,
    "contrast": contrast,
    "saturation": saturation,
    "sharpness": sharpness,
}
