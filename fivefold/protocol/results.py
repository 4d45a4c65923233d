"""What a method returns: tables first; figures are drawn from tables alone, so that nothing is shown that is not in one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Scalar = float | int | str | None


@dataclass(frozen=True)
class ResultTable:
    """A rectangular table. `columns` names in order; every row has one value per column (None: suppressed or undefined).

    `title` and `notes` are sentences for people; `units` maps columns to units where they have one.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Scalar, ...], ...]
    notes: tuple[str, ...] = ()
    units: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"table {self.title!r}: a row of {len(row)} values under {len(self.columns)} columns")

    def column(self, name: str) -> tuple[Scalar, ...]:
        i = self.columns.index(name)
        return tuple(row[i] for row in self.rows)

    def numbers(self, name: str) -> tuple[float, ...]:
        """A column, NaN where it has no number."""
        return tuple(float(v) if isinstance(v, (int, float)) else float("nan") for v in self.column(name))

    @classmethod
    def of(cls, title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], **more: Any) -> ResultTable:
        """Build from any numbers: NumPy scalars become Python's, NaN becomes None."""
        return cls(title, tuple(columns), tuple(tuple(plain(v) for v in row) for row in rows), **more)


@dataclass(frozen=True)
class Figure:
    """How a table is drawn. Kinds: `forest` (label, estimate, low, high), `survival` (group, time, estimate, low, high),
    `bars` (label, value), `curve` (x, y, series), `heat` (row, column, value). `mapping` says which column plays which role."""

    kind: Literal["forest", "survival", "bars", "curve", "heat"]
    table: str
    title: str
    mapping: Mapping[str, str]
    x_label: str = ""
    y_label: str = ""
    log_x: bool = False


@dataclass(frozen=True)
class Result:
    """One analysis, done. `facts` are single values (persons, events, log-likelihood); `sites` are those of the last round
    and `dropped` every site that missed a round, with the rounds."""

    method: str
    tables: Mapping[str, ResultTable]
    facts: Mapping[str, Scalar]
    sites: tuple[str, ...]
    dropped: tuple[str, ...] = ()
    figures: tuple[Figure, ...] = ()
    notes: tuple[str, ...] = ()
    weights: Any = field(default=None, compare=False, repr=False)
    """A training's weights as one vector, for an export that replays a run; no file of results holds them."""


def plain(value: Any) -> Scalar:
    """A Python scalar from a NumPy one; NaN becomes None."""
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and value != value:
        return None
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"a result table holds numbers and text, not {type(value).__name__}")
