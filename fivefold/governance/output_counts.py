"""What an analysis' tables tell about how many: every count of persons in them, as a count of a declared cell.

A count that is not of this form (rows of persons with several rows, a subgroup that is not a conjunction of categories) makes
the whole analysis one that only differential privacy, or the sites' own comparison, can judge beside others.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from fivefold.algorithms.design import level_label
from fivefold.disclosure.tables import KNOWN, MISSING, Condition, Count, CountTable
from fivefold.protocol.results import Result, ResultTable
from fivefold.study import formula
from fivefold.study.definition import Analysis, Study
from fivefold.study.dictionary import Dictionary
from fivefold.study.digest import SignedStudy, canonical_json

LARGE = 5_000
"""Cells of a table beyond which it is judged as a whole."""
EQUALS = re.compile(r"""\s*([A-Za-z]\w*)\s*==\s*(?:"([^"]*)"|'([^']*)'|([\w.]+))\s*""")


@dataclass(frozen=True)
class Told:
    """`counts`: everything that is told of declared cells; `linear` False where some counts are of another form. `tables`: each
    cross table, whole, by the name under which it stands in the result (of `categories`: one a variable)."""

    counts: tuple[Count, ...]
    tables: Mapping[str, CountTable]
    linear: bool

    @property
    def large(self) -> tuple[CountTable, ...]:
        """Tables whose cells do not stand among `counts`, being too many."""
        return tuple(t for t in self.tables.values() if t.counts.size > LARGE)


def told(study: Study, analysis: Analysis, result: Result, base: int = 1) -> Told:
    """What the result tells, its counts rounded to `base` (1: as they are)."""
    base_cell = cell_of(analysis.subgroup, study.phenotypes)
    persons, rows = result.facts.get("persons"), result.facts.get("rows")
    linear = base_cell is not None and (rows == persons or None in (rows, persons))
    tables = {**_categories(study, result), **_pairs(study, analysis, result)}
    if base_cell is None:
        return Told((), tables, False)
    reader = {"statistics": _statistics, "kaplan_meier": _survival, "cox": _model, "glm": _model}.get(analysis.method)
    found = [] if reader is None else list(reader(study, analysis, result))
    found += [(dict(c.where), c.low) for t in tables.values() if t.counts.size <= LARGE for c in t.cells()]
    counts = tuple(Count.of({**where, **base_cell}, int(value), base) for where, value in found if value is not None)
    return Told(counts, tables, linear and reader is not None)


def cell_of(subgroup: str, dictionary: Dictionary) -> dict[str, Condition] | None:
    """The declared cell that a subgroup is; {} for the whole cohort; None where it is not one."""
    cell: dict[str, Condition] = {}
    for part in re.split(r"\band\b", subgroup) if subgroup.strip() else ():
        found = EQUALS.fullmatch(part)
        if found is None or found[1] not in dictionary or found[1] in cell:
            return None
        level = next(g for g in found.groups()[1:] if g is not None)
        variable = dictionary[found[1]]
        if variable.type == "boolean":
            level = {"True": "1", "true": "1", "False": "0", "false": "0"}.get(level, level)
        if level not in variable.levels:
            return None
        cell[found[1]] = level
    return cell


def levels_of(study: Study) -> dict[str, tuple[str, ...]]:
    """The levels of every category of a study."""
    return {n: v.levels for n, v in study.phenotypes.variables.items() if v.levels}


def complete(analysis: Analysis) -> dict[str, Condition]:
    """The cell of those who are complete over what a formula reads."""
    return dict.fromkeys(formula.parse(analysis.formula).variables, KNOWN) if analysis.formula else {}


# ---- method by method -----------------------------------------------------------------------------------------------
Found = Iterator[tuple[dict[str, Condition], Any]]


def _statistics(study: Study, analysis: Analysis, result: Result) -> Found:
    yield {}, result.facts.get("persons")
    for n in analysis.variables:
        yield {n: MISSING}, result.facts.get(f"missing_{n}")
    if "numbers" in result.tables:
        table = result.tables["numbers"]
        for name, persons, rows, missing in zip(
            *(table.column(c) for c in ("variable", "persons", "n", "missing")), strict=True
        ):
            yield {str(name): KNOWN}, persons
            yield {str(name): KNOWN}, rows
            yield {str(name): MISSING}, missing


def _model(study: Study, analysis: Analysis, result: Result) -> Found:
    whole = complete(analysis)
    yield whole, result.facts.get("persons")
    for n in whole:
        yield {n: MISSING}, result.facts.get(f"missing_{n}")
    event = _event(study, analysis)
    if event:
        yield {**whole, **event}, result.facts.get("events")


