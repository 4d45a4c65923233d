"""Complementary suppression: which cells of a table of counts to hide, so that no hidden cell can be computed back.

The attacker knows every cell that is shown, every margin along every axis, and that no count is negative; so a hidden cell lies
between the minimum and the maximum of a linear programme (Fischetti and Salazar, Management Science 47:1008, 2001; Hundepool et
al., Statistical Disclosure Control, 2012, ch. 4). The *protection interval* is the width that this range must have at least:
the minimum of persons. Then a hidden cell may hold none or enough for all that anybody can tell, and what several hide
together has at least the minimum, too.

Cells are hidden by boxes: with a small cell its partners along every axis (two in a list, four in a table, eight in a cube).
What is added at one corner is taken away at the next, and all margins stay; so the smaller of the one kind plus the smaller
of the other is a width that no programme can fall below. `bounds` is the attacker, and the tests set it on everything that
this module hides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
TRIALS = 12
"""Partners that are tried for each small cell; small tables are searched whole."""


@dataclass(frozen=True)
class Suppression:
    """`mask`: what to hide. `margins`: whether margins may be known; where False nothing of the table may be shown but its
    total, if that has the minimum."""

    mask: Mask
    margins: bool


def small(counts: Floats, minimum: int) -> Mask:
    """Primary suppression: counts in 1..minimum-1. Zeros hold no person."""
    return np.asarray((counts > 0) & (counts < minimum))


def suppress(counts: npt.ArrayLike, minimum: int, besides: Mask | None = None) -> Suppression:
    """What to hide of a table of counts (any number of axes), all of whose margins may be known: small cells, those `besides`,
    and what covers them. A cell whose count is not known stands among `besides` and enters as 0, which promises less than it
    holds."""
    table = np.asarray(counts, dtype=np.float64)
    mask = small(table, minimum)
    if besides is not None:
        mask = mask | besides
    open_cells = np.argwhere(mask)
    if table.ndim == 0 or not len(open_cells):
        return Suppression(mask, not mask.any())
    everything = Suppression(np.ones_like(mask), False)
    if min(table.shape) < 2 or any(np.any(small(table.sum(axis=axis), minimum)) for axis in range(table.ndim)):
        return everything
    for block in np.array_split(open_cells, max(1, len(open_cells) // 20_000)):
        best = _boxes(table, mask, block, minimum)
        if best is None:
            return everything
        mask[tuple(best)] = True
    return Suppression(mask, True)


def _boxes(table: Floats, mask: Mask, cells: npt.NDArray[np.int64], minimum: int) -> npt.NDArray[np.int64] | None:
    """For each cell the corners of the box that hides fewest persons besides, (axes, cells * corners); None where one has
    none."""
    partners = _partners(table.shape, cells)  # (trials, cells, axes)
    corners = np.array(list(product((0, 1), repeat=table.ndim)))
    parity = corners.sum(axis=1) % 2
    dearest = float(table.sum()) + table.size
    best_cost = np.full(len(cells), np.inf)
    best = np.zeros((len(cells), table.ndim), dtype=np.int64)
    for other in partners:
        even = np.full(len(cells), np.inf)
        odd = np.full(len(cells), np.inf)
        cost = np.zeros(len(cells))
        for corner, side in zip(corners, parity, strict=True):
            at = tuple(np.where(corner, other, cells).T)
            value = table[at]
            cost += np.where(mask[at], 0.0, np.where(value == 0, dearest, value + 1.0))  # zeros are the last to be hidden
            if side:
                odd = np.minimum(odd, value)
            else:
                even = np.minimum(even, value)
        fits = (even + odd >= minimum) & (other != cells).all(axis=1) & (cost < best_cost)
        best_cost[fits], best[fits] = cost[fits], other[fits]
    if np.isinf(best_cost).any():
        return None
    return np.concatenate([np.where(corner, best, cells) for corner in corners]).T


def _partners(shape: tuple[int, ...], cells: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Trial partners of each cell, the same shifts for all: every one in small tables, a spread of them in large ones."""
    size = int(np.prod([n - 1 for n in shape]))
    if size * len(cells) <= 2_000_000:
        picked = np.arange(size)
    else:
        picked = np.unique(np.concatenate([np.arange(min(size, 4)), np.linspace(0, size - 1, TRIALS).astype(np.int64)]))
    shifts = np.stack(np.unravel_index(picked, tuple(n - 1 for n in shape)), axis=1) + 1
    if len(picked) < size:  # with every shift its mirrors, so that each corner of a box finds the same box
        signs = np.array(list(product((1, -1), repeat=len(shape))))
        shifts = (shifts[:, None, :] * signs[None, :, :]).reshape(-1, len(shape))
    return np.asarray((cells[None, :, :] + shifts[:, None, :]) % np.asarray(shape))


def covered(counts: npt.ArrayLike, minimum: int, known: npt.ArrayLike | None = None) -> bool:
    """Whether a table whose hidden cells are NaN may be shown with all its margins: nothing small is shown, and what is hidden
    covers itself. `known`: what whoever checks knows of the hidden counts; where nothing, they promise nothing."""
    table = np.asarray(counts, dtype=np.float64)
    gone = np.isnan(table)
    if np.any(small(np.nan_to_num(table), minimum)):
        return False
    found = suppress(np.nan_to_num(table if known is None else np.asarray(known, dtype=np.float64)), minimum, gone)
    return not gone.any() or (found.margins and bool((found.mask == gone).all()))


# ---- the attacker ---------------------------------------------------------------------------------------------------
def bounds(
    counts: npt.ArrayLike, mask: Mask, cells: Sequence[tuple[int, ...]] | None = None, *, margins: bool = True
) -> dict[tuple[int, ...], tuple[float, float]]:
    """What somebody can tell of hidden cells who knows the shown ones and all margins (or the grand total alone): the least and
    the most that each may hold, by linear programming (HiGHS). `counts` are complete; hidden ones enter by the margins
    alone."""
    from scipy.optimize import linprog
    from scipy.sparse import csr_matrix

    table = np.asarray(counts, dtype=np.float64)
    places = [tuple(int(i) for i in at) for at in np.argwhere(mask)]
    number = {at: k for k, at in enumerate(places)}
    rows: list[int] = []
    columns: list[int] = []
    right: list[float] = []
    for key, members in _lines(places, table.ndim if margins else 0).items():
        rows += [len(right)] * len(members)
        columns += [number[at] for at in members]
        right.append(float(sum(table[at] for at in members)))
        assert key is not None
    matrix = csr_matrix((np.ones(len(rows)), (rows, columns)), shape=(len(right), len(places)))
    found = {}
    for at in places if cells is None else cells:
        ends = []
        for sign in (1.0, -1.0):
            goal = np.zeros(len(places))
            goal[number[at]] = sign
            solved = linprog(goal, A_eq=matrix, b_eq=right, bounds=(0, None), method="highs")
            ends.append(float("nan") if solved.fun is None else sign * float(solved.fun))
        found[at] = (ends[0], ends[1])
    return found


def _lines(places: Sequence[tuple[int, ...]], axes: int) -> dict[tuple[int, tuple[int, ...]], list[tuple[int, ...]]]:
    """The hidden cells of every line along every axis; with no axis, all together."""
    lines: dict[tuple[int, tuple[int, ...]], list[tuple[int, ...]]] = {}
    for at in places:
        keys = [(axis, at[:axis] + at[axis + 1 :]) for axis in range(axes)] or [(-1, ())]
        for key in keys:
            lines.setdefault(key, []).append(at)
    return lines
