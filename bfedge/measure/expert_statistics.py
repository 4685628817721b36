"""Figures of one layer's experts: how alike they are, how far activations stand out, and what rounding costs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bfedge.lowered.arithmetic import Float, quantise, rotate
from bfedge.lowered.model import ButterflyExperts

MOST_VALUES = 2**24
"""That are computed at a time"""

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Outliers:
    """How far the largest values of vectors stand out (ButterflyViT section 3.5.3). None where it is not defined:
    vectors whose values are all equal, or most of them 0.
    """

    kurtosis: float | None
    """Excess kurtosis of each vector's values, the mean over vectors; 0 for normally distributed values"""
    peak: float | None
    """Largest over median magnitude in each vector, the mean over vectors; the paper's outliers are 10 to 100"""
    kurtosis_of_all: float | None
    """The same two of all vectors' values together"""
    peak_of_all: float | None


@dataclass(frozen=True)
class TernaryError:
    """||Q(W) x - W x||^2 / ||W x||^2 over the sample's (token, expert) pairs, Q the ternary quantiser of equation 6."""

    rotated: float
    """W is the shared substrate, as trained, and x = B(theta_i) h: what ButterflyViT does"""
    static: float
    """W is the same expert's matrix written out, W_base B(theta_i), with a scale of its own, and x = h"""

    @property
    def saved(self) -> float | None:
        """Share of the static error that the rotated basis avoids; negative if it adds to it; None without one"""
        return 1 - self.rotated / self.static if self.static else None


def output_similarity(outputs: Iterable[NDArray[np.floating]]) -> Matrix:
    """[experts, experts] from each expert's outputs [tokens, d_model]: cosines, the mean over tokens."""
    directions = []
    for y in outputs:
        length = np.linalg.norm(y.astype(np.float64), axis=1, keepdims=True)
        directions.append((y / np.where(length > 0, length, 1)).astype(np.float32).reshape(-1))
    stacked = np.stack(directions)
    tokens = len(length)
    return (stacked @ stacked.T).astype(np.float64) / tokens


def up_matrix_similarity(layer: ButterflyExperts) -> Matrix:
    """Cosines of W_base B(theta_i) and W_base B(theta_j), summed over the columns of the matrices."""
    experts, width = len(layer.theta.angles), layer.theta.width
    trits = layer.substrate.trits.astype(np.float32)
    gram = trits.T @ trits
    products = np.zeros((experts, experts))
    step = max(1, MOST_VALUES // (experts * width))
    for first in range(0, width, step):  # B(theta_i) of some unit vectors: rows of all experts' rotations
        units = np.eye(width, dtype=np.float32)[first : first + step]
        pairs = np.tile(units, (experts, 1))
        turned = rotate(layer.theta, np.repeat(np.arange(experts), len(units)), pairs)
        products += (turned @ gram).reshape(experts, -1) @ turned.reshape(experts, -1).T
    return cosines(products)


def cosines(products: Matrix) -> Matrix:
    """Inner products to cosines; 0 where a length is 0."""
    length = np.sqrt(np.maximum(np.diag(products), 0))
    length = np.where(length > 0, length, np.inf)
    result: Matrix = products / np.outer(length, length)
    return result


def off_diagonal_mean(matrix: Matrix) -> float | None:
    n = len(matrix)
    return float((matrix.sum() - np.trace(matrix)) / (n * (n - 1))) if n > 1 else None


def outliers(x: Float) -> Outliers:
    """Of vectors [vectors, channels]."""
    values = x.astype(np.float64)
    kurtosis, peak = kurtosis_and_peak(values)
    kurtosis_of_all, peak_of_all = kurtosis_and_peak(values.reshape(1, -1))
    return Outliers(kurtosis, peak, kurtosis_of_all, peak_of_all)


def kurtosis_and_peak(x: Matrix) -> tuple[float | None, float | None]:
    """Means over the rows where they are defined."""
    centred = x - x.mean(1, keepdims=True)
    variance = (centred**2).mean(1)
    some = variance > 0
    kurtosis = (centred[some] ** 4).mean(1) / variance[some] ** 2 - 3
    magnitude = np.abs(x)
    median = np.median(magnitude, axis=1)
    peak = magnitude.max(1)[median > 0] / median[median > 0]
    return (float(kurtosis.mean()) if len(kurtosis) else None), (float(peak.mean()) if len(peak) else None)


def int8_error(x: Float) -> float:
    q, scale = quantise(x)
    length = float((x.astype(np.float64) ** 2).sum())
    error = float(((q * scale[:, None].astype(np.float64) - x) ** 2).sum())
    return error / length if length else 0.0


def ternary_error(
    layer: ButterflyExperts,
    latent: NDArray[np.float32],
    pairs: Float,
    rotated: Float,
    expert: NDArray[np.int64],
) -> TernaryError:
    """Args:
    latent: W_base before quantisation, columns in theta's output order.
    pairs: h of each pair [pairs, d_model].
    rotated: B(theta_i) h of each pair, in theta's output order.
    """
    width = layer.theta.width
    weight = latent.astype(np.float64)
    rotated_difference = ternary(latent) - weight
    rotated_error = static_error = length = 0.0
    for e in np.unique(expert):
        mine = expert == e
        turned = rotate(layer.theta, np.full(width, e), np.eye(width, dtype=np.float32))
        written_out = weight @ turned.T
        length += squares(rotated[mine] @ weight.T)
        rotated_error += squares(rotated[mine] @ rotated_difference.T)
        static_error += squares(pairs[mine] @ (ternary(written_out) - written_out).T)
    return TernaryError(rotated_error / length, static_error / length) if length else TernaryError(0.0, 0.0)


def squares(x: Matrix) -> float:
    return float((x**2).sum())


def ternary(weight: NDArray[np.floating]) -> Matrix:
    """Q(W) of equation 6, AbsMean, as NUMERICS.md section 3 has it."""
    gamma = np.float32(np.abs(weight.astype(np.float64)).mean())
    trits: Matrix = np.clip(np.rint(weight / (gamma + np.float32(1e-8))), -1, 1).astype(np.float64)
    return gamma * trits
