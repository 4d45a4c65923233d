"""From a fitted Cox model to tables: coefficients on the dictionary's own scale, tests, diagnostics, baseline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fivefold.algorithms import cox_diagnostics, cox_sums
from fivefold.algorithms.cohort import Watch
from fivefold.algorithms.cox_diagnostics import Proportionality
from fivefold.algorithms.cox_spec import CoxSpec
from fivefold.algorithms.cox_sums import Floats, Likelihood, RiskSums
from fivefold.algorithms.cox_tally import Tally, time_transforms
from fivefold.algorithms.design import Scaling, column_bounds, level_label, transform
from fivefold.algorithms.numerics import chi_square_tail, critical, two_sided, unpacked
from fivefold.protocol.questions import Aggregate
from fivefold.protocol.results import Figure, Result, ResultTable

COEFFICIENTS = (
    "term", "coefficient", "hazard_ratio", "standard_error", "robust_error", "z", "p_value", "low", "high", "ratio_low",
    "ratio_high",
)  # fmt: skip


@dataclass(frozen=True)
class Fit:
    """Where the fit ended: `gamma` on scaled columns, the likelihood and inverse information, the risk sums (on a grid), the
    likelihood without covariates, and the aggregates of the last round by purpose."""

    tally: Tally
    gamma: Floats
    likelihood: Likelihood
    variance: Floats
    sums: RiskSums | None
    null: float
    totals: Mapping[str, Aggregate]
    iterations: int


def result(spec: CoxSpec, fit: Fit, watch: Watch) -> Result:
    """All tables, facts and figures."""
    back = _back(spec, fit)
    beta, variance = back @ fit.gamma, back @ fit.variance @ back.T
    robust = None
    if "robust" in fit.totals:
        squares = unpacked(fit.totals["robust"]["squares"], len(beta))
        robust = back @ fit.variance @ squares @ fit.variance @ back.T
    tables = {"coefficients": _coefficients(spec, beta, variance, robust), "tests": _tests(fit, beta, variance, robust)}
    facts = _facts(spec, fit) | {"numbers_opened": watch.numbers}
    notes = list(watch.notes())
    if "trend" in fit.totals:
        tables["proportional_hazards"] = _proportional_hazards(spec, fit, back)
    if "concordance" in fit.totals:
        index, sentence = _concordance(spec, fit)
        facts |= index
        notes.append(sentence)
    if spec.baseline and fit.sums is not None:
        tables["baseline"] = _baseline(spec, fit, fit.sums)
    if spec.grid is not None and spec.grid.censor_beyond:
        notes.append(f"times after {spec.grid.edges[-1]:g} {spec.grid.unit} count as censored then".replace("  ", " "))
    figures = [_forest(spec)]
    if "baseline" in tables:
        figures.append(_curve(spec))
    return Result("cox", tables, facts, fit.tally.facts.sites, watch.dropped, tuple(figures), tuple(notes))


def unfinished(tally: Tally, watch: Watch) -> Result:
    """The result of a model that was asked to stop before it converged: who was in it, and no estimate."""
    facts: dict[str, Any] = tally.facts.as_facts() | {"converged": False, "numbers_opened": watch.numbers}
    note = "the run was stopped before the model converged, so there are no estimates"
    return Result("cox", {}, facts, tally.facts.sites, watch.dropped, (), (note, *watch.notes()))


def _scaling(fit: Fit) -> Scaling:
    return Scaling(np.asarray(fit.tally.model["centre"]), np.asarray(fit.tally.model["scale"]))


def _back(spec: CoxSpec, fit: Fit) -> Floats:
    """B with β = B γ: from columns scaled to at most 1 to the dictionary's own units."""
    scaling = _scaling(fit)
    bounds = column_bounds(spec.design, spec.setting.dictionary, scaling)
    return np.asarray(np.linalg.solve(transform(spec.design, scaling), np.diag(1.0 / bounds)), dtype=np.float64)


