"""CSV, Parquet and SQL give the same rows; hostile and broken sources end in a sentence without their content."""

from __future__ import annotations

import sqlite3
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from fivefold.data import connectors
from fivefold.data.mapping import CsvSource, ParquetSource, SqlSource
from fivefold.errors import ColumnMissing, FivefoldError, OutOfBounds, SourceMalformed, SourceNotFound

SECRET = "SECRET4711"
ROWS = [("p1", 34, 1.5, "a"), ("p2", None, 2.5, 'ä;"x"\nb'), ("p3", 51, None, "")]
NAMES = ("id", "age", "dose", "note")


def csv_source(**more: Any) -> CsvSource:
    return CsvSource(kind="csv", path="rows.csv", **more)


def read(source: Any, folder: Path, *columns: str, **more: Any) -> dict[str, list[Any]]:
    return {name: column.to_pylist() for name, column in connectors.read(source, folder, columns, **more).items()}


def fault(kind: type[FivefoldError], source: Any, folder: Path, *columns: str, **more: Any) -> str:
    """The sentence of a failure. Neither what may leave nor the sentence itself carries the planted content."""
    with pytest.raises(kind) as caught:
        connectors.read(source, folder, columns, **more)
    error = caught.value
    assert type(error) is kind
    assert error.hint
    assert set(error.public().values()) <= {kind.__name__, "", "max_rows_per_site"}
    assert SECRET not in str(error) + error.hint
    return error.message


