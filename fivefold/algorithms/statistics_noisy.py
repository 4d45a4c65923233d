"""Descriptive statistics with differential privacy: everything in one question, since each further round would cost more noise
than it saves.

Neighbouring data differ by all rows of one person. A person counts once in every field, however many rows there are: each row
has the weight of one over the person's rows with a value. So a count, a cell of a table, a bin and a sum of numbers scaled to
[-1, 1] change by at most 1 in the L2 norm (Dwork & Roth, 2014, "The algorithmic foundations of differential privacy", section
3). Numbers are scaled by the range that `clip` gives (the dictionary's where it gives none) and moved to its ends beyond it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fivefold.algorithms.cohort import Watch, in_subgroup
from fivefold.algorithms.design import level_label
from fivefold.algorithms.statistics_tables import quantile
from fivefold.privacy.dp.shares import deviation, noisy
from fivefold.protocol.questions import Aggregate, Array, Field, Rounds, Sum, site_step
from fivefold.protocol.results import Figure, Result, ResultTable
from fivefold.study.table import Table

if TYPE_CHECKING:
    from fivefold.algorithms.statistics import StatisticsSpec

Floats = npt.NDArray[np.float64]
Range = tuple[float, float]
ONE = 1.0
"""The sensitivity of every field: what one person changes in it."""
ROUNDING = 1e-9
"""A person's weights add up to one but for rounding."""
WIDE = "counts carry noise: they may be negative, and tables need not add up"


# ---- beside the rows ------------------------------------------------------------------------------------------------
@site_step("statistics.noisy")
def everything(
    table: Table,
    *,
    clip: Mapping[str, Range],
    edges: Mapping[str, tuple[float, ...]],
    crosses: tuple[tuple[str, ...], ...],
    subgroup: str,
    most: int,
) -> Mapping[str, Array]:
    """Persons; of each number the persons with a value, and over them the sums of their mean scaled value, mean square and
    share in each bin; of each cross the persons' shares in each cell."""
    rows, _ = in_subgroup(table, subgroup)
    answer: dict[str, Array] = {"persons": np.asarray(float(rows.persons))}
    for name, (low, high) in clip.items():
        part = rows.complete((name,))
        weight = on_grid(per_person(part), most)
        u = scaled(part[name], low, high)
        answer[f"known.{name}"] = np.asarray(float(part.persons))
        answer[f"sum.{name}"] = np.asarray(on_grid(weight * u, most).sum())
        answer[f"square.{name}"] = np.asarray(on_grid(weight * u * u, most).sum())
        if name in edges:
            bins = len(edges[name]) - 1
            at = np.clip(np.searchsorted(np.asarray(edges[name]), part[name], side="right") - 1, 0, bins - 1)
            answer[f"grid.{name}"] = np.bincount(at, weights=weight, minlength=bins)
    for cross in crosses:
        cases = rows.complete(cross)
        shape = tuple(len(rows.variable(v).levels) for v in cross)
        flat = np.ravel_multi_index(tuple(cases[v].astype(np.int64) for v in cross), shape)
        answer[cells(cross)] = np.bincount(
            flat, weights=on_grid(per_person(cases), most), minlength=int(np.prod(shape))
        ).reshape(shape)
    return answer


def per_person(rows: Table) -> Floats:
    """One over the number of the person's rows, shape (rows,): each person has the weight of one."""
    _, at, count = np.unique(rows.person, return_inverse=True, return_counts=True)
    weights: Floats = 1.0 / count[at] if len(rows) else np.zeros(0)
    return weights


def on_grid(parts: Floats, most: int) -> Floats:
    """Parts of a sum of at most `most` numbers in [-1, 1], cut off to multiples of a power of two at which such a sum is exact
    in doubles, in whatever order: no error of addition can make one person count for more."""
    bits = 52 - int(most).bit_length()
    cut: Floats = np.ldexp(np.trunc(np.ldexp(parts, bits)), -bits)
    return cut


