"""The rules V1 to V18 of FORMAT.md, in its order. `runtime_c/src/bfe_validate.c` is the same pass in C."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np

from bfedge.config import BOUNDS, MAX_PATCH_COLUMNS, MAX_TOKENS, padded_width
from bfedge.errors import BfedgeError
from bfedge.lowered.model import Shape
from bfedge.packed.layout import (
    BYTE_ORDER_MARK,
    CONFIG_WORDS,
    CRC_OFFSET,
    ENTRY,
    FEATURE_OF,
    FIRST_OPTIONAL_KIND,
    FORMAT_MAJOR,
    HEADER,
    KNOWN_FEATURES,
    MAGIC,
    MAX_ANGLE,
    MAX_MAGNITUDE,
    NO_BLOCK,
    POOLINGS,
    Encoding,
    Feature,
    Kind,
    aligned,
    expected_sections,
    section_bytes,
)
from bfedge.packed.trits import legal_trits

HINTS = {
    "not a model": "this is not a .bfe file; `bfedge export` writes one",
    "truncated": "copy or download the file again",
    "corrupt": "the file was altered or damaged; export or copy it again",
    "wrong byte order": "the file was written for a big-endian machine; export it with this bfedge",
    "format version too new": "a newer bfedge wrote this file; update bfedge",
    "unsupported feature": "a newer bfedge wrote this file; update bfedge",
}


class BadFileError(BfedgeError):
    """A file that breaks a rule. `status` is the word that the C runtime uses too."""

    def __init__(self, status: str, rule: int, detail: str) -> None:
        super().__init__(f"{status}: {detail} (rule V{rule})", HINTS[status])
        self.status = status
        self.rule = rule


@dataclass(frozen=True)
class SectionEntry:
    kind: int
    block: int
    encoding: int
    offset: int
    bytes: int
    rows: int = 0
    columns: int = 0

    @property
    def name(self) -> str:
        name = Kind(self.kind).name if self.kind in Kind.__members__.values() else f"kind {self.kind:#x}"
        return name if self.block == NO_BLOCK else f"block {self.block} {name}"


@dataclass(frozen=True)
class CheckedFile:
    """What a file that passed all rules contains."""

    shape: Shape
    sections: tuple[SectionEntry, ...]
    version: tuple[int, int]
    features: Feature
    crc: int


def read_checked(path: Path) -> tuple[bytes, CheckedFile]:
    """The bytes of a packed file and what they contain.

    Raises BfedgeError, naming the file, if it cannot be read or breaks a rule.
    """
    try:
        data = path.read_bytes()
    except OSError as problem:
        hint = "`bfedge export` writes a .bfe file" if isinstance(problem, FileNotFoundError) else None
        raise BfedgeError(f"cannot read `{path}`: {problem.strerror}", hint) from None
    try:
        return data, validate(data)
    except BadFileError as problem:
        problem.message = f"`{path}`: {problem.message}"
        raise


def fail(status: str, rule: int, detail: str) -> NoReturn:
    raise BadFileError(status, rule, detail)


def validate(data: bytes) -> CheckedFile:
    """Raises BadFileError with the first rule that `data` breaks."""
    if data[:4] != MAGIC:
        fail("not a model", 1, "the file does not start with the magic bytes 89 42 46 45")
    if len(data) < HEADER.size:
        fail("truncated", 2, f"{len(data)} bytes, the header alone has {HEADER.size}")
    header = HEADER.unpack_from(data)
    _, mark, major, minor, header_bytes, file_bytes, crc, required, _, count, zero = header
    if mark != BYTE_ORDER_MARK:
        reversed_mark = int.from_bytes(BYTE_ORDER_MARK.to_bytes(4, "little"), "big")
        fail("wrong byte order" if mark == reversed_mark else "corrupt", 3, f"byte order mark {mark:#010x}")
    if major != FORMAT_MAJOR:
        fail(
            "format version too new" if major > FORMAT_MAJOR else "corrupt",
            4,
            f"format {major}.{minor}, this reads {FORMAT_MAJOR}.x",
        )
    if file_bytes != len(data):
        fail("truncated" if file_bytes > len(data) else "corrupt", 5, f"{len(data)} bytes of {file_bytes}")
    actual = zlib.crc32(data[CRC_OFFSET + 4 :], zlib.crc32(data[:CRC_OFFSET]))
    if actual != crc:
        fail("corrupt", 6, f"checksum {actual:08x}, the header says {crc:08x}")
    if required & ~KNOWN_FEATURES:
        fail("unsupported feature", 7, f"required feature bits {required & ~KNOWN_FEATURES:#x} are unknown")
    table_end = HEADER.size + ENTRY.size * count
    if header_bytes != HEADER.size or any(zero) or table_end > len(data):
        fail("corrupt", 8, "header fields")
    table = [ENTRY.unpack_from(data, HEADER.size + ENTRY.size * i) for i in range(count)]
    if any(entry[3] for entry in table):
        fail("corrupt", 8, "reserved bytes of the section table")
    shape = check_config(data, table, aligned(table_end))
    sections = tuple(check_table(shape, table))
    check_layout(data, sections, table_end)
    check_features(sections, required)
    check_weights(data, sections)
    check_floats(data, sections)
    check_angles(data, sections)
    check_optional(data, shape, sections)
    return CheckedFile(shape, sections, (major, minor), Feature(required), crc)


def check_config(data: bytes, table: list[tuple[int, ...]], offset: int) -> Shape:
    """V9 and V10. `offset` is where the config has to be; V12 checks that the table agrees."""
    size = 4 * CONFIG_WORDS
    if not table or table[0][:3] != (Kind.config, NO_BLOCK, Encoding.u32) or table[0][5] != size:
        fail("corrupt", 9, "the first section is not a config")
    if offset + size > len(data):
        fail("corrupt", 9, "the config lies outside the file")
    words = struct.unpack_from("<17I", data, offset)
    architecture, height, width, channels, patch, classes, d, f, layers, heads, experts, top_k = words[:12]
    theta_layers, phi_layers, pooling, feed_forward, scale_bits = words[12:]
    if architecture != 1:
        fail("unsupported feature", 10, f"architecture {architecture}")
    if feed_forward != 1:
        fail("unsupported feature", 10, f"feed-forward {feed_forward}")
    named = dict(
        image_height=height,
        image_width=width,
        channels=channels,
        patch_size=patch,
        classes=classes,
        d_model=d,
        d_ff=f,
        layers=layers,
        heads=heads,
        experts=experts,
        top_k=top_k,
    )
    for name, value in named.items():
        low, high = BOUNDS[name]
        if not low <= value <= high:
            fail("corrupt", 10, f"{name} is {value}, it must be {low} to {high}")
    scale = struct.unpack("<f", struct.pack("<I", scale_bits))[0]
    if (
        height % patch
        or width % patch
        or patch * patch * channels > MAX_PATCH_COLUMNS
        or d % heads
        or top_k > experts
        or not 1 <= theta_layers <= padded_width(d).bit_length() - 1
        or not 1 <= phi_layers <= padded_width(f).bit_length() - 1
        or pooling >= len(POOLINGS)
        or not 0 < scale <= MAX_MAGNITUDE
    ):
        fail("corrupt", 10, "config fields out of bounds")
    shape = Shape(
        **named,
        theta_layers=theta_layers,
        phi_layers=phi_layers,
        pooling="class" if pooling else "mean",
        attention_scale=scale,
    )
    if shape.tokens > MAX_TOKENS:
        fail("corrupt", 10, f"{shape.tokens} tokens, at most {MAX_TOKENS}")
    return shape


def check_table(shape: Shape, table: list[tuple[int, ...]]) -> Iterator[SectionEntry]:
    """V11: yields the sections with their dimensions."""
    previous = Encoding.bytes
    expected = expected_sections(shape)
    for index, want in enumerate(expected):
        if index >= len(table):
            fail("corrupt", 11, f"section {want.kind.name} is missing")
        kind, block, encoding, _, offset, size = table[index]
        if kind not in Kind.__members__.values() and kind < FIRST_OPTIONAL_KIND:
            fail("unsupported feature", 11, f"section kind {kind:#x} is unknown")
        if (kind, block) != (want.kind, want.block) or encoding not in want.encodings:
            fail("corrupt", 11, f"section {index} is not the {want.kind.name} that the config demands")
        rows, columns = want.rows, want.columns
        if want.scale_of_previous and previous != Encoding.int8:
            columns = 1
        previous = Encoding(encoding)
        if size != section_bytes(previous, rows, columns):
            demanded = section_bytes(previous, rows, columns)
            fail("corrupt", 11, f"section {want.kind.name} has {size} bytes, the config demands {demanded}")
        yield SectionEntry(kind, block, encoding, offset, size, rows, columns)
    last = 0
    optional = {
        Kind.labels: (Encoding.bytes, 1),
        Kind.golden_input: (Encoding.bytes, int(np.prod(shape.image_shape))),
        Kind.golden_output: (Encoding.f32, 4 * shape.classes),
    }
    for kind, block, encoding, _, offset, size in table[len(expected) :]:
        if kind not in Kind.__members__.values() and kind < FIRST_OPTIONAL_KIND:
            fail("unsupported feature", 11, f"section kind {kind:#x} is unknown")
        allowed = optional.get(Kind(kind)) if kind < FIRST_OPTIONAL_KIND else (encoding, 1)
        if allowed is None or kind <= last or block != NO_BLOCK:
            fail("corrupt", 11, f"section kind {kind:#x} is out of place")
        if encoding != allowed[0] or size % allowed[1]:
            fail("corrupt", 11, f"section kind {kind:#x} has the wrong encoding or size")
        last = kind
        unit = allowed[1] // 4 if encoding == Encoding.f32 and kind < FIRST_OPTIONAL_KIND else allowed[1]
        yield SectionEntry(kind, block, encoding, offset, size, size // allowed[1], unit)


def check_layout(data: bytes, sections: tuple[SectionEntry, ...], table_end: int) -> None:
    """V12 and V13."""
    position = table_end
    for section in sections:
        if section.offset != aligned(position):
            fail("corrupt", 12, f"section {section.name} starts at {section.offset}, not {aligned(position)}")
        position = section.offset + section.bytes
        if position > len(data):
            fail("corrupt", 12, f"section {section.name} ends beyond the file")
    if aligned(position) != len(data):
        fail("corrupt", 12, "bytes after the last section")
    position = table_end
    for start, size in [*((s.offset, s.bytes) for s in sections), (len(data), 0)]:
        if any(data[position:start]):
            fail("corrupt", 13, f"padding at {position} is not zero")
        position = start + size


def check_features(sections: tuple[SectionEntry, ...], required: int) -> None:
    """V14."""
    used = Feature.vision_transformer | Feature.butterfly_experts
    for section in sections:
        if section.kind < FIRST_OPTIONAL_KIND:
            used |= FEATURE_OF.get(Encoding(section.encoding), Feature(0))
    if used != required:
        fail("corrupt", 14, f"feature bits {required:#x}, the sections use {int(used):#x}")


def contents(data: bytes, section: SectionEntry) -> bytes:
    return data[section.offset : section.offset + section.bytes]


def check_weights(data: bytes, sections: tuple[SectionEntry, ...]) -> None:
    """V15."""
    for section in known(sections):
        if section.encoding in (Encoding.trits2, Encoding.trits3):
            if not legal_trits(contents(data, section), Encoding(section.encoding), section.rows, section.columns):
                fail("corrupt", 15, f"section {section.name} has an illegal trit")
        elif section.encoding == Encoding.int8 and b"\x80" in contents(data, section):
            fail("corrupt", 15, f"section {section.name} has a weight of -128")


def check_floats(data: bytes, sections: tuple[SectionEntry, ...]) -> None:
    """V16."""
    for section in known(sections):
        if section.encoding != Encoding.f32:
            continue
        values = np.frombuffer(contents(data, section), "<f4")
        if not np.isfinite(values).all():
            fail("corrupt", 16, f"section {section.name} has a value that is not finite")
        if section.kind == Kind.golden_output:  # results, not parameters: finite is enough
            continue
        if (np.abs(values) > MAX_MAGNITUDE).any():
            fail("corrupt", 16, f"section {section.name} has a value beyond {MAX_MAGNITUDE:g}")
        if Kind(section.kind).name.endswith("_scale") and not (values > 0).all():
            fail("corrupt", 16, f"section {section.name} has a scale that is not positive")


def check_angles(data: bytes, sections: tuple[SectionEntry, ...]) -> None:
    """V17."""
    for section in known(sections):
        if section.encoding == Encoding.f16:
            angles = np.frombuffer(contents(data, section), "<f2")
            if not (np.abs(angles) <= MAX_ANGLE).all():
                fail("corrupt", 17, f"section {section.name} has an angle beyond one turn")


def known(sections: tuple[SectionEntry, ...]) -> Iterator[SectionEntry]:
    return (section for section in sections if section.kind < FIRST_OPTIONAL_KIND)


def check_optional(data: bytes, shape: Shape, sections: tuple[SectionEntry, ...]) -> None:
    """V18."""
    by_kind = {section.kind: section for section in sections}
    labels = by_kind.get(Kind.labels)
    if labels is not None:
        try:
            text = contents(data, labels).decode()
        except UnicodeDecodeError:
            fail("corrupt", 18, "labels are not UTF-8")
        if text.count("\n") != shape.classes - 1:
            fail("corrupt", 18, f"{text.count(chr(10)) + 1} labels for {shape.classes} classes")
    golden_input, golden_output = by_kind.get(Kind.golden_input), by_kind.get(Kind.golden_output)
    cases = [0 if section is None else section.rows for section in (golden_input, golden_output)]
    if (golden_input or golden_output) and (cases[0] != cases[1] or not cases[0]):
        fail("corrupt", 18, "golden inputs and outputs do not match")