def _coefficients(spec: CoxSpec, beta: Floats, variance: Floats, robust: Floats | None) -> ResultTable:
    model_error = np.sqrt(np.diag(variance))
    error = model_error if robust is None else np.sqrt(np.diag(robust))
    reach = critical(spec.level) * error
    z = beta / error
    rows: list[tuple[Any, ...]] = [
        (name, b, np.exp(b), s, None if robust is None else e, zz, p, b - r, b + r, np.exp(b - r), np.exp(b + r))
        for name, b, s, e, zz, p, r in zip(spec.design.names, beta, model_error, error, z, two_sided(z), reach, strict=True)
    ]
    columns = list(COEFFICIENTS)
    if robust is None:
        columns.remove("robust_error")
        rows = [r[:4] + r[5:] for r in rows]
    which = "standard errors" if robust is None else "robust errors, clustered by person,"
    return ResultTable.of(
        "Cox model: log hazard ratios per unit, hazard ratios and intervals", columns, rows,
        notes=(f"z, p-values and {100 * spec.level:g} % intervals rest on {which} and the normal distribution",),
    )  # fmt: skip


def _tests(fit: Fit, beta: Floats, variance: Floats, robust: Floats | None) -> ResultTable:
    p = len(beta)
    ratio = 2 * (fit.likelihood.value - fit.null)
    wald = float(beta @ np.linalg.solve(variance if robust is None else robust, beta))
    rows = [(name, value, p, float(chi_square_tail(value, p))) for name, value in (("likelihood ratio", ratio), ("Wald", wald))]
    return ResultTable.of("Tests of all coefficients together", ("test", "chi_squared", "freedom", "p_value"), rows)


def _facts(spec: CoxSpec, fit: Fit) -> dict[str, Any]:
    facts = fit.tally.facts.as_facts()
    facts |= {
        "ties": spec.ties,
        "strata": ", ".join((*(["site"] if spec.local else []), *spec.strata)) or None,
        "time_grid": spec.grid.words() if spec.grid else "none: each site on its own exact times",
        "iterations": fit.iterations,
        "converged": True,
        "log_likelihood": fit.likelihood.value,
        "log_likelihood_null": fit.null,
        "aic": 2 * len(fit.gamma) - 2 * fit.likelihood.value,
    }
    return facts


def _proportional_hazards(spec: CoxSpec, fit: Fit, back: Floats) -> ResultTable:
    rows: list[tuple[Any, ...]] = []
    p = len(fit.gamma)
    for transform_name, found in _trends(spec, fit, back).items():
        tails = chi_square_tail(found.each, np.ones(p))
        rows += [(n, transform_name, c, 1, t) for n, c, t in zip(spec.design.names, found.each, tails, strict=True)]
        rows.append(("all together", transform_name, found.together, p, float(chi_square_tail(found.together, p))))
    return ResultTable.of(
        "Proportional hazards: trend of scaled Schoenfeld residuals over time",
        ("term", "time", "chi_squared", "freedom", "p_value"), rows,
        notes=("a small p-value says that the hazard ratio changes with time (Grambsch and Therneau 1994)",),
    )  # fmt: skip


def _trends(spec: CoxSpec, fit: Fit, back: Floats) -> dict[str, Proportionality]:
    total = fit.totals["trend"]
    variance = back @ fit.variance @ back.T
    out: dict[str, Proportionality] = {}
    if fit.sums is None:
        events = int(np.rint(total["events"]))
        for k, name in enumerate(spec.transforms):
            first, second = np.asarray(total["transform"])[k]
            trend = np.asarray(total["residual_trend"])[k] - first / events * np.asarray(total["residual"])
            out[name] = _tested(trend, second - first**2 / events, events, variance, back)
        return out
    deaths = fit.tally.deaths
    mean = cox_sums.hazard(fit.sums, deaths, fit.tally.weight, spec.ties).mean
    events = int(deaths.sum())
    residual = np.asarray(total["event_plain"]) - deaths @ mean
    for k, (name, g) in enumerate(zip(spec.transforms, time_transforms(spec, fit.tally), strict=True)):
        centre = float(g @ deaths) / events
        trend = np.asarray(total["event_trend"])[k] - (g * deaths) @ mean - centre * residual
        out[name] = _tested(trend, float(deaths @ (g - centre) ** 2), events, variance, back)
    return out


