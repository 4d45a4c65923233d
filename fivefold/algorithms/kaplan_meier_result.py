"""From counts on the grid to tables: curves with bands, medians, restricted means, the log-rank test."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fivefold.algorithms.cohort import Facts, Watch
from fivefold.algorithms.kaplan_meier_spec import KaplanMeierSpec
from fivefold.algorithms.log_rank import log_rank, log_rank_sums
from fivefold.algorithms.numerics import critical, unpacked
from fivefold.algorithms.survival_curve import Curve, curve, first_at_half, restricted_mean
from fivefold.algorithms.survival_grid import Floats
from fivefold.protocol.questions import Aggregate
from fivefold.protocol.results import Figure, Result, ResultTable


@dataclass(frozen=True)
class Counts:
    """By (stratum, group, time): `strata_events`, `strata_at_risk`. By (group, time): `events`, `censored`, `at_risk`. By
    group: `persons_with_event`. NaN where a cell is hidden, or where what is at risk cannot be known because of one."""

    strata_events: Floats
    strata_at_risk: Floats
    events: Floats
    censored: Floats
    at_risk: Floats
    persons_with_event: Floats


@dataclass(frozen=True)
class Shown:
    """One group's curve as far as it may be shown: indices of grid times, and whether it was cut before its end."""

    group: int
    times: Floats
    events: Floats
    censored: Floats
    at_risk: Floats
    curve: Curve
    cut: bool


def result(
    spec: KaplanMeierSpec, facts: Facts, sizes: Floats, counts: Counts, site_sums: Aggregate | None, watch: Watch
) -> Result:
    """All tables, facts and figures. `sizes` are persons by group; a group without any has no curve."""
    shown = [visible(spec, counts, g) for g in range(len(sizes)) if sizes[g] > 0]
    notes = [*watch.notes(), *_cuts(spec, shown)]
    notes += [f"no person in the analysis is in the group {spec.label(g)}" for g in range(len(sizes)) if sizes[g] == 0]
    if spec.grid.censor_beyond:
        notes.append(f"times after {spec.grid.edges[-1]:g} {spec.grid.unit}".rstrip() + " count as censored then")
    tables = {"curves": _curves(spec, shown), "groups": _groups(spec, shown, sizes, counts)}
    facts_out: dict[str, Any] = facts.as_facts() | {
        "time_grid": spec.grid.words(), "bands": spec.bands, "confidence": spec.level, "numbers_opened": watch.numbers,
    }  # fmt: skip
    if spec.tested:
        test, groups, note = _test(spec, counts, site_sums)
        tables |= {"log_rank": test, "log_rank_groups": groups}
        notes += [note] if note else []
        facts_out["log_rank_p"] = test.rows[0][3]
    unit = f" ({spec.grid.unit})" if spec.grid.unit else ""
    figure = Figure(
        "survival", "curves", f"Survival: {spec.formula}",
        {"group": "group", "time": "time", "estimate": "survival", "low": "low", "high": "high", "at_risk": "at_risk"},
        x_label=f"{spec.setting.dictionary[spec.response.time].label or spec.response.time}{unit}", y_label="Survival",
    )  # fmt: skip
    return Result("kaplan_meier", tables, facts_out, facts.sites, watch.dropped, (figure,), tuple(notes))


def visible(spec: KaplanMeierSpec, counts: Counts, group: int) -> Shown:
    """The times of a group up to the first hidden number or the first with fewer at risk than the minimum; on a grid of single
    times only those at which somebody left."""
    events, censored, at_risk = counts.events[group], counts.censored[group], counts.at_risk[group]
    left = int(np.flatnonzero(at_risk > 0)[-1]) + 1 if np.any(at_risk > 0) else 0
    fine = (at_risk >= spec.setting.minimum_persons) & ~np.isnan(events) & ~np.isnan(at_risk)
    started = int(np.argmax(at_risk > 0)) if np.any(at_risk > 0) else 0  # with delayed entry nobody may be at risk at first
    fine[:started] |= events[:started] == 0
    end = int(np.argmin(fine)) if not fine.all() else len(fine)
    cut = end < left or bool(np.isnan(at_risk).any())
    n = min(end, left) if not cut else end
    times = spec.grid.edges[:n]
    full = curve(events[:n], at_risk[:n], spec.level, spec.bands)
    keep = np.ones(n, dtype=bool)
    if spec.grid.event_level:
        keep = (events[:n] > 0) | (np.nan_to_num(censored[:n]) > 0)
        keep[:1] = True
    part = Curve(full.survival[keep], full.greenwood[keep], full.low[keep], full.high[keep])
    return Shown(group, times[keep], events[:n][keep], censored[:n][keep], at_risk[:n][keep], part, cut)