def scaled(values: Floats, low: float, high: float) -> Floats:
    """Values on [-1, 1]; what lies outside the range moves to its ends."""
    u: Floats = np.clip((values - (high + low) / 2) / ((high - low) / 2), -1.0, 1.0)
    return u


def cells(cross: tuple[str, ...]) -> str:
    return "table." + ":".join(cross)


# ---- where no row is ------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Noisy:
    """An aggregate with the standard deviation of each field's noise, over the sites that answered."""

    total: Aggregate
    deviation: Mapping[str, float]

    def value(self, name: str) -> float:
        return float(self.total[name])


def question(spec: StatisticsSpec) -> Sum:
    most = float(spec.setting.max_rows_per_site)
    fields = [Field("persons", "persons", most, (), ONE)]
    for name in spec.numbers:
        fields += [Field(f"{part}.{name}", "real", most * (1 + ROUNDING), (), ONE) for part in ("known", "sum", "square")]
        if name in spec.edges:
            fields.append(Field(f"grid.{name}", "real", most * (1 + ROUNDING), (len(spec.edges[name]) - 1,), ONE))
    fields += [Field(cells(c), "real", most * (1 + ROUNDING), spec.shape(c), ONE) for c in spec.crosses]
    arguments = {
        "clip": {name: range_of(spec, name) for name in spec.numbers}, "edges": dict(spec.edges), "crosses": spec.crosses,
        "subgroup": spec.subgroup, "most": spec.setting.max_rows_per_site,
    }  # fmt: skip
    return Sum(everything, tuple(fields), arguments)


def range_of(spec: StatisticsSpec, name: str) -> Range:
    """The public range to which a number is clipped."""
    variable = spec.setting.dictionary[name]
    low, high = spec.clip.get(name, (variable.minimum, variable.maximum))
    assert low is not None
    assert high is not None
    return float(low), float(high)


def noisy_statistics(spec: StatisticsSpec) -> Rounds:
    """One question, one result."""
    watch, asked = Watch(spec.setting), question(spec)
    total = yield asked
    sites = watch.saw(total)
    sharing = spec.setting.sharing
    assert sharing is not None
    spread = {f.name: deviation(f.noise, len(sites)) for f in noisy(asked.fields, sharing) if f.noise is not None}
    return _result(spec, watch, Noisy(total, spread), sites)


def _result(spec: StatisticsSpec, watch: Watch, it: Noisy, sites: tuple[str, ...]) -> Result:
    tables: dict[str, ResultTable] = {}
    if spec.numbers:
        tables["numbers"] = _numbers(spec, it)
    if spec.edges:
        tables["quantiles"] = _quantiles(spec, it)
    if spec.categories:
        tables["categories"] = _categories(spec, it)
    for pair in spec.tables:
        tables[f"{pair[0]}_by_{pair[1]}"] = _pair(spec, it, pair)
    figures: tuple[Figure, ...] = ()
    if spec.categories:
        figures = (
            Figure("bars", "categories", "Persons in each category", {"label": "label", "value": "persons"}, y_label="Persons"),
        )
    facts: dict[str, Any] = {"persons": int(it.value("persons")), "numbers_opened": watch.numbers}
    facts["persons_noise"] = it.deviation["persons"]
    return Result("statistics", tables, facts, sites, watch.dropped, figures, watch.notes())


