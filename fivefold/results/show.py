"""Results in the terminal: one aligned table after another, with units, notes and the counts behind each."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from fivefold.protocol.results import Result, ResultTable, Scalar
from fivefold.records.counts import counts_line, is_count, whole

if TYPE_CHECKING:
    from rich.console import Console, Group, RenderableType
    from rich.table import Table

WITHHELD = "·"
"""Stands for a cell that was suppressed or is undefined."""

MAX_ROWS = 40
FEW = {"weights": 6}
"""Tables of which nobody reads more in a terminal."""


def show_results(results: Mapping[str, Result], console: Console | None = None, *, max_rows: int = MAX_ROWS) -> None:
    """Print every analysis of a run."""
    from rich.console import Console

    console = console or Console()
    for name, result in results.items():
        console.print(rendered(name, result, max_rows=max_rows))


def rendered(name: str, result: Result, *, max_rows: int = MAX_ROWS) -> Group:
    """One analysis for the terminal: heading, tables, notes, other facts, counts."""
    from rich.console import Group
    from rich.padding import Padding
    from rich.text import Text

    parts: list[RenderableType] = [
        Text.assemble((name, "bold"), ("  " + result.method if result.method != name else "", "dim")),
        Text(counts_line(result.facts, result.sites, result.dropped), "cyan"),
    ]
    for key, table in result.tables.items():
        most = min(max_rows, FEW.get(key, max_rows))
        parts += [Text(), Text(table.title, "bold"), terminal_table(table, most)]
        notes = list(table.notes)
        if len(table.rows) > most:
            notes.append(f"{most} of {len(table.rows)} rows are shown; the CSV file has them all.")
        if any(None in row for row in table.rows):
            notes.append(f"{WITHHELD} withheld (fewer persons than the study's minimum) or undefined.")
        parts += [Text(note, "dim") for note in notes]
    others = [f"{_words(k)} {number(v)}" for k, v in result.facts.items() if not is_count(k) and v is not None]
    if others:
        parts += [Text(), Text(" · ".join(others))]
    parts += [Text(note, "dim") for note in result.notes]
    return Group(Padding(Group(*parts), (0, 0, 1, 0)))


def terminal_table(table: ResultTable, max_rows: int = MAX_ROWS) -> Table:
    """A rich table: text to the left, numbers aligned on the point with one precision a column."""
    from rich import box
    from rich.table import Table

    shown = table.rows[:max_rows]
    columns = [aligned(name, [row[i] for row in shown]) for i, name in enumerate(table.columns)]
    numeric = [all(not isinstance(v, str) for v in table.column(name)) for name in table.columns]
    natural = sum(max(map(len, [_words(n), *cells])) + 3 for n, cells in zip(table.columns, columns, strict=True))
    out = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1) if natural <= 80 else (0, 0))
    for name, is_number, cells in zip(table.columns, numeric, columns, strict=True):
        words = _words(name)
        # a number that is cut short would be another number: its column never gets narrower than it
        width = max(map(len, [*cells, *words.split()])) if is_number else None
        out.add_column(_header(words, table.units.get(name)), justify="right" if is_number else "left", min_width=width)
    for row in zip(*columns, strict=True):
        out.add_row(*(_literal(cell) for cell in row))
    return out


def aligned(name: str, values: list[Scalar]) -> list[str]:
    """One column's cells with one number of decimals, so that points stand under each other. P-values are never `0`."""
    if name in ("p", "p_value") or name.endswith("_p"):
        return [WITHHELD if v is None else p_value(v) for v in values]
    floats = [abs(v) for v in values if isinstance(v, float) and math.isfinite(v) and v != 0]
    if not floats:
        return [WITHHELD if v is None else whole(v) if isinstance(v, int) else number(v) for v in values]
    if all(v.is_integer() for v in floats) and max(floats) < 1e9:
        return [WITHHELD if v is None else whole(v) for v in values]
    if max(floats) >= 1e6 or max(floats) > 1e6 * min(floats):
        return [WITHHELD if v is None else f"{v:.4g}" if isinstance(v, (int, float)) else v for v in values]
    places = min(5, max(1, 2 - math.floor(math.log10(min(floats)))))
    return [WITHHELD if v is None else f"{v:.{places}f}" if isinstance(v, (int, float)) else v for v in values]


def p_value(value: Scalar) -> str:
    """Three decimals, or `<0.001`."""
    if not isinstance(value, (int, float)):
        return str(value)
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def number(value: Scalar) -> str:
    """A single value, six significant digits at most; counts whole."""
    if value is None:
        return WITHHELD
    if isinstance(value, float) and not (value.is_integer() and abs(value) < 1e9):
        return f"{value:.6g}"
    return whole(value) if not isinstance(value, (bool, str)) else str(value)


def _words(name: str) -> str:
    return name.replace("_", " ")


def _header(words: str, unit: str | None) -> RenderableType:
    from rich.text import Text

    return Text.assemble(words, (f" ({unit})", "dim")) if unit else Text(words)


def _literal(text: str) -> RenderableType:
    """Text as it is: square brackets in a study's labels are not markup."""
    from rich.text import Text

    return Text(text)
