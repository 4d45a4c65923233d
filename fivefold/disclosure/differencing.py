"""Differencing: may this be released beside everything that was released before?

Each release tells counts of declared cells. Together they are a system of linear equations (inequalities where rounded) over
the elementary cells, in which every person stands once. A release is permitted where every elementary cell that is not known
to be empty *could* hold the minimum of persons, or more, by some table of whole numbers that agrees with all releases. Then no
union of cells, however it was put together from sums and differences, is known to hold somebody and fewer than the minimum: it
could hold what any of its cells could. That one table exists is shown by the table itself, checked in whole numbers, so no
rounding of a solver decides.

Elementary cells that every release treats alike are one unknown. Cohorts that are not declared cells are not of this form:
comparing them is the sites' (`site/release_ledger.py`), and sequences of them need differential privacy.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from fivefold.disclosure.suppression import covered
from fivefold.disclosure.tables import KNOWN, MISSING, Condition, Count, CountTable, names

MOST_CELLS = 2_000_000
"""Elementary cells times counts, in units of 100."""
MOST_UNKNOWNS = 4_000
TOO_MANY = "too many declared cells to compare exactly with what was released: merge categories"
CONTRADICT = "the counts contradict each other: they are not of one population"
Whole = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Verdict:
    """`permitted`, or the sentence that says what could be told, with a cell's words where it is one cell."""

    permitted: bool
    why: str = ""
    cell: tuple[tuple[str, str], ...] = ()


def judge(
    counts: Sequence[Count], levels: Mapping[str, Sequence[str]], minimum: int, large: Sequence[CountTable] = ()
) -> Verdict:
    """Whether all these counts together isolate nobody. `levels`: the levels of each variable that is named by level.

    `large`: tables that are too large to be solved. They are permitted where what they hide is covered whatever margins are
    known (`suppression.covered`), and the counts beside speak of their margins or of other variables: any two tables that
    share no variable but the number of persons can be of one population, with as many persons in any pair of cells as the
    smaller of the two holds.
    """
    for at, table in enumerate(large):
        axes = {n for n, _ in table.axes}
        shared = [c for c in counts if 0 < len(axes & {n for n, _ in c.where}) < len(c.where)]
        if shared or any(axes & {n for n, _ in other.axes} for other in large[:at]):
            return Verdict(False, f"{table.name} is too large to be compared exactly with what else is released")
        if not covered(table.counts, minimum, table.known):
            return Verdict(False, f"a hidden cell of {table.name} could be computed back, or a shown one is too small")
    found = tuple(dict.fromkeys(counts))
    named = set(names(found))
    return _judged(found, tuple((n, tuple(v)) for n, v in levels.items() if n in named), minimum) if found else Verdict(True)


@lru_cache(maxsize=64)
def _judged(counts: tuple[Count, ...], known: tuple[tuple[str, tuple[str, ...]], ...], minimum: int) -> Verdict:
    """By parts that share no variable: as with large tables, they can be of one population of any size that suits them all."""
    levels = dict(known)
    nobody = frozenset(c.where[0][0] for c in counts if c.high == 0 and len(c.where) == 1 and c.where[0][1] is MISSING)
    simple = dict.fromkeys(s for c in counts if (s := _simplified(c, nobody)) is not None)
    parts = _parts(tuple(simple))
    systems = []
    for part in parts:
        axes = _axes(part, levels, nobody)
        size = int(np.prod([float(len(a)) for a in axes.values()]))
        if size * len(part) > MOST_CELLS * 100:
            return Verdict(False, TOO_MANY)
        matrix, sample = _merged(part, axes)
        if matrix.shape[1] > MOST_UNKNOWNS:
            return Verdict(False, TOO_MANY)
        low = np.array([c.low for c in part], dtype=np.int64)
        high = np.array([c.high for c in part], dtype=np.int64)
        systems.append((axes, sample, matrix, low, high))
    if len(systems) > 1:
        total = _common_total([(m, low, high) for _, _, m, low, high in systems])
        if total is None:
            return Verdict(False, CONTRADICT)
        systems = [
            (axes, sample, np.vstack([m, np.ones_like(m[:1])]), np.append(low, total), np.append(high, total))
            for axes, sample, m, low, high in systems
        ]
    for axes, sample, matrix, low, high in systems:
        at = isolated(matrix, low, high, minimum)
        if at is not None and at < 0:
            return Verdict(False, CONTRADICT)
        if at is not None:
            cell = _words(axes, int(sample[at]))
            said = ", ".join(f"{n} {v}" for n, v in cell)
            return Verdict(False, f"with what was released, fewer than {minimum} persons could be told apart: {said}", cell)
    return Verdict(True)


