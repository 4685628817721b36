"""Models of all kinds that emulated boards run, to fit estimates to and to measure their errors by."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bfedge.config import attention_scale, padded_width
from bfedge.device.host import IN_PLACE, HostModel
from bfedge.lowered import reference
from bfedge.lowered.arithmetic import layer_norm
from bfedge.lowered.model import Block, Linear, LoweredViT, Matrix, Shape, TernaryEncoding, TernaryMatrix
from bfedge.packed.golden import golden_vectors
from bfedge.packed.outline import Projections
from bfedge.packed.writer import pack
from tests.counting import ARENA_BYTES
from tests.fixed_models import CIFAR_BLOCK, DIGITS, Drawer

LARGEST_FILE = 900_000
"""Of firmware's models: beside its program in 1 MiB of flash"""

FITTED, HELD_OUT = range(24), range(1000, 1008)
"""Seeds of random models"""


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


def random_sample(seed: int) -> Sample:
    """Of any shape that firmware has memory for: d_model 32 to 256, d_ff 64 to 1024, 4 to 64 experts, 5 to 65 tokens;
    with all tokens at once, and with fewer, in every third model one at a time.
    """
    r = np.random.default_rng(seed)
    while True:
        heads = int(r.integers(1, 9))
        d_model = heads * int(r.choice([4, 8, 12, 16, 20, 24, 32, 48, 64]))
        d_ff = int(r.choice([64, 80, 96, 128, 160, 200, 256, 300, 384, 512, 640, 768, 1024]))
        patch_size, rows, columns = int(r.integers(1, 9)), int(r.integers(2, 9)), int(r.integers(3, 9))
        depths = [int(r.integers(1, padded_width(width).bit_length())) for width in (d_model, d_ff)]
        shape = Shape(
            image_height=patch_size * rows,
            image_width=patch_size * columns,
            channels=int(r.choice([1, 3])),
            patch_size=patch_size,
            classes=int(r.integers(2, 101)),
            d_model=d_model,
            d_ff=d_ff,
            layers=1,
            heads=heads,
            experts=int(r.integers(4, 65)),
            top_k=int(r.integers(1, 5)),
            theta_layers=depths[0] if seed % 2 else 2,
            phi_layers=depths[1] if seed % 2 else 2,
            pooling="mean" if r.random() < 0.5 else "class",
            attention_scale=attention_scale(d_model, heads),
        )
        if not 32 <= d_model <= 256:
            continue
        ternary: TernaryEncoding = "trits2" if r.random() < 0.5 else "trits3"
        projections: Projections = "int8" if r.random() < 0.5 else "ternary"
        tiles = (0, int(r.integers(2, shape.tokens)) if seed % 3 else 1)
        sample = Sample(shape, ternary, projections, tiles)
        if len(sample.packed) <= LARGEST_FILE and sample.largest_tile():
            return sample


@functools.cache
def fitted_samples() -> list[Sample]:
    """Random ones, and two so small that ternary matrices have too few rows for the tables of kernels in place."""
    small = dataclasses.replace(DIGITS, d_model=16, d_ff=64, layers=1, attention_scale=attention_scale(16, 4))
    few_rows = [Sample(small, "trits2", "ternary", (0, 1)), Sample(small, "trits3", "ternary", (0, 1))]
    return few_rows + [random_sample(seed) for seed in FITTED]


@functools.cache
def held_out_samples() -> list[Sample]:
    """Not fitted to: the digits model, a block of the paper's CIFAR-100 model, and random ones."""
    named = [Sample(DIGITS, "trits2", "int8", (0, 1)), Sample(CIFAR_BLOCK, "trits2", "int8", (0,))]
    return named + [random_sample(seed) for seed in HELD_OUT]
