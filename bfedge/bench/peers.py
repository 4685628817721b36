"""What a benchmark runs with: our kernels, the peers that are installed, and those that are not, by name."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import util
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bfedge.bench.library import BenchLibrary
from bfedge.bench.timing import Clock, Competitor, Timed, time_interleaved
from bfedge.errors import BfedgeError

PEERS = {
    "onnxruntime": ("onnxruntime", "onnx"),
    "torch": ("torch",),
    "LiteRT": ("ai_edge_litert", "flatbuffers"),
    "llama.cpp": ("llama_cpp",),
}
INSTALL = {"llama.cpp": "pip install llama-cpp-python"}
"""Of those that the extra `bench` does not bring: this one takes many minutes to build"""
OF_THE_EXTRA = 'pip install "bfedge[bench]"'


@dataclass(frozen=True)
class Absent:
    """A peer that was not measured."""

    peer: str
    reason: str
    install: str | None
    """The command that would bring it, if one would"""


@dataclass(frozen=True)
class Case:
    """Competitors that were timed together."""

    name: str
    parameters: dict[str, Any]
    timed: list[Timed]
    """The first is what the others' ratios refer to"""


@dataclass
class Bench:
    library: BenchLibrary
    kernels: str
    rounds: int
    clock: Clock
    absent: dict[str, Absent] = field(default_factory=dict)
    on_case: Callable[[str], None] = lambda name: None
    """Called before a case, for a progress bar"""

    @functools.cached_property
    def installed(self) -> set[str]:
        found = {peer for peer, modules in PEERS.items() if all(is_installed(module) for module in modules)}
        for peer in [peer for peer in PEERS if peer not in found]:
            self.absent[peer] = Absent(peer, "not installed", INSTALL.get(peer, OF_THE_EXTRA))
        return found

    def leave_out(self, peer: str, reason: str) -> None:
        self.absent.setdefault(peer, Absent(peer, reason, None))

    def time(self, name: str, parameters: dict[str, Any], competitors: list[Competitor]) -> Case:
        return Case(name, parameters, time_interleaved(competitors, self.rounds, self.clock))


def is_installed(module: str) -> bool:
    return util.find_spec(module) is not None


def demand_correct(name: str, result: NDArray[Any], expected: NDArray[Any], allowed: float) -> str:
    """What to report of a competitor's result. Raises BfedgeError if its largest difference is not allowed: the time of
    a wrong result says nothing.
    """
    difference = float(np.abs(result.astype(np.float64) - expected.astype(np.float64)).max())
    if result.shape != expected.shape or not difference <= allowed:
        raise BfedgeError(
            f"{name} computes something else: its largest difference is {difference:.3g}, allowed are {allowed:.3g}",
            "please report this with the machine and the versions that `bfedge bench --json` names",
        )
    return "exact" if difference == 0 else f"largest difference {difference:.1e}"


def demand_alike(name: str, result: NDArray[Any], expected: NDArray[Any], least: float = 0.9) -> str:
    """The same for another arithmetic, where rounding may send a token to another expert."""
    correlation = float(np.corrcoef(result.ravel(), expected.ravel())[0, 1])
    if not correlation >= least:
        raise BfedgeError(f"{name} computes something else: its correlation with the reference is {correlation:.3f}")
    return f"correlation {correlation:.4f}"
