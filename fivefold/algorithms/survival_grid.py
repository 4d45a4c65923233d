"""The study's public time grid: on which times survival methods add up.

A time t is put onto the grid as the smallest edge that is not below it, an entry time as the largest edge that is not above
it: so a row that is at risk in (entry, t] stays at risk in a whole interval, and a pooled fit on the same gridded times
is the reference. On a daily grid the totals are totals at single events; a site's policy decides whether such may be seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from fivefold.errors import OutOfBounds, StudyInvalid, TooFewPersons
from fivefold.study.dictionary import Variable

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

MOST_INTERVALS = 20_000
DAYS = {
    "second": 1 / 86400, "s": 1 / 86400, "minute": 1 / 1440, "min": 1 / 1440, "hour": 1 / 24, "h": 1 / 24,
    "day": 1.0, "d": 1.0, "week": 7.0, "wk": 7.0, "month": 30.436875, "mo": 30.436875, "year": 365.2425, "a": 365.2425,
    "yr": 365.2425,
}  # fmt: skip
"""Length of a time unit in days, to see whether a grid is as fine as single days."""


@dataclass(frozen=True)
class TimeGrid:
    """Edges `start`, `start + step`, ... up to `end`, or `explicit` ones; `event_level` grids need every site's permission.

    `censor_beyond`: a time after the last edge counts as censored there; otherwise it is an error at the site.
    """

    start: float
    step: float
    intervals: int
    explicit: tuple[float, ...]
    unit: str
    event_level: bool
    censor_beyond: bool

    @property
    def edges(self) -> Floats:
        """All grid times, increasing, shape (intervals + 1,)."""
        if self.explicit:
            return np.array(self.explicit)
        return np.asarray(self.start + self.step * np.arange(self.intervals + 1), dtype=np.float64)

    @property
    def size(self) -> int:
        return len(self.explicit) if self.explicit else self.intervals + 1

    def stops(self, time: Floats, event: npt.NDArray[np.bool_], variable: str) -> tuple[Ints, npt.NDArray[np.bool_]]:
        """Index of each time's edge, and its event, which is False for one beyond the end. Raises `OutOfBounds`."""
        edges = self.edges
        index = np.searchsorted(edges, time - self._tolerance, side="left")
        beyond = index >= edges.size
        if np.any(beyond):
            if not self.censor_beyond:
                raise OutOfBounds(f"a time lies after the end of the grid ({edges[-1]:g})", rule="time_grid", variable=variable)
            index = np.minimum(index, edges.size - 1)
        return index.astype(np.int64), event & ~beyond

    def entries(self, time: Floats) -> Ints:
        """Index of the largest edge not above each entry time, -1 before the first: at risk from the next index on."""
        return (np.searchsorted(self.edges, time + self._tolerance, side="right") - 1).astype(np.int64)

    def as_argument(self) -> dict[str, Any]:
        """As it travels in a question; `grid_of` reads it back."""
        return {
            "start": self.start, "step": self.step, "intervals": self.intervals, "explicit": self.explicit,
            "unit": self.unit, "event_level": self.event_level, "censor_beyond": self.censor_beyond,
        }  # fmt: skip

    def words(self) -> str:
        """The grid, for people."""
        edges = self.edges
        steps = f"{self.size} edges" if self.explicit else f"steps of {self.step:g}"
        return f"{steps} from {edges[0]:g} to {edges[-1]:g} {self.unit}".rstrip()

    def label(self, index: int) -> str:
        """The interval that ends at an edge, for people."""
        edges = self.edges
        return f"(… {edges[0]:g}]" if index == 0 else f"({edges[index - 1]:g}, {edges[index]:g}]"

    @property
    def _tolerance(self) -> float:
        return 1e-9 * (float(np.diff(self.explicit).min()) if self.explicit else self.step)


def grid_of(argument: Mapping[str, Any]) -> TimeGrid:
    """The grid of a question's argument."""
    return TimeGrid(**{**argument, "explicit": tuple(argument["explicit"])})


