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
    chunks_of_tiles,
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
    **{"layer norm": 16, "quantise": 16, "add": 16, "sum": 16, "patch": 32},
    **{"set": 16, "head's output": 16, "rest stored": 16},
    **{"softmax": 4, "gelu": 4, "angle": 4},
}
"""Elements that the loops of kernels with vectors take at once, written so or made so by the compiler"""

COLUMNS_OF_TILES = {"neon": 2, "dotprod": 4}
"""Columns that share the loads of an int8 tile, by set of kernels"""


def operations(outline: Outline, kernels: str, tile: int, experts: Sequence[float]) -> list[tuple[str, Operations]]:
    """By stage. `experts` is work.experts_used of each block, or work.even_routing."""
    in_place = kernels in KERNELS_IN_PLACE
    counts = []
    for stage in stages(outline, in_place, tile):
        done: Operations = Counter({f"{stage.name.split()[-1]}, stage": 1})
        for product in stage.products:
            done["product"] += product.times
            loops = product_in_place(product) if in_place else product_of_tiles(product, kernels)
            for name, times in loops:
                done[name] += product.times * times
        if stage.name.endswith(" experts"):
            used = experts[int(stage.name.split()[1])]
            done += in_experts(outline.shape, in_place, tile, used)
        elif stage.name.endswith(" attention"):
            done += in_attention(outline.shape, in_place)
        elif stage.name == "embed":
            done += in_embedding(outline.shape, in_place, tile)
        else:
            done += in_head(outline.shape, in_place)
        counts.append((stage.name, done))
    return counts


