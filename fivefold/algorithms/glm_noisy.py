"""Generalised linear models with differential privacy of persons: noisy sums, and standard errors that hold their noise.

Covariates (and a numeric response) are moved into the public range that `clip` gives, the dictionary's where it gives none, and
scaled to [-1, 1]; a person's rows share the weight of one. So each number of a sum changes by at most 1 with a person, and a
field of d numbers by √d in the L2 norm.

Gaussian: one question, the moments of (x, y), from which all else follows (Vu and Slavković, 2009, "Differential privacy for
clinical trial data"; Wang, UAI 2018, "Revisiting differentially private linear regression"). With noise E on the moments the
estimate moves by A^-1(e_xy - E_xx β) to first order. Binomial and Poisson: a fixed number of Newton steps, each from a noisy
score and information; the later half are linear equations in the coefficients and are solved together, so that their noise
averages. Standard errors add up sampling, A^-1, and noise, A^-1 N A^-1 (of m steps with noise e_t on the score and E_t on the
information, β moves by A^-1 mean(e_t + E_t(β_t - β)) to first order, β_t being where step t was asked). Where the noise reaches
far into the information, or the steps still wander, that expansion does not hold, and none are given.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fivefold.algorithms.cohort import Floats, Watch, select
from fivefold.algorithms.design import Design, Scaling, design, matrix, transform
from fivefold.algorithms.glm_families import FAMILIES
from fivefold.algorithms.glm_results import WORDS, Estimates, coefficient_table, effect_table
from fivefold.algorithms.glm_spec import GlmSpec
from fivefold.algorithms.numerics import packed, unpacked
from fivefold.algorithms.statistics_noisy import on_grid, per_person
from fivefold.privacy.dp.shares import deviation, noisy
from fivefold.protocol.questions import Array, Field, Rounds, Sum, site_step
from fivefold.protocol.results import Figure, Result, ResultTable
from fivefold.study.table import Table

ROUNDING = 1e-9
CLEAR = 10.0
"""Errors are given where the least eigenvalue of the information is this many times σ·√p, σ being its noise. The spectral norm
of the noise is about 2σ·√p, so that four fifths of the information are certain."""
NEAR = 0.5
"""Errors of Newton's steps are given where all that are solved together were asked within this of the estimate: a scaled
coefficient moves the linear predictor by at most as much, over which the information changes little."""
LONGEST = 2.0
"""A Newton step moves no scaled coefficient further."""


# ---- beside the rows ------------------------------------------------------------------------------------------------
def private_rows(
    table: Table, *, formula: str, variables: tuple[str, ...], subgroup: str, clip: Mapping[str, tuple[float, float]],
    centre: Array, scale: Array, unit: Array,
) -> tuple[Floats, Floats, Floats]:  # fmt: skip
    """Columns (rows, p) and response (rows,), each within [-1, 1] but for a count's response, and the rows' weights."""
    model = design(formula, table.dictionary)
    cases = select(table, variables, subgroup)
    columns = {n: np.clip(cases[n], *clip[n]) if n in clip else cases[n] for n in variables}
    inside = Table(cases.site, cases.dictionary, columns, cases.person)
    y = (inside[model.formula.outcome] - unit[0]) / unit[1]
    return matrix(model, inside, Scaling(np.asarray(centre), np.asarray(scale))), y, per_person(cases)


def added(parts: Floats, most: int) -> Array:
    """Sums over rows (rows, d) of numbers in [-1, 1], exact in any order."""
    return np.asarray(on_grid(np.clip(parts, -1.0, 1.0), most).sum(axis=0))


@site_step("glm.noisy_moments")
def moments(table: Table, *, most: int, **data: Any) -> Mapping[str, Array]:
    """The upper triangle of Σ v v', v = (x, y) scaled: shape ((p + 1)(p + 2)/2,)."""
    x, y, weight = private_rows(table, **data)
    v = np.column_stack([x, y])
    return {"moments": added(weight[:, None] * packed(v[:, :, None] * v[:, None, :]), most)}


