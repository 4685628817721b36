"""Trits to bytes and back: 2 bits a trit, or 5 trits a byte in base 3 (FORMAT.md, encodings 5 and 6)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bfedge.packed.layout import Encoding

PLACE_VALUES = {
    Encoding.trits2: np.array([1, 4, 16, 64], np.int64),
    Encoding.trits3: np.array([1, 3, 9, 27, 81], np.int64),
}


def pack_trits(trits: NDArray[np.int8], encoding: Encoding) -> bytes:
    """Packs [rows, columns] of -1, 0, +1; every row starts on a byte."""
    place = PLACE_VALUES[encoding]
    rows, columns = trits.shape
    padded = np.zeros((rows, -(-columns // len(place)) * len(place)), np.int64)
    padded[:, :columns] = trits
    return ((padded + 1).reshape(rows, -1, len(place)) @ place).astype(np.uint8).tobytes()


def digits(data: bytes, encoding: Encoding, rows: int) -> NDArray[np.int8]:
    """The codes 0..3 (trits2) or 0..2 (trits3) of every trit, unused ones at the end of a row included."""
    packed = np.frombuffer(data, np.uint8).reshape(rows, -1, 1)
    base = 4 if encoding == Encoding.trits2 else 3
    codes = packed // PLACE_VALUES[encoding].astype(np.uint8) % base
    return codes.reshape(rows, -1).astype(np.int8)


def unpack_trits(data: bytes, encoding: Encoding, rows: int, columns: int) -> NDArray[np.int8]:
    """[rows, columns] of -1, 0, +1 from checked bytes (rule V15)."""
    return np.ascontiguousarray(digits(data, encoding, rows)[:, :columns] - np.int8(1))


def legal_trits(data: bytes, encoding: Encoding, rows: int, columns: int) -> bool:
    """Rule V15 for one ternary matrix: legal codes, and unused trits 0."""
    codes = digits(data, encoding, rows)
    if encoding == Encoding.trits2:
        in_range = bool((codes <= 2).all())
    else:
        in_range = bool((np.frombuffer(data, np.uint8) <= 242).all())
    return in_range and bool((codes[:, columns:] == 1).all())
