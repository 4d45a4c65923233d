"""Descriptive statistics: counts, means, variances, quantiles on a fixed grid, and tables of categories.

Three rounds: who and how many; sums and histograms of the numbers that enough persons have; squares around the federated mean
(the two-pass variance, Chan, Golub and LeVeque, The American Statistician 37:242, 1983). Quantiles come from one histogram on a
grid that the study fixes, never by bisection: a sequence of questions about one person's value is what that would be.

Every number is over the rows in which its own variable is known (as pandas does), every cell counts persons.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from fivefold.algorithms.cohort import Watch, in_subgroup, persons_where
from fivefold.algorithms.design import known, ranged
from fivefold.algorithms.method import Cost, Method, Setting
from fivefold.algorithms.options import Options
from fivefold.algorithms.statistics_noisy import everything, noisy_statistics
from fivefold.algorithms.statistics_tables import Numbers, result_of
from fivefold.errors import TooFewPersons
from fivefold.protocol.questions import Aggregate, Array, Field, Rounds, Sum, site_step
from fivefold.study.definition import Analysis
from fivefold.study.table import Table

Floats = npt.NDArray[np.float64]
OPTIONS = ("quantiles", "bins", "grid", "tables", "clip")
ROUNDING = 1.000001
"""A sum in floating point may pass its bound by rounding."""


@dataclass(frozen=True)
class StatisticsSpec:
    """`edges` (by number, ascending, the dictionary's range inside) are the bins of the quantiles; `tables` are pairs."""

    name: str
    numbers: tuple[str, ...]
    categories: tuple[str, ...]
    tables: tuple[tuple[str, str], ...]
    quantiles: tuple[float, ...]
    edges: Mapping[str, tuple[float, ...]]
    subgroup: str
    setting: Setting
    clip: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """With differential privacy: the range in which a number counts, where it is narrower than the dictionary's."""

    @property
    def crosses(self) -> tuple[tuple[str, ...], ...]:
        return (*((c,) for c in self.categories), *self.tables)

    @property
    def variables(self) -> tuple[str, ...]:
        return (*self.numbers, *self.categories)

    def shape(self, cross: tuple[str, ...]) -> tuple[int, ...]:
        return tuple(len(self.setting.dictionary[v].levels) for v in cross)


# ---- beside the rows ------------------------------------------------------------------------------------------------
@site_step("statistics.counts")
def counts(
    table: Table, *, numbers: tuple[str, ...], categories: tuple[str, ...], crosses: tuple[tuple[str, ...], ...], subgroup: str
) -> Mapping[str, Array]:
    """Persons and rows; missing values of each variable; persons with a value of each number; persons in each cell."""
    rows, unknown = in_subgroup(table, subgroup)
    answer: dict[str, Array] = {
        "persons": np.asarray(rows.persons),
        "rows": np.asarray(len(rows)),
        "unknown": np.asarray(unknown),
        "missing": np.array([np.isnan(rows[v]).sum() for v in (*numbers, *categories)], dtype=np.int64),
    }
    for name in numbers:
        answer[f"persons.{name}"] = np.asarray(persons_where(rows, ~np.isnan(rows[name])))
    for cross in crosses:
        cases = rows.complete(cross)
        shape = tuple(len(rows.variable(v).levels) for v in cross)
        flat = np.ravel_multi_index(tuple(cases[v].astype(np.int64) for v in cross), shape)
        answer[_cells(cross)] = _distinct(flat, cases.person, int(np.prod(shape))).reshape(shape)
    return answer


@site_step("statistics.sums")
def sums(
    table: Table, *, numbers: tuple[str, ...], edges: Mapping[str, tuple[float, ...]], subgroup: str
) -> Mapping[str, Array]:
    """Of each number: persons and rows with a value, its sum, and (where `edges` names it) distinct persons in each bin."""
    rows, _ = in_subgroup(table, subgroup)
    known_rows = {n: rows.complete((n,)) for n in numbers}
    answer: dict[str, Array] = {
        "persons": np.array([t.persons for t in known_rows.values()], dtype=np.int64),
        "n": np.array([len(t) for t in known_rows.values()], dtype=np.int64),
    }
    for name, part in known_rows.items():
        answer[f"sum.{name}"] = np.asarray(part[name].sum())
        if name in edges:
            bins = len(edges[name]) - 1
            at = np.searchsorted(np.asarray(edges[name]), part[name], side="right") - 1
            answer[f"grid.{name}"] = _distinct(np.clip(at, 0, bins - 1), part.person, bins)
            answer[f"placed.{name}"] = np.asarray(answer[f"grid.{name}"].sum())
    return answer


@site_step("statistics.squares")
def squares(table: Table, *, numbers: tuple[str, ...], centres: Array, subgroup: str) -> Mapping[str, Array]:
    """Of each number: the sum of squares around its public centre, and of differences from it."""
    rows, _ = in_subgroup(table, subgroup)
    answer = {}
    for name, centre in zip(numbers, centres, strict=True):
        away = rows.complete((name,))[name] - centre
        answer[f"square.{name}"] = np.asarray(away @ away)
        answer[f"away.{name}"] = np.asarray(away.sum())
    return answer


def _cells(cross: tuple[str, ...]) -> str:
    return "table." + ":".join(cross)


def _distinct(cell: npt.NDArray[np.int64], person: npt.NDArray[np.int64], size: int) -> npt.NDArray[np.int64]:
    """Distinct persons in each cell, shape (size,)."""
    pairs = np.unique(np.column_stack([cell, person]), axis=0)
    return np.bincount(pairs[:, 0], minlength=size)


# ---- where no row is ------------------------------------------------------------------------------------------------
def statistics(spec: StatisticsSpec) -> Rounds:
    """Counts; sums; squares. If the survivors changed on the way, one more round asks all three at once: what a round brings
    is of the same sites, and squares around any centre near the mean give the variance."""
    if spec.setting.differential_privacy is not None:
        return (yield from noisy_statistics(spec))
    watch = Watch(spec.setting)
    (count,) = yield (_ask_counts(spec),)
    sites = watch.saw(count)
    enough = tuple(n for n in spec.numbers if count[f"persons.{n}"] > 0)  # NaN: fewer than the minimum
    if not enough and not spec.categories:
        raise TooFewPersons(
            f"no variable of {spec.name!r} has {spec.setting.minimum_persons} persons", variable=spec.numbers[0]
        )
    if not enough or count.stop_requested:
        return result_of(spec, watch, count, {}, sites)
    (total,) = yield (_ask_sums(spec, enough),)
    second = watch.saw(total)
    if total.stop_requested:
        return result_of(spec, watch, count, {}, sites)
    centres = np.array([float(total[f"sum.{n}"]) / int(total["n"][i]) for i, n in enumerate(enough)])
    (square,) = yield (_ask_squares(spec, enough, centres),)
    third = watch.saw(square)
    if not (sites == second == third):
        count, total, square = yield (_ask_counts(spec), _ask_sums(spec, enough), _ask_squares(spec, enough, centres))
        sites = watch.saw(count, total, square)
    return result_of(spec, watch, count, _numbers(spec, enough, total, square), sites)


def _numbers(spec: StatisticsSpec, names: tuple[str, ...], total: Aggregate, square: Aggregate) -> dict[str, Numbers]:
    """Mean, variance (n - 1) and histogram of each number, from aggregates of the same sites."""
    out = {}
    for i, name in enumerate(names):
        n = int(total["n"][i])
        away = float(square[f"away.{name}"])
        variance = max((float(square[f"square.{name}"]) - away * away / n) / (n - 1), 0.0) if n > 1 else float("nan")
        grid = np.asarray(total[f"grid.{name}"], dtype=np.float64) if name in spec.edges else None
        placed = int(total[f"placed.{name}"]) if name in spec.edges else n
        out[name] = Numbers(int(total["persons"][i]), n, float(total[f"sum.{name}"]) / n, variance, grid, placed)
    return out


def _ask_counts(spec: StatisticsSpec) -> Sum:
    most = float(spec.setting.max_rows_per_site)
    fields = [Field("persons", "persons", most), Field("rows", "count", most), Field("unknown", "count", most)]
    fields.append(Field("missing", "count", most, (len(spec.variables),)))
    fields += [Field(f"persons.{n}", "cell", most) for n in spec.numbers]
    fields += [Field(_cells(c), "cell", most, spec.shape(c)) for c in spec.crosses]
    arguments = {"numbers": spec.numbers, "categories": spec.categories, "crosses": spec.crosses, "subgroup": spec.subgroup}
    return Sum(counts, tuple(fields), arguments)


def _ask_sums(spec: StatisticsSpec, names: tuple[str, ...]) -> Sum:
    most = float(spec.setting.max_rows_per_site)
    fields = [Field("persons", "persons", most, (len(names),)), Field("n", "count", most, (len(names),))]
    for name in names:
        bound = max(spec.setting.dictionary[name].bound, np.finfo(float).tiny)
        fields.append(Field(f"sum.{name}", "real", most * bound * ROUNDING))
        if name in spec.edges:
            fields.append(Field(f"grid.{name}", "cell", most, (len(spec.edges[name]) - 1,)))
            fields.append(Field(f"placed.{name}", "count", most))
    edges = {n: spec.edges[n] for n in names if n in spec.edges}
    return Sum(sums, tuple(fields), {"numbers": names, "edges": edges, "subgroup": spec.subgroup})


def _ask_squares(spec: StatisticsSpec, names: tuple[str, ...], centres: Floats) -> Sum:
    most = float(spec.setting.max_rows_per_site)
    fields = []
    for name, centre in zip(names, centres, strict=True):
        variable = spec.setting.dictionary[name]
        assert variable.minimum is not None
        assert variable.maximum is not None
        away = max(variable.maximum - centre, centre - variable.minimum, 1e-9 * (variable.maximum - variable.minimum))
        fields.append(Field(f"square.{name}", "real", most * away**2 * ROUNDING))
        fields.append(Field(f"away.{name}", "real", most * away * ROUNDING))
    return Sum(squares, tuple(fields), {"numbers": names, "centres": centres, "subgroup": spec.subgroup})


# ---- options --------------------------------------------------------------------------------------------------------
def parse_statistics(analysis: Analysis, setting: Setting) -> StatisticsSpec:
    """Raises `StudyInvalid` or `FormulaInvalid` with what to write instead."""
    options = Options(analysis, OPTIONS)
    if analysis.formula:
        options.fault("the method statistics has no formula", "List the variables under `variables:`.")
    if not analysis.variables:
        options.fault("no variables are named", "Write `variables: [age, sex]`.")
    where = f"analysis {analysis.name}"
    numbers, categories = [], []
    for name in dict.fromkeys(analysis.variables):
        variable = known(name, setting.dictionary, where)
        if variable.type in ("category", "boolean"):
            categories.append(name)
        else:
            numbers.append(ranged(variable, where).name)
    quantiles = _quantiles(options)
    return StatisticsSpec(
        name=analysis.name,
        numbers=tuple(numbers),
        categories=tuple(categories),
        tables=_pairs(options, tuple(categories)),
        quantiles=quantiles,
        edges=_edges(options, setting, numbers) if quantiles else {},
        subgroup=options.subgroup(setting.dictionary),
        setting=setting,
        clip=options.clip(numbers, private=setting.differential_privacy is not None),
    )


def _quantiles(options: Options) -> tuple[float, ...]:
    given = options.given.get("quantiles", (0.25, 0.5, 0.75))
    if not isinstance(given, (list, tuple)) or not all(_is_number(q) and 0 < q < 1 for q in given):
        options.fault(f"'quantiles' is {given!r}", "Write numbers between 0 and 1, such as [0.25, 0.5, 0.75]; [] for none.")
    return tuple(sorted({float(q) for q in given}))


def _pairs(options: Options, categories: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    given = options.given.get("tables", ())
    if not isinstance(given, (list, tuple)):
        options.fault("'tables' is not a list", "Write pairs of categories, such as [[sex, smoker]].")
    out = []
    for pair in given:
        if not isinstance(pair, (list, tuple)) or len(pair) != 2 or pair[0] == pair[1]:
            options.fault(f"{pair!r} is not a pair of categories", "Write pairs, such as [[sex, smoker]].")
        for name in pair:
            if name not in categories:
                options.fault(
                    f"the table {pair!r} names {name!r}", f"Use categories listed under `variables:` ({', '.join(categories)})."
                )
        out.append((str(pair[0]), str(pair[1])))
    return tuple(dict.fromkeys(out))


def _edges(options: Options, setting: Setting, numbers: list[str]) -> dict[str, tuple[float, ...]]:
    """The grid of each number: its own edges, or equal bins over the dictionary's range."""
    bins = options.integer("bins", 20, 2, 1000)
    grid = options.given.get("grid", {})
    if not isinstance(grid, Mapping):
        options.fault("'grid' is not a mapping", "Write `grid: {age: [18, 30, 50, 70, 100]}`.")
    for name in grid:
        if name not in numbers:
            options.fault(f"'grid' names {name!r}", f"Use numbers listed under `variables:` ({', '.join(numbers)}).")
    out = {}
    for name in numbers:
        variable = setting.dictionary[name]
        low, high = float(variable.minimum or 0), float(variable.maximum or 0)
        if name not in grid:
            out[name] = tuple(float(e) for e in np.linspace(low, high, bins + 1))
            continue
        given = grid[name]
        plain = isinstance(given, (list, tuple)) and 3 <= len(given) <= 1001 and all(_is_number(e) for e in given)
        if not plain or any(b <= a for a, b in pairwise(given)):
            options.fault(f"the grid of {name!r} does not ascend", "Write at least three edges in ascending order.")
        if given[0] > low or given[-1] < high:
            options.fault(
                f"the grid of {name!r} leaves out a part of its range", f"Begin at {low:g} or below, end at {high:g} or above."
            )
        out[name] = tuple(float(e) for e in given)
    return out


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and bool(np.isfinite(value))


def cost(spec: StatisticsSpec) -> Cost:
    """Rounds and numbers a round, at most (where a site drops, all is asked in one round more)."""
    cells = sum(int(np.prod(spec.shape(c))) for c in spec.crosses)
    grid = sum(len(e) for e in spec.edges.values())
    if spec.setting.differential_privacy is not None:
        return Cost(1, 1 + cells + 3 * len(spec.numbers) + grid)
    return Cost(4 if spec.numbers else 1, 3 + len(spec.variables) + cells + 6 * len(spec.numbers) + grid)


METHOD = Method(
    name="statistics",
    title="Descriptive statistics",
    paper="Chan TF, Golub GH, LeVeque RJ. Algorithms for computing the sample variance. Am Stat 1983;37:242-247",
    parse=parse_statistics,
    rounds=statistics,
    steps=(counts, sums, squares, everything),
    cost=cost,
    protects=("person",),
)
