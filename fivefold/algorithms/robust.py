"""Means of several sites' updates that a minority of false ones cannot move far. They need each site's own update, so they
cost what a secure sum protects: docs/explanation/robust-aggregation.md.

Coordinate-wise median and trimmed mean: Yin, Chen, Kannan & Bartlett (ICML 2018). Krum and Multi-Krum: Blanchard, El Mhamdi,
Guerraoui & Stainer (NeurIPS 2017). Bulyan: El Mhamdi, Guerraoui & Rouault (ICML 2018). All take `updates` of shape (sites,
size) and `false`, the most sites that may lie, and return shape (size,). Equal scores are told apart by the values alone. Too
few sites for the promise raise `ValueError`, and so does an update that is not finite.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def coordinate_median(updates: Floats) -> Floats:
    """The median of each coordinate (Yin et al., definition 1); bears fewer than half of the sites."""
    return np.asarray(np.median(_finite(updates), axis=0))


def trimmed_mean(updates: Floats, false: int) -> Floats:
    """The mean of each coordinate without its `false` largest and smallest values (Yin et al., definition 2). n > 2·false."""
    values = np.sort(_enough(updates, false, 2 * false + 1), axis=0)
    return np.asarray(values[false : len(values) - false].mean(axis=0))


def krum(updates: Floats, false: int) -> Floats:
    """The one update that lies nearest to its n - false - 2 nearest neighbours (Blanchard et al., section 3).
    n >= 2·false + 3."""
    return multi_krum(updates, false, 1)


def multi_krum(updates: Floats, false: int, keep: int) -> Floats:
    """The mean of the `keep` updates with the best Krum scores (Blanchard et al., section 4). n >= 2·false + 3, and `keep`
    at most n - false."""
    values = _enough(updates, false, 2 * false + 3)
    if not 1 <= keep <= len(values) - false:
        raise ValueError(f"of {len(values)} updates {keep} cannot be kept where {false} may be false")
    return np.asarray(values[_ranked(values, false)[:keep]].mean(axis=0))


def bulyan(updates: Floats, false: int) -> Floats:
    """Krum chooses n - 2·false updates one after the other; then, of each coordinate, the mean of the n - 4·false values that
    are nearest to the median (El Mhamdi et al., section 4). n >= 4·false + 3."""
    values = _enough(updates, false, 4 * false + 3)
    left, chosen = list(range(len(values))), list[int]()
    while len(chosen) < len(values) - 2 * false:
        best = left[_ranked(values[left], false)[0]]
        chosen.append(best)
        left.remove(best)
    kept = values[chosen]
    away = np.abs(kept - np.median(kept, axis=0))
    nearest = np.argsort(away, axis=0, kind="stable")[: len(values) - 4 * false]
    return np.asarray(np.take_along_axis(kept, nearest, axis=0).mean(axis=0))


def _ranked(values: Floats, false: int) -> list[int]:
    """Best score first; two that are each other's nearest share one, so that the order of the sites must not decide."""
    scores = _scores(values, false)
    return sorted(range(len(values)), key=lambda i: (scores[i], values[i].tobytes()))


def _scores(values: Floats, false: int) -> Floats:
    """The sum of squared distances to the n - false - 2 nearest others, at least one; shape (n,)."""
    apart = np.square(values[:, None, :] - values[None, :, :]).sum(axis=2)
    np.fill_diagonal(apart, np.inf)
    return np.asarray(np.sort(apart, axis=1)[:, : max(1, len(values) - false - 2)].sum(axis=1))


def _enough(updates: Floats, false: int, least: int) -> Floats:
    if false < 0 or len(updates) < least:
        raise ValueError(f"{len(updates)} updates do not bear {false} false ones: {least} are needed")
    return _finite(updates)


def _finite(updates: Floats) -> Floats:
    values = np.asarray(updates, dtype=np.float64)
    if values.ndim != 2 or not len(values) or not np.all(np.isfinite(values)):
        raise ValueError("updates are finite numbers of shape (sites, size)")
    return values
