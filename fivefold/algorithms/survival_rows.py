"""Beside the rows: from a harmonised table to spells at risk, on the study's grid or on the site's own times.

What describes the selection travels as one argument, `model`: formula, subgroup, strata, weights, public scaling
constants, the grid, and whether each site has risk sets of its own (`local`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fivefold.algorithms import cohort
from fivefold.algorithms.cohort import Facts
from fivefold.algorithms.design import Design, Scaling, column_bounds, design, matrix
from fivefold.algorithms.method import Setting
from fivefold.algorithms.survival_grid import Floats, Ints, grid_of
from fivefold.errors import FormulaInvalid, OutOfBounds, StudyInvalid
from fivefold.study.dictionary import Dictionary, Variable
from fivefold.study.formula import SITE, Survival
from fivefold.study.table import Table


@dataclass(frozen=True)
class Spells:
    """Times as indices: at risk in (start, stop]; start is -1 where a row is at risk from the beginning; `time` is the exit,
    on the grid if there is one. Shapes (rows,)."""

    start: Ints
    stop: Ints
    event: npt.NDArray[np.bool_]
    time: Floats


def selected(table: Table, model: Mapping[str, Any]) -> Table:
    """The rows of the analysis."""
    return cohort.select(table, tuple(model["variables"]), model["subgroup"])


def spells(cases: Table, response: Survival, grid: Mapping[str, Any] | None) -> Spells:
    """Entry, exit and event of each row. Raises `OutOfBounds` for an entry not before its exit, or a time beyond the grid."""
    time, event = cases[response.time], cases[response.status] > 0
    entry = cases[response.start] if response.start else None
    if entry is not None and np.any(entry >= time):
        raise OutOfBounds(
            f"in some row {response.start!r} is not before {response.time!r}",
            rule="entry_before_exit", variable=response.start or "",
        )  # fmt: skip
    if grid is None:
        times = np.unique(time)
        stop = np.searchsorted(times, time)
        start = np.full(len(time), -1) if entry is None else np.searchsorted(times, entry, side="right") - 1
        return Spells(start.astype(np.int64), stop.astype(np.int64), event, time)
    on = grid_of(grid)
    stop, event = on.stops(time, event, response.time)
    start = np.full(len(time), -1, dtype=np.int64) if entry is None else on.entries(entry)
    within = time <= on.edges[-1]  # who enters after the end of a grid that censors is never at risk
    return Spells(np.minimum(start, np.where(within, stop - 1, stop)), stop, event, on.edges[stop])


def strata_index(cases: Table, names: tuple[str, ...]) -> Ints:
    """One number per combination of the categories, in row-major order of their codes."""
    index = np.zeros(len(cases), dtype=np.int64)
    for name in names:
        index = index * len(cases.variable(name).levels) + cases[name].astype(np.int64)
    return index


def strata_count(dictionary: Dictionary, names: tuple[str, ...]) -> int:
    """How many combinations there are."""
    return int(np.prod([len(dictionary[n].levels) for n in names], dtype=np.int64))


def require_one_row_each(cases: Table, person: str = "the person identifier") -> None:
    """Screened cells count persons; with several rows a person they would not. Raises `OutOfBounds`."""
    if cases.persons != len(cases):
        raise OutOfBounds(
            f"{person} occurs in more than one row, and a coarse time grid counts each person once", rule="one_row_each",
            help="Use a grid of single times (`event_totals: true`), strata(site), or one row a person.",
        )  # fmt: skip


def columns(cases: Table, model: Mapping[str, Any]) -> Floats:
    """The model's columns scaled to at most 1 by public constants, shape (rows, p). Raises `OutOfBounds` naming a variable."""
    made = model_design(model, cases.dictionary)
    for name in made.numbers:
        low, high = cases.variable(name).minimum, cases.variable(name).maximum
        if low is None or high is None or np.any((cases[name] < low) | (cases[name] > high)):
            raise OutOfBounds(f"a value of {name!r} lies outside its range", rule="range", variable=name)
    scaling = Scaling(np.asarray(model["centre"]), np.asarray(model["scale"]))
    z = matrix(made, cases, scaling) / column_bounds(made, cases.dictionary, scaling)
    return np.asarray(z, dtype=np.float64)


def model_design(model: Mapping[str, Any], dictionary: Dictionary) -> Design:
    """The design of a model: a constant is absorbed by the baseline hazard."""
    return design(model["formula"], dictionary, absorbed=True)


# ---- when the cohort is known ----------------------------------------------------------------------------------------
def require_events(found: Facts, status: str, setting: Setting) -> None:
    """Events happen, and neither few persons have one nor few have none; that all have one is no fault of survival data.

    Raises `TooFewPersons` or `CategoryAbsent`.
    """
    if found.outcome is None or found.outcome[1] == 0:
        cohort.require_outcome(found, status, setting)


# ---- when a study is read -------------------------------------------------------------------------------------------
def require_response(response: str | Survival, dictionary: Dictionary, method: str) -> Survival:
    """A survival response whose variables can be one. Raises `FormulaInvalid` or `StudyInvalid`."""
    if not isinstance(response, Survival):
        raise FormulaInvalid(f"{method} models a survival time, not {response!r}", help="Write `Surv(time, status) ~ ...`.")
    status = dictionary[response.status]
    binary = status.type == "boolean" or (status.type == "category" and len(status.levels) == 2)
    binary = binary or (status.type in ("integer", "number") and status.minimum == 0 and status.maximum == 1)
    if not binary:
        raise StudyInvalid(
            f"status {status.name!r} does not say whether the event happened", variable=status.name,
            help="Make it a boolean, a category of two codes whose second is the event, or an integer from 0 to 1.",
        )  # fmt: skip
    return response


def require_strata(names: tuple[str, ...], dictionary: Dictionary) -> tuple[str, ...]:
    """The strata other than `site`, all of them categories. Raises `FormulaInvalid`."""
    for name in names:
        if name != SITE and not dictionary[name].levels:
            raise FormulaInvalid(
                f"strata({name}) needs a category", variable=name,
                help=f"Declare a derived variable that cuts {name!r} into classes.",
            )  # fmt: skip
    return tuple(n for n in names if n != SITE)


def require_weights(name: str, dictionary: Dictionary) -> Variable:
    """A weight variable with a positive range. Raises `StudyInvalid`."""
    if name not in dictionary:
        raise StudyInvalid(f"the weights name {name!r}, which the study does not use", variable=name)
    variable = dictionary[name]
    if variable.minimum is None or variable.maximum is None or not 0 < variable.minimum <= variable.maximum:
        raise StudyInvalid(
            f"weights {name!r} need a range above 0", variable=name,
            help="Write a `minimum` above 0 and a `maximum` in the dictionary.",
        )  # fmt: skip
    return variable
