"""From a converged fit to tables: raw coefficients, tests, intervals, ratios, and what differs between sites."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fivefold.algorithms.cohort import Facts, Watch
from fivefold.algorithms.design import Design, Scaling, transform
from fivefold.algorithms.glm_families import FAMILIES, Floats, log_likelihood
from fivefold.algorithms.glm_newton import Fit
from fivefold.algorithms.glm_spec import GlmSpec
from fivefold.algorithms.numerics import chi_square_tail, critical, two_sided
from fivefold.protocol.results import Figure, Result, ResultTable

LARGEST_EXPONENT = 700.0
WORDS = {"odds_ratio": "Odds ratio", "rate_ratio": "Rate ratio", "difference": "Difference"}


@dataclass(frozen=True)
class Estimates:
    """Raw coefficients (p,) and their covariance (p, p)."""

    names: tuple[str, ...]
    values: Floats
    covariance: Floats

    @property
    def errors(self) -> Floats:
        return np.asarray(np.sqrt(np.diag(self.covariance)))


@dataclass(frozen=True)
class SiteModel:
    """One site's own model: its rows (the sum of frequency weights), and its fit on the scaled columns."""

    site: str
    rows: float
    fit: Fit


@dataclass(frozen=True)
class LastRound:
    """What the last round found: the fits of the model and of the model without covariates, the log-likelihood of a perfect
    fit, and the sum of the weights (None without)."""

    main: Fit
    null: Fit
    saturated: float
    weight: float | None


def estimates(model: Design, constants: Scaling, unit: tuple[float, float], fit: Fit, dispersion: float) -> Estimates:
    """Raw coefficients from those of the scaled columns and the scaled response y = unit[0] + unit[1] * scaled y.

    `dispersion` is of the raw response.
    """
    assert fit.inverse is not None
    back = np.linalg.inv(transform(model, constants))
    values = back @ (fit.beta * unit[1])
    if model.intercept is not None:
        values[model.intercept] += unit[0]
    return Estimates(model.names, values, dispersion * (back @ fit.inverse @ back.T))


def coefficient_table(found: Estimates, confidence: float, degrees: float | None) -> ResultTable:
    """Estimate, standard error, statistic (t with `degrees`, else z), p and interval of each column."""
    values, errors = found.values, found.errors
    with np.errstate(divide="ignore", invalid="ignore"):
        statistic = values / errors
    reach = critical(confidence, degrees) * errors
    p = two_sided(statistic, degrees)
    statistic = np.where(np.isfinite(statistic), statistic, np.nan)  # a perfect fit has no standard error to divide by
    rows = zip(found.names, values, errors, statistic, p, values - reach, values + reach, strict=True)
    letter = "z" if degrees is None else "t"
    return ResultTable.of(
        "Coefficients", ("term", "estimate", "standard_error", letter, "p", "low", "high"), tuple(rows),
        notes=(f"low and high bound a {100 * confidence:g} % interval",),
    )  # fmt: skip


def effect_table(coefficients: ResultTable, kind: str, constant: str | None) -> ResultTable:
    """What a unit of each covariate does: differences, or ratios exp(coefficient); without the intercept."""
    change = _exp if kind != "difference" else float
    numbers = [map(change, coefficients.numbers(c)) for c in ("estimate", "low", "high")]
    rows = [r for r in zip(coefficients.column("term"), *numbers, coefficients.column("p"), strict=True) if r[0] != constant]
    return ResultTable.of(f"{WORDS[kind]}s", ("term", kind, "low", "high", "p"), rows, notes=coefficients.notes)


def _exp(value: float) -> float:
    return float(np.exp(min(value, LARGEST_EXPONENT)))


