"""Results as plain values and as CSV: what `result.json` and `tables/*.csv` hold, and back again.

Numbers keep their full precision (the shortest text that reads back to the same float). A cell that was suppressed or is
undefined is `null` in JSON and empty in CSV. JSON has no infinity, so ±∞ is `{"float": "inf"}` there.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from typing import Any

from fivefold.errors import RunError
from fivefold.protocol.results import Figure, Result, ResultTable, Scalar


def csv_of(table: ResultTable) -> bytes:
    """A table as UTF-8 CSV (RFC 4180, lines end in LF): one header, one line a row."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(table.columns)
    writer.writerows([["" if v is None else repr(v) if isinstance(v, float) else v for v in row] for row in table.rows])
    return text.getvalue().encode()


def plain_of(result: Result) -> dict[str, Any]:
    """A result as JSON values; tables stay in the method's order."""
    return {
        "method": result.method,
        "facts": {name: _lower(value) for name, value in result.facts.items()},
        "sites": list(result.sites),
        "dropped": list(result.dropped),
        "notes": list(result.notes),
        "tables": [_plain_table(name, table) for name, table in result.tables.items()],
        "figures": [
            {
                "kind": f.kind,
                "table": f.table,
                "title": f.title,
                "mapping": dict(f.mapping),
                "x_label": f.x_label,
                "y_label": f.y_label,
                "log_x": f.log_x,
            }
            for f in result.figures
        ],
    }


def result_of(value: Mapping[str, Any]) -> Result:
    """The result that `plain_of` wrote. Raises `RunError` if it is not one."""
    try:
        return Result(
            method=value["method"],
            tables={t["name"]: _table(t) for t in value["tables"]},
            facts={name: _raise(v) for name, v in value["facts"].items()},
            sites=tuple(value["sites"]),
            dropped=tuple(value["dropped"]),
            figures=tuple(Figure(**f) for f in value["figures"]),
            notes=tuple(value["notes"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RunError("result.json does not hold a result of Fivefold", help="Run the study again.") from error


def _plain_table(name: str, table: ResultTable) -> dict[str, Any]:
    return {
        "name": name,
        "title": table.title,
        "columns": list(table.columns),
        "units": dict(table.units),
        "notes": list(table.notes),
        "rows": [[_lower(v) for v in row] for row in table.rows],
    }


def _table(value: Mapping[str, Any]) -> ResultTable:
    rows = tuple(tuple(_raise(v) for v in row) for row in value["rows"])
    return ResultTable(value["title"], tuple(value["columns"]), rows, tuple(value["notes"]), dict(value["units"]))


def _lower(value: Scalar) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else {"float": "inf" if value > 0 else "-inf"}
    return value


def _raise(value: Any) -> Scalar:
    if isinstance(value, dict):
        return float(value["float"])
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"a cell holds a {type(value).__name__}")
