"""What a model takes, whatever the board: bytes of its file by part, workspace by tile, multiply-adds, and what the
papers count.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from bfedge.config import padded_width
from bfedge.device.host import IN_PLACE, REARRANGED, PlannedModel
from bfedge.lowered.model import Shape
from bfedge.measure.work import multiply_adds
from bfedge.packed.layout import FIRST_OPTIONAL_KIND, Kind
from bfedge.packed.outline import Outline

PARTS: dict[str, tuple[Kind, ...]] = {
    "expert substrate": (Kind.substrate, Kind.substrate_scale),
    "expert angles": (Kind.theta, Kind.phi),
    "down projection": (Kind.down_weight, Kind.down_scale),
    "router": (Kind.router_weight, Kind.router_scale),
    "attention": (
        Kind.qkv_weight,
        Kind.qkv_scale,
        Kind.qkv_bias,
        Kind.proj_weight,
        Kind.proj_scale,
        Kind.proj_bias,
    ),
    "patch embedding and positions": (Kind.patch_weight, Kind.patch_scale, Kind.position),
    "norms": (Kind.norm1, Kind.norm2, Kind.norm),
    "head": (Kind.head_weight, Kind.head_scale, Kind.head_bias),
    "labels": (Kind.labels,),
    "golden vectors": (Kind.golden_input, Kind.golden_output),
}
UNKNOWN = "optional sections that this bfedge does not know"
EXPERT_PARTS = ("expert substrate", "expert angles")
"""What the papers call expert memory"""


@dataclass(frozen=True)
class PaperMemory:
    """Expert memory as ButterflyViT's Table 2 counts it, in bytes, and the same experts as we store them."""

    standard_experts: int
    """Independent float32 experts: layers * N * 2 matrices * d_model * d_ff * 4"""
    butterfly_fp32_angles: float
    """1.58 bits a trit and 4 bytes an angle, which reproduces the table"""
    butterfly_fp16_angles: float
    """1.58 bits a trit and 2 bytes an angle, which the text describes"""
    packed_experts: int
    """Substrate and angles in this file"""


@dataclass(frozen=True)
class TileWorkspace:
    """Bytes of workspace if `tile` tokens go through the experts together; 0 is all."""

    tile: int
    in_place: int
    """With weights used as they lie in the file"""
    rearranged: int
    """With weights rearranged for a processor with vectors"""


@dataclass(frozen=True)
class Plan:
    file_bytes: int
    parts: dict[str, int]
    """Bytes of the file by part; they add up to file_bytes"""
    workspace_bytes: int
    """For the fastest schedule: weights rearranged for a processor with vectors, all tokens at once"""
    prepared_bytes: int
    """Of the rearranged weights, which that takes besides"""
    workspace_bytes_smallest: int
    """With weights used as they lie in the file, and one token at a time"""
    tiles: tuple[TileWorkspace, ...]
    input_bytes: int
    output_bytes: int
    multiply_adds: dict[str, int]
    """Of one inference, by part"""
    paper: PaperMemory

    @property
    def expert_bytes(self) -> int:
        return self.paper.packed_experts


def plan(outline: Outline) -> Plan:
    """Exact numbers: sizes are those that `pack` writes, and the workspace is what the C runtime itself asks for."""
    shape = outline.shape
    parts = file_parts(outline)
    in_place, rearranged = PlannedModel(outline, IN_PLACE), PlannedModel(outline, REARRANGED)
    tiles = tuple(
        TileWorkspace(tile, in_place.workspace_bytes(tile), rearranged.workspace_bytes(tile))
        for tile in tile_sizes(shape.tokens)
    )
    height, width, channels = shape.image_shape
    return Plan(
        file_bytes=outline.file_bytes,
        parts=parts,
        workspace_bytes=tiles[-1].rearranged,
        prepared_bytes=rearranged.prepared_bytes,
        workspace_bytes_smallest=tiles[0].in_place,
        tiles=tiles,
        input_bytes=height * width * channels,
        output_bytes=4 * shape.classes,
        multiply_adds=multiply_adds(shape),
        paper=paper_memory(shape, sum(parts[part] for part in EXPERT_PARTS)),
    )


def tile_sizes(tokens: int) -> Iterator[int]:
    """1, 2, 4 ... below `tokens`, and 0 for all."""
    tile = 1
    while tile < tokens:
        yield tile
        tile *= 2
    yield 0


def file_parts(outline: Outline) -> dict[str, int]:
    part_of = {kind: part for part, kinds in PARTS.items() for kind in kinds}
    parts = dict.fromkeys((*PARTS, UNKNOWN), 0)
    for section in outline.sections:
        if section.kind >= FIRST_OPTIONAL_KIND:
            parts[UNKNOWN] += section.bytes
        elif section.kind in part_of:
            parts[part_of[Kind(section.kind)]] += section.bytes
    parts["header, configuration and padding"] = outline.file_bytes - sum(parts.values())
    return {part: size for part, size in parts.items() if size}


def paper_memory(shape: Shape, packed_experts: int) -> PaperMemory:
    angles = shape.theta_layers * padded_width(shape.d_model) // 2 + shape.phi_layers * padded_width(shape.d_ff) // 2
    substrate = 1.58 / 8 * shape.d_ff * shape.d_model
    return PaperMemory(
        standard_experts=shape.layers * shape.experts * 2 * shape.d_model * shape.d_ff * 4,
        butterfly_fp32_angles=shape.layers * (substrate + shape.experts * angles * 4),
        butterfly_fp16_angles=shape.layers * (substrate + shape.experts * angles * 2),
        packed_experts=packed_experts,
    )
