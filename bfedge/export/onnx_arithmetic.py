"""The operations of NUMERICS.md as ONNX nodes, one function a section, named as in lowered/arithmetic.py.

Integers travel as floating point: MatMul and ReduceSum of integers are exact in any order while no partial sum exceeds
2^24 (binary32) or 2^53 (binary64), and the weights and dimensions prove which one suffices. MatMulInteger is no
alternative: on most x86-64 processors onnxruntime runs int8 x int8 through scalar code, and its uint8 x int8 kernels
saturate on those without VNNI.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bfedge.export.onnx_builder import DOUBLE, FLOAT, INT64, GraphBuilder, Tensor
from bfedge.lowered.angles import ANGLE8
from bfedge.lowered.arithmetic import (
    COS,
    EPSILON,
    EXP2,
    F32,
    GELU_END,
    GELU_STEPS,
    GELU_TABLE,
    HALF_PI_HIGH,
    HALF_PI_LOW,
    SIN,
    TINY,
    TWO_OVER_PI,
)
from bfedge.lowered.model import Int8Matrix, LayerNorm, Matrix, Rotation, TernaryMatrix
from bfedge.lowered.rotation import original_index, pair_distance
from bfedge.packed.layout import Encoding
from bfedge.packed.trits import PLACE_VALUES, pack_trits

EXACT_BINARY32 = 2**24
"""Every integer up to here is a binary32"""


def peak(g: GraphBuilder, x: Tensor) -> Tensor:
    """[..., 1]: the largest magnitude along the last axis, at least TINY (sections 2 and 5)."""
    largest = g.op("ReduceMax", g.op("Abs", x), g.integers(-1), keepdims=1)
    return g.op("Max", largest, g.constant("tiny", TINY))


def quantise(g: GraphBuilder, x: Tensor, name: str = "quantise") -> tuple[Tensor, Tensor]:
    """Section 2, over the last axis: integers -127..127 [..., n] and scales [..., 1], both float32."""
    with g.scope(name):
        m = peak(g, x)
        limit = g.constant("127", F32(127))
        q = g.op("Round", g.op("Mul", x, g.op("Div", limit, m)), name="integers")
        return q, g.op("Div", m, limit, name="scale")


def integer_product(g: GraphBuilder, a: Tensor, b: Tensor, bound: int, name: str) -> Tensor:
    """float32 [..., m, n] of integers [..., m, k] @ [..., k, n]; no partial sum exceeds `bound`."""
    if bound <= EXACT_BINARY32:
        return g.op("MatMul", a, b, name=name)
    return g.cast(g.op("MatMul", g.cast(a, DOUBLE), g.cast(b, DOUBLE), name=name), FLOAT)


def integer_sum(g: GraphBuilder, x: Tensor, bound: int, name: str) -> Tensor:
    """float32 [..., 1]: the sum of integers [..., n] over the last axis; no partial sum exceeds `bound`."""
    if bound <= EXACT_BINARY32:
        return g.op("ReduceSum", x, g.integers(-1), name=name)
    return g.cast(g.op("ReduceSum", g.cast(x, DOUBLE), g.integers(-1), name=name), FLOAT)


def product_bound(weight: NDArray[np.int8], largest: int) -> int:
    """No partial sum of weight [rows, columns] times integers up to `largest` in magnitude exceeds this."""
    return int(np.abs(weight.astype(np.int64)).sum(1).max()) * largest


def weight(g: GraphBuilder, matrix: Matrix, name: str) -> tuple[Tensor, Tensor]:
    """Integers [columns, rows] and scales [rows] or [1], float32, from the initializers that the file holds."""
    with g.scope("weight"):
        if isinstance(matrix, TernaryMatrix):
            scales = np.array([matrix.scale], np.float32)
            values = unpack(g, matrix, f"{name}.weight")
        else:
            scales = matrix.scales
            values = g.cast(g.initializer(f"{name}.weight", matrix.values), FLOAT)
        return g.op("Transpose", values, perm=[1, 0]), g.initializer(f"{name}.scale", scales)


def unpack(g: GraphBuilder, matrix: TernaryMatrix, name: str) -> Tensor:
    """[rows, columns] of -1, 0, +1 as float32, from bytes [rows, bytes of a row, 1] packed as in the .bfe file."""
    rows, columns = matrix.trits.shape
    encoding = Encoding[matrix.encoding]
    packed = np.frombuffer(pack_trits(matrix.trits, encoding), np.uint8).reshape(rows, -1, 1)
    data = g.initializer(f"{name}.{encoding.name}", packed)
    if encoding == Encoding.trits2:
        shifted = g.op(
            "BitShift", data, g.constant("trits2.shifts", np.array([0, 2, 4, 6], np.uint8)), direction="RIGHT"
        )
        codes = g.op("BitwiseAnd", shifted, g.constant("trits2.mask", np.uint8(3)))
    else:
        places = g.constant("trits3.places", PLACE_VALUES[encoding].astype(np.uint8))
        codes = g.op("Mod", g.op("Div", data, places), g.constant("trits3.base", np.uint8(3)))
    trits = g.op("Sub", g.cast(g.reshape(codes, rows, -1), FLOAT), g.constant("1", F32(1)))
    if packed.shape[1] * len(PLACE_VALUES[encoding]) == columns:
        return trits
    return g.op("Slice", trits, g.integers(0), g.integers(columns), g.integers(1))


def multiply(
    g: GraphBuilder, matrix: Matrix, name: str, q: Tensor, scale: Tensor, bias: NDArray[np.float32] | None = None
) -> Tensor:
    """Section 3: [..., rows] from q [..., columns] and scale [..., 1]; `name` is that of the matrix."""
    with g.scope(name.rpartition(".")[2]):
        values, row_scales = weight(g, matrix, name)
        product = integer_product(g, q, values, product_bound(matrix.integers, 127), "MatMul")
        y = g.op("Mul", product, g.op("Mul", scale, row_scales))
        return y if bias is None else g.op("Add", y, g.initializer(f"{name}.bias", bias))


def embed_patches(g: GraphBuilder, matrix: Int8Matrix, centred: Tensor) -> Tensor:
    """Section 4 without the positions: [batch, patches, d_model] from pixels - 128 [batch, patches, columns]."""
    values, row_scales = weight(g, matrix, "patch")
    return g.op("Mul", integer_product(g, centred, values, product_bound(matrix.values, 128), "MatMul"), row_scales)


def layer_norm(g: GraphBuilder, x: Tensor, norm: LayerNorm, name: str) -> Tensor:
    """Section 5, over the last axis; `name` is that of the parameters."""
    n = len(norm.gain)
    with g.scope(name.rpartition(".")[2]):
        m = peak(g, x)
        limit = g.constant("2047", F32(2047))
        q = g.cast(g.op("Round", g.op("Mul", x, g.op("Div", limit, m))), INT64)
        s1 = g.op("ReduceSum", q, g.integers(-1), name="S1")
        s2 = g.op("ReduceSum", g.op("Mul", q, q), g.integers(-1), name="S2")
        spread = g.op("Sub", g.op("Mul", s2, g.index(n)), g.op("Mul", s1, s1))
        v = g.op("Max", spread, g.index(n), name="V")
        s = g.op("Div", m, limit)
        mean = g.op("Mul", g.op("Div", g.cast(s1, FLOAT), g.constant(f"{n}.0", F32(n))), s, name="mean")
        over_n2 = g.op("Div", g.cast(v, FLOAT), g.constant(f"{n * n}.0", F32(n * n)))
        var = g.op("Mul", g.op("Mul", over_n2, s), s, name="var")
        # Vectorised binary32 square roots are not correctly rounded everywhere. A binary64 one, even wrong in its last
        # bit, rounds to the right binary32.
        root = g.cast(g.op("Sqrt", g.cast(g.op("Add", var, g.constant("epsilon", EPSILON)), DOUBLE)), FLOAT)
        # onnxruntime rewrites y * (1 / root) as y / root, which rounds differently. It does not see that this is the
        # same number as 1 / root.
        r = g.op("Div", g.constant("2", F32(2)), g.op("Add", root, root), name="r")
        scaled = g.op("Mul", g.op("Mul", g.op("Sub", x, mean), r), g.initializer(f"{name}.gain", norm.gain))
        return g.op("Add", scaled, g.initializer(f"{name}.bias", norm.bias))


def lookup(g: GraphBuilder, table: Tensor, index: Tensor, *dimensions: int) -> Tensor:
    """table[index] for a vector of float32 and indices int64 [-1]; float32 [batch, *dimensions].

    GatherElements because onnxruntime's Gather is five times slower at fetching single numbers.
    """
    return g.declare(g.reshape(g.op("GatherElements", table, index, axis=0), -1, *dimensions), *dimensions)


def exp2fix(g: GraphBuilder, t: Tensor, *dimensions: int) -> Tensor:
    """Section 6: 2^t for t <= 0 with 15 fraction bits, integers 0..32768 as float32; t is [batch, *dimensions]."""
    with g.scope("exp2fix"):
        t = g.op("Max", t, g.constant("-17", F32(-17)))
        n = g.op("Floor", t)
        f = g.op("Sub", t, n)
        p = horner(g, f, (*reversed(EXP2), F32(1)), "exp2")
        # powers[i] = 2^(15 - i): an exact product, as ldexp's is
        powers = g.constant("exp2.powers", np.exp2(15 - np.arange(18)).astype(np.float32))
        power = lookup(g, powers, g.reshape(g.cast(g.op("Neg", n), INT64), -1), *dimensions)
        return g.op("Round", g.op("Mul", p, power), name="E")


def horner(g: GraphBuilder, x: Tensor, coefficients: tuple[np.float32, ...], name: str) -> Tensor:
    """((c[0] * x + c[1]) * x + c[2]) ..., each operation rounded."""
    constants = [g.constant(f"{name}.c{len(coefficients) - 1 - i}", c) for i, c in enumerate(coefficients)]
    y = constants[0]
    for c in constants[1:]:
        y = g.op("Add", g.op("Mul", y, x), c)
    return y


def gelu(g: GraphBuilder, x: Tensor, *dimensions: int) -> Tensor:
    """Section 10, for x [batch, *dimensions]."""
    with g.scope("gelu"):
        with g.scope("table"):
            table = g.cast(g.constant("gelu.table", GELU_TABLE), FLOAT)
            low = g.op("Slice", table, g.integers(0), g.integers(GELU_END + 1), name="low")
            high = g.op("Slice", table, g.integers(1), g.integers(GELU_END + 2), name="high")
            step = g.op("Sub", high, low, name="step")
        scaled = g.op("Mul", g.op("Abs", x), g.constant("gelu.steps", F32(GELU_STEPS)))
        u = g.op("Min", scaled, g.constant("gelu.end", F32(GELU_END)))
        whole = g.op("Floor", u)
        f = g.op("Sub", u, whole)
        i = g.reshape(g.cast(whole, INT64), -1)
        low, step = lookup(g, low, i, *dimensions), lookup(g, step, i, *dimensions)
        delta = g.op("Add", low, g.op("Mul", f, step))
        return g.op("Sub", g.op("Relu", x), g.op("Mul", delta, g.constant("gelu.unit", F32(2.0**-18))))


def sine_cosine(g: GraphBuilder, angle: Tensor) -> tuple[Tensor, Tensor]:
    """Section 9, for float16 angles of at most one turn: two float32 tensors of their shape."""
    with g.scope("angles"):
        x = g.cast(angle, FLOAT)
        k = g.op("Round", g.op("Mul", x, g.constant("two_over_pi", TWO_OVER_PI)), name="k")
        high = g.op("Sub", x, g.op("Mul", k, g.constant("half_pi.high", HALF_PI_HIGH)))
        r = g.op("Sub", high, g.op("Mul", k, g.constant("half_pi.low", HALF_PI_LOW)), name="r")
        z = g.op("Mul", r, r, name="z")
        sine = g.op("Add", g.op("Mul", g.op("Mul", horner(g, z, SIN[::-1], "sin"), z), r), r)
        half_z = g.op("Mul", g.constant("0.5", F32(0.5)), z)
        series = g.op("Mul", g.op("Mul", horner(g, z, COS[::-1], "cos"), z), z)
        cosine = g.op("Add", g.op("Sub", series, half_z), g.constant("1", F32(1)))
        # k is -2..2 here, and Gather counts a negative index from the end: k mod 4 without a Mod
        quadrant = g.cast(k, INT64)
        swapped = g.op("Gather", g.constant("quadrant.swapped", np.array([False, True, False, True])), quadrant)
        sine_sign = g.op("Gather", g.constant("quadrant.sine", np.array([1, 1, -1, -1], np.float32)), quadrant)
        cosine_sign = g.op("Gather", g.constant("quadrant.cosine", np.array([1, -1, -1, 1], np.float32)), quadrant)
        return (
            g.op("Mul", g.op("Where", swapped, cosine, sine), sine_sign, name="sine"),
            g.op("Mul", g.op("Where", swapped, sine, cosine), cosine_sign, name="cosine"),
        )


def stored_angles(g: GraphBuilder, rotation: Rotation, name: str) -> Tensor:
    """float16 [experts, layers, padded / 2], from the initializer that the file holds."""
    stored = g.initializer(f"{name}.angles", rotation.stored)
    if rotation.stored.dtype != np.int8:
        return stored
    # Gather counts a negative index from the end
    table = g.constant("angle8", np.roll(ANGLE8, 128))
    return g.op("Gather", table, g.cast(stored, INT64), name="angles")


def rotate(g: GraphBuilder, rotation: Rotation, name: str, expert: Tensor, x: Tensor, *dimensions: int) -> Tensor:
    """Section 9: [batch, tokens, top_k, width] from x [batch, *dimensions, width] and experts [batch, tokens, top_k].

    A layer's pairs are [..., groups, 2, distance] in memory. `dimensions` are tokens and 1 or top_k; if 1, the first
    layer broadcasts a token over its experts.
    """
    experts, layers, half = rotation.stored.shape
    padded = 2 * half
    with g.scope(name.rpartition(".")[2]):
        sine, cosine = sine_cosine(g, stored_angles(g, rotation, name))
        if padded > rotation.width:
            x = g.op("Pad", x, g.integers(0, padded - rotation.width), "", g.integers(-1))
            g.declare(x, *dimensions, padded)
        for layer in range(layers):
            with g.scope(f"layer{layer}"):
                distance = pair_distance(layer, padded)
                of_layer = (g.op("Gather", table, g.index(layer), axis=1) for table in (sine, cosine))
                s, c = (g.op("Gather", g.reshape(t, experts, -1, 1, distance), expert, axis=0) for t in of_layer)
                pairs = g.reshape(x, 0, 0, 0, half // distance, 2, distance)
                a, b = g.ops("Split", 2, pairs, axis=-2, num_outputs=2)
                first = g.op("Sub", g.op("Mul", c, a), g.op("Mul", s, b))
                second = g.op("Add", g.op("Mul", s, a), g.op("Mul", c, b))
                x = g.op("Concat", first, second, axis=-2)
        x = g.reshape(x, 0, 0, 0, padded)
        if padded == rotation.width:
            return x
        kept = np.flatnonzero(original_index(layers, padded) < rotation.width)
        return g.op("Gather", x, g.constant(f"kept.{layers}.{rotation.width}", kept), axis=-1)
