"""Fewer training images, for machines and tests that cannot take them all."""

from __future__ import annotations

import dataclasses

import numpy as np

from bfedge.errors import BfedgeError
from bfedge.training.data import DataSet


def choose_subset(data: DataSet, size: int, seed: int) -> DataSet:
    """`size` of the training images, as many of each class as of any other where there are enough; 0 for all.

    Raises BfedgeError if there are fewer images, or more classes.
    """
    if size == 0:
        return data
    if size > len(data.train_targets):
        raise BfedgeError(
            f"training.subset is {size}; the data has {len(data.train_targets)} training images",
            "--set training.subset=0 takes all",
        )
    if size < len(data.labels):
        raise BfedgeError(f"training.subset is {size}; the data has {len(data.labels)} classes")
    chosen = np.sort(evenly(data.train_targets, len(data.labels), size, seed))
    return dataclasses.replace(
        data,
        train_images=data.train_images[chosen],
        train_targets=data.train_targets[chosen],
    )


def evenly(
    targets: np.ndarray[tuple[int], np.dtype[np.int64]],
    classes: int,
    size: int,
    seed: int,
) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """The first images of every class in a random order, then the second ones, until there are `size`."""
    random = np.random.default_rng([seed % 2**64, 0])
    order = random.permutation(len(targets))
    place = np.empty(len(targets), np.int64)  # of each image within its class
    for target in range(classes):
        members = order[targets[order] == target]
        place[members] = np.arange(len(members))
    turn = random.permutation(classes)[targets]
    return np.lexsort((turn, place))[:size]
