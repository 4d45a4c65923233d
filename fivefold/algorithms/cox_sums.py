"""The partial likelihood of Cox (1972) from sums over risk sets: pure functions, the same beside the rows and without them.

A *cell* is one event time within one stratum. For a cell with d events (total weight W), the risk set's sums S0, S1, S2 of
w·exp(z'γ)·(1, z, zz') and the same sums D0, D1, D2 over the events alone, Efron (1977) takes

    log L = Σ w_i z_i'γ − Σ_cells (W/d) Σ_{l<d} log(S0 − (l/d) D0)

and Breslow (1974) drops the (l/d)-terms. Weights enter as in Therneau and Grambsch (2000), section 3.3.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from fivefold.algorithms.numerics import unpacked

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Ties = Literal["efron", "breslow"]


@dataclass(frozen=True)
class Rows:
    """One row per spell at risk in (start, stop]: `z` (rows, p), indices into the grid or into a site's own times.

    `start` is -1 where a row is at risk from the beginning; `stratum` counts from 0; `weight` is positive.
    """

    z: Floats
    start: Ints
    stop: Ints
    event: npt.NDArray[np.bool_]
    weight: Floats
    stratum: Ints
    person: Ints
    time: Floats


@dataclass(frozen=True)
class Cells:
    """Event cells in order of (stratum, time index): `stratum`, `time` shape (c,)."""

    stratum: Ints
    time: Ints

    def __len__(self) -> int:
        return len(self.time)

    def positions(self, stratum: Ints, index: Ints) -> Ints:
        """How many cells come up to and including (stratum, index), counted over all strata in order."""
        span = int(max(self.time.max(initial=0), index.max(initial=0))) + 2
        keys = self.stratum * span + self.time + 1
        return np.searchsorted(keys, stratum * span + index + 1, side="right").astype(np.int64)


@dataclass(frozen=True)
class RiskSums:
    """S0 (c,), S1 (c, p), S2 (c, q) over risk sets and D0, D1, D2 over events, q = p(p+1)/2 (upper triangle by rows)."""

    s0: Floats
    s1: Floats
    s2: Floats
    d0: Floats
    d1: Floats
    d2: Floats


@dataclass(frozen=True)
class Likelihood:
    """Log partial likelihood, its gradient (p,) and minus its Hessian (p, p)."""

    value: float
    score: Floats
    information: Floats


@dataclass(frozen=True)
class Hazard:
    """Per cell: the mean covariate of an event (c, p), and the increments of Σ(W/d)/denominator and of the same times the mean
    for a row at risk (`h`, `hz`) and for one that has its event there (`h_event`, `hz_event`), as Efron's tie terms need."""

    mean: Floats
    h: Floats
    hz: Floats
    h_event: Floats
    hz_event: Floats


def own_cells(rows: Rows) -> Cells:
    """The cells in which these rows have events."""
    pairs = np.unique(np.stack([rows.stratum[rows.event], rows.stop[rows.event]], axis=1), axis=0)
    return Cells(pairs[:, 0].astype(np.int64), pairs[:, 1].astype(np.int64))


def event_totals(rows: Rows, cells: Cells) -> tuple[Ints, Floats]:
    """Number (c,) and weight (c,) of events in each cell. Events outside the cells are an error of the caller."""
    at = cells.positions(rows.stratum[rows.event], rows.stop[rows.event]) - 1
    count = np.bincount(at, minlength=len(cells))
    return count.astype(np.int64), np.bincount(at, weights=rows.weight[rows.event], minlength=len(cells)).astype(np.float64)


