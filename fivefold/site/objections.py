"""What a site says of counts that are about to be released: does its own share of them give others away, or itself?

A site knows its own count of every cell. Subtracting it from a total gives what all others have; where that is somebody and
fewer than the minimum, the site would learn of a few persons elsewhere, and so objects. It objects as well where it may be
one of those that dominate a cell (`disclosure/dominance.py`): then the others could tell how many it has. Only whether it
objects leaves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from fivefold.disclosure.dominance import may_dominate
from fivefold.disclosure.tables import Condition, Count
from fivefold.study.table import Table

Reason = Literal["threshold", "dominance"]


def own_count(table: Table, count: Count) -> int | None:
    """This site's distinct persons in a cell; None where the cell names what the table does not have."""
    rows: npt.NDArray[np.bool_] = np.ones(len(table), dtype=np.bool_)
    for name, condition in count.where:
        if name not in table.columns:
            return None
        rows &= _within(table, name, condition)
    return int(np.unique(table.person[rows]).size)


def objections(counts: Sequence[Count], own: Sequence[int | None], minimum: int, *, dominance: bool) -> dict[Reason, int]:
    """How many counts this site objects to, by reason; for its own log. Counts of cells that it cannot judge are passed over.

    A count is an interval where it was rounded: a site objects where all that it can be leaves too few others. `dominance`: it
    objects to every cell in which it may be one that breaks a rule; not asked where its own totals may become known anyway.
    """
    found: dict[Reason, int] = {}
    for count, mine in zip(counts, own, strict=True):
        if mine is None:
            continue
        if count.low - mine >= 1 and count.high - mine < minimum:
            found["threshold"] = found.get("threshold", 0) + 1
        if dominance and bool(may_dominate(count.high, mine)) and mine < count.high:
            found["dominance"] = found.get("dominance", 0) + 1
    return found


def _within(table: Table, name: str, condition: Condition) -> npt.NDArray[np.bool_]:
    """The rows that a condition holds for; an interval is open below and closed above, as times on a grid are."""
    values = table[name]
    if isinstance(condition, bool):
        return np.asarray(~np.isnan(values) if condition else np.isnan(values))
    if isinstance(condition, tuple):
        return np.asarray((values > condition[0]) & (values <= condition[1]))
    levels = table.variable(name).levels
    return np.asarray(values == levels.index(condition)) if condition in levels else np.zeros(len(values), dtype=np.bool_)
