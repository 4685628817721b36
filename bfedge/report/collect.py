"""Fills a report: asks the plan, the energy, the analysis of experts and the checks for what a page shows."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bfedge.device.host import HostModel
from bfedge.device.profile import Profile
from bfedge.errors import BfedgeError
from bfedge.lowered import reference
from bfedge.lowered.model import LoweredViT
from bfedge.measure.counters import RealInput
from bfedge.measure.experts import Track, analyse, route_image
from bfedge.measure.plan import EXPERT_PARTS, Plan, file_parts, paper_memory, plan
from bfedge.measure.target_plan import TargetPlan, plan_target
from bfedge.measure.verify import Check, check_bits, reference_logits, runtime_logits
from bfedge.packed.layout import Encoding, Kind
from bfedge.packed.outline import Outline, outline_of, with_experts
from bfedge.packed.reader import PackedModel, unpack
from bfedge.report.data import Experts, Fact, GrowthPoint, Measured, Report, TestImage
from bfedge.report.profiles import read_measured
from bfedge.report.words import percent

EXPERTS = (2, 4, 8, 16, 32, 64, 128, 256)
"""Of the curves, beside the model's own number"""
FEWEST_CHECKED = 32
MULTIPLY_ADDS_CHECKED = 20_000_000_000
"""Of all images that the reference runs, which is what takes time: some 5 s"""
MOST_ANALYSED = 64
"""Images that the experts' similarity and shares are from"""
NOISE = "images of seeded noise"
NO_IMAGES = "no test images are at hand; `--data` names a data set, `--image` a file"


@dataclass(frozen=True)
class Images:
    """What a model is tried with."""

    pixels: NDArray[np.uint8]
    """[images, height, width, channels]"""
    classes: NDArray[np.int64] | None
    what: str
    """In words: `test images of digits`"""
    are_data: bool
    """Whether they are images of a data set rather than noise"""

    def some(self, most: int) -> Images:
        """Evenly from all, because data sets come class by class."""
        if len(self.pixels) <= most:
            return self
        chosen = np.linspace(0, len(self.pixels) - 1, most).astype(int)
        classes = None if self.classes is None else self.classes[chosen]
        what = f"{self.what}, evenly from {len(self.pixels):,}" if self.are_data else self.what
        return Images(self.pixels[chosen], classes, what, self.are_data)

    @property
    def in_words(self) -> str:
        what = self.what if self.are_data else NOISE
        if len(self.pixels) == 1:
            return f"1 {what.replace('images', 'image', 1).replace('inputs', 'input', 1)}"
        return f"{len(self.pixels):,} {what}"


@dataclass(frozen=True)
class Drawn:
    """The image whose routing is drawn."""

    pixels: NDArray[np.uint8]
    what: str
    true_class: int | None = None


@dataclass(frozen=True)
class Subject:
    """What a report is about."""

    name: str
    packed: bytes
    images: Images
    drawn: Drawn | None
    provenance: tuple[Fact, ...]


def collect(
    subject: Subject,
    boards: Sequence[Profile],
    profiles: Sequence[Path],
    track: Track = lambda items, title: items,
) -> Report:
    """Everything that a page shows. Raises BadFileError for a bad packed file, and BfedgeError for a profile that is
    broken or of another model.
    """
    opened, outline = unpack(subject.packed), outline_of(subject.packed)
    model, planned = opened.model, plan(outline)
    sha256 = hashlib.sha256(subject.packed).hexdigest()
    measured = tuple(read_measured(file, sha256) for file in profiles)
    real = real_input(opened, subject)
    with_memory = [board for board in boards if board.memories]
    on_boards = tuple(
        plan_target(board, outline, planned, subject.name, real=real) for board in track(with_memory, "boards")
    )
    checks, accuracy = check(opened, subject, planned, track)
    few = subject.images.some(MOST_ANALYSED)
    return Report(
        name=subject.name,
        shape=model.shape,
        storage=storage(outline),
        plan=planned,
        boards=on_boards,
        processors={board.name: processor(board) for board in with_memory},
        growth=tuple(growth(outline)),
        measured=measured,
        accuracy=accuracy,
        image=test_image(model, subject.drawn) if subject.drawn else None,
        experts=Experts(analyse(model, few.pixels, track=track), few.in_words, few.are_data),
        checks=checks,
        provenance=subject.provenance,
        left_out=left_out(subject, on_boards, measured),
    )


