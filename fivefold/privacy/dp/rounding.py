"""Values to whole steps of a grid, and what that does to the sensitivity: noise is scaled to the sensitivity *after* rounding.

Everything here is in steps of the grid. A step that is a power of two of the value's unit, so that scaling loses nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Uniform = Callable[[int], Floats]
"""n → n uniform numbers in [0, 1), fresh at every call."""

MARGIN = 1 + 2.0**-40
"""Covers what sums of squares in floating point may lose."""
TRIES = 200


def after_nearest(sensitivity: float, size: int) -> float:
    """L2 sensitivity, in steps, of a sum of `size` numbers that is rounded to nearest: two neighbouring sums move apart by at
    most one step more in each number."""
    return (sensitivity + math.sqrt(size)) * MARGIN


def after_conditional(norm: float, size: int) -> float:
    """The bound on the L2 norm, in steps, of a vector of norm at most `norm` that `conditional` keeps to.

    Kairouz, Liu & Steinke (2021), "The distributed discrete Gaussian mechanism for federated learning with secure aggregation",
    Theorem 1 with β = exp(-1/2), which loses at most that share of the roundings: min{√(c² + d/4 + c + √d/2), c + √d}.
    """
    root = math.sqrt(size)
    return min(math.sqrt(norm * norm + size / 4 + norm + root / 2), norm + root) * MARGIN


def nearest(steps: Floats) -> Floats:
    """The nearest whole numbers; halves to even."""
    return np.rint(steps)


def conditional(steps: Floats, norm: float, uniform: Uniform) -> Floats:
    """Each number up or down at random, without bias, all of them again until the L2 norm is at most `after_conditional(norm)`.

    The norm of what comes in is at most `norm`. Should no try succeed (under 1e-40), all numbers are rounded towards zero,
    which keeps the bound with certainty.
    """
    limit = after_conditional(norm, steps.size) / MARGIN * (1 + 2.0**-42)
    down = np.floor(steps)
    share = steps - down
    for _ in range(TRIES):
        rounded = down + (uniform(steps.size).reshape(steps.shape) < share)
        if float(np.linalg.norm(rounded.reshape(-1))) <= limit:
            return rounded
    return np.trunc(steps)


def clipped(values: Floats, norm: float) -> Floats:
    """The array scaled down to an L2 norm of at most `norm`; as it is where it lies within. Raises nothing: what is not finite
    is judged before."""
    largest = float(np.abs(values).max(initial=0.0))
    if largest == 0.0:
        return values
    # Scaled first, so that no square overflows.
    size = float(np.linalg.norm((values / largest).reshape(-1))) * largest
    return values if size <= norm else values * (norm / size) * (1 - 2.0**-44)
