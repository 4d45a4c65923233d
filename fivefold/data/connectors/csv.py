"""Delimited text, read by Arrow. Every cell arrives as text; a ragged row, a wrong encoding or a giant cell ends with its
row."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fivefold.data.connectors import Columns, present, too_many
from fivefold.data.mapping import CsvSource
from fivefold.errors import SourceMalformed, SourceNotFound

BLOCK = 16 << 20
HEAD = 1 << 20


def read_csv(source: CsvSource, folder: Path, wanted: Sequence[str], limit: int) -> Columns:
    """The wanted columns as text, an absent cell as ''. Raises as `connectors.read`."""
    import pyarrow as pa
    from pyarrow import csv as arrow

    path = folder / source.path
    header = _header(path, source)
    present(wanted, header)
    bad: list[Any] = []

    def ragged(row: Any) -> str:
        bad.append(row)
        return "error"

    first = 1 if source.header is True else 0
    how = {
        "read_options": arrow.ReadOptions(
            use_threads=False, block_size=BLOCK, encoding=source.encoding, column_names=None if first else list(header)
        ),
        "parse_options": arrow.ParseOptions(
            delimiter=source.delimiter, newlines_in_values=True, ignore_empty_lines=True, invalid_row_handler=ragged
        ),
        "convert_options": arrow.ConvertOptions(
            include_columns=list(wanted), column_types={n: pa.string() for n in header}, strings_can_be_null=False
        ),
    }
    try:
        with path.open("rb") as file, arrow.open_csv(file, **how) as reader:
            batches, rows = [], 0
            for batch in reader:
                batches.append(batch)
                rows += batch.num_rows
                if rows > limit:
                    raise too_many(limit)
            table = pa.Table.from_batches(batches, reader.schema)
    except (pa.ArrowException, OSError, UnicodeError, ValueError) as error:
        raise _malformed(error, bad, source, path) from error
    return {name: table.column(name) for name in wanted}


def _header(path: Path, source: CsvSource) -> list[str]:
    """The names of the columns. Raises `SourceNotFound`, `SourceMalformed`."""
    try:
        with path.open("rb") as file:
            raw = file.read(HEAD)
    except OSError as error:
        raise SourceNotFound(f"there is no readable file {path}", help="Correct `path:` in mapping.yaml.") from error
    if not raw:
        raise SourceMalformed(f"{path.name} is empty")
    if source.header is not True:
        return list(source.header)
    try:
        text = io.TextIOWrapper(io.BytesIO(raw), source.encoding, errors="replace", newline="").readline(HEAD)
        names = next(csv.reader(io.StringIO(text), delimiter=source.delimiter, strict=True))
    except (UnicodeError, csv.Error, StopIteration) as error:
        raise SourceMalformed(f"the header of {path.name} cannot be read as {source.encoding} text") from error
    names = [n.removeprefix("﻿") for n in names]
    if any("\ufffd" in n for n in names):
        raise SourceMalformed(f"the header of {path.name} cannot be read as {source.encoding} text")
    if not all(n.isprintable() for n in names):
        raise SourceMalformed(
            f"the header of {path.name} holds control characters",
            help="Say the file's `encoding:` (utf-16, say) in mapping.yaml.",
        )
    return names


def _malformed(error: Exception, bad: list[Any], source: CsvSource, path: Path) -> SourceMalformed:
    """What Arrow's message means, without the row's text, which Arrow repeats."""
    if bad:
        row = bad[0]
        where = f"row {row.number}" if row.number is not None else "a row"
        return SourceMalformed(f"{path.name}: {where} has {row.actual_columns} cells where {row.expected_columns} are expected")
    text = str(error)
    if isinstance(error, UnicodeError) or "UTF" in text.upper():
        return SourceMalformed(f"{path.name} is not {source.encoding} text", help="Say the file's `encoding:` in mapping.yaml.")
    if "straddling" in text:
        return SourceMalformed(f"{path.name}: a row is larger than {BLOCK >> 20} MiB; a quotation mark may be missing")
    return SourceMalformed(f"{path.name} cannot be read as delimited text")