def real_input(opened: PackedModel, subject: Subject) -> RealInput | None:
    """What `bfedge plan` counts with: golden case 0. Without one the image that is drawn, if any."""
    if opened.golden is not None:
        return RealInput(subject.packed, opened.golden.inputs[0])
    return RealInput(subject.packed, subject.drawn.pixels) if subject.drawn else None


def growth(outline: Outline) -> Iterator[GrowthPoint]:
    """Of fewer and more experts, as far as a token's top_k and the format allow."""
    own = outline.shape.experts
    for experts in sorted({*EXPERTS, own}):
        if experts >= outline.shape.top_k:
            try:
                other = with_experts(outline, experts)
            except BfedgeError:  # 4 GiB or more
                return
            parts = file_parts(other)
            paper = paper_memory(other.shape, sum(parts[part] for part in EXPERT_PARTS))
            yield GrowthPoint(
                experts,
                paper.standard_experts,
                paper.butterfly_fp32_angles,
                paper.butterfly_fp16_angles,
                paper.packed_experts,
                other.file_bytes,
            )


def storage(outline: Outline) -> str:
    names = {Encoding.int8: "int8", Encoding.trits2: "2-bit trits", Encoding.trits3: "trits, 5 a byte"}

    def stored(kind: Kind) -> str:
        return names[Encoding(outline.section(kind, 0).encoding)]

    return (
        f"substrate: {stored(Kind.substrate)}; attention: {stored(Kind.qkv_weight)}; "
        f"down projection: {stored(Kind.down_weight)}; angles: FP16"
    )


def processor(board: Profile) -> str:
    clock = board.cpu.clock_hz
    cores = f"{board.cpu.cores} cores, " if board.cpu.cores > 1 else ""
    return f"{board.cpu.name}, {cores}{clock.value / 1e6:,.0f}\u00a0MHz" if clock else board.cpu.name


def check(opened: PackedModel, subject: Subject, planned: Plan, track: Track) -> tuple[tuple[Check, ...], str | None]:
    """The C runtime's bits on this machine against the reference's, and the accuracy in words where classes are
    known.
    """
    model, runtime, checks = opened.model, HostModel(subject.packed), []
    if opened.golden is not None:
        inputs, outputs = opened.golden.inputs, opened.golden.outputs
        got = runtime_logits(runtime, inputs, track)
        checks.append(check_bits("C runtime, golden vectors", "cases", model, runtime, inputs, outputs, got))
    most = max(FEWEST_CHECKED, MULTIPLY_ADDS_CHECKED // sum(planned.multiply_adds.values()))
    images = subject.images.some(most)
    expected = reference_logits(model, images.pixels, track)
    got = runtime_logits(runtime, images.pixels, track)
    kind = "images" if images.are_data else "noise"
    what = images.what if images.are_data else NOISE
    checks.append(check_bits(f"C runtime, {kind}", what, model, runtime, images.pixels, expected, got))
    if images.classes is None:
        return tuple(checks), None
    right = int((expected.argmax(1) == images.classes).sum())
    return tuple(checks), f"{percent(right / len(expected))}, {right:,} of {images.in_words}"


def test_image(model: LoweredViT, drawn: Drawn) -> TestImage:
    answer = int(reference.run(model, drawn.pixels[None])[0].argmax())
    return TestImage(
        pixels=drawn.pixels,
        what=drawn.what,
        true_class=None if drawn.true_class is None else class_name(model, drawn.true_class),
        answer=class_name(model, answer),
        routing=route_image(model, drawn.pixels),
    )


def class_name(model: LoweredViT, index: int) -> str:
    return f"“{model.labels[index]}”" if model.labels else f"class {index}"


def left_out(subject: Subject, boards: Sequence[TargetPlan], measured: Sequence[Measured]) -> dict[str, str]:
    """Why a figure is missing, by its id."""
    missing = {}
    if not measured:
        missing["stages"] = (
            "no profile was given; `bfedge profile --json` measures on a board or in an emulator, and `--profile "
            "FILE.json` adds what it prints"
        )
    if subject.drawn is None:
        missing["routing"] = NO_IMAGES
    if not subject.images.are_data:
        missing["shares"] = NO_IMAGES
    if not boards:
        missing["fit"] = "no board with a memory plan was asked for"
    if not any(board.energy for board in boards):
        missing["energy-figure"] = "no board with a memory plan was asked for"
    return missing