def _tested(trend: Floats, spread: float, events: int, variance: Floats, back: Floats) -> Proportionality:
    """Residuals are of scaled columns, x = B'z, so their trend is taken to the dictionary's columns by the inverse of B'."""
    if spread <= 0:
        return Proportionality(np.full(len(trend), np.nan), float("nan"))
    return cox_diagnostics.proportionality(np.asarray(np.linalg.solve(back.T, trend)), spread, events, variance)


def _concordance(spec: CoxSpec, fit: Fit) -> tuple[dict[str, Any], str]:
    total = fit.totals["concordance"]
    if "pairs" in total:
        concordant, discordant, tied, blurred = (float(v) for v in total["pairs"])
        where = "pairs within one site and stratum"
    else:
        events, others = (np.asarray(total[f"score_{name}"], dtype=np.float64) for name in ("events", "others"))
        if np.isnan(events).any() or np.isnan(others).any():
            return {"concordance": None}, "concordance is not shown: a cell of its histogram has too few persons"
        integers = (np.rint(events).astype(np.int64), np.rint(others).astype(np.int64))
        concordant, discordant, tied = cox_diagnostics.pairs(*integers, fit.tally.cells.stratum)
        blurred = tied
        where = f"a histogram of {spec.concordance} score bins by event time"
    found = cox_diagnostics.concordance(concordant, discordant, tied, blurred)
    facts = {"concordance": found.value, "concordance_bound": found.bound, "comparable_pairs": found.pairs}
    if found.pairs == 0:
        return dict.fromkeys(facts, None), "concordance is not shown: no two persons can be compared"
    words = f"concordance {found.value:.4f} ± {found.bound:.4f} from {where}"
    return facts, f"{words}: pairs in one bin count one half, and the bound is theirs"


def _baseline(spec: CoxSpec, fit: Fit, sums: RiskSums) -> ResultTable:
    """Breslow's cumulative hazard at each event time with enough persons at risk, for a person whose scaled columns are 0."""
    assert spec.grid is not None
    cells, edges = fit.tally.cells, spec.grid.edges
    increments = fit.tally.weight / sums.s0
    rows: list[tuple[Any, ...]] = []
    cut = False
    for stratum in np.unique(cells.stratum):
        inside = np.flatnonzero(cells.stratum == stratum)
        label = _stratum_label(spec, int(stratum))
        cumulative = 0.0
        rows.append((label, 0.0, None, 0.0, 0.0, 1.0))
        for i in inside:
            if fit.tally.at_risk[i] < spec.setting.minimum_persons:
                cut = True
                break
            cumulative += float(increments[i])
            persons, time = round(float(fit.tally.at_risk[i])), edges[cells.time[i]]
            rows.append((label, time, persons, increments[i], cumulative, np.exp(-cumulative)))
    numbers = ", ".join(f"{n} = {c:.6g}" for n, c in zip(spec.design.numbers, _scaling(fit).centre, strict=True))
    notes = [f"for a person with {numbers or 'no number'} and the first code of each category"]
    if cut:
        notes.append(f"each curve ends before fewer than {spec.setting.minimum_persons} persons are at risk")
    columns = ("stratum", "time", "at_risk", "hazard", "cumulative_hazard", "survival")
    return ResultTable.of("Baseline hazard (Breslow)", columns, rows, notes=tuple(notes), units={"time": spec.grid.unit})


def _stratum_label(spec: CoxSpec, index: int) -> str:
    words = []
    for name in reversed(spec.strata):
        variable = spec.setting.dictionary[name]
        index, level = divmod(index, len(variable.levels))
        words.append(f"{name} = {level_label(variable, level)}")
    return ", ".join(reversed(words)) or "all"


def _forest(spec: CoxSpec) -> Figure:
    return Figure(
        "forest", "coefficients", spec.design.formula.text,
        {"label": "term", "estimate": "hazard_ratio", "low": "ratio_low", "high": "ratio_high"},
        x_label=f"Hazard ratio ({100 * spec.level:g} % interval)", log_x=True,
    )  # fmt: skip


def _curve(spec: CoxSpec) -> Figure:
    return Figure(
        "survival", "baseline", f"Baseline survival: {spec.design.formula.text}",
        {"group": "stratum", "time": "time", "estimate": "survival", "low": "survival", "high": "survival"},
        x_label="Time", y_label="Survival",
    )  # fmt: skip
