"""Databases by SQLAlchemy: one SELECT in a transaction that is rolled back. The URL comes from the environment and is never
shown."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from fivefold.data.connectors import Columns, present, too_many
from fivefold.data.mapping import SqlSource
from fivefold.errors import FivefoldError, SourceMalformed, SourceNotFound

BATCH = 10_000


def read_sql(source: SqlSource, wanted: Sequence[str], limit: int) -> Columns:
    """The wanted columns. Numbers and dates keep their type where a whole column has it; any other column arrives as text.

    Raises as `connectors.read`; no message of a driver is passed on, since it may repeat the URL, the SQL or a value.
    """
    import sqlalchemy as sa

    url = os.environ.get(source.url_env)
    if not url:
        raise SourceNotFound(
            f"the environment variable {source.url_env} is not set",
            help="Set it to the database's SQLAlchemy URL, then try again.",
        )
    try:
        engine = sa.create_engine(url)
    except (sa.exc.ArgumentError, sa.exc.NoSuchModuleError, ImportError, ValueError):
        raise SourceNotFound(
            f"the URL in {source.url_env} is not one that SQLAlchemy opens here",
            help="Write dialect+driver://user:password@host/database, and install the driver.",
        ) from None
    try:
        with engine.connect() as connection:
            return _fetch(sa, connection, source, wanted, limit)
    except FivefoldError:
        raise
    except sa.exc.SQLAlchemyError as error:
        kind = SourceNotFound if isinstance(error, (sa.exc.OperationalError, sa.exc.InterfaceError)) else SourceMalformed
        raise kind(
            f"the database behind {source.url_env} did not answer the query ({type(error).__name__})",
            help="Check that it runs, that the account may read, and `table:` or `query:` in mapping.yaml.",
        ) from None
    finally:
        engine.dispose()


def _fetch(sa: Any, connection: Any, source: SqlSource, wanted: Sequence[str], limit: int) -> Columns:
    connection = connection.execution_options(stream_results=True)
    if source.table is None:
        # In a subquery no dialect lets a statement change anything; the line ends keep a comment from eating the bracket.
        query = (source.query or "").strip().rstrip(";")
        result = connection.exec_driver_sql(f"SELECT * FROM (\n{query}\n) fivefold_rows")
    else:
        present(wanted, _columns(sa, connection, source, source.table))
        table = sa.table(source.table, *(sa.column(n) for n in wanted), schema=source.schema_name)
        result = connection.execute(sa.select(*(table.c[n] for n in wanted)))
    names = list(result.keys())
    present(wanted, names)
    places = [names.index(n) for n in wanted]
    values: list[list[Any]] = [[] for _ in wanted]
    for rows in result.partitions(BATCH):
        for into, place in zip(values, places, strict=True):
            into.extend(row[place] for row in rows)
        if values and len(values[0]) > limit:
            raise too_many(limit)
    connection.rollback()
    return {name: _array(column) for name, column in zip(wanted, values, strict=True)}


def _columns(sa: Any, connection: Any, source: SqlSource, table: str) -> list[str]:
    try:
        return [c["name"] for c in sa.inspect(connection).get_columns(table, schema=source.schema_name)]
    except sa.exc.NoSuchTableError:
        raise SourceNotFound(
            f"the database behind {source.url_env} has no table {table!r}", help="Correct `table:` in mapping.yaml."
        ) from None


def _array(values: list[Any]) -> Any:
    import pyarrow as pa

    kinds = {type(v) for v in values} - {type(None)}
    if kinds <= {int, float, Decimal, bool}:
        try:
            return pa.chunked_array([pa.array([None if v is None else float(v) for v in values], pa.float64())])
        except OverflowError:
            pass
    elif kinds == {date}:
        return pa.chunked_array([pa.array(values, pa.date32())])
    return pa.chunked_array([pa.array([_text(v) for v in values], pa.string())])


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value.encode("utf-8", "replace").decode() if value else value
    if isinstance(value, (date, datetime)):
        return value.isoformat()
    if isinstance(value, (bytes, bytearray, memoryview)):
        return "\ufffd"  # binary is no value of any variable: harmonise counts it as out of type
    return str(value)
