"""Models of the same data side by side: size, accuracy, experts, routing, what rounding costs (`bfedge compare`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from bfedge.compare.accuracy import Accuracy, accuracy_of
from bfedge.compare.rounding import (
    STATIC,
    float_calls,
    layer_errors,
    rounded_model,
)
from bfedge.compare.routing import LayerRouting, measure_routing
from bfedge.compare.sizes import Sizes, sizes_of
from bfedge.compare.training_record import TrainingRecord, training_record
from bfedge.config import ViTConfig
from bfedge.device.host import HostModel
from bfedge.errors import BfedgeError
from bfedge.lowered.lower import lower
from bfedge.measure.experts import ExpertAnalysis, Track, analyse
from bfedge.measure.torch_experts import analyse_standard, latent_substrates
from bfedge.measure.verify import runtime_logits, torch_logits
from bfedge.model.checkpoint import Checkpoint
from bfedge.model.layers import float_arithmetic
from bfedge.packed.outline import Outline, outline_of
from bfedge.packed.writer import pack

if TYPE_CHECKING:
    pass

C_RUNTIME, TORCH = "C runtime", "torch"
AS_DEPLOYED = "as deployed"


@dataclass(frozen=True)
class Subject:
    """A checkpoint to compare."""

    name: str
    """Short, and unlike the others'"""
    path: Path
    checkpoint: Checkpoint
    training: TrainingRecord | None

    @property
    def config(self) -> ViTConfig:
        return self.checkpoint.model.config

    @property
    def kind(self) -> str:
        return self.config.feed_forward


@dataclass(frozen=True)
class TestSet:
    images: NDArray[np.uint8]
    targets: NDArray[np.int64]
    of_statistics: NDArray[np.uint8]
    """The images that all but the accuracies are computed from, evenly from all"""


@dataclass(frozen=True)
class Rounding:
    """What rounding the feed-forward layers changes."""

    name: str
    layer_errors: tuple[float, ...]
    """||out' - out||^2 / ||out||^2 of each layer's output against float arithmetic"""
    accuracy: Accuracy
    """On all test images; but for what is deployed with everything else in float"""

    @property
    def error(self) -> float:
        """The mean over layers"""
        return float(np.mean(self.layer_errors))


@dataclass(frozen=True)
class Study:
    """What was measured of one model."""

    subject: Subject
    sizes: Sizes
    in_float: Accuracy
    deployed: Accuracy
    deployed_by: str
    """What computed the deployed accuracy"""
    experts: ExpertAnalysis | None
    """None for a dense model"""
    routing: tuple[LayerRouting, ...]
    """Of each layer; none for a dense model"""
    rounding: tuple[Rounding, ...]
    """The first is what is deployed; the others are static, and only of the baselines"""

    def static(self, name: str) -> Rounding | None:
        return next((r for r in self.rounding[1:] if r.name == name), None)

    def mean_routing(self, name: str) -> float | None:
        """Over the layers that have the figure."""
        values = [value for layer in self.routing if (value := getattr(layer, name)) is not None]
        return float(np.mean(values)) if values else None


def open_subjects(checkpoints: Sequence[tuple[Path, Checkpoint]]) -> list[Subject]:
    """Raises BfedgeError for models that cannot be compared, and for damaged training states."""
    names = short_names([path for path, _ in checkpoints])
    subjects = [
        Subject(name, path, checkpoint, training_record(path, checkpoint))
        for name, (path, checkpoint) in zip(names, checkpoints, strict=True)
    ]
    for other in subjects[1:]:
        demand_same_task(subjects[0], other)
    return subjects


