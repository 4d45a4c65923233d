"""Small totals: what happens to an opened aggregate before the journal, the method or any person sees it.

Thresholds hold for totals over sites. A total of `persons` below the study's minimum ends the analysis. A `cell` in
1..minimum-1 becomes NaN, and with it as many others as are needed so that no margin gives it back (complementary suppression;
Hundepool et al., Statistical Disclosure Control, 2012, ch. 4). Zeros stay: an empty cell holds no person.

Coordinator and sites apply the same functions to the same totals, so that their replays agree.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from fivefold.errors import TooFewPersons
from fivefold.protocol.questions import Array, Field

Mask = npt.NDArray[np.bool_]


def screen(totals: Mapping[str, Array], fields: Sequence[Field], minimum_persons: int) -> dict[str, Array]:
    """The totals as they may be kept and shown. Raises `TooFewPersons`, which never says how many there are.

    Cells come back as float64 of their shape with NaN where suppressed; all other totals come back as they are. Screening what
    was screened before changes nothing. Cells with noise are not suppressed: the noise protects those in them, and to hide
    small ones would only make what is left too large on average.
    """
    for field in fields:
        if field.kind == "persons" and np.any(np.asarray(totals[field.name]) < minimum_persons):
            raise TooFewPersons(f"fewer than {minimum_persons} persons remain over all sites", rule="minimum_persons")
    return {f.name: _cells(totals[f.name], f, minimum_persons) if f.kind == "cell" else totals[f.name] for f in fields}


def _cells(total: Array, field: Field, minimum: int) -> Array:
    return np.asarray(total, dtype=np.float64) if field.noise is not None else suppressed(total, minimum)


def suppressed(cells: npt.ArrayLike, minimum: int) -> npt.NDArray[np.float64]:
    """Counts of any shape as float64, NaN where `hidden` says so. Counts with NaN among them were screened before."""
    values = np.array(cells, dtype=np.float64)
    known = ~np.isnan(values)
    values[hidden(values, minimum) if known.all() else known & _small(values, minimum)] = np.nan
    return values


def hidden(cells: npt.ArrayLike, minimum: int) -> Mask:
    """Which cells of a table of counts are not to be shown, given that all its margins may be known.

    Small cells are hidden; then in every line along every axis that hides one, the next smallest cells are hidden too until at
    least two are hidden and their sum, which the margin tells, reaches the minimum. Zeros are the last to be taken.
    """
    counts = np.asarray(cells, dtype=np.float64)
    mask = _small(counts, minimum)
    if counts.ndim == 0 or not mask.any():
        return mask
    while any(_cover(line, shown, minimum) for line, shown in _lines(counts, mask)):
        pass
    return mask


def _small(counts: npt.NDArray[np.float64], minimum: int) -> Mask:
    return np.asarray((counts > 0) & (counts < minimum))


def _lines(counts: npt.NDArray[np.float64], mask: Mask) -> Iterator[tuple[npt.NDArray[np.float64], Mask]]:
    """Every line along every axis: its counts and a view of its mask."""
    for axis in range(counts.ndim):
        moved, view = np.moveaxis(counts, axis, -1), np.moveaxis(mask, axis, -1)
        for index in np.ndindex(moved.shape[:-1]):
            yield moved[index], view[index]


def _cover(line: npt.NDArray[np.float64], mask: Mask, minimum: int) -> bool:
    """Hide more of one line until what is hidden cannot be computed back. True if anything was hidden."""
    changed = False
    while mask.any() and not mask.all() and (mask.sum() < 2 or line[mask].sum() < minimum):
        rest = np.where(mask | (line == 0), np.inf, line)
        if np.isinf(rest).all():
            rest = np.where(mask, np.inf, line)
        mask[int(rest.argmin())] = True
        changed = True
    return changed
