"""Released counts in one form: each says how many persons fall into a cell of declared categories.

A cell is a conjunction: `sex = 1`, `died known`, `time in [100, 200)`. What is not named does not matter. Counts are of
distinct persons, each person in one elementary cell at most; where a person may have several rows, counts are not of this form.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

KNOWN: Final = True
"""Stands for: the variable has a value, whichever."""

MISSING: Final = False
"""Stands for: the variable has none."""

Condition = str | bool | tuple[float, float]
"""A level, `KNOWN`, `MISSING`, or an interval [low, high)."""


@dataclass(frozen=True)
class Count:
    """`low <= persons in the cell <= high`, as a release tells it; equal where it was not rounded. `where`: variable and
    condition in the order of the names."""

    where: tuple[tuple[str, Condition], ...]
    low: int
    high: int

    @classmethod
    def of(cls, where: Mapping[str, Condition], value: int, base: int = 1) -> Count:
        """A count as it is, or rounded to the nearest multiple of `base` (half up)."""
        low, high = interval(value, base)
        return cls(tuple(sorted(where.items())), low, high)

    def plain(self) -> list[Any]:
        """JSON values; `from_plain` reads them."""
        return [[[n, list(c) if isinstance(c, tuple) else c] for n, c in self.where], self.low, self.high]

    @classmethod
    def from_plain(cls, value: Any) -> Count:
        where, low, high = value
        pairs = tuple((str(n), (float(c[0]), float(c[1])) if isinstance(c, (list, tuple)) else c) for n, c in where)
        return cls(pairs, int(low), int(high))


@dataclass(frozen=True)
class CountTable:
    """A table of counts: `counts` has one axis for each of `axes` (variable, levels); NaN where it is not shown."""

    name: str
    axes: tuple[tuple[str, tuple[str, ...]], ...]
    counts: npt.NDArray[np.float64]
    known: npt.NDArray[np.float64] | None = None
    """What whoever checks knows of the counts that are not shown."""

    def cells(self, base: int = 1) -> Iterator[Count]:
        """Every cell that is shown."""
        for at in np.argwhere(~np.isnan(self.counts)):
            where: dict[str, Condition] = {n: levels[i] for (n, levels), i in zip(self.axes, at, strict=True)}
            yield Count.of(where, int(self.counts[tuple(at)]), base)


def rounded(value: float, base: int) -> int:
    """The nearest multiple of a base, half up."""
    return int(value + base // 2) // base * base


def interval(shown: int, base: int) -> tuple[int, int]:
    """The smallest and largest count that is shown as `shown` (a multiple of the base, or any count for base 1). A 0 is a 0:
    what would be rounded to it is hidden instead."""
    if shown == 0:
        return 0, 0
    return max(0, shown - base // 2), shown + base - 1 - base // 2


def names(counts: Iterable[Count]) -> tuple[str, ...]:
    """Every variable that is named, each once."""
    return tuple(dict.fromkeys(n for c in counts for n, _ in c.where))
