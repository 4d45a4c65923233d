"""Dominance: a total that one or two contributors make up tells what they contributed.

The (n, k) rule and the p % rule (Hundepool et al., Statistical Disclosure Control, 2012, ch. 4.2.1) ask for all contributions.
Where each is known to its own site alone, a site judges by a bound that is never too mild: where a rule is broken, at least the
largest contributor's bound is, too.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

NK_N = 2
NK_K = 0.90
P = 0.10


def nk(contributions: npt.ArrayLike, n: int = NK_N, k: float = NK_K) -> npt.NDArray[np.bool_]:
    """Whether the n largest contributions exceed the share k of the total. Shape (contributors, ...) → (...)."""
    sizes = -np.sort(-np.abs(np.asarray(contributions, dtype=np.float64)), axis=0)
    return np.asarray(sizes[:n].sum(axis=0) > k * sizes.sum(axis=0))


def p_percent(contributions: npt.ArrayLike, p: float = P) -> npt.NDArray[np.bool_]:
    """Whether the second largest contributor can tell the largest one within p: what remains beside the two is less than p of
    the largest. Shape (contributors, ...) → (...)."""
    sizes = -np.sort(-np.abs(np.asarray(contributions, dtype=np.float64)), axis=0)
    total = sizes.sum(axis=0)
    return np.asarray((total > 0) & (sizes[2:].sum(axis=0) < p * sizes[0]))


def may_dominate(
    total: npt.ArrayLike, own: npt.ArrayLike, *, n: int = NK_N, k: float = NK_K, p: float = P
) -> npt.NDArray[np.bool_]:
    """A site's own view, element by element: it may be one of those that break a rule.

    (n, k): x₁ + … + xₙ > kT has x₁ > kT/n. p %: T − x₁ − x₂ < p x₁ with x₂ ≤ x₁ has x₁ > T/(2 + p).
    """
    whole, mine = np.abs(np.asarray(total, dtype=np.float64)), np.abs(np.asarray(own, dtype=np.float64))
    return np.asarray((mine > k * whole / n) | (mine > whole / (2.0 + p)))
