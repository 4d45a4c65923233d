"""A clip that follows a quantile of the updates' norms, learned from noisy counts that are charged.

Andrew, Thakkar, McMahan & Ramaswamy (2021), "Differentially private learning with adaptive clipping", Algorithm 1. Beside its
clipped update each unit (person or site) gives one number, +½ if its norm lies within the clip and -½ if not. Their noisy total
says which share of the units lies within, and the clip moves geometrically towards the quantile that is wanted. One unit there
or not changes the total by ½ at most (section 3), so both totals together cost what one Gaussian of multiplier z does, if the
update's is a little noisier: `update_multiplier`.
"""

from __future__ import annotations

import math
from decimal import Context, Decimal

import numpy as np
import numpy.typing as npt

EXACT = Context(prec=30)
"""For an exponential that is the same on every machine: each replay of a study must come to the same clip, bit for bit."""
SENSITIVITY = 0.5
"""By how much one unit, there or not, changes `centred_count`."""


def centred_count(norms: npt.NDArray[np.float64], clip: float) -> float:
    """Σ (b - ½) over units, b = 1 where the norm is within the clip: what a site gives to the sum. A norm that is not a number
    counts as beyond."""
    return float(np.sum(np.where(norms <= clip, 0.5, -0.5)))


def next_clip(
    clip: float, count: float, units: float, *, quantile: float = 0.5, rate: float = 0.2, low: float = 1e-6, high: float = 1e6
) -> float:
    """The clip of the next round, C·exp(-rate·(b̃ - quantile)) with b̃ = count/units + ½, kept between `low` and `high`.

    `count` is the noisy total of `centred_count`, `units` the public number of units that it is expected to be over. b̃ may lie
    outside [0, 1] by its noise; it is not cut off, which would pull the clip to one side. Raises `ValueError` for values that
    make no sense.
    """
    if not (0 < low <= clip <= high < math.inf):
        raise ValueError(f"the clip {clip} must lie between {low} and {high}, both above 0")
    if not (units > 0 and 0 <= quantile <= 1 and rate > 0 and math.isfinite(count) and math.isfinite(units)):
        raise ValueError("units and rate must be above 0, the quantile between 0 and 1, the count finite")
    step = -rate * (count / units + 0.5 - quantile)
    if step * step > 1e4:  # beyond any pair of bounds that a number can hold
        return low if step < 0 else high
    return min(max(clip * float(Decimal(step).exp(EXACT)), low), high)


def count_deviation(units: float) -> float:
    """The deviation of the count's noise that the paper found to do (section 4.1): a twentieth of the units."""
    return units / 20


def update_multiplier(multiplier: float, deviation: float) -> float:
    """z_Δ = (z^-2 - (2σ_b)^-2)^(-1/2): the multiplier of the update's noise with which update and count together cost what one
    Gaussian of `multiplier` z does, σ_b being the deviation of the count's noise (Theorem 1).

    Raises `ValueError` unless 2σ_b > z: a count with less noise would spend the round's whole cost, or more.
    """
    if not (multiplier > 0 and math.isfinite(multiplier)):
        raise ValueError(f"a noise multiplier is above 0, not {multiplier}")
    own = deviation / SENSITIVITY
    if not own > multiplier:
        raise ValueError(
            f"a count with a deviation of {deviation:g} costs more than the whole round; give it more than {multiplier / 2:g}"
        )
    return multiplier / math.sqrt(1 - (multiplier / own) ** 2)


def count_multiplier(deviation: float) -> float:
    """2σ_b: the multiplier of the count's own noise, for the accountant."""
    return deviation / SENSITIVITY
