"""Lowered model to the bytes of a .bfe file. Deterministic: the same model gives the same bytes."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import numpy as np

from bfedge.lowered.model import Block, Int8Matrix, LayerNorm, LoweredViT, Matrix, Rotation, Shape
from bfedge.packed.golden import Golden
from bfedge.packed.layout import ALIGNMENT, CONFIG_WORDS, CRC_OFFSET, NO_BLOCK, POOLINGS, Encoding, Kind
from bfedge.packed.outline import lay_out
from bfedge.packed.trits import pack_trits
from bfedge.packed.validate import SectionEntry, validate

Section = tuple[Kind, int, Encoding, bytes]


def pack(model: LoweredViT, golden: Golden | None = None) -> bytes:
    """The packed file. Raises BfedgeError if the model breaks a rule of the format (a weight that is not
    finite, say).
    """
    sections = list(sections_of(model, golden))
    plan = lay_out(
        model.shape, (SectionEntry(kind, block, encoding, 0, len(data)) for kind, block, encoding, data in sections)
    )
    body = b"".join(data + bytes(-len(data) % ALIGNMENT) for *_, data in sections)
    data = with_checksum(plan.head + body)
    validate(data)
    return data


def with_checksum(data: bytes) -> bytes:
    """The same file with the CRC of its contents in the header."""
    crc = zlib.crc32(data[CRC_OFFSET + 4 :], zlib.crc32(data[:CRC_OFFSET]))
    return data[:CRC_OFFSET] + struct.pack("<I", crc) + data[CRC_OFFSET + 4 :]


def sections_of(model: LoweredViT, golden: Golden | None) -> Iterator[Section]:
    yield Kind.config, NO_BLOCK, Encoding.u32, config_words(model.shape)
    yield from matrix(Kind.patch_weight, NO_BLOCK, model.patch)
    yield floats(Kind.position, NO_BLOCK, model.position)
    for index, block in enumerate(model.blocks):
        yield from block_sections(index, block)
    yield norm(Kind.norm, NO_BLOCK, model.norm)
    yield from matrix(Kind.head_weight, NO_BLOCK, model.head.weight)
    yield floats(Kind.head_bias, NO_BLOCK, model.head.bias)
    if model.labels:
        yield Kind.labels, NO_BLOCK, Encoding.bytes, "\n".join(model.labels).encode()
    if golden is not None:
        yield Kind.golden_input, NO_BLOCK, Encoding.bytes, golden.inputs.tobytes()
        yield floats(Kind.golden_output, NO_BLOCK, golden.outputs)


def block_sections(index: int, block: Block) -> Iterator[Section]:
    yield norm(Kind.norm1, index, block.norm1)
    yield from matrix(Kind.qkv_weight, index, block.qkv.weight)
    yield floats(Kind.qkv_bias, index, block.qkv.bias)
    yield from matrix(Kind.proj_weight, index, block.proj.weight)
    yield floats(Kind.proj_bias, index, block.proj.bias)
    yield norm(Kind.norm2, index, block.norm2)
    experts = block.experts
    yield from matrix(Kind.router_weight, index, experts.router)
    yield angles(Kind.theta, index, experts.theta)
    yield from matrix(Kind.substrate, index, experts.substrate)
    yield angles(Kind.phi, index, experts.phi)
    yield from matrix(Kind.down_weight, index, experts.down)


def matrix(kind: Kind, block: int, weights: Matrix) -> Iterator[Section]:
    """A weight and, with the next kind, its scales."""
    if isinstance(weights, Int8Matrix):
        yield kind, block, Encoding.int8, weights.values.tobytes()
        yield floats(Kind(kind + 1), block, weights.scales)
    else:
        encoding = Encoding[weights.encoding]
        yield kind, block, encoding, pack_trits(weights.trits, encoding)
        yield floats(Kind(kind + 1), block, np.array([weights.scale]))


def angles(kind: Kind, block: int, rotation: Rotation) -> Section:
    if rotation.stored.dtype == np.int8:
        return kind, block, Encoding.angle8, rotation.stored.tobytes()
    return kind, block, Encoding.f16, rotation.stored.astype("<f2").tobytes()


def norm(kind: Kind, block: int, layer: LayerNorm) -> Section:
    return floats(kind, block, np.stack([layer.gain, layer.bias]))


def floats(kind: Kind, block: int, values: np.ndarray) -> Section:
    return kind, block, Encoding.f32, values.astype("<f4").tobytes()


def config_words(shape: Shape) -> bytes:
    """The config section (FORMAT.md)."""
    s = shape
    words = [1, s.image_height, s.image_width, s.channels, s.patch_size, s.classes, s.d_model, s.d_ff, s.layers]
    words += [s.heads, s.experts, s.top_k, s.theta_layers, s.phi_layers, POOLINGS.index(s.pooling), 1]
    return struct.pack(f"<{CONFIG_WORDS - 1}If", *words, s.attention_scale)