def moments(
    known: float, first: float, second: float, spread: tuple[float, float, float], span: Range
) -> tuple[float | None, float | None, float | None]:
    """Mean, its standard error, and variance, in the number's own unit, from noisy sums of scaled values.

    `spread` are the deviations of the noise on `known`, `first` and `second`. The standard error holds sampling and noise
    (delta method on the ratio first/known). A variance within two deviations of its own noise from 0 would be a guess: it is
    None, and the error is then made with the largest variance that the noise leaves likely. None, too, where there is no mean.
    """
    half, centre = (span[1] - span[0]) / 2, (span[1] + span[0]) / 2
    if known <= max(1.0, 3 * spread[0]):
        return None, None, None
    mean = min(max(first / known, -1.0), 1.0)
    variance = (second - first * first / known) / (known - 1)
    blur = float(np.sqrt(spread[2] ** 2 + (2 * mean * spread[1]) ** 2 + (mean * mean * spread[0]) ** 2)) / known
    noise = (spread[1] ** 2 + (mean * spread[0]) ** 2) / known**2
    told = 2 * blur < variance <= 1
    likely = variance if told else min(max(variance, 0.0) + 2 * blur, 1.0)
    error = half * float(np.sqrt(likely / known + noise))
    return centre + half * mean, error, half * half * variance if told else None


def _numbers(spec: StatisticsSpec, it: Noisy) -> ResultTable:
    rows = []
    for name in spec.numbers:
        known, first, second = (it.value(f"{part}.{name}") for part in ("known", "sum", "square"))
        span = range_of(spec, name)
        spread = tuple(it.deviation[f"{part}.{name}"] for part in ("known", "sum", "square"))
        mean, error, variance = moments(known, first, second, (spread[0], spread[1], spread[2]), span)
        deviation_ = None if variance is None else float(np.sqrt(variance))
        rows.append((name, spec.setting.dictionary[name].unit, round(known), mean, error, variance, deviation_, *span))
    columns = (
        "variable", "unit", "persons", "mean", "standard_error", "variance", "standard_deviation", "clipped_from", "clipped_to",
    )  # fmt: skip
    notes = (
        "each person counts once, by the mean of their rows; values beyond the clipping range count as its ends",
        "the standard error of the mean holds sampling and noise; the variance has noise, and no error is given for it",
    )
    return ResultTable.of("Numbers", columns, rows, notes=notes)


def _quantiles(spec: StatisticsSpec, it: Noisy) -> ResultTable:
    rows = []
    for name in spec.numbers:
        edges = np.asarray(spec.edges[name])
        # What is below zero holds nobody: to say so spends nothing.
        counts = np.maximum(np.asarray(it.total[f"grid.{name}"], dtype=np.float64), 0.0)
        placed = round(float(counts.sum()))
        for probability in spec.quantiles:
            estimate = None
            if placed > 1:
                estimate = quantile(probability, counts * (placed / counts.sum()), placed, edges).estimate
            rows.append((name, probability, estimate))
    notes = ("from bins that carry noise, so no bounds are given",)
    return ResultTable.of("Quantiles", ("variable", "probability", "estimate"), rows, notes=notes)


def _categories(spec: StatisticsSpec, it: Noisy) -> ResultTable:
    out = []
    for name in spec.categories:
        variable, field = spec.setting.dictionary[name], cells((name,))
        counts = np.asarray(it.total[field], dtype=np.float64)
        whole = float(counts.sum())
        for i, code in enumerate(variable.levels):
            label, persons = level_label(variable, i), float(counts[i])
            share = min(max(persons / whole, 0.0), 1.0) if whole > 3 * it.deviation[field] else None
            out.append((f"{name} = {label}", name, code, label, round(persons), it.deviation[field], share))
    columns = ("label", "variable", "code", "level", "persons", "noise", "share")
    return ResultTable.of("Categories", columns, out, notes=(WIDE, "noise is the standard deviation of what was added"))


def _pair(spec: StatisticsSpec, it: Noisy, pair: tuple[str, str]) -> ResultTable:
    a, b = (spec.setting.dictionary[v] for v in pair)
    counts = np.asarray(it.total[cells(pair)], dtype=np.float64)
    rows = [
        (level_label(a, i), level_label(b, j), round(float(counts[i, j])), it.deviation[cells(pair)])
        for i in range(len(a.levels)) for j in range(len(b.levels))
    ]  # fmt: skip
    return ResultTable.of(f"{pair[0]} by {pair[1]}", (pair[0], pair[1], "persons", "noise"), rows, notes=(WIDE,))
