"""Models of all kinds that emulated boards run, to fit estimates to and to measure their errors by."""

from __future__ import annotations

import dataclasses
import functools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bfedge.config import attention_scale, padded_width
from bfedge.device.host import IN_PLACE, HostModel, PlannedModel
from bfedge.lowered import reference
from bfedge.lowered.arithmetic import layer_norm
from bfedge.lowered.model import Block, Linear, LoweredViT, Matrix, Shape, TernaryEncoding, TernaryMatrix
from bfedge.measure.work import multiply_adds
from bfedge.packed.golden import golden_vectors
from bfedge.packed.outline import Outline, Projections, outline
from bfedge.packed.writer import pack
from tests.counting import ARENA_BYTES
from tests.fixed_models import CIFAR_BLOCK, DIGITS, Drawer

FITTED, HELD_OUT = range(200), range(10_000, 10_120)
"""Seeds of random models"""


@dataclass(frozen=True, eq=False)
class Limits:
    """Of random models, both ends included; what is large in one way is drawn small in others."""

    sizes: dict[str, tuple[int, int]]
    multiply_adds: int
    file_bytes: int
    arena_bytes: int


FIRMWARE = Limits(
    {
        **{"d_model": (8, 256), "d_ff": (16, 1024), "heads": (1, 32), "layers": (1, 8), "experts": (1, 64)},
        **{"top_k": (1, 4), "patches": (1, 100), "patch_size": (1, 8), "classes": (2, 200)},
    },
    multiply_adds=6_000_000,
    file_bytes=900_000,
    arena_bytes=ARENA_BYTES,
)
"""Beside its program in 1 MiB of flash, and what an emulator computes in seconds"""

LINUX = Limits(
    {
        **{"d_model": (8, 768), "d_ff": (16, 3072), "heads": (1, 32), "layers": (1, 12), "experts": (1, 256)},
        **{"top_k": (1, 8), "patches": (1, 256), "patch_size": (1, 16), "classes": (2, 1000)},
    },
    multiply_adds=30_000_000,
    file_bytes=1 << 30,
    arena_bytes=1 << 30,
)


def routing_of(model: LoweredViT, image: NDArray[np.uint8]) -> list[NDArray[np.int64]]:
    """Selected experts [tokens, top_k] of each block, by the reference."""
    found = []

    def look(stage: str, block: int | None, z: NDArray[np.float32]) -> None:
        if stage == "attention" and block is not None:
            layer = model.blocks[block]
            found.append(reference.route(layer.experts, layer_norm(z[0], layer.norm2), model.shape.top_k)[0])

    reference.run(model, image[None], look)
    return found


@dataclass(frozen=True)
class Sample:
    shape: Shape
    ternary: TernaryEncoding
    projections: Projections
    tiles: tuple[int, ...]

    @functools.cached_property
    def outline(self) -> Outline:
        return outline(self.shape, self.ternary, self.projections, golden_cases=1)

    @functools.cached_property
    def model(self) -> LoweredViT:
        """As fixed_models draws it, with other encodings."""
        drawn = Drawer(self.shape).model()
        return dataclasses.replace(drawn, blocks=tuple(map(self.encoded, drawn.blocks)))

    def encoded(self, block: Block) -> Block:
        substrate = dataclasses.replace(block.experts.substrate, encoding=self.ternary)
        block = dataclasses.replace(block, experts=dataclasses.replace(block.experts, substrate=substrate))
        if self.projections == "int8":
            return block
        experts = dataclasses.replace(block.experts, down=self.trits(block.experts.down))
        qkv, proj = (Linear(self.trits(linear.weight), linear.bias) for linear in (block.qkv, block.proj))
        return dataclasses.replace(block, qkv=qkv, proj=proj, experts=experts)

    def trits(self, matrix: Matrix) -> TernaryMatrix:
        scale = matrix.row_scales[0] * np.float32(64)
        return TernaryMatrix((matrix.integers % 3 - 1).astype(np.int8), scale, self.ternary)

    @functools.cached_property
    def image(self) -> NDArray[np.uint8]:
        return np.random.default_rng(5).integers(0, 256, (1, *self.shape.image_shape)).astype(np.uint8)

    @functools.cached_property
    def packed(self) -> bytes:
        """With the image as its golden case."""
        return pack(self.model, golden_vectors(self.model, self.image))

    @functools.cached_property
    def routing(self) -> list[NDArray[np.int64]]:
        return routing_of(self.model, self.image[0])

    def largest_tile(self) -> int:
        """That firmware has memory for, 0 if for none."""
        runtime = HostModel(self.packed, kernels=IN_PLACE)
        tiles = range(self.shape.tokens, 0, -1)
        return next((tile for tile in tiles if runtime.arena_bytes(tile) <= ARENA_BYTES), 0)


def random_sample(seed: int, limits: Limits) -> Sample:
    """Any shape within limits, small sizes as likely as large ones; with all tokens at once, and with fewer, in every
    third model one at a time.
    """
    r = np.random.default_rng(seed)

    def size(what: str, multiple: int = 1) -> int:
        low, high = limits.sizes[what]
        drawn = round(math.exp(r.uniform(math.log(low), math.log(high))) / multiple) * multiple
        return min(max(drawn, low), high)

    while True:
        heads, experts, patch_size = size("heads"), size("experts"), size("patch_size")
        d_model = size("d_model", heads * int(r.choice([1, 4, 8, 16])))
        d_ff = size("d_ff", int(r.choice([1, 4, 16, 64])))
        patches = size("patches")
        rows = int(r.integers(1, math.isqrt(patches) + 1))
        depths = [int(r.integers(1, padded_width(width).bit_length())) for width in (d_model, d_ff)]
        if d_model % heads:
            continue
        shape = Shape(
            image_height=patch_size * rows,
            image_width=patch_size * (patches // rows),
            channels=int(r.choice([1, 3])),
            patch_size=patch_size,
            classes=size("classes"),
            d_model=d_model,
            d_ff=d_ff,
            layers=size("layers"),
            heads=heads,
            experts=experts,
            top_k=min(size("top_k"), experts),
            theta_layers=depths[0] if r.random() < 0.5 else 2,
            phi_layers=depths[1] if r.random() < 0.5 else 2,
            pooling="mean" if r.random() < 0.5 else "class",
            attention_scale=attention_scale(d_model, heads),
        )
        ternary: TernaryEncoding = "trits2" if r.random() < 0.5 else "trits3"
        projections: Projections = "int8" if r.random() < 0.5 else "ternary"
        tiles = (0, 1 if seed % 3 == 0 else int(r.integers(1, shape.tokens + 1)))
        sample = Sample(shape, ternary, projections, tiles)
        if (
            PlannedModel(sample.outline, IN_PLACE).arena_bytes(1) <= limits.arena_bytes
            and sample.outline.file_bytes <= limits.file_bytes
            and sum(multiply_adds(shape).values()) <= limits.multiply_adds
        ):
            return sample


@functools.cache
def fitted_samples(limits: Limits) -> list[Sample]:
    return [random_sample(seed, limits) for seed in FITTED]


@functools.cache
def held_out_samples(limits: Limits) -> list[Sample]:
    """Not fitted to: the digits model, a block of the paper's CIFAR-100 model, and random ones."""
    named = [Sample(DIGITS, "trits2", "int8", (0, 1)), Sample(CIFAR_BLOCK, "trits2", "int8", (0,))]
    return named + [random_sample(seed, limits) for seed in HELD_OUT]
