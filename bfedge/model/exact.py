"""NUMERICS.md in torch, operation by operation: what a quantised model computes in `eval()`.

On a CPU the results have the reference's bits (tested on random models), so the deployed accuracy is known during
training and the ONNX export can be compared exactly. None of this is differentiable; training uses torch's own
functions in their place, which differ by less than the quantisation step.

torch evaluates `number / tensor` as a reciprocal and a product, which rounds twice; divisions here are between tensors.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bfedge.lowered import arithmetic as numerics

LARGEST_EXACT_FLOAT_SUM = 2**24
TINY = float(numerics.TINY)  # torch.compile would take NumPy's scalar for a tensor


def divide(a: Tensor | float, b: Tensor | float) -> Tensor:
    """One correctly rounded binary32 division."""
    return torch.div(torch.as_tensor(a, dtype=torch.float32), torch.as_tensor(b, dtype=torch.float32))


def square_root(x: Tensor) -> Tensor:
    """Correctly rounded binary32 root. torch's own is one unit off for some inputs; binary64 has the bits to
    round right.
    """
    return torch.sqrt(x.double()).float()


def largest(x: Tensor) -> Tensor:
    """max(max|x|, TINY) over the last axis, which stays."""
    return x.abs().amax(-1, keepdim=True).clamp_min(TINY)


def quantise(x: Tensor) -> tuple[Tensor, Tensor]:
    """Section 2 over the last axis: integers as floats, and scales [..., 1]."""
    m = largest(x)
    return torch.round(x * divide(127, m)), divide(m, 127)


def integer_product(a: Tensor, b: Tensor) -> Tensor:
    """a @ b for int8 values held as floats: exact, converted to binary32."""
    if a.shape[-1] * 127 * 128 < LARGEST_EXACT_FLOAT_SUM:
        return a @ b
    return (a.double() @ b.double()).float()


def layer_norm(x: Tensor, gain: Tensor, bias: Tensor) -> Tensor:
    """Section 5."""
    n = x.shape[-1]
    m = largest(x)
    q = torch.round(x * divide(2047, m)).long()
    s1 = q.sum(-1, keepdim=True)
    s2 = (q * q).sum(-1, keepdim=True)
    v = (n * s2 - s1 * s1).clamp_min(n)
    s = divide(m, 2047)
    mean = divide(s1.float(), n) * s
    var = (divide(v.float(), n * n) * s) * s
    r = divide(1, square_root(var + float(numerics.EPSILON)))
    return ((x - mean) * r) * gain + bias


def exp2fix(t: Tensor) -> Tensor:
    """Section 6: integers as floats."""
    t = t.clamp_min(-17)
    n = torch.floor(t)
    f = t - n
    c1, c2, c3, c4 = (float(c) for c in numerics.EXP2)
    p = (((c4 * f + c3) * f + c2) * f + c1) * f + 1
    powers = torch.tensor([2.0 ** (k + 15) for k in range(-17, 1)], device=t.device)
    return torch.round(p * powers[n.long() + 17])


def gelu(x: Tensor) -> Tensor:
    """Section 10."""
    table = torch.tensor(numerics.GELU_TABLE.astype("float32"), device=x.device)
    u = (x.abs() * numerics.GELU_STEPS).clamp_max(numerics.GELU_END)
    i = u.long()
    low = table[i]
    return torch.where(x > 0, x, torch.zeros_like(x)) - (low + (u - i.float()) * (table[i + 1] - low)) * 2.0**-18


def sine_cosine(x: Tensor) -> tuple[Tensor, Tensor]:
    """Section 9, for angles that binary16 holds."""
    k = torch.round(x * float(numerics.TWO_OVER_PI))
    r = (x - k * float(numerics.HALF_PI_HIGH)) - k * float(numerics.HALF_PI_LOW)
    z = r * r
    s3, s5, s7 = (float(c) for c in numerics.SIN)
    c4, c6, c8 = (float(c) for c in numerics.COS)
    sine = (((s7 * z + s5) * z + s3) * z) * r + r
    cosine = ((((c8 * z + c6) * z + c4) * z) * z - 0.5 * z) + 1
    quadrant = k.long() & 3
    swapped = (quadrant & 1).bool()
    sine, cosine = torch.where(swapped, cosine, sine), torch.where(swapped, sine, cosine)
    return (
        torch.where(quadrant >= 2, -sine, sine),
        torch.where((quadrant == 1) | (quadrant == 2), -cosine, cosine),
    )
