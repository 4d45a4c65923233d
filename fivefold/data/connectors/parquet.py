"""Parquet files, read by Arrow; what a small file would unfold to is looked at before it is read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fivefold.data.connectors import Columns, present, too_many
from fivefold.data.mapping import ParquetSource
from fivefold.errors import SourceMalformed, SourceNotFound

UNFOLDED = 16 << 30


def read_parquet(source: ParquetSource, folder: Path, wanted: Sequence[str], limit: int) -> Columns:
    """The wanted columns with their own types. Raises as `connectors.read`."""
    import pyarrow as pa
    from pyarrow import parquet

    path = folder / source.path
    if not path.is_file():
        raise SourceNotFound(f"there is no readable file {path}", help="Correct `path:` in mapping.yaml.")
    try:
        with parquet.ParquetFile(path) as file:
            meta, schema = file.metadata, file.schema_arrow
            present(wanted, list(schema.names))
            for name in wanted:
                if pa.types.is_nested(schema.field(name).type):
                    raise SourceMalformed(f"the column {name!r} of {path.name} is nested; a cell must be one value")
            if meta.num_rows > limit:
                raise too_many(limit)
            if sum(meta.row_group(i).total_byte_size for i in range(meta.num_row_groups)) > UNFOLDED:
                raise SourceMalformed(
                    f"{path.name} unfolds to more than {UNFOLDED >> 30} GiB", help="Export the needed columns alone."
                )
            table = file.read(columns=list(wanted))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise SourceMalformed(
            f"{path.name} cannot be read as Parquet", help="Export the data again as Parquet or CSV."
        ) from error
    return {name: _plain(table.column(name)) for name in wanted}


def _plain(column: object) -> object:
    """Dictionary-encoded columns as their values."""
    import pyarrow as pa

    assert isinstance(column, pa.ChunkedArray)
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column
