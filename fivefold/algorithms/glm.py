"""Generalised linear models by iteratively reweighted least squares: each iteration is one sum over sites.

McCullagh and Nelder, Generalized Linear Models (1989), section 2.5; with canonical links this is Newton's method, and the score
and the information over all rows are sums of the sites' own, so that the federated fit is the pooled fit. Conventions
(deviance, log-likelihood, AIC, dispersion 1 for counts) are those of statsmodels' GLM. Heterogeneity: Higgins and Thompson,
Statistics in Medicine 21:1539 (2002).

Rows are taken as independent. Columns are scaled by federated means first (`design.py`), which changes no result.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fivefold.algorithms.cohort import Facts, Watch, facts, persons_where, question, require_categories, require_outcome, select
from fivefold.algorithms.cohort import count as count_step
from fivefold.algorithms.design import Design, Scaling, column_bounds, design, matrix, scaling
from fivefold.algorithms.glm_families import FAMILIES, Family
from fivefold.algorithms.glm_newton import Fit, advance, refuse
from fivefold.algorithms.glm_noisy import moments, noisy_glm
from fivefold.algorithms.glm_noisy import score as noisy_score
from fivefold.algorithms.glm_results import LastRound, SiteModel, heterogeneity, result_of, unfinished
from fivefold.algorithms.glm_spec import GlmSpec, least_and_most_weight, local, most_offset, most_response, parse_glm
from fivefold.algorithms.method import Cost, Method
from fivefold.algorithms.numerics import packed, unpacked
from fivefold.errors import CategoryAbsent, NotConverged, TooFewPersons
from fivefold.protocol.questions import PERSONS, WEIGHTS, Aggregate, Array, Field, Rounds, Sum, site_step
from fivefold.protocol.results import Result, ResultTable
from fivefold.study.table import Table

ROUNDING = 1.000001
"""A sum in floating point may pass its bound by rounding."""


# ---- beside the rows ------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Rows:
    """A site's complete cases: scaled columns (rows, p), scaled response, offset and weights (rows,), and the table itself."""

    family: Family
    x: Array
    y: Array
    offset: Array
    weights: Array
    most: float
    cases: Table
    model: Design


def rows_of(
    table: Table, *, formula: str, family: str, variables: tuple[str, ...], offset: str, exposure: str, weights: str,
    subgroup: str, sites: tuple[str, ...], centre: Array, scale: Array, unit: Array,
) -> Rows:  # fmt: skip
    """The rows of an analysis, ready for a step."""
    model = design(formula, table.dictionary, sites)
    cases = select(table, variables, subgroup)
    name = model.formula.outcome
    y = (cases[name] - unit[0]) / unit[1]
    shift = cases[offset] / unit[1] if offset else np.zeros(len(cases))
    shift = shift + np.log(cases[exposure]) if exposure else shift
    weight = cases[weights] if weights else np.ones(len(cases))
    most = float(table.variable(name).maximum or 1.0)
    return Rows(FAMILIES[family], matrix(model, cases, Scaling(centre, scale)), y, shift, weight, most, cases, model)


@site_step("glm.score_and_information")
def score_and_information(table: Table, *, beta: Array, null: float, frequency: bool, **data: Any) -> Mapping[str, Array]:
    """At coefficients `beta` (p,): score X'(y - mu), information X'WX (upper triangle) and deviance; at the constant `null` the
    same three of the model without covariates; the log-likelihood of a perfect fit; the rows whose mean was cut. A row's own
    weight multiplies all but the last."""
    r = rows_of(table, **data)
    mu, weight, deviance, cut = r.family.evaluate(r.y, r.x @ beta + r.offset, r.most)
    mu0, weight0, deviance0, _ = r.family.evaluate(r.y, null + r.offset, r.most)
    w, precision = r.weights, data["weights"] and not frequency
    weight = w * weight
    more = {"total_weight": np.asarray(w.sum())} if data["weights"] else {}
    # A Gaussian's variance is the dispersion over the precision weight, whose logarithm stands in the likelihood.
    logs = np.log(w).sum() / 2 if precision and r.family.name == "gaussian" else 0.0
    return more | {
        "score": r.x.T @ (w * (r.y - mu)),
        "information": packed(r.x.T @ (weight[:, None] * r.x)),
        "deviance": np.asarray(w @ deviance),
        "null": np.array([w @ (r.y - mu0), w @ weight0, w @ deviance0]),
        "saturated": np.asarray(w @ r.family.saturated(r.y) + logs),
        "cut": np.asarray(cut),
        WEIGHTS: weight,  # the gate refuses a steep beta, which weighs all but a few persons away
        PERSONS: r.cases.person,
    }