def _simplified(count: Count, nobody: frozenset[str]) -> Count | None:
    """A count without conditions that hold for all; None where it is of the cells that are known to be empty, as it says."""
    where = tuple((n, c) for n, c in count.where if not (c is KNOWN and n in nobody))
    empty = any(c is MISSING and n in nobody for n, c in where)
    return None if empty and count.low == 0 else Count(where, count.low, count.high)


def _parts(counts: tuple[Count, ...]) -> list[tuple[Count, ...]]:
    """The counts by connected variables; those of everybody belong to every part."""
    groups: list[tuple[set[str], list[Count]]] = []
    whole = [c for c in counts if not c.where]
    for count in counts:
        if not count.where:
            continue
        variables, members = {n for n, _ in count.where}, [count]
        for found in [g for g in groups if g[0] & variables]:
            variables |= found[0]
            members = found[1] + members
            groups.remove(found)
        groups.append((variables, members))
    return [(*whole, *members) for _, members in groups] or [tuple(whole)]


def _common_total(systems: Sequence[tuple[Whole, Whole, Whole]]) -> int | None:
    """A number of persons that suits every part; None where there is none. In the middle, where there is room to both sides."""
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import csr_matrix

    least, most = 0.0, float("inf")
    for matrix, low, high in systems:
        rules = [LinearConstraint(csr_matrix(matrix), low, high)]
        for sign in (1.0, -1.0):
            goal = np.full(matrix.shape[1], sign)
            ends = milp(goal, constraints=rules, bounds=Bounds(0, np.inf), integrality=np.ones(matrix.shape[1]))
            if ends.status == 3 or (sign < 0 and ends.x is None and ends.status == 4):
                continue  # as many as one likes
            if ends.x is None:
                return None
            if sign > 0:
                least = max(least, round(float(ends.fun)))
            else:
                most = min(most, -round(float(ends.fun)))
    if least > most:
        return None
    return int(least + most) // 2 if np.isfinite(most) else int(least) * 2 + 1_000_000


def isolated(matrix: npt.ArrayLike, low: Whole, high: Whole, minimum: int) -> int | None:
    """The first unknown of {x ≥ 0 whole, low ≤ Ax ≤ high} that may be told to be above 0 and below the minimum; None where
    there is none; -1 where there is no x at all. A: (counts, unknowns) of 0 and 1."""
    a = np.asarray(matrix, dtype=np.int64)
    settled: npt.NDArray[np.bool_] = np.logical_not(a.any(axis=0))  # in no count: nothing is known of it
    empty = a[high == 0].any(axis=0)
    if empty.any():  # known to be empty: out of the system, which gets small by that
        rest = np.flatnonzero(~empty)
        found = isolated(a[:, rest], low, high, minimum)
        return found if found is None or found < 0 else int(rest[found])
    live = a.any(axis=1)
    if (low[~live] > 0).any():
        return -1
    a, low, high = a[live], low[live], high[live]
    if len(a) and _largest(a, low, high, 0, minimum)[0] is None:
        return -1
    fixed = [k for k in range(len(a)) if a[k].sum() == 1 and low[k] == high[k]]
    for k in fixed:
        only = int(a[k].argmax())
        if 0 < low[k] < minimum:
            return only
        settled[only] = True
    for unknown in np.flatnonzero(~settled):
        if settled[unknown]:
            continue
        most, table = _largest(a, low, high, int(unknown), minimum)
        if table is not None:
            settled |= table >= minimum  # one table speaks for all cells that it fills
        elif most is not None and most < 1:
            settled[unknown] = True  # empty for certain
        else:
            return int(unknown)
    return None


