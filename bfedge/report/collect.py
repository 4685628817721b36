"""Fills a report: asks the plan, the energy, the analysis of experts and the checks for what a page shows."""

from __future__ import annotations

import dataclasses
import hashlib
import re
import time
from collections.abc import Callable, Iterator, Sequence
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
from bfedge.measure.plan import EXPERT_PARTS, file_parts, paper_memory, plan
from bfedge.measure.target_plan import TargetPlan, plan_target
from bfedge.measure.verify import Check, Logits, check_bits, runtime_logits
from bfedge.packed.layout import Encoding, Kind
from bfedge.packed.outline import Outline, outline_of, with_experts
from bfedge.packed.reader import PackedModel, unpack
from bfedge.report.data import Experts, Fact, GrowthPoint, Measured, Report, TestImage
from bfedge.report.profiles import read_measured
from bfedge.report.words import percent

EXPERTS = (2, 4, 8, 16, 32, 64, 128, 256)
"""Of the curves, beside the model's own number"""
SECONDS = 20.0
"""Of the reference, which is what takes time: the check and the analysis run it once each for an image"""
BATCH_TOKENS = 4096
"""That go through the reference together"""
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
        which = "the first of" if most == 1 else "evenly from"
        return Images(self.pixels[chosen], classes, f"{self.what}, {which} {len(self.pixels):,}", self.are_data)

    @property
    def in_words(self) -> str:
        return f"{len(self.pixels):,} {self.noun}"

    @property
    def noun(self) -> str:
        return re.sub(r"^(|test |golden )(image|input)s", r"\1\2", self.what) if len(self.pixels) == 1 else self.what


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
    checks: tuple[Check, ...] = ()
    """Of its files"""


def collect(
    subject: Subject,
    boards: Sequence[Profile],
    profiles: Sequence[Path],
    track: Track = lambda items, title: items,
    tell: Callable[[str], object] = lambda message: None,
) -> Report:
    """Everything that a page shows. Raises BadFileError for a bad packed file, and BfedgeError for a profile that is
    broken or of another model.
    """
    opened, outline = unpack(subject.packed), outline_of(subject.packed)
    model, planned = opened.model, plan(outline)
    sha256 = hashlib.sha256(subject.packed).hexdigest()
    measured = without_repeats([read_measured(file, sha256) for file in profiles])
    real = real_input(opened, subject)
    with_memory = [board for board in boards if board.memories]
    on_boards = tuple(
        plan_target(board, outline, planned, subject.name, real=real) for board in track(with_memory, "boards")
    )
    tell(f"checking and analysing {subject.name} with up to {subject.images.in_words}")
    runtime = HostModel(subject.packed)
    images, expected = within_time(model, subject.images, track)
    if len(images.pixels) < len(subject.images.pixels):
        tell(f"for all there is no time: {images.in_words}")
    checks = (*check(opened, runtime, images, expected, track), *subject.checks)
    few = images if len(images.pixels) <= MOST_ANALYSED else subject.images.some(MOST_ANALYSED)
    return Report(
        name=subject.name,
        shape=model.shape,
        storage=storage(outline),
        plan=planned,
        boards=on_boards,
        processors={board.name: processor(board) for board in with_memory},
        growth=tuple(growth(outline)),
        measured=measured,
        accuracy=accuracy(images, expected),
        image=test_image(model, runtime, subject.drawn) if subject.drawn else None,
        experts=Experts(analyse(model, few.pixels, track=track), few.in_words, few.are_data),
        checks=checks,
        provenance=subject.provenance,
        left_out=left_out(subject, on_boards, measured),
    )


def without_repeats(found: Sequence[Measured]) -> tuple[Measured, ...]:
    """A profile that is given twice is shown once, whatever its files are called."""
    return tuple({dataclasses.replace(measured, file=""): measured for measured in reversed(found)}.values())[::-1]


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
    names = {
        **{Encoding.int8: "int8", Encoding.trits2: "2-bit trits", Encoding.trits3: "trits, 5 a byte"},
        **{Encoding.f16: "FP16", Encoding.angle8: "8 bits"},
    }

    def stored(*kinds: Kind) -> str:
        return " and ".join(dict.fromkeys(names[Encoding(s.encoding)] for s in outline.sections if s.kind in kinds))

    return (
        f"substrate: {stored(Kind.substrate)}; attention: {stored(Kind.qkv_weight)}; "
        f"down projection: {stored(Kind.down_weight)}; angles: {stored(Kind.theta, Kind.phi)}"
    )


def processor(board: Profile) -> str:
    clock = board.cpu.clock_hz
    cores = f"{board.cpu.cores} cores, " if board.cpu.cores > 1 else ""
    return f"{board.cpu.name}, {cores}{clock.value / 1e6:,.0f}\u00a0MHz" if clock else board.cpu.name


def within_time(model: LoweredViT, images: Images, track: Track) -> tuple[Images, Logits]:
    """As many images as there is time for, at least one, and what the reference makes of them. The number is a power
    of two, so that about the same speed gives the same page.
    """
    batch = max(1, BATCH_TOKENS // model.shape.tokens)
    for size in dict.fromkeys((1, batch)):  # one of many takes less than one alone
        start = time.perf_counter()
        logits = reference.run(model, images.pixels[:size])
        each = (time.perf_counter() - start) / len(logits)
        affordable = max(1, int(SECONDS / 2 / each))
        if affordable < batch:
            break
    few = images.some(1 << affordable.bit_length() - 1)
    if len(few.pixels) == 1:
        return few, logits[:1]
    starts = track(range(0, len(few.pixels), batch), "reference")
    return few, np.concatenate([reference.run(model, few.pixels[start : start + batch]) for start in starts])


def check(opened: PackedModel, runtime: HostModel, images: Images, expected: Logits, track: Track) -> Iterator[Check]:
    """The C runtime's bits on this machine against the reference's."""
    if opened.golden is not None:
        inputs, outputs = opened.golden.inputs, opened.golden.outputs
        got = runtime_logits(runtime, inputs, track)
        yield check_bits("C runtime, golden vectors", "cases", opened.model, runtime, inputs, outputs, got)
    kind = "images" if images.are_data else "noise"
    got = runtime_logits(runtime, images.pixels, track)
    yield check_bits(f"C runtime, {kind}", images.noun, opened.model, runtime, images.pixels, expected, got)


def accuracy(images: Images, logits: Logits) -> str | None:
    """In words; None where classes are not known."""
    if images.classes is None:
        return None
    right = int((logits.argmax(1) == images.classes).sum())
    return f"{percent(right / len(logits))}, {right:,} of {images.in_words}"


def test_image(model: LoweredViT, runtime: HostModel, drawn: Drawn) -> TestImage:
    answer = int(runtime.run(drawn.pixels).argmax())
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