@site_step("glm.by_site")
def by_site(table: Table, *, betas: Array, layout: tuple[str, ...], minimum: int, **data: Any) -> Mapping[str, Array]:
    """Score, information, deviance and weight of each site's own model at its own coefficients `betas` (sites, p).

    A site fills its own row of `layout`, and leaves it at zero, rows too, where a category or an outcome of its rows has fewer
    than `minimum` persons.
    """
    r = rows_of(table, **data)
    s, p = len(layout), r.x.shape[1]
    out: dict[str, Array] = {"score": np.zeros((s, p)), "information": np.zeros((s, p * (p + 1) // 2)), "deviance": np.zeros(s)}
    out["rows"] = np.zeros(s, dtype=np.int64)
    if data["weights"]:
        out |= {"total_weight": np.zeros(s), WEIGHTS: r.weights, PERSONS: r.cases.person}  # no person may outweigh the others
    if table.site in layout and enough_everywhere(r, minimum):
        i = layout.index(table.site)
        mu, weight, deviance, _ = r.family.evaluate(r.y, r.x @ betas[i] + r.offset, r.most)
        out["deviance"][i] = r.weights @ deviance
        out["score"][i] = r.x.T @ (r.weights * (r.y - mu))
        out["information"][i] = packed(r.x.T @ ((r.weights * weight)[:, None] * r.x))
        out["rows"][i] = len(r.y)
        if data["weights"]:
            out["total_weight"][i] = r.weights.sum()
    return out


def enough_everywhere(r: Rows, minimum: int) -> bool:
    """Every category of the model, and each binomial outcome, has this many persons among the site's rows."""
    groups = [r.cases[c] == i for c in r.model.categories for i in range(len(r.cases.variable(c).levels))]
    groups += [r.y > 0, r.y == 0] if r.family.name == "binomial" else []
    return r.cases.persons >= minimum and all(persons_where(r.cases, g) >= minimum for g in groups)


# ---- where no row is ------------------------------------------------------------------------------------------------
def glm(spec: GlmSpec) -> Rounds:
    """Count, then iterate to convergence over the sites that answer.

    Where the survivors change, the count is asked again together with the next iteration, so that figures and fit are of the
    same sites: those of the last round.
    """
    if spec.setting.differential_privacy is not None:
        return (yield from noisy_glm(spec))
    watch = Watch(spec.setting)
    count = question(
        spec.setting, spec.variables, spec.subgroup, outcome=spec.response if spec.family == "binomial" else "",
        crosses=spec.design(spec.setting.sites).crosses, numbers=spec.numbers,
    )  # fmt: skip
    (total,) = yield (count,)
    survivors = watch.saw(total)
    found = checked(spec, facts(total, count, spec.setting))
    frame = Frame.of(spec, found, survivors)
    fits = start(frame)
    stop = total.stop_requested
    for _ in range(spec.max_iterations):
        if stop:
            return unfinished(spec, found, watch)
        stale = survivors != found.sites
        answers = yield (*ask(frame, fits), *((count,) if stale else ()))
        before, survivors = survivors, watch.saw(*answers)
        stop = answers[0].stop_requested
        if stale:
            found = checked(spec, facts(answers[-1], count, spec.setting))
        if frame.model.sites and survivors != frame.model.sites:
            frame = Frame.of(spec, found, survivors)  # a site that does not answer would leave an empty column
            fits = start(frame)
            continue
        if survivors != before:
            fits = fits.elsewhere()
        fits = step(frame, fits, answers)
        if survivors == found.sites and fits.converged(survivors):
            return finished(frame, fits, found, watch, answers[0])
    raise NotConverged(f"the model `{spec.formula.text}` did not converge in {spec.max_iterations} iterations")


@dataclass(frozen=True)
class Frame:
    """What stays as it is over the iterations: the columns, their scaling, the response's centre and unit, all public."""

    spec: GlmSpec
    model: Design
    constants: Scaling
    local: GlmSpec
    local_model: Design
    local_constants: Scaling
    unit: tuple[float, float]
    mean: float
    offset: float

    @classmethod
    def of(cls, spec: GlmSpec, found: Facts, sites: tuple[str, ...]) -> Frame:
        dictionary = spec.setting.dictionary
        mean = dict(zip(spec.numbers, found.mean, strict=True))
        deviation = dict(zip(spec.numbers, found.deviation, strict=True))

        def scaled(model: Design) -> Scaling:
            centres = np.array([mean[n] for n in model.numbers])
            return scaling(model, dictionary, centres, np.array([deviation[n] for n in model.numbers]))

        own = local(spec) if spec.heterogeneity else spec
        model, local_model = spec.design(sites), own.design(())
        unit, centre = (0.0, 1.0), 0.5
        if spec.family == "gaussian":
            variable = dictionary[spec.response]
            half = (float(variable.maximum or 0) - float(variable.minimum or 0)) / 2
            # Without an intercept a centred response would be another model.
            middle = float(mean[spec.response]) if model.intercept is not None and local_model.intercept is not None else 0.0
            unit, centre = (middle, max(float(deviation[spec.response]), 1e-3 * half)), 0.0
        elif spec.family == "poisson":
            centre = float(mean[spec.response])
        elif found.outcome is not None:
            centre = found.outcome[1] / sum(found.outcome)
        offset = float(mean[spec.offset]) if spec.offset else 0.0
        offset += float(np.log(mean[spec.exposure])) if spec.exposure else 0.0
        return cls(spec, model, scaled(model), own, local_model, scaled(local_model), unit, centre, offset)

    def data(self, *, own: bool) -> dict[str, Any]:
        """The arguments that `rows_of` reads."""
        spec, constants = (self.local, self.local_constants) if own else (self.spec, self.constants)
        return {
            "formula": spec.formula.text, "family": spec.family, "variables": self.spec.variables, "offset": spec.offset,
            "exposure": spec.exposure, "weights": spec.weights, "subgroup": spec.subgroup,
            "sites": () if own else self.model.sites, "centre": constants.centre, "scale": constants.scale,
            "unit": np.array(self.unit),
        }  # fmt: skip


@dataclass(frozen=True)
class Fits:
    """The model, the model without covariates and (if wanted) each site's own model, on their way together."""

    main: Fit
    null: Fit
    sites: Mapping[str, Fit]
    rows: Mapping[str, float]
    """Of each site's own model: its rows, or the sum of its frequency weights."""

    def converged(self, survivors: tuple[str, ...]) -> bool:
        """All of them, where a site's own model counts only while the site answers."""
        own = (f for site, f in self.sites.items() if site in survivors)
        return self.main.converged and self.null.converged and all(f.converged or f.failed for f in own)

    def elsewhere(self) -> Fits:
        """The same points over other sites. A site's own model does not depend on the others."""
        return replace(self, main=self.main.elsewhere(), null=self.null.elsewhere())


def start(frame: Frame) -> Fits:
    """Constants at the federated means of response and offset, slopes at 0."""
    spec = frame.spec
    centre = FAMILIES[spec.family].link(frame.mean) - frame.offset / frame.unit[1]
    own = {s: Fit(_constant(frame.local_model, centre)) for s in spec.setting.sites} if spec.heterogeneity else {}
    return Fits(Fit(_constant(frame.model, centre)), Fit(np.array([centre])), own, {})


def _constant(model: Design, value: float) -> Array:
    beta = np.zeros(model.width)
    if model.intercept is not None:
        beta[model.intercept] = value
    return beta


def ask(frame: Frame, fits: Fits) -> tuple[Sum, ...]:
    """One iteration: the model and its null model, and each site's own model where heterogeneity is wanted."""
    beta, null = fits.main.beta, float(fits.null.beta[0])
    main = Sum(
        score_and_information,
        _fields(frame, frame.model, frame.constants, beta, null),
        {**frame.data(own=False), "beta": beta, "null": null, "frequency": frame.spec.weights_are == "frequency"},
        ("site_totals",) if frame.model.sites else (),
    )
    if not frame.spec.heterogeneity:
        return (main,)
    layout = tuple(fits.sites)
    betas = np.array([f.beta for f in fits.sites.values()])
    steepest = betas[int(np.abs(betas).sum(axis=1).argmax())]
    own = _fields(frame, frame.local_model, frame.local_constants, np.abs(betas).max(axis=0), float(np.abs(steepest).max()))
    shapes = {f.name: Field(f.name, f.kind, f.bound, (len(layout), *f.shape)) for f in own}
    rows = Field("rows", "count", float(frame.spec.setting.max_rows_per_site), (len(layout),))
    weighed = (shapes["total_weight"],) if frame.spec.weights else ()
    fields = (shapes["score"], shapes["information"], shapes["deviance"], rows, *weighed)
    minimum = frame.spec.setting.minimum_persons
    arguments = {**frame.data(own=True), "betas": betas, "layout": layout, "minimum": minimum}
    return (main, Sum(by_site, fields, arguments, ("site_totals",)))


def _fields(frame: Frame, model: Design, constants: Scaling, beta: Array, null: float) -> tuple[Field, ...]:
    """Every field's bound, from the dictionary's ranges and the coefficients asked about."""
    spec, p = frame.spec, model.width
    n = spec.setting.max_rows_per_site * ROUNDING
    columns = column_bounds(model, spec.setting.dictionary, constants)
    widest = float(columns.max(initial=1.0))
    family, shift = FAMILIES[spec.family], most_offset(spec, frame.unit[1])
    most = most_response(spec, *frame.unit)
    one = family.bounds(most, float(np.abs(beta) @ columns) + shift)
    none = family.bounds(most, abs(null) + shift)
    least, heaviest = least_and_most_weight(spec)
    logs = n * max(abs(float(np.log(least))), abs(float(np.log(heaviest)))) / 2
    w = n * heaviest
    fields = (
        Field("score", "real", w * one.residual * widest, (p,)),
        Field("information", "real", w * one.weight * widest**2, (p * (p + 1) // 2,)),
        Field("deviance", "real", w * one.deviance),
        Field("null", "real", w * max(none.residual, none.weight, none.deviance), (3,)),
        Field("saturated", "real", w * one.saturated + logs),
        Field("cut", "count", float(spec.setting.max_rows_per_site)),
    )
    return (*fields, Field("total_weight", "real", w)) if spec.weights else fields


def step(frame: Frame, fits: Fits, answers: tuple[Aggregate, ...]) -> Fits:
    """The next coefficients. Raises `Collinear` or `Separation` for the model; a site's own model just stays out."""
    spec, total = frame.spec, answers[0]
    bounded = spec.family == "gaussian"

    def next_of(fit: Fit, score: Array, information: Array, deviance: Array) -> Fit:
        if fit.converged or fit.failed:
            return fit
        matrix_ = unpacked(information, len(fit.beta))
        return advance(fit, score, matrix_, float(deviance), spec.tolerance, bounded=bounded)

    # The model itself is evaluated in every round: survivors may have changed after it had converged.
    main = next_of(replace(fits.main, converged=False), total["score"], total["information"], total["deviance"])
    refuse(main, frame.model.columns, spec.formula.text)
    null = next_of(replace(fits.null, converged=False), total["null"][:1], total["null"][1:2], total["null"][2])
    if main.converged and int(total["cut"]):
        raise NotConverged(f"the model `{spec.formula.text}` fits means far above the range of {spec.response!r}")
    sites, rows = dict(fits.sites), dict(fits.rows)
    if spec.heterogeneity:
        own = answers[1]
        for i, site in enumerate(sites):
            if site in own.sites and int(own["rows"][i]) > frame.local_model.width:
                sites[site] = next_of(sites[site], own["score"][i], own["information"][i], own["deviance"][i])
                rows[site] = int(own["rows"][i]) if spec.weights_are != "frequency" else round(float(own["total_weight"][i]))
            elif site in own.sites:
                sites[site] = replace(sites[site], left_out=True)
    return Fits(main, null, sites, rows)


def checked(spec: GlmSpec, found: Facts) -> Facts:
    """Persons in every category, and of either outcome: else a sentence that names the variable."""
    model = spec.design(spec.setting.sites)
    if spec.family == "binomial":
        require_outcome(found, spec.response, spec.setting)
    require_categories(found, model, spec.setting)
    if found.rows <= model.width - len(model.sites) + len(found.sites if model.sites else ()):
        raise TooFewPersons(f"the model `{spec.formula.text}` has as many coefficients as rows")
    if spec.family == "poisson" and not dict(zip(spec.numbers, found.mean, strict=True))[spec.response] > 0:
        raise CategoryAbsent(f"every count of {spec.response!r} is 0", variable=spec.response)
    return found


def finished(frame: Frame, fits: Fits, found: Facts, watch: Watch, total: Aggregate) -> Result:
    """The result of the last round."""
    tables: dict[str, ResultTable] = {}
    notes: list[str] = []
    if frame.spec.heterogeneity:
        present = [SiteModel(s, fits.rows[s], f) for s, f in fits.sites.items() if s in found.sites and f.converged]
        tables = heterogeneity(frame.spec, frame.local_model, frame.local_constants, frame.unit, present)
        left_out = [s for s in found.sites if s not in {m.site for m in present}]
        if left_out:
            notes.append(f"no model of its own at {', '.join(left_out)}: too few persons in a category, or no finite estimate")
    parts = LastRound(
        fits.main, fits.null, float(total["saturated"]), float(total["total_weight"]) if frame.spec.weights else None
    )
    return result_of(frame.spec, found, watch, frame.model, frame.constants, frame.unit, parts, tables, notes)


def cost(spec: GlmSpec) -> Cost:
    """Rounds and numbers a round, at most."""
    model = spec.design(spec.setting.sites)
    p, variables = model.width, len(spec.variables)
    if spec.setting.differential_privacy is not None:
        width = (p + 1) * (p + 2) // 2
        return Cost(1 if spec.family == "gaussian" else spec.max_iterations, width)
    count = 5 + variables + 2 * len(spec.numbers)
    for cross in model.crosses:
        sizes = [len(spec.setting.sites) if v == "site" else len(spec.setting.dictionary[v].levels) for v in cross]
        count += int(np.prod(sizes))
    weighed = 1 if spec.weights else 0
    iteration = p + p * (p + 1) // 2 + 6 + weighed
    if spec.heterogeneity:
        q = local(spec).design(()).width
        iteration += len(spec.setting.sites) * (q + q * (q + 1) // 2 + 2 + weighed)
    return Cost(spec.max_iterations + 1, count + iteration)


METHOD = Method(
    name="glm",
    title="Generalised linear model",
    paper="McCullagh P, Nelder JA. Generalized Linear Models. 2nd ed. Chapman & Hall 1989, section 2.5",
    parse=parse_glm,
    rounds=glm,
    steps=(count_step, score_and_information, by_site, moments, noisy_score),
    cost=cost,
    protects=("person",),
)