def _largest(a: Whole, low: Whole, high: Whole, unknown: int, minimum: int) -> tuple[float | None, Whole | None]:
    """The most that an unknown may be, and a table of whole numbers in which it reaches the minimum, if there is one."""
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import csr_matrix

    goal = np.zeros(a.shape[1])
    goal[unknown] = -1.0
    rules = [LinearConstraint(csr_matrix(a), low, high)]
    loose = milp(goal, constraints=rules, bounds=Bounds(0, np.inf))
    if loose.status == 3:  # unbounded: any number will do
        most = float("inf")
    elif loose.x is None:
        return None, None
    else:
        most = -float(loose.fun)
        table = _whole(loose.x, a, low, high)
        if table is not None and table[unknown] >= minimum:
            return most, table
        if most < 1 - 1e-6:
            return 0.0, None
        if most < minimum - 1e-6:
            return most, None
    floor = np.zeros(a.shape[1])
    floor[unknown] = minimum
    strict = milp(
        -goal, constraints=rules, bounds=Bounds(floor, np.inf), integrality=np.ones(a.shape[1]), options={"node_limit": 2000}
    )
    return most, None if strict.x is None else _whole(strict.x, a, low, high)


def _whole(x: npt.NDArray[np.float64], a: Whole, low: Whole, high: Whole) -> Whole | None:
    """A solver's table in whole numbers, if these agree with every count exactly."""
    table = np.rint(x).astype(np.int64)
    sums = a @ table
    return table if (table >= 0).all() and (sums >= low).all() and (sums <= high).all() else None


# ---- elementary cells -----------------------------------------------------------------------------------------------
def _axes(counts: Sequence[Count], levels: Mapping[str, Sequence[str]], nobody: frozenset[str]) -> dict[str, list[Condition]]:
    """The elementary levels of every variable: its own, or the intervals between all ends named, or known; and missing, where
    it is not known that `nobody` is."""
    out: dict[str, list[Condition]] = {}
    for name in names(counts):
        asked = {c for count in counts for n, c in count.where if n == name}
        texts = [c for c in asked if isinstance(c, str)]
        ends = sorted({e for c in asked if isinstance(c, tuple) for e in c})
        if texts:
            out[name] = [*dict.fromkeys([*levels.get(name, ()), *sorted(texts)]), MISSING]
        elif ends:
            edges = [-np.inf, *(e for e in ends if np.isfinite(e)), np.inf]
            out[name] = [*((a, b) for a, b in itertools.pairwise(edges)), MISSING]
        else:
            out[name] = [KNOWN, MISSING]
        if name in nobody:
            out[name].remove(MISSING)
    return out or {"persons": [KNOWN]}


def _merged(counts: Sequence[Count], axes: Mapping[str, Sequence[Condition]]) -> tuple[Whole, npt.NDArray[np.int64]]:
    """The system with cells that all counts treat alike merged: (counts, unknowns), and one elementary cell of each."""
    shape = tuple(len(a) for a in axes.values())
    order = list(axes)
    words = np.random.default_rng(0).integers(0, 2**63, size=(len(counts), 2), dtype=np.uint64)
    marks = np.zeros((2, *shape), dtype=np.uint64)
    inside = []
    for count, word in zip(counts, words, strict=True):
        chosen: list[npt.NDArray[np.bool_]] = [np.ones(n, dtype=np.bool_) for n in shape]
        for name, condition in count.where:
            chosen[order.index(name)] = np.array([_within(level, condition) for level in axes[name]], dtype=np.bool_)
        inside.append(chosen)
        for half, part in zip(marks, word, strict=True):
            half[np.ix_(*chosen)] += part
    _, sample = np.unique(marks.reshape(2, -1), axis=1, return_index=True)
    place = np.unravel_index(sample, shape)
    matrix = np.array([np.all([c[p] for c, p in zip(chosen, place, strict=True)], axis=0) for chosen in inside], dtype=np.int64)
    return matrix.reshape(len(counts), len(sample)), sample


def _within(level: Condition, condition: Condition) -> bool:
    if isinstance(condition, bool):
        return (level is not MISSING) == condition
    if isinstance(condition, tuple):
        return isinstance(level, tuple) and condition[0] <= level[0] and level[1] <= condition[1]
    return level == condition


def _words(axes: Mapping[str, Sequence[Condition]], cell: int) -> tuple[tuple[str, str], ...]:
    place = np.unravel_index(cell, tuple(len(a) for a in axes.values()))
    out = []
    for (name, levels), at in zip(axes.items(), place, strict=True):
        level = levels[int(at)]
        said = "missing" if level is MISSING else "known" if level is KNOWN else str(level)
        out.append((name, f"from {level[0]:g} to {level[1]:g}" if isinstance(level, tuple) else said))
    return tuple(out)
