"""Where rows come from: one module for each kind of source. Each gives the asked columns as Arrow arrays, as they are found.

A connector reads and never interprets: what a cell means is said in `data/harmonise.py`. Its errors carry no cell, path or
SQL in what may leave the site.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from fivefold.data.mapping import CsvSource, ParquetSource, SqlSource
from fivefold.errors import ColumnMissing, DataError, OutOfBounds, SourceMalformed

Columns = dict[str, Any]
"""Column name → pyarrow.ChunkedArray; all of one length."""

ROW_LIMIT = 100_000_000
CELL_BYTES = 1 << 16


def read(
    source: CsvSource | ParquetSource | SqlSource, folder: Path, columns: Collection[str], *, limit: int = ROW_LIMIT
) -> Columns:
    """The asked columns of a source; a relative path starts at the site folder. `limit` is the number of rows that is too many.

    Raises `SourceNotFound`, `SourceMalformed`, `ColumnMissing`, `OutOfBounds` (more rows than `limit`).
    """
    wanted = sorted(set(columns))
    if isinstance(source, CsvSource):
        from fivefold.data.connectors.csv import read_csv

        found = read_csv(source, folder, wanted, limit)
    elif isinstance(source, ParquetSource):
        from fivefold.data.connectors.parquet import read_parquet

        found = read_parquet(source, folder, wanted, limit)
    else:
        from fivefold.data.connectors.sql import read_sql

        found = read_sql(source, wanted, limit)
    for name, column in found.items():
        _small_cells(name, column)
    return found


def present(wanted: Sequence[str], header: Sequence[str]) -> None:
    """Nothing where every wanted column is there once. Raises `ColumnMissing` or `SourceMalformed`."""
    for name in wanted:
        if name not in header:
            near = difflib.get_close_matches(name, header, 1)
            missing = ColumnMissing(f"the source has no column {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
            missing.column = name
            raise missing
        if header.count(name) > 1:
            raise SourceMalformed(
                f"the source has {header.count(name)} columns called {name!r}", help="Give each column a name of its own."
            )


def too_many(limit: int) -> DataError | OutOfBounds:
    return OutOfBounds(f"the source has more than {limit} rows", rule="max_rows_per_site")


def _small_cells(name: str, column: Any) -> None:
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        longest = pc.max(pc.binary_length(column)).as_py() or 0
        if longest > CELL_BYTES:
            raise SourceMalformed(f"the column {name!r} has a cell of {longest} bytes; at most {CELL_BYTES} are read")
