"""Augmentation of training images in batches: crop, flip, affine changes, RandAugment, mixup and cutmix."""

from __future__ import annotations

from typing import Annotated

import msgspec
import numpy as np
import torch
import torch.nn.functional as F
from msgspec import Meta
from torch import Tensor

from bfedge.errors import BfedgeError
from bfedge.training.randaugment import HIGHEST_MAGNITUDE, geometry, random_operations, recolour

WHOLE = slice(None)


class Augmentation(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The table `[augmentation]` of a recipe. The defaults change nothing."""

    affine: Annotated[float, Meta(ge=0, le=5)] = 0.0
    """Strength of random rotation (0.2 radians at 1), scaling (10 %) and shifting (a twentieth of the image)"""
    crop: Annotated[int, Meta(ge=0, le=4096)] = 0
    """Pixels of black around the image, of which a random part of its original size is cut"""
    flip: bool = False
    """Mirrors every second image on average, left to right"""
    randaugment: Annotated[int, Meta(ge=0, le=16)] = 0
    """Operations an image; see `bfedge.training.randaugment`"""
    randaugment_magnitude: Annotated[float, Meta(ge=0, le=HIGHEST_MAGNITUDE)] = 9.0
    mixup: Annotated[float, Meta(ge=0, le=100)] = 0.0
    """Both parameters of the Beta distribution of the shares (Zhang et al. 2018); 0 is off"""
    cutmix: Annotated[float, Meta(ge=0, le=100)] = 0.0
    """As for mixup, of areas (Yun et al. 2019). With both on, each pair of images takes one of them at random."""

    @property
    def mixes(self) -> bool:
        return self.mixup > 0 or self.cutmix > 0


def augment(
    images: Tensor,
    targets: Tensor,
    classes: int,
    settings: Augmentation,
    generator: torch.Generator,
    part: slice = WHOLE,
) -> tuple[Tensor, Tensor]:
    """Augments `part` (contiguous) of a batch: uint8 [n, height, width, channels] and int64 [n] on any device.

    Returns float32 [len(part), height, width, channels] in 0..255, and targets: int64 [len(part)], or where images are
    mixed probabilities [len(part), classes]. Randomness is drawn from the CPU generator for the whole batch whatever
    the part is, so that a batch divided among processes is augmented as in one. Images 2j and 2j + 1 are mixed.

    Raises BfedgeError if `crop` leaves nothing of an image.
    """
    n, height, width, _ = images.shape
    start, stop, _ = part.indices(n)
    first, last = start & ~1, min(stop + (stop & 1), n)  # both of each pair are needed
    rows, device = slice(first, last), images.device
    images, targets = images[rows], targets[rows]
    if settings.crop >= min(height, width):
        raise BfedgeError(f"augmentation.crop is {settings.crop}; it must be less than the image's {height} x {width}")
    if settings.crop or settings.flip:
        shift = torch.randint(-settings.crop, settings.crop + 1, (n, 2), generator=generator)[rows]
        mirrored = torch.rand(n, generator=generator)[rows] < (0.5 if settings.flip else 0)
        images = cropped_and_flipped(images, shift.to(device), mirrored.to(device))
    matrix = torch.eye(3).expand(n, 3, 3)
    if settings.affine:
        matrix = random_affine(n, settings.affine, height, width, generator)
    operations, amounts = random_operations(n, settings.randaugment, settings.randaugment_magnitude, generator)
    matrix = matrix @ geometry(operations, amounts, height, width)
    changed = resampled(images.float(), matrix[rows])
    changed = recolour(changed, operations[rows], amounts[rows])
    if settings.mixes:
        changed, targets = mixed(changed, F.one_hot(targets, classes).float(), settings, n, rows, generator)
    inner = slice(start - first, max(stop, start) - first)
    return changed[inner], targets[inner]


def cropped_and_flipped(images: Tensor, shift: Tensor, mirrored: Tensor) -> Tensor:
    """Moves each image by its `shift` [n, 2] (rows, columns; black comes in) and mirrors it where `mirrored` [n]."""
    n, height, width, _ = images.shape
    rows = torch.arange(height, device=images.device) + shift[:, :1]
    columns = torch.arange(width, device=images.device).expand(n, width)
    columns = torch.where(mirrored[:, None], width - 1 - columns, columns) + shift[:, 1:]
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None, :]
    which = torch.arange(n, device=images.device)[:, None, None]
    moved = images[which, rows.clamp(0, height - 1)[:, :, None], columns.clamp(0, width - 1)[:, None, :]]
    return moved * inside[..., None]


def random_affine(n: int, strength: float, height: int, width: int, generator: torch.Generator) -> Tensor:
    """Rotation, scaling and shifting as matrices [n, 3, 3]; see `resampled`."""
    amounts = (torch.rand(n, 4, generator=generator) * 2 - 1) * strength
    angle, scale, shift = 0.2 * amounts[:, 0], 1 + 0.1 * amounts[:, 1], 0.05 * amounts[:, 2:]
    matrix = torch.eye(3).repeat(n, 1, 1)
    matrix[:, 0, 0] = matrix[:, 1, 1] = scale * angle.cos()
    matrix[:, 1, 0] = scale * angle.sin()
    matrix[:, 0, 1] = -matrix[:, 1, 0]
    matrix[:, :2, 2] = shift * torch.tensor([width, height])
    return matrix


def resampled(images: Tensor, matrix: Tensor) -> Tensor:
    """Moves float images [n, height, width, channels], bilinear, black outside.

    `matrix` [n, 3, 3] leads from (x, y, 1) in the result to that in the image, in pixels from the centre. An image with
    the identity stays to the bit.
    """
    _, height, width, _ = images.shape
    moved = (matrix != torch.eye(3)).any(2).any(1).nonzero()[:, 0]
    if not len(moved):
        return images
    here, matrix = moved.to(images.device), matrix[moved].to(images.device)[:, :2, :, None, None]
    x = torch.arange(width, device=images.device) - (width - 1) / 2
    y = (torch.arange(height, device=images.device) - (height - 1) / 2)[:, None]
    positions = matrix[:, :, 0] * x + matrix[:, :, 1] * y + matrix[:, :, 2]  # [moved, 2, height, width]
    halves = positions.movedim(1, -1) / positions.new_tensor([width / 2, height / 2])  # grid_sample's unit
    changed = F.grid_sample(images[here].permute(0, 3, 1, 2), halves, align_corners=False)
    return images.index_copy(0, here, changed.permute(0, 2, 3, 1).clamp(0, 255))


def mixed(
    images: Tensor, targets: Tensor, settings: Augmentation, n: int, rows: slice, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Mixes neighbours: float images and probabilities, which are `rows` of a batch of n. A last one without a
    neighbour stays as it is.
    """
    _, height, width, _ = images.shape
    device, pairs = images.device, slice(rows.start // 2, rows.stop // 2)
    kept, is_cutmix = random_shares(n // 2, settings, generator)
    centre = torch.rand(n // 2, 2, generator=generator)
    inside = random_boxes(1 - kept, centre, height, width)
    # Where and how much of the neighbour comes in: [pairs, 1, height, width, 1]
    other = torch.where(is_cutmix[:, None, None], inside.float(), (1 - kept)[:, None, None].float())
    share = other.mean((1, 2))[pairs, None, None].to(device)
    other = other[pairs, None, :, :, None].to(device)
    even = len(images) & ~1

    def blend(values: Tensor, weight: Tensor) -> Tensor:
        couples = values[:even].view(-1, 2, *values.shape[1:])
        blended = torch.lerp(couples, couples.flip(1), weight.expand_as(couples)).flatten(0, 1)
        return torch.cat([blended, values[even:]])

    return blend(images, other), blend(targets, share)


def random_shares(pairs: int, settings: Augmentation, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The share [pairs] that each image keeps, and which pairs take cutmix."""
    cutmix_share = 0.5 if settings.mixup and settings.cutmix else float(settings.cutmix > 0)
    is_cutmix = torch.rand(pairs, generator=generator) < cutmix_share
    seed = int(torch.randint(2**62, (1,), generator=generator))  # torch draws no Beta from a generator
    alpha = np.where(is_cutmix.numpy(), settings.cutmix, settings.mixup)
    return torch.from_numpy(np.random.default_rng(seed).beta(alpha, alpha)), is_cutmix


def random_boxes(areas: Tensor, centre: Tensor, height: int, width: int) -> Tensor:
    """Boxes of the image's own proportions, bool [pairs, height, width]; what lies outside the image is cut off."""
    sides = areas.sqrt()[:, None] * torch.tensor([height, width])
    low = (centre * torch.tensor([height, width]) - sides / 2).round()
    high = (centre * torch.tensor([height, width]) + sides / 2).round()
    rows, columns = torch.arange(height), torch.arange(width)
    vertical = (rows >= low[:, :1]) & (rows < high[:, :1])
    horizontal = (columns >= low[:, 1:]) & (columns < high[:, 1:])
    return vertical[:, :, None] & horizontal[:, None, :]
