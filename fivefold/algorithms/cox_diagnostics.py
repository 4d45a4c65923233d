"""After the fit, from sums: proportional hazards (Grambsch and Therneau 1994) and concordance (Harrell 1982)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fivefold.algorithms.cox_sums import Cells, Floats, Ints, Rows

Transform = Literal["km", "rank", "identity", "log"]
TRANSFORMS: tuple[Transform, ...] = ("km", "rank", "identity", "log")

LOCAL_BINS = 2000
"""Within one site, scores are ranked exactly up to so many distinct ones and pooled into so many bins beyond."""


@dataclass(frozen=True)
class Proportionality:
    """Chi-squared of each column (p,) on one degree of freedom, and of all together on p."""

    each: Floats
    together: float


@dataclass(frozen=True)
class Concordance:
    """Harrell's C counting pairs of equal score as one half; `bound` is how far pairs that share a bin can move it."""

    value: float
    bound: float
    pairs: int


def transformed(transform: Transform, times: Floats, deaths: Ints, weight: Floats, at_risk: Floats) -> Floats:
    """g at each distinct event time (increasing): identity, log, average rank among events, or 1 − Kaplan–Meier just after."""
    if transform == "identity":
        return times.astype(float)
    if transform == "log":
        return np.asarray(np.log(times), dtype=np.float64)
    if transform == "rank":
        return np.asarray(np.cumsum(deaths) - (deaths - 1) / 2, dtype=np.float64)
    return np.asarray(1.0 - np.cumprod(1.0 - weight / at_risk), dtype=np.float64)


def proportionality(trend: Floats, spread: float, events: int, variance: Floats) -> Proportionality:
    """`trend` is Σ over events of (g − mean g)·(Schoenfeld residual), `spread` Σ (g − mean g)², `variance` the information's
    inverse."""
    slope = variance @ trend
    each = events * slope**2 / (np.diag(variance) * spread)
    return Proportionality(each, float(events * (trend @ slope) / spread))


def score_bins(rows: Rows, gamma: Floats, edges: Floats) -> Ints:
    """The bin of each row's score z'γ: 0 below the first edge, len(edges) from the last on."""
    return np.searchsorted(edges, rows.z @ gamma, side="right").astype(np.int64)


def score_histograms(rows: Rows, cells: Cells, bins: Ints, count: int) -> tuple[Ints, Ints]:
    """Events by (cell, bin), shape (c, count), and other rows by (number of cells up to the row's time, bin), shape
    (c + 1, count). Cells are counted over all strata in order."""
    at = cells.positions(rows.stratum, rows.stop)
    started = at > np.searchsorted(cells.stratum, rows.stratum, side="left")
    events = np.zeros((len(cells), count), dtype=np.int64)
    others = np.zeros((len(cells) + 1, count), dtype=np.int64)
    np.add.at(events, (at[rows.event] - 1, bins[rows.event]), 1)
    rest = ~rows.event & started  # a row that ends before its stratum's first cell compares with none
    np.add.at(others, (at[rest], bins[rest]), 1)
    return events, others


def pairs(events: Ints, others: Ints, strata: Ints) -> tuple[int, int, int]:
    """Concordant, discordant and same-bin pairs. `strata` is the stratum of each cell; pairs across strata are not compared.

    A pair is comparable where the one has its event strictly before the other's time, or at the other's censoring time.
    """
    concordant = discordant = same = 0
    for stratum in np.unique(strata):
        first, last = np.searchsorted(strata, [stratum, stratum + 1])
        later = np.zeros(events.shape[1], dtype=np.int64)
        for cell in range(int(last) - 1, int(first) - 1, -1):
            later = later + others[cell + 1]
            below = np.cumsum(later) - later
            here = events[cell]
            concordant += int(here @ below)
            same += int(here @ later)
            discordant += int(here @ (later.sum() - below - later))
            later = later + here
    return concordant, discordant, same


def local_pairs(rows: Rows, cells: Cells, gamma: Floats) -> Mapping[str, int]:
    """One site's own pairs: concordant, discordant, tied in score, and `blurred` (in one bin only because bins are few)."""
    score = rows.z @ gamma
    distinct, index = np.unique(score, return_inverse=True)
    exact = distinct.size <= LOCAL_BINS
    if not exact:
        edges = np.unique(np.quantile(score, np.linspace(0, 1, LOCAL_BINS + 1)[1:-1]))
        index = np.searchsorted(edges, score, side="right")
    at = cells.positions(rows.stratum, rows.stop)
    cell = np.where(rows.event, at - 1, at)  # a row outlives the events of every cell before this one
    counts = [0, 0, 0]
    for stratum in np.unique(cells.stratum):
        first, last = (int(i) for i in np.searchsorted(cells.stratum, [stratum, stratum + 1]))
        inside = np.flatnonzero(rows.stratum == stratum)
        inside = inside[np.argsort(-cell[inside], kind="stable")]
        before = np.searchsorted(-cell[inside], -np.arange(first, last), side="left")
        through = np.searchsorted(-cell[inside], -np.arange(first, last), side="right")
        later, seen = np.zeros(int(index.max()) + 1, dtype=np.int64), 0
        for k in range(last - first - 1, -1, -1):
            np.add.at(later, index[inside[seen : before[k]]], 1)
            seen = int(before[k])
            here = inside[before[k] : through[k]]
            died = index[here[rows.event[here]]]
            below = np.cumsum(later) - later
            counts[0] += int(below[died].sum())
            counts[1] += int((later.sum() - below - later)[died].sum())
            counts[2] += int(later[died].sum())
    return {"concordant": counts[0], "discordant": counts[1], "tied": counts[2], "blurred": 0 if exact else counts[2]}


def concordance(concordant: float, discordant: float, tied: float, blurred: float) -> Concordance:
    """The index with its bound; NaN where no pair is comparable."""
    total = concordant + discordant + tied
    if total <= 0:
        return Concordance(float("nan"), float("nan"), 0)
    return Concordance((concordant + tied / 2) / total, blurred / 2 / total, int(total))


def bin_edges(mean: float, deviation: float, bins: int) -> Floats:
    """bins − 1 edges, the quantiles of a normal score: public, from aggregates; bins of equal size keep the bound smallest."""
    from scipy.special import ndtri

    spread = deviation if deviation > 0 else 1.0
    return np.asarray(mean + spread * ndtri(np.arange(1, bins) / bins), dtype=np.float64)
