"""Small pictures as data: addresses, and the patches of an image coloured by expert."""

from __future__ import annotations

import base64
import io
from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bfedge.measure.experts import ImageRouting

COLOURS = 9
"""Different experts of one picture that get a colour of their own: c0 to c8"""
OTHERS = COLOURS
"""The colour of all others: c9"""
MOST_NUMBERED = 10
"""Patches side by side, or below each other, that still leave room for the experts' numbers"""
MOST_LAYERS = 12
"""Pictures of one image; of deeper models layers are left out evenly"""
MOST_PIXELS = 128
"""Side of a matrix's picture; of larger ones rows and columns are averaged"""
MOST_COLUMNS = 64
"""Columns of a diagram as narrow as a picture"""
POSITIVE, NEGATIVE = (79, 134, 232), (224, 123, 57)


@dataclass(frozen=True)
class ExpertPatches:
    """The patches of one layer that go to one expert, or to all the experts that are not shown by themselves."""

    name: str
    colour: int
    patches: int
    path: str
    """SVG, one unit a patch"""


@dataclass(frozen=True)
class Number:
    x: float
    y: float
    text: str


@dataclass(frozen=True)
class LayerPicture:
    layer: int
    experts: tuple[ExpertPatches, ...]
    """The most used first"""
    numbers: tuple[Number, ...]
    first_weight: float
    """Mean weight of each patch's first expert"""


def png(pixels: NDArray[np.uint8]) -> str:
    """A data: address of [height, width], [height, width, 1, 3 or 4] pixels."""
    from PIL import Image

    written = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.ndim == 3 and pixels.shape[-1] == 1 else pixels).save(
        written, "PNG", optimize=True
    )
    return "data:image/png;base64," + base64.b64encode(written.getvalue()).decode()


def image_picture(pixels: NDArray[np.uint8]) -> str:
    """Of an image [height, width, channels]; of other numbers of channels than 1 and 3 the first is shown."""
    return png(pixels if pixels.shape[-1] == 3 else np.ascontiguousarray(pixels[..., :1]))


def signed_picture(values: NDArray[np.float64]) -> str:
    """A matrix of values -1 to 1: the larger a value, the less transparent its cell, so that 0 is the page's colour."""
    clipped = np.clip(averaged(values, MOST_PIXELS), -1, 1)
    rgba = np.zeros((*clipped.shape, 4), np.uint8)
    rgba[..., :3] = np.where(clipped[..., None] >= 0, POSITIVE, NEGATIVE)
    rgba[..., 3] = np.rint(255 * np.abs(clipped))
    return png(rgba)


def averaged(values: NDArray[np.float64], most: int) -> NDArray[np.float64]:
    """At most `most` rows and columns, each the mean of its share."""
    for axis in range(values.ndim):
        size = values.shape[axis]
        if size > most:
            edges = np.arange(most) * size // most
            counts = np.diff([*edges, size]).reshape([-1 if a == axis else 1 for a in range(values.ndim)])
            values = np.add.reduceat(values, edges, axis=axis) / counts
    return values


def shown_layers(layers: int) -> list[int]:
    """All, or MOST_LAYERS of them evenly from the first to the last."""
    if layers <= MOST_LAYERS:
        return list(range(layers))
    return [round(index * (layers - 1) / (MOST_LAYERS - 1)) for index in range(MOST_LAYERS)]


def layer_picture(routing: ImageRouting, layer: int, experts: int) -> LayerPicture:
    """The expert with the largest weight of every patch."""
    first = int(routing.class_token)
    selected, weights = routing.selected[layer, first:], routing.weights[layer, first:]
    best = weights.argmax(-1)[:, None]
    winners = np.take_along_axis(selected, best, -1)[:, 0]
    ranked = Counter(winners.tolist()).most_common()
    own = {expert for expert, _ in ranked[: COLOURS if len(ranked) > COLOURS + 1 else COLOURS + 1]}
    colours = {expert: rank for rank, (expert, _) in enumerate(ranked) if expert in own}
    if experts <= COLOURS + 1:  # the same colour in every layer
        colours = {expert: expert for expert in own}
    shown = [
        ExpertPatches(str(expert), colours[expert], uses, path_of(winners == expert, routing.columns))
        for expert, uses in ranked
        if expert in own
    ]
    others = ~np.isin(winners, list(own))
    if others.any():
        name = f"{len(ranked) - len(own)} others"
        shown.append(ExpertPatches(name, OTHERS, int(others.sum()), path_of(others, routing.columns)))
    numbers = [
        Number(index % routing.columns + 0.5, index // routing.columns + 0.5, str(expert))
        for index, expert in enumerate(winners.tolist())
    ]
    return LayerPicture(
        layer,
        tuple(shown),
        tuple(numbers) if max(routing.rows, routing.columns) <= MOST_NUMBERED else (),
        float(np.take_along_axis(weights, best, -1).mean()),
    )


def path_of(chosen: NDArray[np.bool_], columns: int) -> str:
    """Squares, those side by side in one."""
    runs = []
    for row, cells in enumerate(chosen.reshape(-1, columns)):
        edges = np.flatnonzero(np.diff(np.concatenate([[0], cells.astype(np.int8), [0]])))
        runs += [f"M{start} {row}h{end - start}v1H{start}z" for start, end in edges.reshape(-1, 2)]
    return "".join(runs)
