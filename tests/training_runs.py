"""Small trainings on real digits, for the tests of bfedge.training."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

from bfedge.model.checkpoint import load_checkpoint
from bfedge.training.data import DIGITS, DataSet, load_data
from bfedge.training.recipe import Recipe, load_recipe

SMALL = {
    "model.d_model": "32",
    "model.d_ff": "48",
    "model.layers": "1",
    "model.heads": "2",
    "model.experts": "4",
    "training.epochs": "3",
    "training.batch_size": "64",
    "augmentation.affine": "0.2",
}
QUICK = {
    "model__patch_size": 4,
    "training__batch_size": 32,
    "training__learning_rate": 1e-2,
    "training__label_smoothing": 0,
    "augmentation__affine": 0,
}
"""Learns in seconds"""


class KilledError(Exception):
    """Ends a training from within."""


def small_recipe(**overrides: object) -> Recipe:
    """`model__d_ff=16` replaces `model.d_ff`."""
    return load_recipe("digits", SMALL | {key.replace("__", "."): str(value) for key, value in overrides.items()})


@functools.cache
def digits() -> DataSet:
    return load_data(DIGITS, None, None)


@functools.cache
def few() -> DataSet:
    """A tenth of digits, for tests that are about something else than learning."""
    data = digits()
    return dataclasses.replace(
        data,
        train_images=data.train_images[:144],
        train_targets=data.train_targets[:144],
        test_images=data.test_images[:36],
        test_targets=data.test_targets[:36],
    )


def weights(path: Path) -> dict[str, bytes]:
    return {name: tensor.numpy().tobytes() for name, tensor in load_checkpoint(path).model.state_dict().items()}