def parse_grid(option: Any, variable: Variable) -> TimeGrid:
    """The grid of an analysis: `{step, end, start}` or `{edges}` (or a plain list of edges), with `censor_beyond` and
    `event_totals`. Nothing given: steps of 1 up to the variable's maximum. Raises `StudyInvalid`."""
    if variable.type not in ("number", "integer"):
        raise StudyInvalid(f"time variable {variable.name!r} is a {variable.type}; a survival time is a number or an integer")
    if variable.maximum is None:
        raise StudyInvalid(f"time variable {variable.name!r} has no maximum", help="Give it `minimum` and `maximum`.")
    if isinstance(option, (list, tuple)):
        option = {"edges": list(option)}
    option = {} if option is None else option
    if not isinstance(option, Mapping):
        raise StudyInvalid("`time_grid` is no mapping and no list of edges", help="Write `time_grid: {step: 1, end: 1100}`.")
    unknown = set(option) - {"step", "end", "start", "edges", "censor_beyond", "event_totals"}
    if unknown:
        raise StudyInvalid(f"`time_grid` has no key {sorted(unknown)[0]!r}", help="Write `time_grid: {step: 1, end: 1100}`.")
    censor = _truth(option, "censor_beyond")
    if "edges" in option:
        edges = _edges(option["edges"])
        start, step, intervals, end = edges[0], float(np.diff(edges).min()), len(edges) - 1, edges[-1]
    else:
        edges = ()
        start = _number(option.get("start", min(0.0, variable.minimum or 0.0)), "start")
        step = _number(option.get("step", 1), "step")
        end = _number(option.get("end", variable.maximum), "end")
        if step <= 0 or end <= start:
            raise StudyInvalid("`time_grid` needs a step above 0 and an end after its start")
        intervals = int(np.ceil((end - start) / step - 1e-9))
        end = start + step * intervals
    if intervals > MOST_INTERVALS:
        raise StudyInvalid(f"the time grid has {intervals} intervals, more than {MOST_INTERVALS}", help="Take a larger step.")
    if end < variable.maximum and not censor:
        raise StudyInvalid(
            f"the time grid ends at {end:g}, before the maximum of {variable.name!r} ({variable.maximum:g})",
            help="Let it end later, or write `censor_beyond: true` so that later times count as censored at its end.",
        )
    event_level = _truth(option, "event_totals") or _is_event_level(step, variable)
    return TimeGrid(start, step, intervals, edges, variable.unit, event_level, censor)


def _is_event_level(step: float, variable: Variable) -> bool:
    """As fine as a day, or as the values of an integer: then a total belongs to few persons by its nature."""
    unit = variable.unit.strip().lower()
    days = DAYS.get(unit, DAYS.get(unit.rstrip("s")))
    if days is not None:
        return step * days <= 1.0 + 1e-9
    return step <= 1.0 + 1e-9


def _edges(value: Any) -> tuple[float, ...]:
    if not isinstance(value, (list, tuple)) or len(value) < 2:
        raise StudyInvalid("`edges` of a time grid are a list of at least two numbers")
    edges = tuple(_number(v, "edges") for v in value)
    if any(b <= a for a, b in pairwise(edges)):
        raise StudyInvalid("`edges` of a time grid must increase")
    return edges


def _number(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not np.isfinite(value):
        raise StudyInvalid(f"`{name}` of a time grid is a number, not {value!r}")
    return float(value)


def _truth(option: Mapping[str, Any], name: str) -> bool:
    value = option.get(name, False)
    if not isinstance(value, bool):
        raise StudyInvalid(f"`{name}` of a time grid is true or false, not {value!r}")
    return value


def persons_at_risk(events: Floats, censored: Floats, entered: Floats | None) -> Floats:
    """Persons (or weight) at risk at each grid time: those that leave then or later, less those that enter then or later.

    Arrays have times on their last axis; the result has their shape.
    """
    leaving = events + censored - (entered if entered is not None else 0.0)
    return np.asarray(np.cumsum(leaving[..., ::-1], axis=-1)[..., ::-1], dtype=np.float64)


def require_unscreened(counts: Mapping[str, Any], grid: TimeGrid, minimum: int, variable: str) -> None:
    """No cell of a coarse grid was suppressed, or `TooFewPersons` names the interval.

    Sums over one interval less those over the next belong to the persons who left between, so that few of them would show.
    """
    for name, words in (("events", "had the event"), ("censored", "were censored"), ("entered", "entered")):
        holes = np.argwhere(np.isnan(np.asarray(counts[name], dtype=np.float64))) if name in counts else np.zeros((0, 1))
        if len(holes):
            raise TooFewPersons(
                f"fewer than {minimum} persons {words} in the interval {grid.label(int(holes[0][-1]))}",
                help="Take wider intervals (`time_grid: {edges: [...]}`) or strata(site); or write `event_totals: true` in the "
                "grid and ask the sites to permit totals at single events.",
                variable=variable,
            )  # fmt: skip
