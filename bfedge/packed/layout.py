"""Constants of the format and the list of sections that a configuration demands (FORMAT.md)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum, IntFlag

from bfedge.config import padded_width
from bfedge.lowered.model import Shape

MAGIC = b"\x89BFE"
BYTE_ORDER_MARK = 0x01020304
FORMAT_MAJOR, FORMAT_MINOR = 1, 0
HEADER = struct.Struct("<4sIHHIIIIII28s")
"""magic, byte order mark, major, minor, header bytes, file bytes, crc, required, optional, sections, zero"""
ENTRY = struct.Struct("<HHHHII")
"""kind, block, encoding, zero, offset, bytes"""
CRC_OFFSET = 20
ALIGNMENT = 16
NO_BLOCK = 0xFFFF
FIRST_OPTIONAL_KIND = 0x8000
CONFIG_WORDS = 17
POOLINGS = ("mean", "class")
MAX_MAGNITUDE = 1024.0
MAX_ANGLE = 3.140625


class Encoding(IntEnum):
    bytes = 0
    u32 = 1
    f32 = 2
    f16 = 3
    int8 = 4
    trits2 = 5
    trits3 = 6
    angle8 = 7


class Feature(IntFlag):
    vision_transformer = 1
    butterfly_experts = 2
    trits2 = 4
    trits3 = 8
    angle8 = 16


KNOWN_FEATURES = 31

MATRIX = (Encoding.int8, Encoding.trits2, Encoding.trits3)
TRITS = (Encoding.trits2, Encoding.trits3)
ANGLES = (Encoding.f16, Encoding.angle8)
"""What a section may be stored as, where there is a choice"""

FEATURE_OF = {encoding: Feature[encoding.name] for encoding in (*TRITS, Encoding.angle8)}
"""What a file needs if a section has this encoding"""


class Kind(IntEnum):
    config = 1
    patch_weight = 2
    patch_scale = 3
    position = 4
    norm1 = 16
    qkv_weight = 17
    qkv_scale = 18
    qkv_bias = 19
    proj_weight = 20
    proj_scale = 21
    proj_bias = 22
    norm2 = 23
    router_weight = 24
    router_scale = 25
    theta = 26
    substrate = 27
    substrate_scale = 28
    phi = 29
    down_weight = 30
    down_scale = 31
    norm = 48
    head_weight = 49
    head_scale = 50
    head_bias = 51
    labels = 64
    golden_input = 65
    golden_output = 66


@dataclass(frozen=True)
class Expected:
    """A section that a configuration demands: its allowed encodings and its dimensions."""

    kind: Kind
    block: int
    encodings: tuple[Encoding, ...]
    rows: int
    columns: int
    scale_of_previous: bool = False
    """One value if the weight before it is ternary, else one a row"""


def aligned(offset: int) -> int:
    return -(-offset // ALIGNMENT) * ALIGNMENT


def section_bytes(encoding: Encoding, rows: int, columns: int) -> int:
    """Bytes of an [rows, columns] array, without padding."""
    if encoding == Encoding.trits2:
        return rows * -(-columns // 4)
    if encoding == Encoding.trits3:
        return rows * -(-columns // 5)
    return rows * columns * {Encoding.u32: 4, Encoding.f32: 4, Encoding.f16: 2}.get(encoding, 1)


def expected_sections(shape: Shape) -> list[Expected]:
    """Every section that a file of this shape must have, in file order; labels and golden vectors may follow."""
    d, f = shape.d_model, shape.d_ff
    sections: list[Expected] = []

    def add(
        kind: Kind,
        block: int,
        encodings: tuple[Encoding, ...] | Encoding,
        rows: int,
        columns: int,
        scale_of_previous: bool = False,
    ) -> None:
        allowed = encodings if isinstance(encodings, tuple) else (encodings,)
        sections.append(Expected(kind, block, allowed, rows, columns, scale_of_previous))

    f32 = Encoding.f32
    add(Kind.config, NO_BLOCK, Encoding.u32, 1, CONFIG_WORDS)
    add(Kind.patch_weight, NO_BLOCK, Encoding.int8, d, shape.patch_columns)
    add(Kind.patch_scale, NO_BLOCK, f32, 1, d)
    add(Kind.position, NO_BLOCK, f32, shape.tokens, d)
    for block in range(shape.layers):
        add(Kind.norm1, block, f32, 2, d)
        add(Kind.qkv_weight, block, MATRIX, 3 * d, d)
        add(Kind.qkv_scale, block, f32, 1, 3 * d, True)
        add(Kind.qkv_bias, block, f32, 1, 3 * d)
        add(Kind.proj_weight, block, MATRIX, d, d)
        add(Kind.proj_scale, block, f32, 1, d, True)
        add(Kind.proj_bias, block, f32, 1, d)
        add(Kind.norm2, block, f32, 2, d)
        add(Kind.router_weight, block, Encoding.int8, shape.experts, d)
        add(Kind.router_scale, block, f32, 1, shape.experts)
        add(Kind.theta, block, ANGLES, shape.experts * shape.theta_layers, padded_width(d) // 2)
        add(Kind.substrate, block, TRITS, f, d)
        add(Kind.substrate_scale, block, f32, 1, 1)
        add(Kind.phi, block, ANGLES, shape.experts * shape.phi_layers, padded_width(f) // 2)
        add(Kind.down_weight, block, MATRIX, d, f)
        add(Kind.down_scale, block, f32, 1, d, True)
    add(Kind.norm, NO_BLOCK, f32, 2, d)
    add(Kind.head_weight, NO_BLOCK, Encoding.int8, shape.classes, d)
    add(Kind.head_scale, NO_BLOCK, f32, 1, shape.classes)
    add(Kind.head_bias, NO_BLOCK, f32, 1, shape.classes)
    return sections