@site_step("glm.noisy_score")
def score(table: Table, *, beta: Array, family: str, ceiling: float, most: int, **data: Any) -> Mapping[str, Array]:
    """At coefficients `beta` (p,): the score over the largest residual, and the information over the largest weight, as public
    as the family and the response's `ceiling`, at which means are cut."""
    x, y, weight = private_rows(table, **data)
    mu, variance, _, _ = FAMILIES[family].evaluate(y, np.clip(x @ beta, -700, 700), ceiling)
    mu, variance = np.minimum(mu, ceiling), np.minimum(variance, ceiling)
    residual, steepness = ((y - mu) / ceiling)[:, None], (variance / (heaviest(family, ceiling)))[:, None]
    return {
        "score": added(weight[:, None] * residual * x, most),
        "information": added(weight[:, None] * steepness * packed(x[:, :, None] * x[:, None, :]), most),
    }


def heaviest(family: str, ceiling: float) -> float:
    """The largest weight of a row."""
    return 0.25 if family == "binomial" else ceiling


# ---- where no row is ------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Frame:
    """All public: columns, scaling, centre and unit of the response, its ceiling, the ranges that numbers are moved into."""

    spec: GlmSpec
    model: Design
    constants: Scaling
    unit: tuple[float, float]
    ceiling: float
    clip: Mapping[str, tuple[float, float]]

    @classmethod
    def of(cls, spec: GlmSpec) -> Frame:
        model = spec.design(spec.setting.sites)
        clip = {n: spec.range_of(n) for n in spec.numbers}
        low, high = (np.array([clip[n][i] for n in model.numbers], dtype=np.float64) for i in (0, 1))
        constants = Scaling((high + low) / 2, (high - low) / 2)
        if not model.closed:
            constants = Scaling(np.zeros_like(low), np.maximum(np.abs(low), np.abs(high)))
        unit, ceiling = (0.0, 1.0), 1.0
        if spec.family == "gaussian":
            bottom, top = clip[spec.response]
            centred = model.intercept is not None
            unit = ((top + bottom) / 2, (top - bottom) / 2) if centred else (0.0, max(abs(top), abs(bottom)))
        elif spec.family == "poisson":
            ceiling = max(clip[spec.response][1], 1.0)
        return cls(spec, model, constants, unit, ceiling, clip)

    @property
    def data(self) -> dict[str, Any]:
        """What `private_rows` reads."""
        spec = self.spec
        return {
            "formula": spec.formula.text, "variables": spec.variables, "subgroup": spec.subgroup, "clip": self.clip,
            "centre": self.constants.centre, "scale": self.constants.scale, "unit": np.array(self.unit),
            "most": spec.setting.max_rows_per_site,
        }  # fmt: skip

    def ask(self, beta: Floats) -> Sum:
        """The one question of a Gaussian, or the next of another family."""
        p, spec = self.model.width, self.spec
        if spec.family == "gaussian":
            return Sum(moments, (self._field("moments", (p + 1) * (p + 2) // 2),), self.data)
        fields = (self._field("score", p), self._field("information", p * (p + 1) // 2))
        return Sum(score, fields, {**self.data, "beta": beta, "family": spec.family, "ceiling": self.ceiling})

    def _field(self, name: str, size: int) -> Field:
        most = self.spec.setting.max_rows_per_site * (1 + ROUNDING)
        return Field(name, "real", most, (size,), float(np.sqrt(size)))

    def spread(self, asked: Sum, sites: int) -> dict[str, float]:
        """The deviation of each field's noise."""
        sharing = self.spec.setting.sharing
        assert sharing is not None
        return {f.name: deviation(f.noise, sites) for f in noisy(asked.fields, sharing) if f.noise is not None}


@dataclass(frozen=True)
class Estimate:
    """Scaled coefficients (p,), their covariance (p, p) or None where the noise leaves none, persons and dispersion if told."""

    beta: Floats
    covariance: Floats | None
    persons: float | None
    dispersion: float | None = None


def noisy_glm(spec: GlmSpec) -> Rounds:
    """One question of a Gaussian; `max_iterations` of another family."""
    watch, frame = Watch(spec.setting), Frame.of(spec)
    beta = np.zeros(frame.model.width)
    if frame.model.intercept is not None and spec.family == "poisson":
        beta[frame.model.intercept] = np.log(frame.ceiling / 2)
    found: list[Seen] = []
    for i in range(1 if spec.family == "gaussian" else spec.max_iterations):
        asked = frame.ask(beta)
        total = yield asked
        spread = frame.spread(asked, len(watch.saw(total)))
        if spec.family == "gaussian":
            return result_of(frame, gaussian(frame, np.asarray(total["moments"]), spread["moments"]), watch)
        found.append(seen(frame, beta, np.asarray(total["score"]), np.asarray(total["information"]), spread))
        beta = mean_alone(frame, found[0]) if i == 0 and spec.family == "poisson" else found[-1].after
        if watch.stop:
            break
    return result_of(frame, solved(frame, found), watch)


def repaired(information: Floats, noise: float) -> Floats:
    """The nearest symmetric matrix without an eigenvalue below the noise's own reach: what a step may be divided by."""
    values, vectors = np.linalg.eigh(information)
    floor = max(noise * np.sqrt(len(information)), 1e-9 * float(np.abs(values).max()), 1e-12)
    return np.asarray((vectors * np.maximum(values, floor)) @ vectors.T)


def blurred(along: Floats, sigma: float) -> Floats:
    """The covariance (p, p) of E·along, E symmetric (p, p) with independent entries of the deviation sigma in its triangle."""
    return np.asarray(sigma**2 * ((along @ along) * np.eye(len(along)) + np.outer(along, along) - np.diag(along**2)))


def clear(information: Floats, noise: float) -> bool:
    """Whether the noise leaves the information positive by far."""
    least = float(np.linalg.eigvalsh(information)[0])
    return bool(least > CLEAR * noise * np.sqrt(len(information)) and least > 0)


def gaussian(frame: Frame, triangle: Floats, sigma: float) -> Estimate:
    """Least squares from noisy moments, with the covariance dispersion·A^-1 + A^-1 N A^-1."""
    p = frame.model.width
    whole = unpacked(triangle, p + 1)
    a, b, yy = whole[:p, :p], whole[:p, p], float(whole[p, p])
    inverse = np.linalg.inv(repaired(a, sigma))
    beta = inverse @ b
    constant = frame.model.intercept
    persons = float(a[constant, constant]) if constant is not None else None
    c = np.append(-beta, 1.0)
    noise = sigma**2 * np.eye(p) + blurred(beta, sigma)  # of e_xy - E_xx β
    blur = sigma * float(np.sqrt(2 * (c @ c) ** 2 - np.sum(c**4)))
    residual = yy - float(b @ beta) + float(np.trace(inverse @ noise))
    if not clear(a, sigma) or persons is None or persons <= p + 1 or residual <= 2 * blur:
        return Estimate(beta, None, persons)
    dispersion = residual / (persons - p)
    covariance: Floats = np.asarray(dispersion * inverse + inverse @ noise @ inverse, dtype=np.float64)
    return Estimate(beta, covariance, persons, dispersion)


@dataclass(frozen=True)
class Seen:
    """One Newton step: where it was asked, score and information as they came, their noise, and where it leads."""

    beta: Floats
    score: Floats
    information: Floats
    noise: tuple[float, float]
    after: Floats


def seen(frame: Frame, beta: Floats, score: Floats, triangle: Floats, spread: Mapping[str, float]) -> Seen:
    """A step that is no longer than the noise permits."""
    weight = heaviest(frame.spec.family, frame.ceiling)
    noise = (spread["score"] * frame.ceiling, spread["information"] * weight)
    s, a = score * frame.ceiling, unpacked(triangle, len(beta)) * weight
    step = np.linalg.solve(repaired(a, noise[1]), s)
    return Seen(beta, s, a, noise, beta + step * min(1.0, LONGEST / max(float(np.abs(step).max()), LONGEST)))


def mean_alone(frame: Frame, first: Seen) -> Floats:
    """After the first question, the constant that the mean of the response makes: a nearer start than a step."""
    i = frame.model.intercept
    if i is None:
        return first.after
    beta, mu = first.beta.copy(), frame.ceiling / 2
    rows = max(float(first.information[i, i]) / mu, 1.0)
    beta[i] = np.log(max(mu + float(first.score[i]) / rows, mu / 100))
    return beta


def solved(frame: Frame, found: list[Seen]) -> Estimate:
    """The later half of the steps as one system of linear equations, Σ s + A(β_t - β) = 0, with the covariance A^-1 + A^-1 N
    A^-1 where the expansion holds."""
    last = found[len(found) // 2 :]
    m = len(last)
    a = np.mean([s.information for s in last], axis=0)
    right = np.mean([s.score + s.information @ s.beta for s in last], axis=0)
    of_information = float(np.sqrt(np.mean([s.noise[1] ** 2 for s in last]) / m))
    inverse = np.linalg.inv(repaired(a, of_information))
    beta = inverse @ right
    constant, first = frame.model.intercept, found[0]
    persons = None
    if constant is not None:
        persons = float(first.information[constant, constant]) / (
            0.25 if frame.spec.family == "binomial" else frame.ceiling / 2
        )
    apart = [s.beta - beta for s in last]
    few = persons is not None and persons <= len(beta) + 1
    if few or not clear(a, of_information) or np.abs(apart).max() > NEAR:
        return Estimate(beta, None, persons)
    noise = sum(s.noise[0] ** 2 * np.eye(len(beta)) + blurred(d, s.noise[1]) for s, d in zip(last, apart, strict=True)) / m**2
    return Estimate(beta, np.asarray(inverse + inverse @ noise @ inverse), persons)


def result_of(frame: Frame, found: Estimate, watch: Watch) -> Result:
    """Coefficients and effects in raw units; without errors, where none are known, and then a sentence that says so."""
    spec, model, unit = frame.spec, frame.model, frame.unit
    back = np.linalg.inv(transform(model, frame.constants))
    values = back @ (found.beta * unit[1])
    if model.intercept is not None:
        values[model.intercept] += unit[0]
    kind = FAMILIES[spec.family].ratio or "difference"
    figures: tuple[Figure, ...] = ()
    notes = [
        f"family {spec.family}; complete cases",
        "each person counts once; values beyond the clipping range count as its ends",
    ]
    if found.covariance is None:
        rows = [(n, float(v)) for n, v in zip(model.names, values, strict=True)]
        why = "the noise reaches too far into the information for standard errors, intervals and p-values, so none are given"
        tables = {"coefficients": ResultTable.of("Coefficients", ("term", "estimate"), rows, notes=(why,))}
        notes.append(why)
    else:
        raw = Estimates(model.names, values, unit[1] ** 2 * back @ found.covariance @ back.T)
        table = coefficient_table(raw, spec.confidence, None)
        effects = effect_table(table, kind, model.names[model.intercept] if model.intercept is not None else None)
        tables = {"coefficients": table, "effects": effects}
        notes.append("standard errors, intervals and p-values hold sampling and noise")
        if effects.rows:
            mapping = {"label": "term", "estimate": kind, "low": "low", "high": "high"}
            drawn = Figure("forest", "effects", spec.formula.text, mapping, x_label=WORDS[kind], log_x=kind != "difference")
            figures = (drawn,)
    facts: dict[str, Any] = {"parameters": model.width, "iterations": watch.rounds, "numbers_opened": watch.numbers}
    if found.persons is not None:
        facts["persons"] = max(round(found.persons), 0)
    if found.dispersion is not None:
        facts["dispersion"] = found.dispersion * unit[1] ** 2
    return Result("glm", tables, facts, watch.last, watch.dropped, figures, (*notes, *watch.notes()))
