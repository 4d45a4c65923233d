"""Rows become the dictionary's: units, codes, dates, faults counted, cohort in three values."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fivefold.data.harmonise import needed_columns
from fivefold.data.mapping import Mapping
from fivefold.errors import MappingInvalid, OutOfBounds, StudyInvalid, UnitUnknown, ValueInvalid, ValueNotFinite
from fivefold.study.definition import Derived, Privacy
from fivefold.study.dictionary import Variable
from tests.data.harmonised import counts, mapping, run, study


def test_a_line_that_nothing_reads_is_reported() -> None:
    twice = Derived(Variable("twice", "Twice the age", "number", "year", 0, 240), "2 * age")
    how = Mapping.of(
        b"source: {kind: csv, path: x.csv}\nperson: id\nvariables:\n"
        b"  age: AGE\n  sex: SEX\n  agge: AGE2\n  twice: AGE\n  patient: id\n  qqq: Q\n"
    )
    report = run(study("age", derived=(twice,)), how, AGE=["1"]).report
    assert report.surplus == (
        "mapping.yaml, line 5: sex is not read, because the study does not use it",
        "mapping.yaml, line 6: agge is not read, because the dictionary does not have it. Did you mean 'age'?",
        "mapping.yaml, line 7: twice is not read, because the study derives it from others",
        "mapping.yaml, line 8: patient is not read, because the column that identifies a person stands under `person:`",
        "mapping.yaml, line 9: qqq is not read, because the dictionary does not have it. "
        "Write one of: patient, age, temp, visits, sex, smoker, born.",
    )
    assert report.value()["surplus"] == report.surplus
    assert run(study("age"), mapping("age: AGE"), AGE=["1"]).report.surplus == ()


def test_a_misspelt_variable_is_named_with_its_line() -> None:
    with pytest.raises(MappingInvalid, match=r"nothing about age, .* \(mapping.yaml, line 3: agge is not read"):
        needed_columns(study("age"), mapping("agge: AGE"))


def test_numbers_and_every_fault() -> None:
    cells = [
        "1",
        " 2.5 ",
        ".5",
        "1e1",
        "",
        None,
        "?",
        "-9",
        "abc",
        "=1+1",
        "1_0",
        "١",
        "999",
        "-1",
        "nan",
        "-Infinity",
        "1e999",
        "0x1f",
    ]
    found = run(study("age"), mapping("age: {column: a, missing: ['?', -9]}"), a=cells)
    assert found.table["age"][:4].tolist() == [1.0, 2.5, 0.5, 10.0]
    assert np.isnan(found.table["age"][4:]).all()
    assert counts(found, "age") == {"missing": 2, "missing_coded": 2, "out_of_type": 5, "out_of_range": 2, "not_finite": 3}
    assert found.report.rows == len(cells)


def test_missing_codes_are_numbers_where_the_variable_is() -> None:
    found = run(study("temp"), mapping("temp: {column: t, missing: [99.9]}"), t=["99.90", "37", "-1.0", "-1"])
    assert counts(found, "temp") == {"missing_coded": 3}
    found = run(study("temp"), mapping("temp: {column: t, missing: [99.9]}"), t=pa.array([99.9, 37.0, -1.0, None, math.nan]))
    assert counts(found, "temp") == {"missing_coded": 2, "missing": 1, "not_finite": 1}


def test_units_are_converted_and_edges_kept() -> None:
    found = run(
        study("age", "temp"),
        mapping("age: {column: a, unit: month}, temp: {column: t, unit: degF}"),
        a=["1440", "6"],
        t=["113", "98.6"],
    )
    assert found.table["age"].tolist() == [120.0, 0.5]
    assert found.table["temp"] == pytest.approx([45.0, 37.0], abs=1e-12)
    assert found.table["temp"].max() <= 45.0
    assert counts(found, "temp") == {}
    found = run(study("age"), mapping("age: {column: a, factor: 0.5}"), a=["10"])
    assert found.table["age"].tolist() == [5.0]
    assert run(study("age"), mapping("age: a"), a=["10"]).report.variables[0].unit == "year (assumed)"


@pytest.mark.parametrize("unit", ["kg", "furlongish", "9^9^9", "month^1000", "__import__", "a;b", "year*", ""])
def test_a_unit_that_does_not_convert(unit: str) -> None:
    with pytest.raises(UnitUnknown) as caught:
        run(study("age"), mapping(f"age: {{column: a, unit: '{unit}'}}"), a=["1"])
    assert caught.value.public() == {"code": "UnitUnknown", "rule": "", "variable": "age"}


def test_a_unit_where_the_dictionary_has_none() -> None:
    with pytest.raises(UnitUnknown, match="gives no unit"):
        run(study("visits"), mapping("visits: {column: v, unit: month}"), v=["1"])
    with pytest.raises(MappingInvalid, match="line 3: sex is a category and has no unit"):
        run(study("sex"), mapping("sex: {column: s, unit: kg}"), s=["1"])


def test_codes_however_the_site_writes_them() -> None:
    how = mapping("sex: {column: s, codes: {1: male, 2: female, 7: unknown}, missing: [9]}")
    found = run(study("sex"), how, s=["1", "1.0", "2", "9", "9.0", "7", "unknown", "male", "3", "", None])
    assert found.table["sex"][:3].tolist() == [1.0, 1.0, 0.0]
    assert counts(found, "sex") == {"missing": 2, "missing_coded": 4, "unknown_code": 2}
    typed = run(study("sex"), how, s=pa.array([1.0, 2.0, 3.0, None]))
    assert typed.table["sex"][:2].tolist() == [1.0, 0.0]
    assert counts(typed, "sex") == {"missing": 1, "unknown_code": 1}
    assert run(study("sex"), mapping("sex: s"), s=["male", "female", "unknown"]).table["sex"][:2].tolist() == [1.0, 0.0]


def test_a_code_that_the_dictionary_does_not_have() -> None:
    with pytest.raises(MappingInvalid, match="line 3: 'mael' is not a code of sex"):
        run(study("sex"), mapping("sex: {column: s, codes: {1: mael}}"), s=["1"])


def test_booleans_dates_integers() -> None:
    found = run(study("smoker"), mapping("smoker: s"), s=["true", "FALSE", "1", "0", "1.0", "yes", ""])
    assert found.table["smoker"][:5].tolist() == [1, 0, 1, 0, 1]
    assert counts(found, "smoker") == {"unknown_code": 1, "missing": 1}
    assert run(study("smoker"), mapping("smoker: s"), s=pa.array([True, False, None])).table["smoker"][:2].tolist() == [1, 0]
    found = run(study("born"), mapping("born: b"), b=["1970-01-02", "1969-12-31T23:59:00", "31.12.1999", "2026-02-30", ""])
    assert found.table["born"][:2].tolist() == [1.0, -1.0]
    assert counts(found, "born") == {"out_of_type": 2, "missing": 1}
    found = run(study("born"), mapping("born: {column: b, format: '%d.%m.%Y'}"), b=["02.01.1970", "1970-01-02"])
    assert found.table["born"][0] == 1.0
    assert counts(found, "born") == {"out_of_type": 1}
    typed = pa.array([0, 1, None], pa.date32())
    assert run(study("born"), mapping("born: b"), b=typed).table["born"][:2].tolist() == [0.0, 1.0]
    found = run(study("visits"), mapping("visits: v"), v=["3", "3.0", "3.5", "51"])
    assert found.table["visits"][:2].tolist() == [3.0, 3.0]
    assert counts(found, "visits") == {"out_of_type": 1, "out_of_range": 1}


def test_a_type_that_no_variable_has_is_out_of_type() -> None:
    found = run(study("age"), mapping("age: a"), a=pa.array([b"1", b"2"], pa.binary()))
    assert counts(found, "age") == {"out_of_type": 2}


def test_constants_and_absent_variables() -> None:
    found = run(study("sex", "age"), mapping("sex: {constant: male}, age: {absent: true}"), id=["a", "b"])
    assert found.table["sex"].tolist() == [1.0, 1.0]
    assert counts(found, "age") == {"missing": 2}
    assert counts(run(study("sex"), mapping("sex: {constant: man}"), id=["a"]), "sex") == {"unknown_code": 1}


def test_persons_not_rows() -> None:
    found = run(
        study("age"), mapping("age: a"), id=["x", " x", "y", "", None, "y", "12.0"], a=["1", "2", "3", "4", "5", "6", "7"]
    )
    assert found.report.rows_without_person == 2
    assert (found.report.rows, found.report.persons) == (5, 3)
    assert found.identifiers == ("12", "x", "y")
    assert found.table.person.tolist() == [1, 1, 2, 2, 0]
    by_row = run(study("age"), mapping("age: a", "person: {each_row: true}"), a=["1", "2"])
    assert by_row.table.persons == 2


def test_opt_outs_go_first() -> None:
    it, how = study("age"), mapping("age: a")
    found = run(it, how, (" x ", "12", "nobody"), id=["x", "x", "y", "12.0"], a=["bad", "2", "3", "4"])
    assert found.identifiers == ("y",)
    assert (found.report.rows_opted_out, found.report.persons_opted_out) == (3, 2)
    assert counts(found, "age") == {}
    with pytest.raises(MappingInvalid, match="opt-outs cannot be taken out"):
        run(it, mapping("age: a", "person: {each_row: true}"), ("x",), a=["1"])


def test_the_cohort_is_three_valued() -> None:
    it = study("age", "sex", include=("age >= 18",), exclude=('sex == "male"',))
    found = run(
        it, mapping("age: a, sex: s"), a=["20", "10", "", "20", "", "10"], s=["female", "female", "female", "", "male", ""]
    )
    assert found.table["age"].tolist() == [20.0]
    assert found.report.rows_outside_cohort == 3  # too young, male with unknown age, too young with unknown sex
    assert found.report.rows_cohort_unknown == 2


def test_derived_variables() -> None:
    old = Derived(Variable("old", "Old", "boolean"), "age > 50")
    risk = Derived(Variable("risk", "Risk", "number", "", 0, 10), "where(old, age / 10, 1)")
    found = run(study("age", derived=(old, risk)), mapping("age: a"), a=["60", "110", "20", ""])
    assert found.table["old"].tolist()[:3] == [1.0, 1.0, 0.0]
    assert found.table["risk"][0] == 6.0
    assert counts(found, "old") == {"missing": 1}
    assert counts(found, "risk") == {"missing": 1, "out_of_range": 1}
    with pytest.raises(StudyInvalid, match="not computed before"):
        run(study("age", derived=(risk, old)), mapping("age: a"), a=["1"])


@pytest.mark.parametrize(("cell", "kind"), [("inf", ValueNotFinite), ("abc", ValueInvalid), ("121", ValueInvalid)])
def test_a_mapping_may_refuse(cell: str, kind: type[Exception]) -> None:
    with pytest.raises(kind, match="in row 2") as caught:
        run(study("age"), mapping("age: {column: a, on_invalid: refuse}"), a=["1", cell, ""])
    assert caught.value.public() == {"code": kind.__name__, "rule": "on_invalid", "variable": "age"}
    assert counts(
        run(study("age"), mapping("age: {column: a, on_invalid: missing}", "person: id\non_invalid: refuse"), a=[cell]), "age"
    )


def test_a_variable_that_nobody_mapped() -> None:
    with pytest.raises(MappingInvalid, match="says nothing about temp"):
        run(study("age", "temp"), mapping("age: a"), a=["1"])


def test_too_many_rows() -> None:
    it = replace(study("age"), privacy=Privacy(max_rows_per_site=2))
    with pytest.raises(OutOfBounds) as caught:
        run(it, mapping("age: a"), a=["1", "2", "3"])
    assert caught.value.rule == "max_rows_per_site"


CELLS = st.one_of(st.none(), st.text(max_size=8), st.floats().map(repr), st.integers(-200, 200).map(str))


@given(st.lists(CELLS, min_size=1, max_size=20), st.sampled_from(["age", "visits", "sex", "smoker", "born"]))
def test_whatever_a_cell_holds_it_is_a_value_or_counted(cells: list[str | None], name: str) -> None:
    cells = [None if c is None else c.encode("utf-8", "replace").decode() for c in cells]
    found = run(study(name), mapping(f"{name}: c"), c=pa.array(cells, pa.string()))
    values = found.table[name]
    counts(found, name)
    assert len(values) == len(cells)
    assert not np.isinf(values).any()
    variable = found.table.variable(name)
    known = values[~np.isnan(values)]
    if variable.maximum is not None:
        assert ((known >= variable.minimum) & (known <= variable.maximum)).all()
    if variable.levels:
        assert set(known) <= set(map(float, range(len(variable.levels))))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("source: {kind: excel, path: a}\nperson: id\nvariables: {}\n", "line 1: source"),
        (
            "source: {kind: csv, path: a}\nperson: id\nvariables:\n  age: {colum: a}\n",
            "line 4: unknown key 'variables.age.colum'",
        ),
        ("source: {kind: csv, path: a}\nperson: id\nvariables:\n  age: {column: a, constant: 1}\n", "line 4"),
        (
            "source: {kind: csv, path: a}\nperson: id\nvariables:\n  age: {column: a, format: '%q'}\n",
            "is not the format of a date",
        ),
        ("source: {kind: csv, path: a}\nperson: id\nvariables:\n  age: {column: a, factor: 0}\n", "line 4"),
        ("source: {kind: csv, path: a, encoding: klingon}\nperson: id\nvariables: {}\n", "there is no encoding 'klingon'"),
        ("source: {kind: csv, path: a, encoding: rot13}\nperson: id\nvariables: {}\n", "is not an encoding of text"),
        ("source: {kind: csv, path: a, header: [x, x]}\nperson: id\nvariables: {}\n", "share a name"),
        ("source: {kind: sql, url_env: X}\nperson: id\nvariables: {}\n", "either `table:` or `query:`"),
        ("source: {kind: sql, url_env: X, query: drop table x}\nperson: id\nvariables: {}\n", "must be one SELECT"),
        ("source: {kind: sql, url_env: X, query: select 1; drop table x}\nperson: id\nvariables: {}\n", "must be one SELECT"),
        ("source: {kind: sql, url_env: 'sqlite:///secret', table: x}\nperson: id\nvariables: {}\n", "url_env"),
        ("person: id\n", "line 1: key 'source' is missing"),
    ],
)
def test_a_wrong_mapping_names_its_line(text: str, words: str) -> None:
    with pytest.raises(MappingInvalid) as caught:
        Mapping.of(text.encode())
    assert words in f"{caught.value.message} {caught.value.hint}"


def test_each_skeleton_and_form_is_read(tmp_path: Path) -> None:
    from fivefold.site.folder import MAPPING_SKELETON

    (tmp_path / "mapping.yaml").write_text(MAPPING_SKELETON)
    read = Mapping.read(tmp_path / "mapping.yaml")
    assert read.missing == ("NA", "?")
    assert len(read.digest) == 64
    with pytest.raises(MappingInvalid, match="cannot be read"):
        Mapping.read(tmp_path / "none.yaml")
    assert mapping("age: {column: a, missing: [1.0, true, 2026-01-31, '007']}").variables["age"].missing == (
        "1",
        "true",
        "2026-01-31",
        "007",
    )
