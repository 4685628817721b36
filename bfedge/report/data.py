"""All that a report shows. Sizes are in bytes; None is unknown and reads n/a."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bfedge.lowered.model import Shape
from bfedge.measure.against_plan import Comparison
from bfedge.measure.energy import Account
from bfedge.measure.experts import ExpertAnalysis, ImageRouting
from bfedge.measure.plan import Plan
from bfedge.measure.target_plan import TargetPlan
from bfedge.measure.verify import Check


@dataclass(frozen=True)
class GrowthPoint:
    """Memory with another number of experts and everything else equal."""

    experts: int
    standard_bytes: float
    """Independent float32 experts"""
    paper_fp32_bytes: float
    """The paper's formula: 1.58 bits a trit, 4 bytes an angle"""
    paper_fp16_bytes: float
    packed_bytes: int
    """Substrate and angles as the packed file stores them"""
    file_bytes: int


@dataclass(frozen=True)
class MeasuredStage:
    name: str
    ticks: int | None
    instructions: int | None
    model_bytes: int


@dataclass(frozen=True)
class Measured:
    """What a board measured of itself: a file that `bfedge profile --json` printed."""

    file: str
    target: str
    processor: str
    where: str
    runtime: str
    """Version, kernels, compiler and flags, in words"""
    emulated: bool
    note: str | None
    """How the emulator differs from the board"""
    tile: int
    clock_hz: int | None
    """Ticks a second; None if unknown, and in an emulator"""
    stages: tuple[MeasuredStage, ...]
    ticks: int | None
    """Of a whole inference, without tracing"""
    instructions: int | None
    against_plan: tuple[Comparison, ...]
    energy: tuple[Account, ...]
    """With what the board counted; none for this machine"""

    def milliseconds(self, ticks: int | None) -> float | None:
        return None if ticks is None or not self.clock_hz else 1000 * ticks / self.clock_hz


@dataclass(frozen=True)
class TestImage:
    """An image and where its tokens go."""

    pixels: NDArray[np.uint8]
    """[height, width, channels]"""
    what: str
    """Which image this is, in words"""
    true_class: str | None
    answer: str
    """The class that the model takes it for"""
    routing: ImageRouting


@dataclass(frozen=True)
class Experts:
    analysis: ExpertAnalysis
    seen: str
    """The images that it is from, in words"""
    is_data: bool
    """Whether those are images of a data set rather than noise, whose routing says nothing"""


@dataclass(frozen=True)
class Fact:
    name: str
    value: str


@dataclass(frozen=True)
class Report:
    name: str
    """Of the model's file or folder"""
    shape: Shape
    storage: str
    """How matrices are stored, in words"""
    plan: Plan
    boards: tuple[TargetPlan, ...]
    processors: dict[str, str]
    """By board"""
    growth: tuple[GrowthPoint, ...]
    measured: tuple[Measured, ...]
    accuracy: str | None
    """On test images, in words"""
    image: TestImage | None
    experts: Experts
    checks: tuple[Check, ...]
    provenance: tuple[Fact, ...]
    """Versions and hashes"""
    left_out: dict[str, str]
    """Why a figure is missing, by the figure's id"""