def result_of(
    spec: GlmSpec, found: Facts, watch: Watch, model: Design, constants: Scaling, unit: tuple[float, float], last: LastRound,
    extra: Mapping[str, ResultTable], notes: Sequence[str],
) -> Result:  # fmt: skip
    """The result of a converged model."""
    family, gaussian = FAMILIES[spec.family], spec.family == "gaussian"
    square, main, null = unit[1] ** 2, last.main, last.null
    rows = found.rows if last.weight is None or spec.weights_are != "frequency" else round(last.weight)
    deviance, degrees = main.deviance * square, rows - model.width
    dispersion = deviance / degrees if gaussian else 1.0
    likelihood = log_likelihood(spec.family, deviance, last.saturated, rows)
    found_raw = estimates(model, constants, unit, main, dispersion)
    table = coefficient_table(found_raw, spec.confidence, degrees if gaussian else None)
    kind = family.ratio or "difference"
    constant = model.names[model.intercept] if model.intercept is not None else None
    effects = effect_table(table, kind, constant)
    facts = found.as_facts() | {
        "parameters": model.width,
        "degrees_of_freedom": degrees,
        "deviance": deviance,
        "null_deviance": null.deviance * square,
        "log_likelihood": likelihood,
        "aic": None if likelihood is None else 2 * model.width - 2 * likelihood,
        "dispersion": dispersion,
        "iterations": main.evaluated,
        "converged": True,
        "numbers_opened": watch.numbers,
    }
    if last.weight is not None:
        facts["sum_of_weights"] = last.weight
        notes = (*notes, f"weighted by {spec.weights} ({spec.weights_are} weights)")
    figures = []
    if effects.rows:
        mapping = {"label": "term", "estimate": kind, "low": "low", "high": "high"}
        figures.append(Figure("forest", "effects", spec.formula.text, mapping, x_label=WORDS[kind], log_x=kind != "difference"))
    if "heterogeneity" in extra:
        mapping = {"label": "term_at_site", "estimate": "estimate", "low": "low", "high": "high"}
        figures.append(Figure("forest", "site_estimates", f"{spec.formula.text}, by site", mapping, x_label="Coefficient"))
    if found.rows > found.persons:
        notes = (*notes, "some persons have several rows; the standard errors take rows as independent")
    return Result(
        "glm", {"coefficients": table, "effects": effects, **extra}, facts, found.sites, watch.dropped, tuple(figures),
        (f"family {spec.family}; complete cases", *notes, *watch.notes()),
    )  # fmt: skip


def unfinished(spec: GlmSpec, found: Facts, watch: Watch) -> Result:
    """The result of a model that was asked to stop before it converged: who was in it, and no estimate."""
    facts: dict[str, Any] = found.as_facts() | {"converged": False, "numbers_opened": watch.numbers}
    note = "the run was stopped before the model converged, so there are no estimates"
    return Result("glm", {}, facts, found.sites, watch.dropped, (), (note, *watch.notes()))


# ---- between sites --------------------------------------------------------------------------------------------------
def heterogeneity(
    spec: GlmSpec, model: Design, constants: Scaling, unit: tuple[float, float], sites: Sequence[SiteModel]
) -> dict[str, ResultTable]:
    """Each site's own estimates, and for each coefficient the inverse-variance mean, Cochran's Q, I² and tau² over sites."""
    reach = critical(spec.confidence)
    each = []
    for one in sites:
        degrees = one.rows - model.width
        dispersion = one.fit.deviance * unit[1] ** 2 / degrees if spec.family == "gaussian" else 1.0
        each.append(estimates(model, constants, unit, one.fit, dispersion))
    rows = [
        (f"{name} at {one.site}", name, one.site, e.values[j], e.errors[j], e.values[j] - reach * e.errors[j],
         e.values[j] + reach * e.errors[j])
        for j, name in enumerate(model.names) for one, e in zip(sites, each, strict=True)
    ]  # fmt: skip
    columns = ("term_at_site", "term", "site", "estimate", "standard_error", "low", "high")
    tables = {"site_estimates": ResultTable.of("Estimates of each site's own model", columns, rows)}
    if len(sites) >= 2:
        values, errors = np.array([e.values for e in each]), np.array([e.errors for e in each])
        tables["heterogeneity"] = _pooled(model.names, values, errors, spec.confidence)
    return tables


def _pooled(names: Sequence[str], values: Floats, errors: Floats, confidence: float) -> ResultTable:
    """Values and errors have shape (sites, p). Cochran (1954); Higgins and Thompson (2002); DerSimonian and Laird (1986)."""
    weight = 1.0 / errors**2
    total = weight.sum(axis=0)
    mean = (weight * values).sum(axis=0) / total
    q = (weight * (values - mean) ** 2).sum(axis=0)
    degrees = len(values) - 1
    i_squared = np.where(q > degrees, 100.0 * (q - degrees) / np.where(q > 0, q, 1.0), 0.0)
    tau_squared = np.maximum(q - degrees, 0.0) / (total - (weight**2).sum(axis=0) / total)
    error = 1.0 / np.sqrt(total)
    reach = critical(confidence) * error
    p = chi_square_tail(q, degrees)
    rows = [
        (n, mean[j], error[j], mean[j] - reach[j], mean[j] + reach[j], q[j], degrees, p[j], i_squared[j], tau_squared[j])
        for j, n in enumerate(names)
    ]
    columns = ("term", "pooled", "standard_error", "low", "high", "q", "degrees", "p", "i_squared", "tau_squared")
    return ResultTable.of(
        "Heterogeneity between sites", columns, rows, units={"i_squared": "%"},
        notes=(f"inverse-variance means over {len(values)} sites; q is Cochran's",),
    )  # fmt: skip
