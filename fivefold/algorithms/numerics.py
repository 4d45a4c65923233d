"""Small linear algebra and the tails of distributions, as the methods need them. SciPy is imported only where it is called."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

CONSTANT = 1e-18
"""A column whose weighted square is below this share of the largest does not vary."""

DEPENDENT = 1e-11
"""1 - R² of a column on the ones before it, below which it is called their combination."""


@dataclass(frozen=True)
class Dependence:
    """Column `index` is (to rounding) a combination of the columns `on`; constant if there are none."""

    index: int
    on: tuple[int, ...]


def packed(matrix: Floats) -> Floats:
    """The upper triangle of a symmetric matrix (..., p, p), row by row, shape (..., p(p+1)/2)."""
    rows, columns = np.triu_indices(matrix.shape[-1])
    return np.asarray(matrix[..., rows, columns])


def unpacked(triangle: npt.ArrayLike, p: int) -> Floats:
    """The inverse of `packed`."""
    values = np.asarray(triangle, dtype=np.float64)
    rows, columns = np.triu_indices(p)
    out = np.zeros((*values.shape[:-1], p, p))
    out[..., rows, columns] = values
    out[..., columns, rows] = values
    return out


def inverse_information(information: Floats) -> Floats | Dependence:
    """The inverse of an information matrix, or the first column that depends on earlier ones.

    The matrix is scaled to a unit diagonal first (the best diagonal scaling up to a factor p; van der Sluis 1969), so that
    units do not matter, then factored by Cholesky in the order of the columns: a vanishing pivot is 1 - R² of its column.
    """
    p = len(information)
    diagonal = np.diag(information)
    largest = float(diagonal.max(initial=0.0))
    flat = np.flatnonzero(~(diagonal > CONSTANT * largest)) if largest > 0 else np.arange(p)
    if flat.size:
        return Dependence(int(flat[0]), ())
    scale = 1.0 / np.sqrt(diagonal)
    unit = information * np.outer(scale, scale)
    lower = np.zeros((p, p))
    for j in range(p):
        pivot = unit[j, j] - lower[j, :j] @ lower[j, :j]
        if not pivot > DEPENDENT:
            return Dependence(j, _partners(unit, lower, j))
        lower[j, j] = np.sqrt(pivot)
        lower[j + 1 :, j] = (unit[j + 1 :, j] - lower[j + 1 :, :j] @ lower[j, :j]) / lower[j, j]
    root = np.linalg.inv(lower) * scale
    return np.asarray(root.T @ root)


def _partners(unit: Floats, lower: Floats, j: int) -> tuple[int, ...]:
    """The earlier columns of which column j is the combination: those with a weight that matters."""
    if j == 0:
        return ()
    weights = np.linalg.solve(lower[:j, :j].T, np.linalg.solve(lower[:j, :j], unit[:j, j]))
    return tuple(int(i) for i in np.flatnonzero(np.abs(weights) > 1e-3 * np.abs(weights).max()))


def two_sided(statistic: npt.ArrayLike, degrees: float | None = None) -> Floats:
    """P(|T| >= |statistic|) for Student's t with these degrees of freedom, or for the normal distribution."""
    from scipy.special import ndtr, stdtr

    size = -np.abs(np.asarray(statistic, dtype=np.float64))
    return np.asarray(2 * (ndtr(size) if degrees is None else stdtr(degrees, size)))


def critical(confidence: float, degrees: float | None = None) -> float:
    """How many standard errors a two-sided interval reaches to each side."""
    from scipy.special import ndtri, stdtrit

    upper = (1 + confidence) / 2
    return float(ndtri(upper) if degrees is None else stdtrit(degrees, upper))


def chi_square_tail(statistic: npt.ArrayLike, degrees: npt.ArrayLike) -> Floats:
    """P(X >= statistic) for chi-square; 1 where there are no degrees of freedom."""
    from scipy.special import gammaincc

    half = np.asarray(degrees, dtype=np.float64) / 2
    tail = gammaincc(np.maximum(half, 0.5), np.maximum(np.asarray(statistic, dtype=np.float64), 0.0) / 2)
    return np.asarray(np.where(half > 0, tail, 1.0))