def _curves(spec: KaplanMeierSpec, shown: list[Shown]) -> ResultTable:
    rows: list[tuple[Any, ...]] = []
    for s in shown:
        label = spec.label(s.group)
        if spec.grid.edges[0] > 0:
            rows.append((label, 0.0, None, None, None, 1.0, 0.0, 1.0, 1.0))
        error = s.curve.survival * np.sqrt(s.curve.greenwood)
        rows += [
            (label, t, whole(n), whole(d), whole(c), e, se, low, high)
            for t, n, d, c, e, se, low, high in zip(
                s.times, s.at_risk, s.events, s.censored, s.curve.survival, error, s.curve.low, s.curve.high, strict=True
            )
        ]
    bands = f"{100 * spec.level:g} % bands on the {spec.bands} scale, Greenwood's variance"
    grid = f"on {spec.grid.words()}; `at_risk` just before each time, `survival` just after it"
    columns = ("group", "time", "at_risk", "events", "censored", "survival", "standard_error", "low", "high")
    return ResultTable.of("Kaplan–Meier survival", columns, rows, notes=(bands, grid), units=_units(spec, "time"))


def whole(value: float) -> int | None:
    """A count as it is, None where hidden."""
    return None if np.isnan(value) else round(float(value))


def _groups(spec: KaplanMeierSpec, shown: list[Shown], sizes: Floats, counts: Counts) -> ResultTable:
    columns = ["group", "persons", "persons_with_event", "median", "median_low", "median_high"]
    notes = ["median: the first time at which survival is one half or less, its interval from the bands"]
    if spec.restricted_mean is not None:
        columns += ["restricted_mean", "restricted_mean_error", "restricted_mean_low", "restricted_mean_high"]
        notes.append(f"restricted mean: survival averaged up to {spec.restricted_mean:g} {spec.grid.unit}".rstrip())
    rows = []
    for s in shown:
        medians = [first_at_half(s.times, line) for line in (s.curve.survival, s.curve.low, s.curve.high)]
        more = [] if spec.restricted_mean is None else _restricted_mean(spec, s, spec.restricted_mean)
        rows.append((spec.label(s.group), whole(sizes[s.group]), whole(counts.persons_with_event[s.group]), *medians, *more))
    units = _units(spec, *columns[3:])
    return ResultTable.of("Groups", columns, rows, notes=tuple(notes), units=units)


def _restricted_mean(spec: KaplanMeierSpec, s: Shown, until: float) -> list[float]:
    """Mean, error and interval; NaN where the curve is cut before, or ends before with persons still alive."""
    ends = float(s.times[-1]) if s.times.size else 0.0
    if until > ends and (s.cut or s.curve.survival[-1:].max(initial=0.0) > 0):
        return [float("nan")] * 4
    mean, error = restricted_mean(s.times, s.curve.survival, s.events, s.at_risk, until)
    reach = critical(spec.level) * error
    return [mean, error, mean - reach, mean + reach]


def _cuts(spec: KaplanMeierSpec, shown: list[Shown]) -> list[str]:
    out = []
    for s in shown:
        if s.cut:
            ends = f"ends at {s.times[-1]:g} {spec.grid.unit}".rstrip() if s.times.size else "is not shown"
            why = "are at risk" if spec.grid.event_level else "are at risk, have the event or are censored in an interval"
            fewer = f"afterwards fewer than {spec.setting.minimum_persons} persons {why}"
            out.append(f"the curve of {spec.label(s.group)} {ends}: {fewer}")
    return out


def _test(spec: KaplanMeierSpec, counts: Counts, site_sums: Aggregate | None) -> tuple[ResultTable, ResultTable, str]:
    strata, note = ("site", *spec.strata) if spec.local else spec.strata, ""
    k: int = counts.events.shape[0]
    if site_sums is not None:
        observed = np.asarray(site_sums["outcome"], dtype=np.float64)[:, 1]
        expected = np.asarray(site_sums["expected"], dtype=np.float64)
        covariance = unpacked(site_sums["covariance"], k)
        if np.isnan(observed).any():
            note = "the log-rank test is not shown: too few persons of a group have, or have not, the event"
    else:
        events, at_risk = counts.strata_events, counts.strata_at_risk
        holes = np.asarray(np.isnan(events + at_risk).reshape(-1, events.shape[-1]).any(axis=0))
        until = int(np.argmax(holes)) if holes.any() else holes.size
        if until < holes.size:
            note = "the log-rank test is not shown: too few persons leave in its first interval"
            if until > 0:
                note = f"the log-rank test counts events up to {spec.grid.edges[until - 1]:g} {spec.grid.unit}".rstrip()
                note += ": an interval after it has too few persons"
        observed, expected, covariance = log_rank_sums(events[..., :until], at_risk[..., :until])
        if until == 0:
            observed = np.full(k, np.nan)
    if np.isnan(observed).any():
        expected, covariance = np.full(k, np.nan), np.zeros((k, k))
    found = log_rank(observed, expected, covariance)
    row = ("log-rank", found.statistic, found.freedom or None, found.p_value, ", ".join(strata) or None)
    test = ResultTable.of("Log-rank test", ("test", "chi_squared", "freedom", "p_value", "strata"), [row])
    rows = [(spec.label(g), whole(observed[g]), expected[g]) for g in range(k)]
    return test, ResultTable.of("Events observed and expected", ("group", "observed", "expected"), rows), note


def _units(spec: KaplanMeierSpec, *columns: str) -> dict[str, str]:
    return dict.fromkeys(columns, spec.grid.unit) if spec.grid.unit else {}