def product_in_place(product: Product) -> Iterator[tuple[str, int]]:
    """bfe_product_int8_rows.h and bfe_product_trits_tables.c."""
    rows, columns, count = product.rows, product.columns, product.count
    if product.encoding == Encoding.int8:
        fours = count // 4 + (count % 4 == 3)
        ones = 0 if count % 4 == 3 else count % 4
        quads, rests, parts = columns // 4, int(columns % 4 > 0), -(-columns // MOST_EXPANDED)
        yield "int8, four columns", fours * parts
        yield "int8, one column", ones * parts
        yield "int8, four columns: four weights", fours * rows * quads
        yield "int8, four columns: last weights", fours * rows * rests
        yield "int8, four columns: last weight", fours * rows * (columns % 4)
        yield "int8, four columns: row", fours * rows * parts
        yield "int8, one column: four weights", ones * rows * quads
        yield "int8, one column: last weights", ones * rows * rests
        yield "int8, one column: last weight", ones * rows * (columns % 4)
        yield "int8, one column: row", ones * rows * parts
        yield "int8: sum scaled", product.count * rows if product.bytes else 0
        yield "int8: four activations expanded", (4 * fours + ones) * (quads + rests)
        yield "key or value", 0 if product.bytes else passes(product) * rows * columns
        return
    base3 = product.encoding == Encoding.trits3
    if rows < FEWEST_ROWS_FOR_TABLES:
        code = "base3" if base3 else "2bit"
        yield f"{code}, few rows: trit", count * rows * columns
        yield f"{code}, few rows: row", count * rows
        yield f"{code}, few rows: activation", count * columns
        return
    per_byte = 5 if base3 else 4
    twos, size = -(-count // 2), -(-columns // per_byte)
    in_parts = chunks(size, MOST_TRITS // per_byte if columns > MOST_TRITS else size)
    yield "trits, two columns", twos * in_parts.total()
    yield "trits, two columns: four bytes", twos * rows * sum(part // 4 * times for part, times in in_parts.items())
    yield "trits, two columns: one byte", twos * rows * sum(part % 4 * times for part, times in in_parts.items())
    yield "trits, two columns: row", twos * rows * in_parts.total()
    yield ("base3" if base3 else "2bit") + ", two columns: table", twos * size


def product_of_tiles(product: Product, kernels: str) -> Iterator[tuple[str, int]]:
    """bfe_product_int8_neon.c, bfe_product_trits_neon.c and those with dotprod."""
    rows, count, group = product.rows, product.count, COLUMNS_OF_TILES[kernels]
    blocks = -(-product.columns // COLUMN_BLOCK)
    if product.encoding == Encoding.int8:
        strips = -(-rows // 16)
        yield from tiles("int8", strips, blocks, count, group)
        yield "int8: tiles loaded again", strips * blocks * (-(-count // group) - bool(product.bytes))
        if product.bytes:
            yield from stored("int8", rows, 16, count)
        else:
            yield "int8: 16 rows copied", strips * count
            yield "int8: rest rows copied", (rows % 16 > 0) * count
        return
    strips = -(-rows // 32)
    yield from stored("trits", rows, 32, count)
    if kernels == "dotprod":
        yield "trits: column summed", blocks * count
        if count > group and blocks <= 64:
            yield "trits: 32 rows expanded", strips * blocks
            yield "int8: tiles loaded again", 2 * strips * blocks * -(-count // group)
            yield from tiles("int8", 2 * strips, blocks, count, group)
        else:
            yield "trits: tiles loaded again", strips * blocks * (-(-count // group) - 1)
            yield from tiles("trits", strips, blocks, count, group)
        return
    parts = -(-product.columns // 96)
    if count < 7:  # FEWEST_FOR_TABLES
        yield "trits: column summed", blocks * count
        yield "trits: column", count
        yield "trits: tiles loaded again", strips * blocks * (-(-count // group) - 1)
        yield from tiles("trits", strips, blocks, count, group)
        yield from tiles("trits: part", strips, parts, count, group)
        return
    width = 32 if count > 16 else 16 if count > 8 else 8
    times, parts = -(-rows // 1024), -(-blocks // 16)
    yield f"look-up of {width}", times
    yield f"look-up of {width}: part", times * parts
    yield f"look-up of {width}: tables made", times * blocks
    yield f"look-up of {width}: 32 rows added", strips * blocks
    yield f"look-up of {width}: 32 rows put in order", strips * parts
    yield "look-up: column of a part", (parts - 1) * strips * count
    yield "look-up: element of a part", (parts - 1) * rows * count


def tiles(weights: str, strips: int, blocks: int, count: int, group: int) -> Iterator[tuple[str, int]]:
    """Columns go through the tiles in groups, what is left of them in a smaller one."""
    for columns, times in chunks(count, group).items():
        yield f"{weights}: tiles times {columns} columns", strips * blocks * times
        yield f"{weights}: strip times {columns} columns", strips * times


def stored(encoding: str, rows: int, strip: int, count: int) -> Iterator[tuple[str, int]]:
    """bfe_store_neon.c."""
    yield f"{encoding}: {strip} rows stored", rows // strip * count
    if rows % strip:
        yield from vectors("rest stored", rows % strip, count, in_place=False).items()


def in_embedding(shape: Shape, in_place: bool, tile: int) -> Operations:
    count = patches(shape)
    row = shape.patch_columns // shape.patch_size
    done: Operations = Counter({"inference": 1, "patch": count})
    done["class token, element"] = shape.d_model * (shape.tokens - count)
    done += vectors("patch", row, count * shape.patch_size, in_place)
    done += padding(shape.patch_columns, count)
    for columns, times in chunks(count, schedule_of(shape, in_place, tile).columns).items():
        done += vectors("add", columns * shape.d_model, times, in_place)
    return done


def in_attention(shape: Shape, in_place: bool) -> Operations:
    tokens, d, heads = shape.tokens, shape.d_model, shape.heads
    size = d // heads
    return (
        vectors("layer norm", d, tokens, in_place)
        + quantised(d, 2 * tokens, in_place)
        + quantised(size, tokens * heads, in_place)
        + vectors("quantise", size, 2 * tokens * heads, in_place)
        + quantised(tokens, tokens * heads, in_place)
        + vectors("softmax", tokens, tokens * heads, in_place)
        + vectors("add", 3 * d, tokens, in_place)
        + vectors("add", d, 2 * tokens, in_place)
        + vectors("head's output", size, tokens * heads, in_place)
        + Counter(
            {
                "head's element": tokens * d,
                "head's four elements": tokens * heads * (size // 4),
                "head's last element": tokens * heads * (size % 4),
                "head's 16 elements": tokens * heads * -(-size // 16),
                "head": heads,
            }
        )
    )


def in_experts(shape: Shape, in_place: bool, tile: int, used: float) -> Operations:
    tokens, d, f, top_k = shape.tokens, shape.d_model, shape.d_ff, shape.top_k
    pairs = tokens * top_k
    schedule = schedule_of(shape, in_place, tile)
    tiles = schedule.tiles.total()
    put_in = sum(min(1.0, top_k / seen) for seen in range(1, shape.experts + 1))  # among the best so far, at random
    done = (
        vectors("layer norm", d, tokens, in_place)
        + quantised(d, tokens + pairs, in_place)
        + quantised(f, tokens, in_place)
        + vectors("gelu", f, pairs, in_place)
        + vectors("set", f, tokens, in_place)
        + vectors("sum", f, pairs - tokens, in_place)
        + rotated(d, shape.theta_layers, pairs, used, in_place)
        + rotated(f, shape.phi_layers, pairs, used, in_place)
        + Counter(
            {
                "routed token": tokens,
                "routed token, expert": tokens * shape.experts,
                "routed token, pair": tokens * top_k * (top_k - 1) // 2,
                "routed token, expert put in": tokens * put_in,
                "pair": pairs,
                "pair, element": pairs * d,
                "tile": tiles,
                "tile, expert": tiles * shape.experts,
            }
        )
    )
    for columns, times in chunks_of_tiles(schedule.tiles, schedule.columns).items():
        done += vectors("add", columns * d, times, in_place)
    return done


def quantised(size: int, times: int, in_place: bool) -> Operations:
    """bfe_quantise_column."""
    return vectors("quantise", size, times, in_place) + padding(size, times)


def padding(size: int, times: int) -> Operations:
    return Counter({"element of padding": times * (-size % COLUMN_BLOCK)})


def rotated(width: int, layers: int, times: int, used: float, in_place: bool) -> Operations:
    """bfe_sincos_f16_*.c, bfe_rotate_f32_*.c and bfe_compact_f32.c."""
    whole = padded_width(width)
    done = vectors("angle", angles(width, layers), used, in_place)
    done["rotation"] += times
    done["rotation, layer"] += times * layers
    for layer in range(layers):
        distance = whole >> layer if layer else 1
        if layer and (in_place or distance >= 8):
            done["pair rotated"] += times * whole // 2
            done["run of pairs rotated"] += times * whole // 2 // distance
        else:
            done["near pair rotated"] += times * whole // 2
    if width < whole:
        done["element set to zero"] += times * (whole - width)
        done["element compacted"] += times * whole
        done["element kept"] += times * width
    return done


def in_head(shape: Shape, in_place: bool) -> Operations:
    tokens, d = shape.tokens, shape.d_model
    done = quantised(d, 1, in_place) + vectors("add", shape.classes, 1, in_place)
    if shape.pooling == "class":
        return done + vectors("layer norm", d, 1, in_place)
    done["pooled element"] = d
    return done + vectors("layer norm", d, tokens, in_place) + vectors("add", d, tokens, in_place)


def vectors(loop: str, size: int, times: float, in_place: bool) -> Operations:
    """A loop over the elements of `times` vectors: in steps of several, what is left of them in smaller ones."""
    step = 1 if in_place else STEPS[loop]
    rest = size % step
    return Counter(
        {
            f"{loop}, vector": times,
            f"{loop}, element": times * (size - rest),
            f"{loop}, last vector": times * (rest > 0),
            f"{loop}, last eights": times * (rest // 8 * 8),
            f"{loop}, last fours": times * (rest % 8 // 4 * 4),
            f"{loop}, last element": times * (rest % 4),
        }
    )