def risk_sums(rows: Rows, cells: Cells, gamma: Floats, tied: npt.NDArray[np.bool_] | None = None) -> RiskSums:
    """The sums of these rows; tie sums only in cells marked `tied` (all by default)."""
    p, c = rows.z.shape[1], len(cells)
    risk = rows.weight * np.exp(rows.z @ gamma)
    last = cells.positions(rows.stratum, rows.stop) - 1
    first = cells.positions(rows.stratum, rows.start)
    present = last >= first
    late = present & (first > _stratum_start(cells, rows.stratum))
    died = rows.event if tied is None else rows.event & (last >= 0) & np.append(tied, False)[last]
    s, d = np.empty((c, 1 + p + p * (p + 1) // 2)), np.zeros((c, 1 + p + p * (p + 1) // 2))
    for column, values in enumerate(_moments(rows.z, risk)):
        leaving = np.bincount(last[present], weights=values[present], minlength=c)
        s[:, column] = _tail_sums(leaving.astype(np.float64), cells)
        if np.any(late):
            entering = np.bincount(first[late] - 1, weights=values[late], minlength=c)
            s[:, column] -= _tail_sums(entering.astype(np.float64), cells)
        d[:, column] = np.bincount(last[died], weights=values[died], minlength=c)
    return RiskSums(s[:, 0], s[:, 1 : p + 1], s[:, p + 1 :], d[:, 0], d[:, 1 : p + 1], d[:, p + 1 :])


def likelihood(sums: RiskSums, deaths: Ints, weight: Floats, event_sum: Floats, gamma: Floats, ties: Ties) -> Likelihood:
    """Value, score and information of the partial likelihood. `event_sum` is Σ w z over all events, shape (p,)."""
    p = len(gamma)
    cell, share, factor = _steps(deaths, weight, ties)
    s0 = sums.s0[cell] - share * sums.d0[cell]
    mean = (sums.s1[cell] - share[:, None] * sums.d1[cell]) / s0[:, None]
    second = (sums.s2[cell] - share[:, None] * sums.d2[cell]) / s0[:, None]
    value = float(event_sum @ gamma - factor @ np.log(s0))
    score = event_sum - factor @ mean
    information = unpacked(factor @ second, p) - (mean * factor[:, None]).T @ mean
    return Likelihood(value, score, (information + information.T) / 2)


def hazard(sums: RiskSums, deaths: Ints, weight: Floats, ties: Ties) -> Hazard:
    """What score residuals need of the totals."""
    c = len(deaths)
    cell, share, factor = _steps(deaths, weight, ties)
    s0 = sums.s0[cell] - share * sums.d0[cell]
    mean = (sums.s1[cell] - share[:, None] * sums.d1[cell]) / s0[:, None]
    part = factor / s0

    def over_cells(values: Floats) -> Floats:
        out = np.zeros((c, *values.shape[1:]))
        np.add.at(out, cell, values)
        return out

    each = 1.0 / np.maximum(deaths, 1)
    return Hazard(
        mean=over_cells(mean * each[cell][:, None]) if ties == "efron" else _breslow_mean(sums, deaths),
        h=over_cells(part),
        hz=over_cells(part[:, None] * mean),
        h_event=over_cells(part * (1 - share)),
        hz_event=over_cells((part * (1 - share))[:, None] * mean),
    )


def score_residuals(rows: Rows, cells: Cells, gamma: Floats, hazard: Hazard) -> Floats:
    """Weighted score residuals (rows, p): each row's influence on the score (Therneau and Grambsch 2000, 4.6 and 7.1),

    w_i [ δ_i (z_i − mean) − exp(z_i'γ) ∫ (z_i − mean) dΛ ].
    """
    risk = np.exp(rows.z @ gamma)
    last = cells.positions(rows.stratum, rows.stop)
    first = np.minimum(cells.positions(rows.stratum, rows.start), last)
    h = np.concatenate([[0.0], np.cumsum(hazard.h)])
    hz = np.concatenate([np.zeros((1, rows.z.shape[1])), np.cumsum(hazard.hz, axis=0)])
    total, total_z = h[last] - h[first], hz[last] - hz[first]
    at, died = last[rows.event] - 1, rows.event
    total[died] -= (hazard.h - hazard.h_event)[at]
    total_z[died] -= (hazard.hz - hazard.hz_event)[at]
    residual = -risk[:, None] * (rows.z * total[:, None] - total_z)
    residual[died] += rows.z[died] - hazard.mean[at]
    return np.asarray(residual * rows.weight[:, None], dtype=np.float64)


def clustered_squares(residuals: Floats, person: Ints) -> Floats:
    """Σ over persons of r r', where r adds up a person's rows: shape (p, p)."""
    _, index = np.unique(person, return_inverse=True)
    per_person = np.stack([np.bincount(index, weights=column) for column in residuals.T], axis=1)
    return np.asarray(per_person.T @ per_person, dtype=np.float64)


def _moments(z: Floats, risk: Floats) -> Iterator[Floats]:
    """risk·(1, z, zz'), column by column, so that a million rows never stand in memory as all of them at once."""
    yield risk
    for j in range(z.shape[1]):
        yield risk * z[:, j]
    for j in range(z.shape[1]):
        first = risk * z[:, j]
        for k in range(j, z.shape[1]):
            yield first * z[:, k]


def _stratum_start(cells: Cells, stratum: Ints) -> Ints:
    return np.searchsorted(cells.stratum, stratum, side="left").astype(np.int64)


def _tail_sums(values: Floats, cells: Cells) -> Floats:
    """Sum from each cell to the last of its stratum; only additions, so that late, small risk sets keep their digits."""
    out = np.empty_like(values)
    for stratum in np.unique(cells.stratum):
        inside = slice(*np.searchsorted(cells.stratum, [stratum, stratum + 1]))
        out[inside] = np.cumsum(values[inside][::-1])[::-1]
    return out


def _steps(deaths: Ints, weight: Floats, ties: Ties) -> tuple[Ints, Floats, Floats]:
    """One step per event under Efron: its cell, l/d and W/d. One step per cell under Breslow: its cell, 0 and W."""
    if ties == "breslow":
        cell = np.flatnonzero(deaths > 0)
        return cell, np.zeros(len(cell)), weight[cell]
    cell = np.repeat(np.arange(len(deaths)), deaths)
    order = np.arange(len(cell)) - np.repeat(np.cumsum(deaths) - deaths, deaths)
    return cell, order / deaths[cell], (weight / np.maximum(deaths, 1))[cell]


def _breslow_mean(sums: RiskSums, deaths: Ints) -> Floats:
    mean = np.zeros_like(sums.s1)
    some = deaths > 0
    mean[some] = sums.s1[some] / sums.s0[some][:, None]
    return mean
