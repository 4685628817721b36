"""The experts of a packed file: how many trits and angles it has, what it stores them in, and what the papers count."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from bfedge.bench.random_models import random_model
from bfedge.config import rotation_depth
from bfedge.lowered.model import Shape, TernaryEncoding
from bfedge.measure.plan import paper_memory
from bfedge.packed.layout import Kind
from bfedge.packed.outline import Outline, outline_of
from bfedge.packed.writer import pack

BITS_A_TRIT = 1.58
"""As the papers count; log2(3) is 1.585"""
FP32_ANGLE, FP16_ANGLE = 4, 2


@dataclass(frozen=True)
class ExpertMemory:
    """Of all layers together."""

    experts: int
    layers: int
    trits: int
    angles: int
    substrate_bytes: int
    """As stored, with the scales"""
    trit_bytes: int
    """As stored, without them"""
    angle_bytes: int
    """As stored"""
    standard_bytes: float
    """As many independent experts, two float32 matrices each (ButterflyViT, Table 2)"""

    @property
    def stored_bytes(self) -> int:
        return self.substrate_bytes + self.angle_bytes

    def counted(self, bytes_an_angle: int) -> float:
        """Bytes as the papers count them."""
        return BITS_A_TRIT / 8 * self.trits + bytes_an_angle * self.angles

    def compression(self, bytes_an_angle: int) -> float:
        return self.standard_bytes / self.counted(bytes_an_angle)


def expert_memory(file: Outline) -> ExpertMemory:
    """From the sections of a packed file."""
    sections = {
        kind: [s for s in file.sections if s.kind == kind]
        for kind in (Kind.substrate, Kind.substrate_scale, Kind.theta, Kind.phi)
    }
    values = {kind: sum(s.rows * s.columns for s in found) for kind, found in sections.items()}
    sizes = {kind: sum(s.bytes for s in found) for kind, found in sections.items()}
    return ExpertMemory(
        experts=file.shape.experts,
        layers=file.shape.layers,
        trits=values[Kind.substrate],
        angles=values[Kind.theta] + values[Kind.phi],
        substrate_bytes=sizes[Kind.substrate] + sizes[Kind.substrate_scale],
        trit_bytes=sizes[Kind.substrate],
        angle_bytes=sizes[Kind.theta] + sizes[Kind.phi],
        standard_bytes=paper_memory(file.shape, 0).standard_experts,
    )


def pack_random(shape: Shape, ternary: TernaryEncoding = "trits2") -> Outline:
    """Packs a random model of this shape; the sections are those of the file's own table."""
    model = random_model(shape)
    blocks = []
    for block in model.blocks:
        substrate = dataclasses.replace(block.experts.substrate, encoding=ternary)
        blocks.append(dataclasses.replace(block, experts=dataclasses.replace(block.experts, substrate=substrate)))
    return outline_of(pack(dataclasses.replace(model, blocks=tuple(blocks))))


def with_full_rotations(shape: Shape) -> Shape:
    """ButterflyMoE's rotations, log2 of the width deep."""
    return dataclasses.replace(
        shape,
        theta_layers=rotation_depth("full", shape.d_model),
        phi_layers=rotation_depth("full", shape.d_ff),
    )
