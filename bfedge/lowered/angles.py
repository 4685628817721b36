"""Angles of 8 bits: a code i stands for the binary16 nearest to i * pi / 128 (NUMERICS.md, section 9)."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

ANGLE8 = (np.arange(-128, 128) * (math.pi / 128)).astype(np.float16)
"""[256]: what the codes -128..127 stand for"""


def angles_of(codes: NDArray[np.int8]) -> NDArray[np.float16]:
    """Radians, of the codes' shape."""
    angles: NDArray[np.float16] = ANGLE8[codes.astype(np.int16) + 128]
    return angles


def codes_of(angles: NDArray[np.floating]) -> NDArray[np.int8]:
    """The nearest codes, of any angles in radians; ties to even."""
    turned = np.rint(angles.astype(np.float64) * (128 / math.pi)).astype(np.int64)
    codes: NDArray[np.int8] = ((turned + 128) % 256 - 128).astype(np.int8)
    return codes
