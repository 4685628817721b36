"""How often a model's inference runs each of the runtime's inner loops: what executed instructions and moved bytes are
proportional to. One count a loop of runtime_c/src, by the set of kernels that a board uses; names are those of the
coefficients in devices/measured.json.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from bfedge.config import padded_width
from bfedge.lowered.model import Shape
from bfedge.measure.work import (
    COLUMN_BLOCK,
    FEWEST_ROWS_FOR_TABLES,
    Product,
    angles,
    chunks,
    passes,
    patches,
    schedule_of,
    stages,
)
from bfedge.packed.layout import Encoding
from bfedge.packed.outline import Outline

Operations = Counter[str]
"""Times that each loop runs; a float where the number of used experts is an expectation"""

KERNELS_IN_PLACE = ("dsp", "tables")
MOST_EXPANDED, MOST_TRITS = 484, 256
"""Columns of a matrix in place that are multiplied in one go (bfe_product_int8_rows.h, bfe_kernels.h)"""

STEPS = {
    **{"layer norm": 16, "quantise": 16, "add": 16, "sum": 16},
    **{"softmax": 4, "gelu": 4, "angle": 4},
}
"""Elements that the loops of kernels with vectors take at once"""

COLUMNS_OF_TILES = {"neon": 2, "dotprod": 4}
"""Columns that share the loads of an int8 tile, by set of kernels"""


def operations(outline: Outline, kernels: str, tile: int, experts: Sequence[float]) -> list[tuple[str, Operations]]:
    """By stage. `experts` is work.experts_used of each block, or work.even_routing."""
    in_place = kernels in KERNELS_IN_PLACE
    counts = []
    for stage in stages(outline, in_place, tile):
        done: Operations = Counter({"stage": 1})
        for product in stage.products:
            done["product"] += product.times
            loops = product_in_place(product) if in_place else product_of_tiles(product, kernels)
            for name, times in loops:
                done[name] += product.times * times
        if stage.name.endswith(" experts"):
            used = experts[int(stage.name.split()[1])]
            done.update(in_experts(outline.shape, in_place, tile, used))
        elif stage.name.endswith(" attention"):
            done.update(in_attention(outline.shape, in_place))
        elif stage.name == "embed":
            done.update(in_embedding(outline.shape, in_place))
        else:
            done.update(in_head(outline.shape, in_place))
        counts.append((stage.name, +done))
    return counts


def product_in_place(product: Product) -> Iterator[tuple[str, int]]:
    """bfe_product_int8_rows.h and bfe_product_trits_tables.c."""
    rows, columns, count = product.rows, product.columns, product.count
    if product.encoding == Encoding.int8:
        fours = count // 4 + (count % 4 == 3)
        ones = 0 if count % 4 == 3 else count % 4
        quads, rests, parts = columns // 4, int(columns % 4 > 0), -(-columns // MOST_EXPANDED)
        yield "int8, four columns: four weights", fours * rows * quads
        yield "int8, four columns: last weights", fours * rows * rests
        yield "int8, four columns: row", fours * rows * parts
        yield "int8, one column: four weights", ones * rows * quads
        yield "int8, one column: last weights", ones * rows * rests
        yield "int8, one column: row", ones * rows * parts
        yield "int8: four activations expanded", (4 * fours + ones) * (quads + rests)
        yield "key or value", 0 if product.bytes else passes(product) * rows * columns
        return
    base3 = product.encoding == Encoding.trits3
    if rows < FEWEST_ROWS_FOR_TABLES:
        yield ("base3" if base3 else "2bit") + ", few rows: trit", count * rows * columns
        return
    per_byte = 5 if base3 else 4
    twos, size = -(-count // 2), -(-columns // per_byte)
    in_parts = chunks(size, MOST_TRITS // per_byte if columns > MOST_TRITS else size)
    yield "trits, two columns: four bytes", twos * rows * sum(part // 4 * times for part, times in in_parts.items())
    yield "trits, two columns: one byte", twos * rows * sum(part % 4 * times for part, times in in_parts.items())
    yield "trits, two columns: row", twos * rows * in_parts.total()
    yield "trits, two columns: table", twos * size
    yield "trits, two columns: entries of a table", twos * size * (121 if base3 else 58)


def product_of_tiles(product: Product, kernels: str) -> Iterator[tuple[str, int]]:
    """bfe_product_int8_neon.c, bfe_product_trits_neon.c and those with dotprod."""
    rows, count, group = product.rows, product.count, COLUMNS_OF_TILES[kernels]
    blocks = -(-product.columns // COLUMN_BLOCK)
    if product.encoding == Encoding.int8:
        strips = -(-rows // 16)
        yield from int8_tiles(strips, blocks, count, group)
        yield "int8: tiles loaded again", strips * blocks * (-(-count // group) - bool(product.bytes))
        yield "tiles: 16 rows stored", strips * count
        if product.bytes:
            yield "tiles: rest row stored", rows % 16 * count
        return
    strips = -(-rows // 32)
    yield "tiles: 16 rows stored", 2 * strips * count
    yield "tiles: rest row stored", rows % 32 * count
    yield "trits: column summed", blocks * count
    if kernels == "dotprod":
        if count > group and blocks <= 64:
            yield "trits: 32 rows expanded", strips * blocks
            yield from int8_tiles(2 * strips, blocks, count, group)
            yield "int8: tiles loaded again", 2 * strips * blocks * -(-count // group)
        else:
            yield from trit_tiles(strips, blocks, count, group)
            yield "trits: tiles loaded again", strips * blocks * (-(-count // group) - 1)
        return
    if count < 7:  # FEWEST_FOR_TABLES
        yield "trits: tiles loaded again", strips * blocks * (-(-count // group) - 1)
        yield from trit_tiles(strips, blocks, count, group)
        yield "trits: part of 32 rows", strips * -(-product.columns // 96) * count
        return
    vectors = 4 if count > 16 else 2 if count > 8 else 1
    parts = -(-blocks // 16)
    yield "look-up: tables made", -(-rows // 1024) * blocks * vectors
    yield "look-up: 32 rows decoded", strips * blocks
    yield "look-up: 32 rows added", strips * blocks * vectors
    yield "look-up: 32 rows put in order", strips * parts * vectors
    yield "look-up: element of a part", (parts - 1) * rows * count


def int8_tiles(strips: int, blocks: int, count: int, group: int) -> Iterator[tuple[str, int]]:
    yield "int8: tiles loaded", strips * blocks * -(-count // group)
    yield "int8: tiles multiplied", strips * blocks * count
    yield "int8: 16 rows", strips * -(-count // group)


def trit_tiles(strips: int, blocks: int, count: int, group: int) -> Iterator[tuple[str, int]]:
    yield "trits: tiles loaded", strips * blocks * -(-count // group)
    yield "trits: tiles multiplied", strips * blocks * count


def in_embedding(shape: Shape, in_place: bool) -> Operations:
    count = patches(shape)
    done: Operations = Counter(
        {
            "inference": 1,
            "patch": count,
            "row of a patch": count * shape.patch_size,
            "patch byte": count * shape.patch_columns,
        }
    )
    return done + vectors("add", shape.d_model, count, in_place)


def in_attention(shape: Shape, in_place: bool) -> Operations:
    tokens, d, heads = shape.tokens, shape.d_model, shape.heads
    return (
        vectors("layer norm", d, tokens, in_place)
        + vectors("quantise", d, 2 * tokens, in_place)
        + vectors("quantise", d // heads, 3 * tokens * heads, in_place)
        + vectors("quantise", tokens, tokens * heads, in_place)
        + vectors("softmax", tokens, tokens * heads, in_place)
        + vectors("add", 3 * d, tokens, in_place)
        + vectors("add", d, 2 * tokens, in_place)
        + Counter({"head's element": tokens * d})
    )


def in_experts(shape: Shape, in_place: bool, tile: int, used: float) -> Operations:
    tokens, d, f = shape.tokens, shape.d_model, shape.d_ff
    pairs = tokens * shape.top_k
    tiles = schedule_of(shape, in_place, tile).tiles.total()
    return (
        vectors("layer norm", d, tokens, in_place)
        + vectors("quantise", d, tokens + pairs, in_place)
        + vectors("quantise", f, tokens, in_place)
        + vectors("gelu", f, pairs, in_place)
        + vectors("sum", f, pairs - tokens, in_place)
        + vectors("add", d, tokens, in_place)
        + rotated(d, shape.theta_layers, pairs, used, in_place)
        + rotated(f, shape.phi_layers, pairs, used, in_place)
        + Counter(
            {
                "routed token": tokens,
                "routed token, expert": tokens * shape.experts,
                "pair": pairs,
                "pair, element": pairs * d,
                "tile": tiles,
                "tile, expert": tiles * shape.experts,
            }
        )
    )


def rotated(width: int, layers: int, times: int, used: float, in_place: bool) -> Operations:
    """bfe_sincos_f16_*.c, bfe_rotate_f32_*.c and bfe_compact_f32.c."""
    padded = padded_width(width)
    done = vectors("angle", angles(width, layers), used, in_place)
    done["rotation"] += times
    for layer in range(layers):
        distance = padded >> layer if layer else 1
        if layer and (in_place or distance >= 8):
            done["pair rotated"] += times * padded // 2
            done["run of pairs rotated"] += times * padded // 2 // distance
        else:
            done["near pair rotated"] += times * padded // 2
    if width < padded:
        done["element compacted"] += times * padded
    return done


def in_head(shape: Shape, in_place: bool) -> Operations:
    tokens, d = shape.tokens, shape.d_model
    done = vectors("quantise", d, 1, in_place) + vectors("add", shape.classes, 1, in_place)
    if shape.pooling == "class":
        return done + vectors("layer norm", d, 1, in_place)
    return done + vectors("layer norm", d, tokens, in_place) + vectors("add", d, tokens, in_place)


def vectors(loop: str, size: int, times: float, in_place: bool) -> Operations:
    """A loop over the elements of `times` vectors: in steps of several, what is left of them one by one."""
    step = 1 if in_place else STEPS[loop]
    return Counter(
        {
            f"{loop}, vector": times,
            f"{loop}, element": times * (size - size % step),
            f"{loop}, last element": times * (size % step),
        }
    )
