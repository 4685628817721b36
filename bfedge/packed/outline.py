"""A packed file without its contents: all that its size, and a runtime's memory for it, depend on."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from bfedge.config import Angles
from bfedge.errors import BfedgeError
from bfedge.lowered.model import Shape, TernaryEncoding
from bfedge.packed import layout
from bfedge.packed.layout import (
    BYTE_ORDER_MARK,
    ENTRY,
    FEATURE_OF,
    FIRST_OPTIONAL_KIND,
    FORMAT_MAJOR,
    FORMAT_MINOR,
    HEADER,
    MAGIC,
    NO_BLOCK,
    Encoding,
    Expected,
    Feature,
    Kind,
    aligned,
    expected_sections,
    section_bytes,
)
from bfedge.packed.validate import SectionEntry, validate

Projections = Literal["int8", "ternary"]


@dataclass(frozen=True)
class Outline:
    shape: Shape
    sections: tuple[SectionEntry, ...]
    file_bytes: int
    head: bytes
    """Header, without its checksum, and section table: what the file begins with"""

    def section(self, kind: Kind, block: int = NO_BLOCK) -> SectionEntry:
        return next(s for s in self.sections if (s.kind, s.block) == (kind, block))


def outline(
    shape: Shape,
    ternary: TernaryEncoding = "trits2",
    projections: Projections = "int8",
    labels_bytes: int = 0,
    golden_cases: int = 0,
    angles: Angles = "float16",
) -> Outline:
    """What `pack` would write for a model of this shape.

    Args:
        ternary: how trits are stored.
        projections: what the matrices of attention and the down projections are stored as.
        labels_bytes: of all labels, line feeds between them included.
        angles: what those of the experts are stored as.

    Raises BfedgeError if the file would have 4 GiB or more.
    """
    trits = Encoding[ternary]
    chosen = {
        layout.MATRIX: Encoding.int8 if projections == "int8" else trits,
        layout.TRITS: trits,
        layout.ANGLES: Encoding.f16 if angles == "float16" else Encoding.angle8,
    }
    return lay_out(shape, planned_sections(shape, chosen, labels_bytes, golden_cases))


def outline_of(data: bytes) -> Outline:
    """Of a packed file. Raises BadFileError if it breaks a rule."""
    checked = validate(data)
    return Outline(checked.shape, checked.sections, len(data), data[: HEADER.size + ENTRY.size * len(checked.sections)])


def with_experts(plan: Outline, experts: int) -> Outline:
    """The same file with another number of experts. Raises BfedgeError if it would have 4 GiB or more."""
    shape = dataclasses.replace(plan.shape, experts=experts)
    required = expected_sections(shape)
    resized = (
        sized(want, Encoding(s.encoding), Encoding(plan.sections[max(i - 1, 0)].encoding))
        for i, (want, s) in enumerate(zip(required, plan.sections, strict=False))
    )
    return lay_out(shape, [*resized, *plan.sections[len(required) :]])


def in_base3(plan: Outline) -> Outline:
    """The same file with all trits five a byte."""

    def repacked(s: SectionEntry) -> SectionEntry:
        if s.encoding != Encoding.trits2:
            return s
        size = section_bytes(Encoding.trits3, s.rows, s.columns)
        return dataclasses.replace(s, encoding=Encoding.trits3, bytes=size)

    return lay_out(plan.shape, map(repacked, plan.sections))


def with_golden(plan: Outline, cases: int) -> Outline:
    """The same file with this many golden vectors."""
    kept = (s for s in plan.sections if s.kind not in (Kind.golden_input, Kind.golden_output))
    golden = golden_sections(plan.shape, cases) if cases else ()
    sections = sorted([*kept, *golden], key=lambda s: s.kind if s.kind >= Kind.labels else 0)
    return lay_out(plan.shape, sections)


def sized(want: Expected, encoding: Encoding, previous: Encoding) -> SectionEntry:
    """A section without its offset; `previous` is the encoding of the one before it."""
    columns = 1 if want.scale_of_previous and previous != Encoding.int8 else want.columns
    size = section_bytes(encoding, want.rows, columns)
    return SectionEntry(want.kind, want.block, encoding, 0, size, want.rows, columns)


def planned_sections(
    shape: Shape, chosen: Mapping[tuple[Encoding, ...], Encoding], labels_bytes: int, golden_cases: int
) -> Iterator[SectionEntry]:
    """Sections without their offsets; `chosen` are the encodings where there is a choice."""
    previous = Encoding.bytes
    for want in expected_sections(shape):
        encoding = chosen.get(want.encodings, want.encodings[0])
        yield sized(want, encoding, previous)
        previous = encoding
    if labels_bytes:
        yield SectionEntry(Kind.labels, NO_BLOCK, Encoding.bytes, 0, labels_bytes, labels_bytes, 1)
    if golden_cases:
        yield from golden_sections(shape, golden_cases)


def golden_sections(shape: Shape, cases: int) -> Iterator[SectionEntry]:
    pixels = int(np.prod(shape.image_shape))
    for kind, encoding, values in (
        (Kind.golden_input, Encoding.bytes, pixels),
        (Kind.golden_output, Encoding.f32, shape.classes),
    ):
        yield SectionEntry(kind, NO_BLOCK, encoding, 0, section_bytes(encoding, cases, values), cases, values)


def lay_out(shape: Shape, sections: Iterable[SectionEntry]) -> Outline:
    """Gives sections their offsets, and writes header and table. Raises BfedgeError if the file would have 4 GiB or
    more.
    """
    listed = list(sections)
    start = end = aligned(HEADER.size + ENTRY.size * len(listed))
    placed = []
    features = Feature.vision_transformer | Feature.butterfly_experts
    for s in listed:
        placed.append(SectionEntry(s.kind, s.block, s.encoding, end, s.bytes, s.rows, s.columns))
        end += aligned(s.bytes)
        if s.kind < FIRST_OPTIONAL_KIND:
            features |= FEATURE_OF.get(Encoding(s.encoding), Feature(0))
    if end >= 2**32:
        raise BfedgeError(f"the packed file would have {end:,} bytes; the format holds less than 4 GiB")
    header = HEADER.pack(
        MAGIC,
        BYTE_ORDER_MARK,
        FORMAT_MAJOR,
        FORMAT_MINOR,
        HEADER.size,
        end,
        0,
        features,
        0,
        len(placed),
        bytes(28),
    )
    table = b"".join(ENTRY.pack(s.kind, s.block, s.encoding, 0, s.offset, s.bytes) for s in placed)
    return Outline(shape, tuple(placed), end, (header + table).ljust(start, b"\0"))
