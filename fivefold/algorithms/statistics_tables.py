"""From aggregates to tables of descriptive statistics; quantiles from a histogram in which small bins are hidden."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fivefold.algorithms.cohort import Watch
from fivefold.algorithms.design import level_label
from fivefold.protocol.questions import Aggregate
from fivefold.protocol.results import Figure, Result, ResultTable, Scalar

if TYPE_CHECKING:
    from fivefold.algorithms.statistics import StatisticsSpec

Floats = npt.NDArray[np.float64]
HIDDEN = "empty cells hold fewer persons than the study's minimum, or would give such a cell away"


@dataclass(frozen=True)
class Numbers:
    """One number: persons and rows with a value, mean, variance (n - 1); persons in each bin (NaN: hidden), `placed` in all."""

    persons: int
    n: int
    mean: float
    variance: float
    grid: Floats | None
    placed: int


@dataclass(frozen=True)
class Quantile:
    """The quantile lies from `low` to `high`, edges of the grid; `estimate` interpolates in between."""

    estimate: float
    low: float
    high: float


def quantile(probability: float, counts: Floats, total: int, edges: Floats) -> Quantile:
    """A quantile (linear between order statistics, as in pandas and NumPy) from counts in bins.

    Hidden bins hold together what is missing from `total`; it may lie in any of them. So the cumulative count at each edge is
    known between two numbers, and with it the bins that can hold the two order statistics between which the quantile lies.
    """
    shown = np.nan_to_num(counts)
    gone = np.isnan(counts)
    rest = total - shown.sum()
    least = np.cumsum(shown)
    most = least + rest * (np.cumsum(gone) > 0)
    least = least + rest * (np.cumsum(gone) == gone.sum()) if gone.any() else least
    position = (total - 1) * probability
    below, above = np.floor(position) + 1, np.ceil(position) + 1
    low = edges[int(np.argmax(most >= below))]
    high = edges[int(np.argmax(least >= above)) + 1]
    spread = np.where(gone, rest / max(int(gone.sum()), 1), shown)
    estimate = np.interp(position + 0.5, np.concatenate([[0.0], np.cumsum(spread)]), edges)
    return Quantile(float(np.clip(estimate, low, high)), float(low), float(high))


def result_of(
    spec: StatisticsSpec, watch: Watch, count: Aggregate, numbers: Mapping[str, Numbers], sites: tuple[str, ...]
) -> Result:
    """All tables, each cell None where hidden."""
    missing = dict(zip(spec.variables, (int(m) for m in count["missing"]), strict=True))
    rows = int(count["rows"])
    tables = {}
    if spec.numbers:
        tables["numbers"] = _number_table(spec, numbers, missing)
    if numbers and spec.quantiles:
        tables["quantiles"] = _quantile_table(spec, numbers)
    if spec.categories:
        tables["categories"] = _category_table(spec, count, missing, rows)
    for pair in spec.tables:
        tables[f"{pair[0]}_by_{pair[1]}"] = _pair_table(spec, count, pair)
    facts: dict[str, Any] = {"persons": int(count["persons"]), "rows": rows}
    facts |= {f"missing_{name}": n for name, n in missing.items()}
    if int(count["unknown"]):
        facts["subgroup_unknown"] = int(count["unknown"])
    facts["numbers_opened"] = watch.numbers
    figures: tuple[Figure, ...] = ()
    if spec.categories:
        figures = (
            Figure("bars", "categories", "Persons in each category", {"label": "label", "value": "persons"}, y_label="Persons"),
        )
    notes = [f"{n}: fewer than {spec.setting.minimum_persons} persons have a value" for n in spec.numbers if n not in numbers]
    if not numbers and any(count.get(f"persons.{n}", 0) > 0 for n in spec.numbers):
        notes = ["the run was stopped before the numbers were complete"]
    return Result("statistics", tables, facts, sites, watch.dropped, figures, (*notes, *watch.notes()))


def _number_table(spec: StatisticsSpec, numbers: Mapping[str, Numbers], missing: Mapping[str, int]) -> ResultTable:
    rows: list[tuple[Scalar, ...]] = []
    for name in spec.numbers:
        unit, found = spec.setting.dictionary[name].unit, numbers.get(name)
        if found is None:
            rows.append((name, unit, None, None, missing[name], None, None, None))
            continue
        deviation = float(np.sqrt(found.variance))
        rows.append((name, unit, found.persons, found.n, missing[name], found.mean, found.variance, deviation))
    columns = ("variable", "unit", "persons", "n", "missing", "mean", "variance", "standard_deviation")
    return ResultTable.of("Numbers", columns, rows, notes=("n counts rows with a value; the variance divides by n - 1",))


def _quantile_table(spec: StatisticsSpec, numbers: Mapping[str, Numbers]) -> ResultTable:
    rows = []
    for name, found in numbers.items():
        assert found.grid is not None
        edges = np.asarray(spec.edges[name])
        for probability in spec.quantiles:
            q = quantile(probability, found.grid, found.placed, edges)
            at = int(np.clip(np.searchsorted(edges, q.estimate, side="right") - 1, 0, len(edges) - 2))
            rows.append((name, probability, q.estimate, q.low, q.high, float(edges[at + 1] - edges[at])))
    notes = [
        "each quantile lies from low to high, edges of the study's grid; the estimate interpolates in between",
        "where bins were hidden, low and high may be several bins apart",
    ]
    if any(found.placed != found.n for found in numbers.values()):
        notes.append("of several rows of a person in one bin, one is counted")
    return ResultTable.of(
        "Quantiles", ("variable", "probability", "estimate", "low", "high", "bin_width"), rows, notes=tuple(notes)
    )


def _category_table(spec: StatisticsSpec, count: Aggregate, missing: Mapping[str, int], rows: int) -> ResultTable:
    out = []
    for name in spec.categories:
        variable = spec.setting.dictionary[name]
        cells = np.asarray(count[f"table.{name}"], dtype=np.float64)
        known_rows = rows - missing[name]
        for i, code in enumerate(variable.levels):
            label = level_label(variable, i)
            persons = None if np.isnan(cells[i]) else int(cells[i])
            share = None if persons is None or known_rows == 0 else persons / known_rows
            out.append((f"{name} = {label}", name, code, label, persons, share))
    notes = (HIDDEN,) if any(r[4] is None for r in out) else ()
    if int(count["persons"]) != rows:
        out = [(*r[:5], None) for r in out]  # a share of persons in rows means nothing
    return ResultTable.of("Categories", ("label", "variable", "code", "level", "persons", "share"), out, notes=notes)


def _pair_table(spec: StatisticsSpec, count: Aggregate, pair: tuple[str, str]) -> ResultTable:
    a, b = (spec.setting.dictionary[v] for v in pair)
    cells = np.asarray(count[f"table.{pair[0]}:{pair[1]}"], dtype=np.float64)
    rows = [
        (level_label(a, i), level_label(b, j), None if np.isnan(cells[i, j]) else int(cells[i, j]))
        for i in range(len(a.levels)) for j in range(len(b.levels))
    ]  # fmt: skip
    notes = (HIDDEN,) if np.isnan(cells).any() else ()
    return ResultTable.of(f"{pair[0]} by {pair[1]}", (pair[0], pair[1], "persons"), rows, notes=notes)
