"""Where an axis begins and ends, where its ticks stand, and how a number is written beside a mark."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fivefold.records.counts import whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def drawable(value: float, log: bool) -> bool:
    """Whether a value has a place on the axis."""
    return math.isfinite(value) and (value > 0 or not log)


def known(value: float, otherwise: float) -> float:
    """The value, or another where it was withheld."""
    return otherwise if math.isnan(value) else value


def limits(core: Sequence[float], ends: Sequence[float], log: bool) -> tuple[float, float]:
    """Limits with a margin around the estimates and the ends of their intervals. On a log scale an interval is followed for two
    decades beyond the estimates, so that a very wide one does not hide the others; its end is then an arrow."""
    if not log:
        low, high = min([*core, *ends]), max([*core, *ends])
        margin = 0.06 * (high - low) or 1.0
        return low - margin, high + margin
    first, last = math.log10(min(core)), math.log10(max(core))
    low = max(math.log10(min([*core, *ends])), first - 2)
    high = min(math.log10(max([*core, *ends])), last + 2)
    margin = max(0.04, 0.06 * (high - low))
    return 10 ** (low - margin), 10 ** (high + margin)


def log_ticks(axes: Axes, left: float, right: float) -> None:
    """Ticks at round numbers, as many as the width takes."""
    from matplotlib.ticker import FixedLocator, NullLocator

    wide = math.log10(right / left)
    steps = (1.0,) if wide > 2.5 else (1.0, 2.0, 5.0) if wide > 0.9 else (1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0)
    decades = range(math.floor(math.log10(left)), math.ceil(math.log10(right)) + 1)
    ticks = [s * 10.0**d for d in decades for s in steps if left <= s * 10.0**d <= right]
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(ticks, [f"{t:.3g}" for t in ticks])


def interval(estimate: float, low: float, high: float) -> str:
    """`1.23  (0.98 – 1.54)`."""
    finer = math.isfinite(high - low) and high - low < 0.1
    ends = [_digits(v, finer) if math.isfinite(v) else "−∞" if v < 0 else "∞" for v in (low, high)]
    return f"{_digits(estimate, finer)}  ({ends[0]} – {ends[1]})"


def _digits(value: float, finer: bool) -> str:
    return (f"{value:.{3 if finer else 2}f}" if 0.001 < abs(value) < 100 or value == 0 else f"{value:.2g}").replace("-", "−")


def short(value: float) -> str:
    """Three digits, or a whole number whole."""
    text = whole(value) if value.is_integer() and abs(value) < 1e9 else f"{value:.3g}"
    return text.replace("-", "−")
