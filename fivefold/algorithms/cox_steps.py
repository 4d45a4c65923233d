"""What the sites of a Cox model are asked, each step beside its question. Grid steps answer by event time, local steps by site.

Columns are scaled to at most 1 by public constants, so |z'γ| ≤ Σ|γ| bounds every risk score, and every bound is public.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, exp, log
from typing import Any

import numpy as np
import numpy.typing as npt

from fivefold.algorithms import cox_diagnostics, cox_sums
from fivefold.algorithms.cox_sums import Cells, Floats, Hazard, Likelihood, RiskSums, Rows
from fivefold.algorithms.numerics import packed
from fivefold.algorithms.survival_grid import TimeGrid
from fivefold.algorithms.survival_rows import (
    columns,
    model_design,
    require_one_row_each,
    selected,
    spells,
    strata_index,
)
from fivefold.errors import OutOfBounds
from fivefold.protocol.questions import PERSONS, WEIGHTS, Aggregate, Array, Field, FieldKind, Permission, Sum, site_step
from fivefold.study.formula import Survival
from fivefold.study.table import Table

SLACK = 1.0 + 1e-6

STEEPEST = 25.0
"""The largest |z'γ| of a row. Ranges are often far wider than values, so that Σ|γ| may be larger; no sensible row is."""


def rows_of(table: Table, model: Mapping[str, Any], *, bare: bool = False) -> Rows:
    """The rows of a model, beside the rows; `bare` without its columns."""
    cases = selected(table, model)
    response = model_design(model, table.dictionary).formula.response
    assert isinstance(response, Survival)
    times = spells(cases, response, model["grid"])
    if model["grid"] is not None and not model["grid"]["event_level"] and not model["local"]:
        require_one_row_each(cases)
    return Rows(
        z=np.zeros((len(cases), 0)) if bare else columns(cases, model),
        start=times.start,
        stop=times.stop,
        event=times.event,
        weight=cases[model["weights"]] if model["weights"] else np.ones(len(cases)),
        stratum=strata_index(cases, tuple(model["strata"])),
        person=cases.person,
        time=times.time,
    )


# ---- on the grid: how many events and leavers at each time -----------------------------------------------------------
@site_step("cox.grid_counts")
def grid_counts(table: Table, *, model: Mapping[str, Any], strata: int, times: int, entry: bool) -> Mapping[str, Array]:
    """Events, censored and late entries by (stratum, grid time)."""
    return {n: c.astype(np.int64) for n, c in _by_time(rows_of(table, model, bare=True), strata, times, entry).items()}


@site_step("cox.grid_weights")
def grid_weights(table: Table, *, model: Mapping[str, Any], strata: int, times: int, entry: bool) -> Mapping[str, Array]:
    """The sums of the weights of the same."""
    rows = rows_of(table, model, bare=True)
    return {f"{n}_weight": w for n, w in _by_time(rows, strata, times, entry, rows.weight).items()}


def _by_time(rows: Rows, strata: int, times: int, entry: bool, weight: Floats | None = None) -> dict[str, Floats]:
    late = rows.start >= 0
    groups = {"events": (rows.event, rows.stop), "censored": (~rows.event, rows.stop), "entered": (late, rows.start)}
    out = {}
    for name in leavers(entry):
        chosen, at = groups[name]
        flat = rows.stratum[chosen] * times + at[chosen]
        summed = np.bincount(flat, weights=None if weight is None else weight[chosen], minlength=strata * times)
        out[name] = summed.reshape(strata, times).astype(np.float64)
    return out


def leavers(entry: bool) -> tuple[str, ...]:
    """What is counted at each grid time."""
    return ("events", "censored", "entered") if entry else ("events", "censored")


def ask_grid_counts(model: Mapping[str, Any], grid: TimeGrid, strata: int, rows: float, *, entry: bool) -> Sum:
    """On an event-level grid plain counts, on a coarser one cells that are screened."""
    kind: FieldKind = "count" if grid.event_level else "cell"
    fields = tuple(Field(name, kind, rows, (strata, grid.size)) for name in leavers(entry))
    return Sum(grid_counts, fields, {"model": model, "strata": strata, "times": grid.size, "entry": entry}, needs(model))


def ask_grid_weights(model: Mapping[str, Any], grid: TimeGrid, strata: int, most: float, *, entry: bool) -> Sum:
    """Asked when the counts are known to be large enough: a weight of few persons would show theirs."""
    fields = tuple(Field(f"{name}_weight", "real", most, (strata, grid.size)) for name in leavers(entry))
    return Sum(grid_weights, fields, {"model": model, "strata": strata, "times": grid.size, "entry": entry}, needs(model))


