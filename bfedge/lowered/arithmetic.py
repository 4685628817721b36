"""The operations of NUMERICS.md in NumPy, one function a section. This is their executable definition.

All floats are binary32; NumPy rounds every operation by itself and never contracts a multiply and an add.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from bfedge.lowered.model import LayerNorm, Matrix, Rotation
from bfedge.lowered.rotation import original_index, pair_distance

Float = NDArray[np.float32]
Int = NDArray[np.int8]

F32 = np.float32
TINY = F32(2.0**-100)
LOG2E = F32(float.fromhex("0x1.715476p+0"))
EPSILON = F32(1e-5)
EXP2 = tuple(
    F32(float.fromhex(c)) for c in ("0x1.62d354p-1", "0x1.ee7afap-3", "0x1.a99434p-5", "0x1.bd07c2p-7")
)  # C1..C4
SIN = tuple(F32(float.fromhex(c)) for c in ("-0x1.555540p-3", "0x1.1105b4p-7", "-0x1.98da66p-13"))  # S3, S5, S7
COS = tuple(F32(float.fromhex(c)) for c in ("0x1.55554ap-5", "-0x1.6c0c8cp-10", "0x1.9a0250p-16"))  # C4, C6, C8
TWO_OVER_PI = F32(float.fromhex("0x1.45f306p-1"))
HALF_PI_HIGH = F32(1.5703125)
HALF_PI_LOW = F32(float.fromhex("0x1.fb5444p-12"))

GELU_STEPS = 128  # table entries per unit
GELU_END = 640  # delta rounds to zero from 5.0 on
GELU_TABLE = np.array(
    [
        min(round(2.0**18 * (i / GELU_STEPS) * math.erfc(i / GELU_STEPS / math.sqrt(2.0)) / 2.0), 65535)
        if i < GELU_END
        else 0
        for i in range(GELU_END + 2)
    ],
    np.uint16,
)


def quantise(x: Float) -> tuple[Int, Float]:
    """Section 2, over the last axis: int8 values [..., n] and scales [...]."""
    m = np.maximum(np.max(np.abs(x), axis=-1), TINY)
    return np.rint(x * (F32(127) / m)[..., None]).astype(np.int8), m / F32(127)


def integer_product(a: Int, b: Int) -> Float:
    """The integers a @ b, converted to binary32.

    binary64 holds every partial sum exactly (below 2^53), so BLAS computes the integer whatever its order.
    """
    return (a.astype(np.float64) @ b.astype(np.float64)).astype(F32)


def multiply(matrix: Matrix, q: Int, scale: Float, bias: Float | None = None) -> Float:
    """Section 3: [..., rows] from q [..., columns] and scale [...]."""
    y: Float = integer_product(q, matrix.integers.T) * (scale[..., None] * matrix.row_scales)
    return y if bias is None else y + bias


def layer_norm(x: Float, norm: LayerNorm) -> Float:
    """Section 5, over the last axis."""
    n = x.shape[-1]
    m = np.maximum(np.max(np.abs(x), axis=-1), TINY)
    q = np.rint(x * (F32(2047) / m)[..., None]).astype(np.int64)
    s1 = q.sum(-1)
    s2 = (q * q).sum(-1)
    v = np.maximum(n * s2 - s1 * s1, n)
    s = m / F32(2047)
    mean = (s1.astype(F32) / F32(n)) * s
    with np.errstate(over="ignore"):  # section 13: var may reach infinity, and r is 0 then
        var = ((v.astype(F32) / F32(n * n)) * s) * s
    r = F32(1) / np.sqrt(var + EPSILON)
    y: Float = ((x - mean[..., None]) * r[..., None]) * norm.gain + norm.bias
    return y


def exp2fix(t: Float) -> NDArray[np.int32]:
    """Section 6: 2^t for t <= 0 as an integer with 15 fraction bits."""
    t = np.maximum(t, F32(-17))
    n = np.floor(t)
    f = t - n
    c1, c2, c3, c4 = EXP2
    p = (((c4 * f + c3) * f + c2) * f + c1) * f + F32(1)
    e: NDArray[np.int32] = np.rint(np.ldexp(p, n.astype(np.int32) + 15)).astype(np.int32)
    return e


def gelu(x: Float) -> Float:
    """Section 10."""
    u = np.minimum(np.abs(x) * F32(GELU_STEPS), F32(GELU_END))
    i = u.astype(np.int32)
    f = u - i.astype(F32)
    low = GELU_TABLE[i].astype(F32)
    high = GELU_TABLE[i + 1].astype(F32)
    y: Float = np.where(x > 0, x, F32(0)) - (low + f * (high - low)) * F32(2.0**-18)
    return y


def sine_cosine(angle: NDArray[np.float16]) -> tuple[Float, Float]:
    """Section 9, for angles of at most one turn."""
    x = angle.astype(F32)
    k = np.rint(x * TWO_OVER_PI)
    r = (x - k * HALF_PI_HIGH) - k * HALF_PI_LOW
    z = r * r
    s3, s5, s7 = SIN
    c4, c6, c8 = COS
    sine = (((s7 * z + s5) * z + s3) * z) * r + r
    cosine = ((((c8 * z + c6) * z + c4) * z) * z - F32(0.5) * z) + F32(1)
    quadrant = k.astype(np.int32) & 3
    return (
        np.choose(quadrant, [sine, cosine, -sine, -cosine]),
        np.choose(quadrant, [cosine, -sine, -cosine, sine]),
    )


def rotate(rotation: Rotation, expert: NDArray[np.int64], x: Float) -> Float:
    """Section 9: [pairs, width] through the rotation of each pair's expert [pairs]."""
    _, layers, half = rotation.angles.shape
    padded = 2 * half
    sine, cosine = sine_cosine(rotation.angles)
    y = np.zeros((*x.shape[:-1], padded), F32)
    y[..., : rotation.width] = x
    for layer in range(layers):
        distance = pair_distance(layer, padded)
        pairs = y.reshape(*x.shape[:-1], -1, 2, distance)
        a, b = pairs[..., 0, :], pairs[..., 1, :]
        s = sine[expert, layer].reshape(a.shape)
        c = cosine[expert, layer].reshape(a.shape)
        y = np.stack([c * a - s * b, s * a + c * b], axis=-2).reshape(y.shape)
    return y[..., original_index(layers, padded) < rotation.width]