def short_names(paths: Sequence[Path]) -> list[str]:
    """The file's name without its ending, with as many folders as tell it from all others. Raises BfedgeError for a
    path that is given twice.
    """
    parts = [path.absolute().with_suffix("").parts for path in paths]
    for place, path in enumerate(paths):
        if path.absolute() in [other.absolute() for other in paths[:place]]:
            raise BfedgeError(f"`{path}` is given twice")
    for depth in range(1, max(map(len, parts), default=0) + 1):
        names = ["/".join(part[-depth:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in paths]  # a.pt and a.safetensors


def demand_same_task(first: Subject, other: Subject) -> None:
    def shape(subject: Subject) -> tuple[int, int, int]:
        return subject.config.image_height, subject.config.image_width, subject.config.channels

    hint = "compare models that were trained on the same data"
    if shape(first) != shape(other):
        sizes = ["x".join(map(str, shape(subject))) for subject in (first, other)]
        raise BfedgeError(f"`{first.path}` takes images of {sizes[0]}, `{other.path}` of {sizes[1]}", hint)
    classes = (first.config.classes, other.config.classes)
    if classes[0] != classes[1]:
        raise BfedgeError(f"`{first.path}` has {classes[0]} classes, `{other.path}` {classes[1]}", hint)
    labels = (first.checkpoint.labels, other.checkpoint.labels)
    if all(labels) and labels[0] != labels[1]:
        place = next(n for n in range(classes[0]) if labels[0][n] != labels[1][n])
        raise BfedgeError(
            f"class {place} is `{labels[0][place]}` in `{first.path}` and `{labels[1][place]}` in `{other.path}`", hint
        )


def study(subject: Subject, test: TestSet, device: torch.device, track: Track) -> Study:
    """All that is measured of one model but times."""
    model = subject.checkpoint.model
    outline, deployed = deploy(subject, test, device, track)
    model.to(device)
    with float_arithmetic(model):
        in_float = accuracy_of(torch_logits(model, test.images, track, f"{subject.name}, float"), test.targets)
    return Study(
        subject,
        sizes_of(model, outline),
        in_float,
        deployed,
        C_RUNTIME if outline else TORCH,
        analyse_experts(subject, test, track),
        tuple(measure_routing(model.to(device), test.of_statistics, track)) if subject.kind != "dense" else (),
        tuple(study_rounding(subject, test, deployed, track)),
    )


def deploy(subject: Subject, test: TestSet, device: torch.device, track: Track) -> tuple[Outline | None, Accuracy]:
    """The packed file's outline, of a model that can be packed, and the deployed accuracy: the C runtime's, or of a
    baseline torch's in `eval()`.
    """
    model, title = subject.checkpoint.model, f"{subject.name}, deployed"
    if subject.kind != "butterfly":
        return None, accuracy_of(torch_logits(model.to(device), test.images, track, title), test.targets)
    packed = pack(lower(model.cpu(), subject.checkpoint.labels))
    logits = runtime_logits(HostModel(packed), test.images, lambda items, _: track(items, title))
    return outline_of(packed), accuracy_of(logits, test.targets)


def analyse_experts(subject: Subject, test: TestSet, track: Track) -> ExpertAnalysis | None:
    """On the CPU, whose bits are the device's."""
    checkpoint = subject.checkpoint
    if subject.kind == "dense":
        return None
    model = checkpoint.model.cpu()
    if subject.kind == "standard":
        return analyse_standard(model, test.of_statistics, track)
    return analyse(lower(model, checkpoint.labels), test.of_statistics, latent_substrates(model), track)


def study_rounding(subject: Subject, test: TestSet, deployed: Accuracy, track: Track) -> Iterator[Rounding]:
    model = subject.checkpoint.model
    calls = float_calls(model, test.of_statistics)
    model.eval()
    yield Rounding(AS_DEPLOYED, tuple(layer_errors(model, calls)), deployed)
    if subject.kind == "butterfly":
        return
    for static in STATIC:
        rounded = rounded_model(model, static)
        with float_arithmetic(rounded):
            logits = torch_logits(rounded, test.images, track, f"{subject.name}, {static.name}")
            errors = tuple(layer_errors(rounded.eval(), calls))
        yield Rounding(static.name, errors, accuracy_of(logits, test.targets))
