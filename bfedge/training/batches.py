"""One epoch of augmented batches."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from bfedge.training.augment import WHOLE, Augmentation, augment
from bfedge.training.data import DataSet

AHEAD = 2
"""Batches that are made while the trainer works on one"""

Batch = tuple[Tensor, Tensor]


def batches(
    data: DataSet,
    batch_size: int,
    settings: Augmentation,
    seed: int,
    epoch: int,
    part: slice = WHOLE,
    device: torch.device | str = "cpu",
) -> Iterator[Batch]:
    """`part` of each whole batch of a random order of the training images, augmented (see `augment`), on `device`.

    Depends on nothing but its arguments: an epoch is the same whatever was drawn before it. A last batch that is not
    whole is left out. For a CPU a thread makes the batches ahead of time; it ends with the iterator.
    """
    made = augmented_batches(data, batch_size, settings, epoch_generator(seed, epoch), part, torch.device(device))
    return prefetched(made) if torch.device(device).type == "cpu" else made


def epoch_generator(seed: int, epoch: int) -> torch.Generator:
    state = np.random.SeedSequence([seed % 2**64, epoch]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0]))


def augmented_batches(
    data: DataSet,
    batch_size: int,
    settings: Augmentation,
    generator: torch.Generator,
    part: slice,
    device: torch.device,
) -> Iterator[Batch]:
    images, targets = torch.from_numpy(data.train_images), torch.from_numpy(data.train_targets)
    order = torch.randperm(len(images), generator=generator)
    for chosen in order[: len(images) // batch_size * batch_size].view(-1, batch_size):
        yield augment(
            images[chosen].to(device), targets[chosen].to(device), len(data.labels), settings, generator, part
        )


def prefetched(made: Iterator[Batch]) -> Iterator[Batch]:
    """The same batches, made by a thread that is `AHEAD` of the caller; what it raises is raised here."""
    with ThreadPoolExecutor(1, "batches", initializer=torch.set_num_threads, initargs=(1,)) as pool:
        waiting = deque(pool.submit(next, made, None) for _ in range(AHEAD))
        while (batch := waiting.popleft().result()) is not None:
            waiting.append(pool.submit(next, made, None))
            yield batch
