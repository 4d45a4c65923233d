"""The Kaplan–Meier curve from events and persons at risk, with Greenwood's variance.

Kaplan and Meier (1958); Greenwood (1926); bands on the log(−log S) scale as Kalbfleisch and Prentice (2002), 1.4, and
lifelines, or on the scales `log` and `plain`; restricted mean as in Klein and Moeschberger (2003), 4.5.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Bands = Literal["log-log", "log", "plain"]

HALF = 0.5 + 1e-12
"""S(t) ≤ 1/2 up to rounding: a curve that reaches exactly one half has its median there."""


@dataclass(frozen=True)
class Curve:
    """Shape (times,) each: the survival just after each time, the sum of d/(n(n−d)) and the band."""

    survival: Floats
    greenwood: Floats
    low: Floats
    high: Floats


def curve(events: Floats, at_risk: Floats, level: float, bands: Bands) -> Curve:
    """S(t) = Π (1 − d/n). `level` is the confidence, such as 0.95."""
    from scipy.stats import norm

    n = np.maximum(at_risk, 1.0)
    survival = np.cumprod(1.0 - events / n)
    left = n - events
    greenwood: Floats = np.cumsum(np.divide(events, n * left, out=np.zeros_like(n), where=left > 0))
    half = float(norm.ppf(0.5 + level / 2)) * np.sqrt(greenwood)
    with np.errstate(divide="ignore", invalid="ignore"):
        logarithm = np.log(survival)
        if bands == "plain":
            low, high = survival - survival * half, survival + survival * half
        elif bands == "log":
            low, high = np.exp(logarithm - half), np.exp(logarithm + half)
        else:
            low = np.exp(-np.exp(np.log(-logarithm) - half / logarithm))
            high = np.exp(-np.exp(np.log(-logarithm) + half / logarithm))
    untouched = survival == 1.0
    low, high = np.where(untouched, 1.0, low), np.where(untouched, 1.0, high)
    return Curve(np.asarray(survival), greenwood, np.clip(low, 0.0, 1.0), np.clip(high, 0.0, 1.0))


def first_at_half(times: Floats, survival: Floats) -> float:
    """The first time at which S ≤ 1/2; NaN where the curve does not come so low."""
    below = np.flatnonzero(survival <= HALF)
    return float(times[below[0]]) if below.size else float("nan")


def restricted_mean(times: Floats, survival: Floats, events: Floats, at_risk: Floats, until: float) -> tuple[float, float]:
    """∫ S from 0 to `until` and its standard error. Times increase; S is 1 before the first."""
    inside = times < until
    knots = np.concatenate([[0.0], times[inside], [until]])
    heights = np.concatenate([[1.0], survival[inside]])
    pieces = np.diff(knots) * heights
    rest = np.cumsum(pieces[::-1])[::-1][1:]
    n, d = at_risk[inside], events[inside]
    share = np.divide(d, n * (n - d), out=np.zeros_like(n), where=n > d)
    return float(pieces.sum()), float(np.sqrt((rest**2 * share).sum()))
