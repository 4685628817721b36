"""The work of one inference, from a model's shape alone: multiply-adds, matrix products, and bytes of weights read.

All of it is exact, for one thread. What the routing decides - how many experts a tile of tokens uses - is an argument;
`even_routing` is what to expect of it, `fewest_experts_used` and `most_experts_used` its bounds. The schedule is that
of runtime_c/src: tests compare every number with the runtime's own counters.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bfedge.config import padded_width
from bfedge.device.host import COLUMNS_IN_PLACE, COLUMNS_REARRANGED
from bfedge.lowered.model import Shape
from bfedge.packed.layout import NO_BLOCK, Encoding, Kind

if TYPE_CHECKING:
    from bfedge.packed.outline import Outline

COLUMN_BLOCK, TILE_ROWS = 16, 32
"""To multiples of these are columns and rows of rearranged matrices padded (bfe_kernels.h)"""

FEWEST_ROWS_FOR_TABLES = 20
"""Of a ternary matrix in place; with fewer, every column is a pass (bfe_product_trits_tables.c)"""


def multiply_adds(shape: Shape) -> dict[str, int]:
    """Multiply-adds of one inference, by part. Only the top_k experts of each token run.

    A rotation works on the next power of two of its width; each of its Givens pairs counts as four, one for each
    multiplication. Norms, softmax, GELU, quantisation, and the sines and cosines of angles are not multiply-adds and
    not counted.
    """
    d, f, tokens, pairs = shape.d_model, shape.d_ff, shape.tokens, shape.tokens * shape.top_k
    blocks = {
        "queries, keys and values": tokens * 3 * d * d,
        "attention scores": tokens * tokens * d,
        "attention mixing": tokens * tokens * d,
        "attention projection": tokens * d * d,
        "router": tokens * shape.experts * d,
        "rotations": 4 * pairs * (angles(d, shape.theta_layers) + angles(f, shape.phi_layers)),
        "substrate": pairs * f * d,
        "weighted sum of experts": pairs * f,
        "down projection": tokens * d * f,
    }
    return {
        "patch embedding": patches(shape) * d * shape.patch_columns,
        **{part: shape.layers * count for part, count in blocks.items()},
        "head": shape.classes * d,
    }


def angles(width: int, layers: int) -> int:
    """Of one expert's rotation: one for each Givens pair."""
    return layers * (padded_width(width) // 2)


def patches(shape: Shape) -> int:
    return shape.tokens - (shape.pooling == "class")


@dataclass(frozen=True)
class Schedule:
    """How bfe_run divides the tokens of an image on one thread."""

    tiles: Counter[int]
    """How many tiles of so many tokens go through the experts"""
    columns: int
    """Tokens that go through a matrix together, at most"""
    pairs: int
    """(token, expert) pairs that do"""


def schedule_of(shape: Shape, in_place: bool, tile: int) -> Schedule:
    """`tile` tokens go through the experts together; 0 for all. `in_place` says where weights are used: as they lie in
    the file, or rearranged in memory for a processor with vectors.
    """
    size = min(tile, shape.tokens) if tile else shape.tokens
    at_once = COLUMNS_IN_PLACE if in_place else COLUMNS_REARRANGED
    return Schedule(chunks(shape.tokens, size), min(at_once, size), min(at_once, size * shape.top_k))


def chunks(count: int, most: int) -> Counter[int]:
    """Sizes: `most` as often as it goes, and what is left."""
    return +Counter({most: count // most}) + +Counter({count % most: int(count % most > 0)})


def chunks_of_tiles(tiles: Counter[int], most: int, each: int = 1) -> Counter[int]:
    """Of tiles with `each` items a token: no chunk reaches into the next tile."""
    found: Counter[int] = Counter()
    for tokens, times in tiles.items():
        for size, count in chunks(tokens * each, most).items():
            found[size] += count * times
    return found


def experts_used(selected: NDArray[np.integer], tile: int) -> int:
    """Different experts of each tile, summed, from a block's routing [tokens, top_k]: so often an expert's angles are
    read and expanded.
    """
    size = min(tile, len(selected)) if tile else len(selected)
    return sum(len(np.unique(selected[first : first + size])) for first in range(0, len(selected), size))


def even_routing(shape: Shape, tile: int) -> float:
    """`experts_used` of one block as it is to be expected if each token takes any top_k experts, all choices equally
    likely and independent of the other tokens'. Real routers prefer some experts and use fewer.
    """
    unused = 1 - shape.top_k / shape.experts
    tiles = schedule_of(shape, True, tile).tiles
    return sum(times * shape.experts * (1 - unused**tokens) for tokens, times in tiles.items())


def fewest_experts_used(shape: Shape, tile: int) -> int:
    """`experts_used` if all tokens take the same experts."""
    return shape.top_k * schedule_of(shape, True, tile).tiles.total()


def most_experts_used(shape: Shape, tile: int) -> int:
    """`experts_used` if tokens share experts only where there are no others left."""
    tiles = schedule_of(shape, True, tile).tiles
    return sum(times * min(shape.experts, tokens * shape.top_k) for tokens, times in tiles.items())


@dataclass(frozen=True)
class Product:
    """A matrix times `count` columns, `times` times."""

    part: str
    rows: int
    columns: int
    """Of the matrix"""
    encoding: Encoding
    count: int
    times: int
    bytes: int
    """That one pass over the matrix reads of the model, scales included; 0 for keys and values, which are none of it"""


@dataclass(frozen=True)
class Stage:
    """What lies between two events of the runtime's trace."""

    name: str
    """`embed`, `block 0 attention`, ...: as in a board's profile"""
    products: tuple[Product, ...]
    vector_bytes: int
    """Read of the model's norms, biases and positions"""
    angle_bytes: int = 0
    """Read of the model whenever an expert's angles are expanded"""


def stages(outline: Outline, in_place: bool, tile: int) -> list[Stage]:
    """The stages of one inference, in order."""
    shape = outline.shape
    schedule = schedule_of(shape, in_place, tile)
    sections = {(section.kind, section.block): section for section in outline.sections}
    d, f, tokens, heads = shape.d_model, shape.d_ff, shape.tokens, shape.heads
    head_size = d // heads

    def of_weight(part: str, kind: Kind, block: int, rows: int, columns: int, counts: Counter[int]) -> list[Product]:
        weight, scale = sections[kind, block], sections[Kind(kind + 1), block]
        encoding = Encoding(weight.encoding)
        one_pass = scale.bytes + (weight.bytes if in_place else rearranged_bytes(encoding, rows, columns))
        return products(part, encoding, rows, columns, counts, one_pass)

    together = chunks(tokens, schedule.columns)
    in_tiles = chunks_of_tiles(schedule.tiles, schedule.columns)
    pairs = chunks_of_tiles(schedule.tiles, schedule.pairs, shape.top_k)
    of_heads = Counter({count: heads * times for count, times in together.items()})
    normed = 1 if shape.pooling == "class" else tokens

    found = [
        Stage(
            "embed",
            tuple(
                of_weight(
                    *("patch embedding", Kind.patch_weight, NO_BLOCK, d, shape.patch_columns),
                    chunks(patches(shape), schedule.columns),
                )
            ),
            vector_bytes=4 * tokens * d,
        )
    ]
    for block in range(shape.layers):
        attention = (
            *of_weight("queries, keys and values", Kind.qkv_weight, block, 3 * d, d, together),
            *products("attention scores", Encoding.int8, tokens, head_size, of_heads),
            *products("attention mixing", Encoding.int8, head_size, tokens, of_heads),
            *of_weight("attention projection", Kind.proj_weight, block, d, d, together),
        )
        experts = (
            *of_weight("router", Kind.router_weight, block, shape.experts, d, in_tiles),
            *of_weight("substrate", Kind.substrate, block, f, d, pairs),
            *of_weight("down projection", Kind.down_weight, block, d, f, in_tiles),
        )
        one_expert = sum(sections[kind, block].bytes for kind in (Kind.theta, Kind.phi)) // shape.experts
        found.append(Stage(f"block {block} attention", attention, vector_bytes=4 * tokens * (2 + 3 + 1) * d))
        found.append(Stage(f"block {block} experts", experts, 4 * tokens * 2 * d, one_expert))
    head = of_weight("head", Kind.head_weight, NO_BLOCK, shape.classes, d, Counter({1: 1}))
    found.append(Stage("logits", tuple(head), vector_bytes=4 * (normed * 2 * d + shape.classes)))
    return found


def products(
    part: str, encoding: Encoding, rows: int, columns: int, counts: Counter[int], one_pass: int = 0
) -> list[Product]:
    """One for each count of columns, which a Counter says the times of."""
    return [Product(part, rows, columns, encoding, count, times, one_pass) for count, times in counts.items()]


def rearranged_bytes(encoding: Encoding, rows: int, columns: int) -> int:
    """Of a matrix in tiles (bfe_matrix_bytes of bfe_tiles.c); all trits take two bits there."""
    padded = -(-rows // TILE_ROWS) * TILE_ROWS * -(-columns // COLUMN_BLOCK) * COLUMN_BLOCK
    return padded if encoding == Encoding.int8 else padded // 4


def rearranged_read(outline: Outline, tile: int) -> int:
    """Bytes of matrices that an inference reads from rearranged weights; all else it reads from the file."""
    products = (product for stage in stages(outline, False, tile) for product in stage.products if product.bytes)
    return sum(p.times * rearranged_bytes(p.encoding, p.rows, p.columns) for p in products)


def passes(product: Product) -> int:
    """How often one product in place reads the whole matrix (bfe_passes_tables; "tables" and "dsp" share it)."""
    if product.encoding == Encoding.int8:
        rest = product.count % 4
        return product.count // 4 + (1 if rest == 3 else rest)
    return product.count if product.rows < FEWEST_ROWS_FOR_TABLES else -(-product.count // 2)


@dataclass(frozen=True)
class StageBytes:
    name: str
    model_bytes: int
    """Read from the model, or from its rearranged weights, each pass over a matrix counted"""


def model_bytes(outline: Outline, in_place: bool, tile: int, experts: Sequence[float]) -> list[StageBytes]:
    """What the runtime's trace reports as read, stage by stage.

    Args:
        experts: `experts_used` of each block; where it is `even_routing`, bytes are rounded.
    """
    used = {f"block {block} experts": count for block, count in enumerate(experts)}
    found = []
    for stage in stages(outline, in_place, tile):
        matrices = sum(p.times * p.bytes * (passes(p) if in_place else 1) for p in stage.products)
        expanded = round(stage.angle_bytes * used.get(stage.name, 0))
        found.append(StageBytes(stage.name, matrices + stage.vector_bytes + expanded))
    return found
