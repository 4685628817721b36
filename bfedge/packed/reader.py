"""The bytes of a .bfe file to a lowered model, after validation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bfedge.lowered.model import (
    Block,
    ButterflyExperts,
    Int8Matrix,
    LayerNorm,
    Linear,
    LoweredViT,
    Matrix,
    Rotation,
    TernaryMatrix,
)
from bfedge.packed.golden import Golden
from bfedge.packed.layout import NO_BLOCK, Encoding, Kind
from bfedge.packed.trits import unpack_trits
from bfedge.packed.validate import CheckedFile, SectionEntry, validate

DTYPES = {
    **{Encoding.f32: "<f4", Encoding.f16: "<f2", Encoding.bytes: "u1"},
    **{Encoding.int8: "i1", Encoding.angle8: "i1"},
}


@dataclass(frozen=True)
class PackedModel:
    model: LoweredViT
    golden: Golden | None
    checked: CheckedFile


def unpack(data: bytes) -> PackedModel:
    """The inverse of `pack`. Raises BadFileError if the file breaks a rule."""
    checked = validate(data)
    return Reader(data, checked).read()


class Reader:
    def __init__(self, data: bytes, checked: CheckedFile) -> None:
        self.data = data
        self.checked = checked
        self.sections = {(s.kind, s.block): s for s in checked.sections}

    def read(self) -> PackedModel:
        shape = self.checked.shape
        model = LoweredViT(
            shape=shape,
            patch=self.int8(Kind.patch_weight, NO_BLOCK),
            position=self.array(Kind.position, NO_BLOCK).reshape(shape.tokens, shape.d_model),
            blocks=tuple(self.block(index) for index in range(shape.layers)),
            norm=self.norm(Kind.norm, NO_BLOCK),
            head=self.linear(Kind.head_weight, NO_BLOCK),
            labels=self.labels(),
        )
        return PackedModel(model, self.golden(), self.checked)

    def block(self, index: int) -> Block:
        shape = self.checked.shape
        substrate = self.matrix(Kind.substrate, index)
        assert isinstance(substrate, TernaryMatrix)
        return Block(
            norm1=self.norm(Kind.norm1, index),
            qkv=self.linear(Kind.qkv_weight, index),
            proj=self.linear(Kind.proj_weight, index),
            norm2=self.norm(Kind.norm2, index),
            experts=ButterflyExperts(
                router=self.int8(Kind.router_weight, index),
                theta=self.rotation(Kind.theta, index, shape.d_model),
                substrate=substrate,
                phi=self.rotation(Kind.phi, index, shape.d_ff),
                down=self.matrix(Kind.down_weight, index),
            ),
        )

    def contents(self, section: SectionEntry) -> bytes:
        return self.data[section.offset : section.offset + section.bytes]

    def array(self, kind: Kind, block: int) -> NDArray:
        section = self.sections[kind, block]
        values = np.frombuffer(self.contents(section), DTYPES[Encoding(section.encoding)])
        values = values.astype(values.dtype.newbyteorder("="))
        return values if section.rows == 1 else values.reshape(section.rows, section.columns)

    def matrix(self, kind: Kind, block: int) -> Matrix:
        section = self.sections[kind, block]
        scales = self.array(Kind(kind + 1), block)
        encoding = Encoding(section.encoding)
        if encoding == Encoding.int8:
            return Int8Matrix(self.array(kind, block).reshape(section.rows, section.columns), scales)
        trits = unpack_trits(self.contents(section), encoding, section.rows, section.columns)
        return TernaryMatrix(trits, np.float32(scales[0]), "trits2" if encoding == Encoding.trits2 else "trits3")

    def int8(self, kind: Kind, block: int) -> Int8Matrix:
        matrix = self.matrix(kind, block)
        assert isinstance(matrix, Int8Matrix)
        return matrix

    def rotation(self, kind: Kind, block: int, width: int) -> Rotation:
        columns = self.sections[kind, block].columns
        return Rotation(width, self.array(kind, block).reshape(self.checked.shape.experts, -1, columns))

    def norm(self, kind: Kind, block: int) -> LayerNorm:
        gain, bias = self.array(kind, block)
        return LayerNorm(gain, bias)

    def linear(self, kind: Kind, block: int) -> Linear:
        return Linear(self.matrix(kind, block), self.array(Kind(kind + 2), block))

    def labels(self) -> tuple[str, ...]:
        section = self.sections.get((Kind.labels, NO_BLOCK))
        return () if section is None else tuple(self.contents(section).decode().split("\n"))

    def golden(self) -> Golden | None:
        section = self.sections.get((Kind.golden_input, NO_BLOCK))
        if section is None:
            return None
        shape = self.checked.shape
        inputs = self.array(Kind.golden_input, NO_BLOCK).reshape(-1, *shape.image_shape)
        return Golden(inputs, self.array(Kind.golden_output, NO_BLOCK).reshape(-1, shape.classes))