# ---- on the grid: the partial likelihood -----------------------------------------------------------------------------
@site_step("cox.risk_sums")
def risk_sums(
    table: Table, *, model: Mapping[str, Any], stratum: Array, time: Array, tied: Array, gamma: Array
) -> Mapping[str, Array]:
    """S0, S1, S2 of every event cell, the same over the events of tied cells, and Σ w z over all events."""
    rows, cells = rows_of(table, model), Cells(stratum, time)
    judged = _judged(rows, gamma)
    sums = cox_sums.risk_sums(rows, cells, gamma, tied)
    answer = {"persons": np.asarray(np.unique(rows.person).size), "event_sum": rows.weight[rows.event] @ rows.z[rows.event]}
    answer |= {"s0": sums.s0, "s1": sums.s1, "s2": sums.s2}
    answer |= judged
    if np.any(tied):
        answer |= {"d0": sums.d0[tied], "d1": sums.d1[tied], "d2": sums.d2[tied]}
    return answer


def ask_risk_sums(
    model: Mapping[str, Any], cells: Cells, tied: npt.NDArray[np.bool_], gamma: Floats, rows: float, heaviest: float
) -> Sum:
    p, c, t = len(gamma), len(cells), int(tied.sum())
    most = rows * heaviest * steepest(gamma)
    shapes = {"0": (), "1": (p,), "2": (p * (p + 1) // 2,)}
    fields = [Field("persons", "persons", rows), Field("event_sum", "real", rows * heaviest * SLACK, (p,))]
    fields += [Field(f"s{k}", "real", most, (c, *s)) for k, s in shapes.items()]
    if t:
        fields += [Field(f"d{k}", "real", most, (t, *s)) for k, s in shapes.items()]
    arguments = {"model": model, "stratum": cells.stratum, "time": cells.time, "tied": tied, "gamma": gamma}
    return Sum(risk_sums, tuple(fields), arguments, needs(model))


def read_risk_sums(total: Aggregate, tied: npt.NDArray[np.bool_]) -> RiskSums:
    """The sums, zero where tie sums were not asked."""
    s = [np.asarray(total[f"s{k}"], dtype=np.float64) for k in range(3)]
    d = [np.zeros_like(x) for x in s]
    if np.any(tied):
        for k in range(3):
            d[k][tied] = total[f"d{k}"]
    return RiskSums(*s, *d)


# ---- on the grid: after the fit --------------------------------------------------------------------------------------
@site_step("cox.score_squares")
def score_squares(
    table: Table, *, model: Mapping[str, Any], stratum: Array, time: Array, gamma: Array, hazard: Mapping[str, Array]
) -> Mapping[str, Array]:
    """Σ over persons of the outer product of their score residuals (upper triangle)."""
    rows = rows_of(table, model)
    residuals = cox_sums.score_residuals(rows, Cells(stratum, time), gamma, Hazard(**hazard))
    return {"persons": np.asarray(np.unique(rows.person).size), "squares": _squares(residuals, rows)}


def ask_score_squares(model: Mapping[str, Any], cells: Cells, gamma: Floats, hazard: Hazard, weight: float, rows: float) -> Sum:
    """`weight` is the total weight of all events W: residuals add up to at most 4W in absolute value, so squares to 16W²."""
    p = len(gamma)
    fields = (Field("persons", "persons", rows), Field("squares", "real", 16 * weight**2 * SLACK, (p * (p + 1) // 2,)))
    arrays = {"mean": hazard.mean, "h": hazard.h, "hz": hazard.hz, "h_event": hazard.h_event, "hz_event": hazard.hz_event}
    arguments = {"model": model, "stratum": cells.stratum, "time": cells.time, "gamma": gamma, "hazard": arrays}
    return Sum(score_squares, fields, arguments, needs(model))


@site_step("cox.event_trend")
def event_trend(
    table: Table, *, model: Mapping[str, Any], stratum: Array, time: Array, transforms: Array
) -> Mapping[str, Array]:
    """Σ over events of z, and of g(t)·z for each transform g (rows of `transforms`, by cell)."""
    rows, cells = rows_of(table, model), Cells(stratum, time)
    z = rows.z[rows.event]
    at = cells.positions(rows.stratum[rows.event], rows.stop[rows.event]) - 1
    return {"event_plain": z.sum(axis=0), "event_trend": transforms[:, at] @ z}


def ask_event_trend(model: Mapping[str, Any], cells: Cells, transforms: Floats, width: int, rows: float) -> Sum:
    fields = (
        Field("event_plain", "real", rows * SLACK, (width,)),
        Field("event_trend", "real", rows * max(float(np.abs(transforms).max()), 1e-9) * SLACK, (len(transforms), width)),
    )
    arguments = {"model": model, "stratum": cells.stratum, "time": cells.time, "transforms": transforms}
    return Sum(event_trend, fields, arguments, needs(model))


@site_step("cox.score_histogram")
def score_histogram(
    table: Table, *, model: Mapping[str, Any], stratum: Array, time: Array, gamma: Array, edges: Array
) -> Mapping[str, Array]:
    """Rows by score bin and time: events by cell, others by the number of cells up to their time."""
    rows, cells = rows_of(table, model), Cells(stratum, time)
    bins = cox_diagnostics.score_bins(rows, gamma, edges)
    events, others = cox_diagnostics.score_histograms(rows, cells, bins, len(edges) + 1)
    return {"score_events": events, "score_others": others}


def ask_score_histogram(model: Mapping[str, Any], cells: Cells, gamma: Floats, edges: Floats, rows: float) -> Sum:
    kind: FieldKind = "count" if model["grid"]["event_level"] else "cell"
    fields = (
        Field("score_events", kind, rows, (len(cells), len(edges) + 1)),
        Field("score_others", kind, rows, (len(cells) + 1, len(edges) + 1)),
    )
    arguments = {"model": model, "stratum": cells.stratum, "time": cells.time, "gamma": gamma, "edges": edges}
    return Sum(score_histogram, fields, arguments, needs(model))


# ---- strata(site): every site its own risk sets ----------------------------------------------------------------------
@site_step("cox.site_likelihood")
def site_likelihood(table: Table, *, model: Mapping[str, Any], ties: cox_sums.Ties, gamma: Array) -> Mapping[str, Array]:
    """The site's own log partial likelihood, score and information."""
    rows = rows_of(table, model)
    judged = _judged(rows, gamma)
    own = _own(rows, gamma, ties)
    return {
        "persons": np.asarray(np.unique(rows.person).size),
        "events": np.asarray(int(rows.event.sum())),
        "event_weight": np.asarray(float(rows.weight[rows.event].sum())),
        "value": np.asarray(own.likelihood.value),
        "score": own.likelihood.score,
        "information": packed(own.likelihood.information),
        **judged,
    }


def ask_site_likelihood(
    model: Mapping[str, Any], ties: cox_sums.Ties, gamma: Floats, rows: float, lightest: float, heaviest: float
) -> Sum:
    """Per unit of event weight: |value| ≤ 2Σ|γ| + the log of a sum of weights, |score| ≤ 2 and |information| ≤ 1."""
    p, most = len(gamma), rows * heaviest * SLACK
    spread = 2 * float(np.abs(gamma).sum()) + abs(log(rows * heaviest)) + abs(log(lightest)) + 1.0
    fields = (
        Field("persons", "persons", rows),
        Field("events", "count", rows),
        Field("event_weight", "real", most),
        Field("value", "real", most * ceil(spread)),
        Field("score", "real", 2 * most, (p,)),
        Field("information", "real", most, (p * (p + 1) // 2,)),
    )
    return Sum(site_likelihood, fields, {"model": model, "ties": ties, "gamma": gamma}, needs(model))


@site_step("cox.site_score_squares")
def site_score_squares(table: Table, *, model: Mapping[str, Any], ties: cox_sums.Ties, gamma: Array) -> Mapping[str, Array]:
    """Σ over persons of the outer product of their score residuals within the site's own strata."""
    rows = rows_of(table, model)
    own = _own(rows, gamma, ties)
    residuals = cox_sums.score_residuals(rows, own.cells, gamma, own.hazard)
    return {"persons": np.asarray(np.unique(rows.person).size), "squares": _squares(residuals, rows)}


def ask_site_score_squares(model: Mapping[str, Any], ties: cox_sums.Ties, gamma: Floats, weight: float, rows: float) -> Sum:
    p = len(gamma)
    fields = (Field("persons", "persons", rows), Field("squares", "real", 16 * weight**2 * SLACK, (p * (p + 1) // 2,)))
    return Sum(site_score_squares, fields, {"model": model, "ties": ties, "gamma": gamma}, needs(model))


@site_step("cox.site_event_trend")
def site_event_trend(
    table: Table, *, model: Mapping[str, Any], ties: cox_sums.Ties, gamma: Array, transforms: tuple[str, ...]
) -> Mapping[str, Array]:
    """Σ over events of Schoenfeld's residual r, g(t), g(t)² and g(t)·r, for g the identity or the logarithm of time."""
    rows = rows_of(table, model)
    own = _own(rows, gamma, ties)
    at = own.cells.positions(rows.stratum[rows.event], rows.stop[rows.event]) - 1
    residual = rows.z[rows.event] - own.hazard.mean[at]
    time = rows.time[rows.event]
    g = np.stack([np.log(time) if name == "log" else time for name in transforms])
    return {
        "events": np.asarray(len(time)),
        "residual": residual.sum(axis=0),
        "transform": np.stack([g.sum(axis=1), (g * g).sum(axis=1)], axis=1),
        "residual_trend": g @ residual,
    }


def ask_site_event_trend(
    model: Mapping[str, Any], ties: cox_sums.Ties, gamma: Floats, transforms: tuple[str, ...], largest: float, rows: float
) -> Sum:
    """`largest` is the largest |g| that the time's range permits."""
    p, k = len(gamma), len(transforms)
    fields = (
        Field("events", "count", rows),
        Field("residual", "real", 2 * rows * SLACK, (p,)),
        Field("transform", "real", rows * max(largest, 1.0) ** 2 * SLACK, (k, 2)),
        Field("residual_trend", "real", 2 * rows * max(largest, 1.0) * SLACK, (k, p)),
    )
    arguments = {"model": model, "ties": ties, "gamma": gamma, "transforms": transforms}
    return Sum(site_event_trend, fields, arguments, needs(model))


@site_step("cox.site_pairs")
def site_pairs(table: Table, *, model: Mapping[str, Any], gamma: Array) -> Mapping[str, Array]:
    """Concordant, discordant, tied and blurred pairs within the site's own strata."""
    rows = rows_of(table, model)
    found = cox_diagnostics.local_pairs(rows, cox_sums.own_cells(rows), gamma)
    return {"pairs": np.array([found[name] for name in ("concordant", "discordant", "tied", "blurred")])}


def ask_site_pairs(model: Mapping[str, Any], gamma: Floats, rows: float) -> Sum:
    return Sum(site_pairs, (Field("pairs", "count", rows**2, (4,)),), {"model": model, "gamma": gamma}, needs(model))


# ---- what they share -------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class _Own:
    """A site's own cells with the likelihood and hazard in them."""

    cells: Cells
    likelihood: Likelihood
    hazard: Hazard


def _own(rows: Rows, gamma: Array, ties: cox_sums.Ties) -> _Own:
    cells = cox_sums.own_cells(rows)
    deaths, weight = cox_sums.event_totals(rows, cells)
    sums = cox_sums.risk_sums(rows, cells, gamma)
    event_sum = np.asarray(rows.weight[rows.event] @ rows.z[rows.event], dtype=np.float64)
    found = cox_sums.likelihood(sums, deaths, weight, event_sum, gamma, ties)
    return _Own(cells, found, cox_sums.hazard(sums, deaths, weight, ties))


def _judged(rows: Rows, gamma: Array) -> dict[str, Array]:
    """For the site's gate, which takes it out: how much each row weighs in the risk sets, and whose row it is.

    Raises `OutOfBounds` where a row's linear predictor is beyond what the sums are scaled for.
    """
    predictor = rows.z @ gamma
    if np.any(np.abs(predictor) > STEEPEST):
        raise OutOfBounds(
            "a person's hazard ratio is too large for the sums",
            rule="linear_predictor",
            help="Look for outliers, narrow the ranges in the dictionary, or take a variable out of the model.",
        )
    return {WEIGHTS: rows.weight * np.exp(predictor), PERSONS: rows.person}


def _squares(residuals: Floats, rows: Rows) -> Floats:
    return packed(cox_sums.clustered_squares(residuals, rows.person))


def needs(model: Mapping[str, Any]) -> tuple[Permission, ...]:
    """Totals at single event times need each site's permission."""
    return ("event_totals",) if model["grid"] is not None and model["grid"]["event_level"] and not model["local"] else ()


def steepest(gamma: Floats) -> float:
    """exp(Σ|γ|), at most exp(STEEPEST), rounded up to quarter exponents: solvers that differ in the last bits agree on it."""
    return exp(min(ceil(4 * float(np.abs(gamma).sum()) + 1e-6) / 4, STEEPEST))