def test_the_three_kinds_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import csv

    with (tmp_path / "rows.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([NAMES, *ROWS])
    columns = {n: [r[i] for r in ROWS] for i, n in enumerate(NAMES)}
    parquet.write_table(pa.table(columns), tmp_path / "rows.parquet")
    database = sqlite3.connect(tmp_path / "rows.db")
    database.execute("create table rows (id text, age integer, dose real, note text, unused blob)")
    database.executemany("insert into rows values (?, ?, ?, ?, x'00')", ROWS)
    database.commit()
    database.close()
    monkeypatch.setenv("ROWS_DB", f"sqlite:///{tmp_path / 'rows.db'}")

    text = read(csv_source(), tmp_path, *NAMES)
    assert text["note"] == ["a", 'ä;"x"\nb', ""]
    assert text["age"] == ["34", "", "51"]
    stored = read(ParquetSource(kind="parquet", path="rows.parquet"), tmp_path, *NAMES)
    table = read(SqlSource(kind="sql", url_env="ROWS_DB", table="rows"), tmp_path, *NAMES)
    query = read(SqlSource(kind="sql", url_env="ROWS_DB", query="select note, dose, age, id from rows;"), tmp_path, *NAMES)
    assert stored == table == query == {n: columns[n] for n in sorted(NAMES)}


@pytest.mark.parametrize(
    ("written", "more"),
    [
        (b"id;age\np1;3,5\n", {"delimiter": ";", "decimal": ","}),
        ("﻿id,age\np1,3.5\n".encode(), {}),
        ("id,age\r\np1,3.5\r\n".encode("utf-16"), {"encoding": "utf-16"}),
        (b"p1,3.5\n", {"header": ("id", "age")}),
        (b"id,age\n\np1,3.5\n\n", {}),
        (b'"id","age"\n"p1","3.5"', {}),
    ],
)
def test_csv_as_people_write_it(tmp_path: Path, written: bytes, more: dict[str, Any]) -> None:
    (tmp_path / "rows.csv").write_bytes(written)
    assert read(csv_source(**more), tmp_path, "id", "age") == {"age": ["3,5" if ";" in str(more) else "3.5"], "id": ["p1"]}


def test_latin_1(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_bytes("id,größe\nä,1\n".encode("latin-1"))
    assert read(csv_source(encoding="latin-1"), tmp_path, "id", "größe") == {"größe": ["1"], "id": ["ä"]}
    assert "cannot be read as utf-8 text" in fault(SourceMalformed, csv_source(), tmp_path, "id")
    (tmp_path / "rows.csv").write_bytes(f"id\n{SECRET}ä\n".encode("latin-1"))
    assert "is not utf-8 text" in fault(SourceMalformed, csv_source(), tmp_path, "id")


@pytest.mark.parametrize(
    ("written", "words"),
    [
        (b"", "is empty"),
        (f"id,age\np1,1\n{SECRET}\n".encode(), "row 3 has 1 cells where 2 are expected"),
        (f"id,age\np1,1,{SECRET},4\n".encode(), "row 2 has 4 cells where 2 are expected"),
        ("id,age\np1,1\n".encode("utf-16"), "cannot be read as utf-8"),
        ("id,age\np1,1\n".encode("utf-16-le"), "control characters"),
        (b"id\n" + SECRET.encode() + b"x" * 70_000 + b"\n", "a cell of 70010 bytes"),
        (b'id,age\n"' + SECRET.encode() + b"x" * (33 << 20), ""),
        (b"id,id,age\np1,p2,1\n", "2 columns called 'id'"),
        (b'"id\n', ""),
        (b"\x00" * 3000, ""),
    ],
)
def test_broken_and_hostile_csv(tmp_path: Path, written: bytes, words: str) -> None:
    (tmp_path / "rows.csv").write_bytes(written)
    assert words in fault(SourceMalformed, csv_source(), tmp_path, "id")


def test_a_twin_column_that_is_not_used_does_no_harm(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("id,x,x\np1,1,2\n")
    assert read(csv_source(), tmp_path, "id") == {"id": ["p1"]}


def test_formulas_and_nul_bytes_are_cells_like_others(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_bytes(b"id,a\n=cmd|'/c calc'!A0,+1\n\x00,@x\n")
    assert read(csv_source(), tmp_path, "id", "a") == {"a": ["+1", "@x"], "id": ["=cmd|'/c calc'!A0", "\x00"]}


def test_missing_files_columns_and_too_many_rows(tmp_path: Path) -> None:
    assert "no readable file" in fault(SourceNotFound, csv_source(), tmp_path, "id")
    assert "no readable file" in fault(SourceNotFound, ParquetSource(kind="parquet", path="rows.csv"), tmp_path, "id")
    (tmp_path / "rows.csv").write_text("id,age\n1,2\n1,2\n1,2\n")
    assert "did you mean 'age'" in fault(ColumnMissing, csv_source(), tmp_path, "id", "agee")
    fault(OutOfBounds, csv_source(), tmp_path, "id", limit=2)
    assert len(read(csv_source(), tmp_path, "id", limit=3)["id"]) == 3
    (tmp_path / "folder.csv").mkdir()
    fault(SourceNotFound, CsvSource(kind="csv", path="folder.csv"), tmp_path, "id")


def test_hostile_parquet(tmp_path: Path) -> None:
    source = ParquetSource(kind="parquet", path="rows.parquet")
    path = tmp_path / "rows.parquet"
    path.write_bytes(SECRET.encode())
    fault(SourceMalformed, source, tmp_path, "id")
    parquet.write_table(pa.table({"id": [[1]], "n": [1]}), path)
    assert "nested" in fault(SourceMalformed, source, tmp_path, "id")
    assert read(source, tmp_path, "n") == {"n": [1]}
    parquet.write_table(pa.table([pa.array([1]), pa.array([2])], names=["id", "id"]), path)
    assert "2 columns" in fault(SourceMalformed, source, tmp_path, "id")
    parquet.write_table(pa.table({"id": pa.array(["x"] * 1_000_000).dictionary_encode()}), path)
    assert path.stat().st_size < 100_000  # a small file, many rows
    fault(OutOfBounds, source, tmp_path, "id", limit=999_999)
    fault(ColumnMissing, source, tmp_path, SECRET.lower())
    assert set(read(source, tmp_path, "id")["id"]) == {"x"}
    parquet.write_table(pa.table({"id": [SECRET + "x" * 70_000]}), path)
    assert "a cell of" in fault(SourceMalformed, source, tmp_path, "id")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    fault(SourceMalformed, source, tmp_path, "id")


def test_sql_types_arrive_whole_or_as_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    database = sqlite3.connect(tmp_path / "d.db")
    database.execute('create table "odd name" (mixed, day text, "se""lect" integer, big)')
    database.executemany(
        'insert into "odd name" values (?, ?, ?, ?)', [("?", "2026-01-31", 1, 2**70 + 0.5), (3, None, None, b"\x00")]
    )
    database.commit()
    database.close()
    monkeypatch.setenv("D", f"sqlite:///{tmp_path / 'd.db'}")
    source = SqlSource(kind="sql", url_env="D", table="odd name")
    found = read(source, tmp_path, "mixed", "day", 'se"lect', "big")
    assert found["mixed"] == ["?", "3"]
    assert found["day"] == ["2026-01-31", None]
    assert found['se"lect'] == [1.0, None]
    assert found["big"][1] == "\ufffd"
    from fivefold.data.connectors.sql import _array

    assert _array([Decimal("1.5"), None, 2]).to_pylist() == [1.5, None, 2.0]
    assert _array([date(2026, 1, 31), None]).to_pylist() == [date(2026, 1, 31), None]
    assert _array([10**400, 1]).to_pylist() == [str(10**400), "1"]


def test_sql_failures_show_neither_url_nor_sql(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = SqlSource(kind="sql", url_env="D", table="rows")
    assert "D is not set" in fault(SourceNotFound, source, tmp_path, "id")
    for url in (f"nonsense {SECRET}", f"nodialect://{SECRET}@x", f"sqlite:////nowhere/{SECRET}/d.db"):
        monkeypatch.setenv("D", url)
        fault(SourceNotFound, source, tmp_path, "id")
    sqlite3.connect(tmp_path / "d.db").close()
    monkeypatch.setenv("D", f"sqlite:///{tmp_path / 'd.db'}")
    fault(SourceNotFound, source, tmp_path, "id")
    fault(SourceNotFound, SqlSource(kind="sql", url_env="D", query=f"select {SECRET} from nowhere"), tmp_path, "id")
    with pytest.raises(ColumnMissing):
        read(SqlSource(kind="sql", url_env="D", query="select 1 as x"), tmp_path, "id")


def test_a_query_cannot_change_the_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "d.db"
    database = sqlite3.connect(path)
    database.execute("create table rows (id)")
    database.execute("insert into rows values (1)")
    database.commit()
    database.close()
    monkeypatch.setenv("D", f"sqlite:///{path}")
    sly = SqlSource(kind="sql", url_env="D", query="with x as (select 1) delete from rows returning id")
    fault(SourceNotFound, sly, tmp_path, "id")
    harmless = SqlSource(kind="sql", url_env="D", query="with x as (select id from rows) select id from x -- 50% :of")
    assert read(harmless, tmp_path, "id") == {"id": [1.0]}
    database = sqlite3.connect(path)
    assert database.execute("select count(*) from rows").fetchone() == (1,)
    database.close()


def test_each_row_is_read_once_for_a_large_file(tmp_path: Path) -> None:
    """Several blocks, quoted line ends across them."""
    row = '"' + "a\n" * 500 + '",1\n'
    count = (18 << 20) // len(row)
    (tmp_path / "rows.csv").write_text("id,n\n" + row * count)
    found = connectors.read(csv_source(), tmp_path, ["n", "id"])
    assert len(found["n"]) == count
    assert found["id"].unique().to_pylist() == ["a\n" * 500]
