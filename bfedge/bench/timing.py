"""Times several competitors in interleaved rounds: what slows the machine for a while slows all of them."""

from __future__ import annotations

import gc
import math
import random
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

SEED = 20260306
CALIBRATED_NS = 1_000_000
"""A measurement repeats its call until it takes this long, so that the clock's own step does not count"""
WARM_UP_CALLS = 3
COARSEST_CLOCK_S = 1e-5


@dataclass(frozen=True)
class Competitor:
    name: str
    call: Callable[[], object]
    """Computes once; everything is prepared and bound before"""
    side: str
    """Whose call it is, for the cost of an empty one: `ours`, `onnxruntime`, ..."""
    check: str = ""
    """What the comparison of its result said before the timing"""
    family: str = ""
    """Of variants of one peer, the fastest counts; its name where there is one variant only"""


@dataclass(frozen=True)
class Clock:
    name: str
    now_ns: Callable[[], int]


def clock_for(threads: int) -> Clock:
    """With one thread its CPU time, which leaves out what other programs take; with several, the time that passes."""
    if threads == 1 and time.get_clock_info("thread_time").resolution <= COARSEST_CLOCK_S:
        return Clock("CPU time of the thread", time.thread_time_ns)
    return Clock("time that passes", time.perf_counter_ns)


@dataclass(frozen=True)
class Spread:
    median: float
    first_quartile: float
    third_quartile: float
    fastest: float
    slowest: float


@dataclass(frozen=True)
class Timed:
    """A competitor's times, in microseconds a call, and how many times as long as the first competitor's they are."""

    name: str
    side: str
    family: str
    check: str
    repetitions: int
    microseconds: Spread
    ratio: Spread
    """Round by round: its time over the first competitor's in the same round"""
    fastest_of_family: bool


def spread(values: Iterable[float]) -> Spread:
    array = np.asarray(list(values), np.float64)
    low, median, high = (float(x) for x in np.percentile(array, (25, 50, 75)))
    return Spread(median, low, high, float(array.min()), float(array.max()))


def time_interleaved(competitors: list[Competitor], rounds: int, clock: Clock, seed: int = SEED) -> list[Timed]:
    """Every round runs every competitor, in an order that is shuffled anew from a fixed seed. The first competitor is
    what the others' ratios refer to.
    """
    order = random.Random(seed)
    with no_collection():
        repetitions = [calibrate(competitor.call, clock) for competitor in competitors]
        times = np.empty((len(competitors), rounds))
        for turn in range(rounds):
            for index in order.sample(range(len(competitors)), len(competitors)):
                times[index, turn] = time_once(competitors[index].call, repetitions[index], clock)
    medians = np.median(times, axis=1)
    families = [competitor.family or competitor.name for competitor in competitors]
    fastest = {family: min(m for f, m in zip(families, medians, strict=True) if f == family) for family in families}
    return [
        Timed(
            competitor.name,
            competitor.side,
            families[index],
            competitor.check,
            repetitions[index],
            spread(times[index]),
            spread(times[index] / times[0]),
            bool(medians[index] == fastest[families[index]]),
        )
        for index, competitor in enumerate(competitors)
    ]


def calibrate(call: Callable[[], object], clock: Clock) -> int:
    """Warms up, and finds how many calls take about a millisecond."""
    for _ in range(WARM_UP_CALLS):
        call()
    repetitions = 1
    while True:
        took = time_once(call, repetitions, clock) * 1000 * repetitions
        if took >= CALIBRATED_NS or repetitions >= 1 << 20:
            return repetitions
        repetitions = max(repetitions + 1, min(repetitions * 10, math.ceil(repetitions * CALIBRATED_NS / max(took, 1))))


def time_once(call: Callable[[], object], repetitions: int, clock: Clock) -> float:
    """Microseconds a call."""
    loop = range(repetitions)
    start = clock.now_ns()
    for _ in loop:
        call()
    return (clock.now_ns() - start) / repetitions / 1000


@contextmanager
def no_collection() -> Iterator[None]:
    """Python's garbage collector would run in the middle of somebody's call."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
