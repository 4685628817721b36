"""The order in which a folded rotation keeps its angles and leaves its output (NUMERICS.md, section 9).

Algorithm 1 follows every Givens layer by a perfect shuffle, `out[2j] = in[j]`, `out[2j+1] = in[j + d'/2]`: index i
comes from position ror(i, 1), its index bits rotated right by one. Leaving elements where they are instead, the
element that Algorithm 1 has at index i after l shuffles lies at position ror(i, l). Its pair partner i ^ 1 then
lies d' >> l away (1 for l = 0), and that is all a device needs to know.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bfedge.config import padded_width


def rotate_bits_left(index: NDArray[np.int64], count: int, bits: int) -> NDArray[np.int64]:
    count %= bits
    return ((index << count) | (index >> (bits - count))) & ((1 << bits) - 1)


def pair_distance(layer: int, padded: int) -> int:
    """Distance between the two elements of a pair in a layer, in place."""
    return 1 if layer == 0 else padded >> layer


def original_index(layers: int, padded: int) -> NDArray[np.int64]:
    """[padded]: the index that Algorithm 1 gives to the element at each position after all layers."""
    return rotate_bits_left(np.arange(padded), layers, padded.bit_length() - 1)


def output_order(width: int, layers: int) -> NDArray[np.int64]:
    """[width]: Algorithm 1's index of each output channel, in the order of their positions. Padding is left out."""
    index = original_index(layers, padded_width(width))
    return index[index < width]


def angle_order(layers: int, padded: int) -> NDArray[np.int64]:
    """[layers, padded / 2]: which of Algorithm 1's angles belongs to each pair in memory order."""
    bits = padded.bit_length() - 1
    pair = np.arange(padded // 2)
    order = []
    for layer in range(layers):
        distance = pair_distance(layer, padded)
        first = 2 * distance * (pair // distance) + pair % distance
        order.append(rotate_bits_left(first, layer, bits) // 2)
    return np.stack(order)
