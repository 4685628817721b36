"""One process, or several that torchrun started: each takes a part of every batch, the first one speaks and writes."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, NoReturn

import torch
from torch import Tensor, distributed

from bfedge.errors import BfedgeError

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store

SECONDS_TO_SPEAK = 30


def count() -> int:
    return distributed.get_world_size() if joined() else 1


def rank() -> int:
    return distributed.get_rank() if joined() else 0


def joined() -> bool:
    return distributed.is_available() and distributed.is_initialized()


def part(length: int) -> slice:
    """The share of `length` items that this process takes: contiguous, and equally many where they divide evenly."""
    return slice(length * rank() // count(), length * (rank() + 1) // count())


def total(values: Tensor) -> Tensor:
    """The sum over all processes."""
    if joined():
        values = values.clone()
        distributed.all_reduce(values)
    return values


def mean(values: Tensor) -> Tensor:
    return total(values) / count()


def from_torchrun(name: str, otherwise: int) -> int:
    """A number that torchrun sets in the environment."""
    value = os.environ.get(name, str(otherwise))
    if not value.isdecimal():
        raise BfedgeError(f"the environment has {name}={value}, which is no number", "torchrun sets it; or unset it")
    return int(value)


@contextmanager
def processes(device: torch.device) -> Iterator[None]:
    """Joins the processes that torchrun started, if it did: by gloo on CPUs, by nccl on GPUs.

    An error in one of them ends all. The first to fail raises it, and the others end silently: what they see is only
    that somebody left. Raises BfedgeError if they cannot find each other.
    """
    if from_torchrun("WORLD_SIZE", 1) < 2:
        yield
        return
    try:
        from torch.distributed.rendezvous import rendezvous

        store, own, size = next(rendezvous("env://"))
        if device.type == "cuda":
            torch.cuda.set_device(device)
        backend = "nccl" if device.type == "cuda" else "gloo"
        distributed.init_process_group(backend, store=store, rank=own, world_size=size)
    except (ImportError, RuntimeError, ValueError) as problem:
        reason = str(problem).splitlines()[0]
        raise BfedgeError(f"the processes cannot join each other: {reason}", "start them by torchrun") from None
    try:
        yield
    except BaseException:
        if not is_first(store, own):
            leave_last()
        raise
    finally:
        distributed.destroy_process_group()


def leave_last() -> NoReturn:
    """torchrun ends all as soon as one has left: that must be the first to fail, once it has said why."""
    with suppress(KeyboardInterrupt):  # SIGTERM, by torchrun
        time.sleep(SECONDS_TO_SPEAK)
    os._exit(1)  # at once: a second signal would leave an ordinary exit waiting for threads


def is_first(store: Store, own: int) -> bool:
    """Whether no other process failed before this one."""
    try:
        return bool(store.compare_set("bfedge/failed", "", str(own)) == str(own).encode())
    except RuntimeError:  # who kept the store has gone
        return False