def _survival(study: Study, analysis: Analysis, result: Result) -> Found:
    yield from _model(study, analysis, result)
    read = formula.parse(analysis.formula)
    assert isinstance(read.response, formula.Survival)
    whole, event = complete(analysis), _event(study, analysis) or {}
    if not event or read.response.start:
        return
    status, time = read.response.status, read.response.time
    for name, columns in {"groups": ("persons", "persons_with_event"), "log_rank_groups": (None, "observed")}.items():
        if name in result.tables:
            table = result.tables[name]
            for at, group in enumerate(table.column("group")):
                cell = {**whole, **group_cell(study, read.covariates, str(group))}
                for column, more in zip(columns, ({}, event), strict=True):
                    if column is not None:
                        yield {**cell, **more}, table.column(column)[at]
    for group, rows in curves(result).items():
        cell = {**whole, **group_cell(study, read.covariates, group)}
        before = float("-inf")
        for row in rows:
            end = float(row["time"])
            inside: dict[str, Condition] = {**cell, time: (before, end)}
            yield {**inside, status: "1"}, row["events"]
            yield {**inside, status: "0"}, row["censored"]
            yield {**cell, time: (before, float("inf"))}, row["at_risk"]
            before = end


def curves(result: Result) -> dict[str, list[dict[str, Any]]]:
    """The rows of each group's curve that rest on counts, in the order of time."""
    out: dict[str, list[dict[str, Any]]] = {}
    table = result.tables.get("curves")
    for row in table.rows if table is not None else ():
        assert table is not None
        values = dict(zip(table.columns, row, strict=True))
        if values["at_risk"] is not None or values["events"] is not None:
            out.setdefault(str(values["group"]), []).append(values)
    for rows in out.values():
        assert all(a["time"] < b["time"] for a, b in pairwise(rows))
    return out


def group_cell(study: Study, groups: tuple[str, ...], label: str) -> dict[str, Condition]:
    """The cell that a curve's label names: of one category its level, of several a category of its own."""
    if not groups or label == "all":
        return {}
    if len(groups) == 1:
        variable = study.phenotypes[groups[0]]
        said = label.removeprefix(f"{groups[0]}: ")
        for at, level in enumerate(variable.levels):
            if level_label(variable, at) == said:
                return {groups[0]: level}
    return {":".join(groups): label}


def _event(study: Study, analysis: Analysis) -> dict[str, Condition] | None:
    """The cell of those with the outcome, where it is a yes or no."""
    response = formula.parse(analysis.formula).response
    name = response.status if isinstance(response, formula.Survival) else response
    found = study.phenotypes.variables.get(name)
    return {name: "1"} if found is not None and found.type == "boolean" else None


def _categories(study: Study, result: Result) -> dict[str, CountTable]:
    """The one-way tables that stand together in `categories`."""
    table = result.tables.get("categories")
    if table is None or "persons" not in table.columns or "variable" not in table.columns:
        return {}
    out: dict[str, CountTable] = {}
    for name in dict.fromkeys(str(v) for v in table.column("variable")):
        cells = np.array([p for v, p in zip(table.column("variable"), table.numbers("persons"), strict=True) if v == name])
        out[f"categories.{name}"] = CountTable(name, ((name, study.phenotypes[name].levels),), cells)
    return out


def _pairs(study: Study, analysis: Analysis, result: Result) -> dict[str, CountTable]:
    if analysis.method != "statistics":
        return {}
    out = {}
    for a, b in analysis.options.get("tables", ()):
        name = f"{a}_by_{b}"
        table: ResultTable | None = result.tables.get(name)
        if table is not None:
            axes = tuple((v, study.phenotypes[v].levels) for v in (a, b))
            counts = np.array(table.numbers("persons")).reshape(tuple(len(levels) for _, levels in axes))
            out[name] = CountTable(name, axes, counts)
    return out


def population(found: SignedStudy) -> str:
    """A digest that is equal for studies of the same persons by the same words: sites, dictionary, cohort, derived
    variables."""
    study = found.study
    said = {
        "sites": sorted(s.public_key for s in study.sites),
        "dictionary": [[v.name, v.type, list(v.levels), list(v.missing_codes)] for v in study.dictionary.variables.values()],
        "cohort": [sorted(study.cohort.include), sorted(study.cohort.exclude)],
        "derived": [[d.variable.name, d.expression] for d in study.derived],
    }
    return hashlib.sha256(canonical_json(said)).hexdigest()
