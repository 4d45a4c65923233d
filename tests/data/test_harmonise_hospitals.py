"""Four real hospitals and their own columns, units and codes."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fivefold.data.harmonise import load
from fivefold.data.mapping import Mapping
from fivefold.errors import ColumnMissing, UnitUnknown
from fivefold.study.definition import Cohort, Derived
from fivefold.study.dictionary import Dictionary, Variable
from tests.data.harmonised import counts, mapping, run, study

HEART = (
    Variable("age", "Age", "number", "year", 18, 100),
    Variable("sex", "Sex", "category", codes={"female": "F", "male": "M"}),
    Variable("chol", "Cholesterol", "number", "mmol/L", 1, 20),
    Variable("thal", "Thallium test", "category", codes={"normal": "N", "fixed": "F", "reversible": "R"}),
    Variable("num", "Narrowing", "integer", "", 0, 4),
)


HEADER = "age, sex, cp, trestbps, chol, fbs, restecg, thalach, exang, oldpeak, slope, ca, thal, num"


def shared() -> Path | None:
    root = os.environ.get("FIVEFOLD_SHARED")
    return Path(root) / "data" / "heart" if root else None


def heart(folder: Path, hospital: str) -> Any:
    it = replace(
        study(), dictionary=Dictionary("heart", "1", {v.name: v for v in HEART}), variables={v.name: "why" for v in HEART},
        derived=(Derived(Variable("disease", "Disease", "boolean"), "num > 0"),), cohort=Cohort(include=("age >= 40",)),
    )  # fmt: skip
    how = Mapping.of(
        f"""
source: {{kind: csv, path: processed.{hospital}.data, header: [{HEADER}]}}
person: {{each_row: true}}
missing: ["?"]
variables:
  age: {{column: age, unit: year}}
  sex: {{column: sex, codes: {{0: female, 1: male}}}}
  chol: {{column: chol, factor: 0.02586, missing: [0]}}
  thal: {{column: thal, codes: {{3: normal, 6: fixed, 7: reversible}}}}
  num: num
""".encode()
    )
    return load(it, how, folder, site=hospital)


if shared() is not None:

    @pytest.mark.parametrize(
        ("hospital", "rows", "chol", "thal"),
        [("cleveland", 303, 0, 2), ("hungarian", 294, 23, 266), ("switzerland", 123, 123, 52), ("va", 200, 56, 166)],
    )
    def test_the_real_hospitals(hospital: str, rows: int, chol: int, thal: int) -> None:
        folder = shared()
        assert folder is not None
        found = heart(folder, hospital)
        assert found.report.rows_read == rows
        assert counts(found, "chol") == ({"missing_coded": chol} if chol else {})
        assert counts(found, "thal") == {"missing_coded": thal}
        lines = [line.split(",") for line in (folder / f"processed.{hospital}.data").read_text().split()]
        adults = [c for c in lines if float(c[0]) >= 40]
        assert found.table["age"].tolist() == [float(c[0]) for c in adults]
        assert found.table["sex"].tolist() == [float(c[1]) for c in adults]
        assert found.table["disease"].tolist() == [float(int(c[13]) > 0) for c in adults]
        known = [float(c[4]) * 0.02586 for c in adults if c[4] not in ("?", "0")]
        assert found.table["chol"][~np.isnan(found.table["chol"])].tolist() == known

    def test_a_wrong_column_of_a_real_hospital(tmp_path: Path) -> None:
        folder = shared()
        assert folder is not None
        how = Mapping.of(
            f"source: {{kind: csv, path: processed.va.data, header: [{HEADER}]}}\nperson: {{each_row: true}}\n"
            "variables: {age: agee}\n".encode()
        )
        with pytest.raises(ColumnMissing, match="did you mean 'age'"):
            load(study("age"), how, folder, site="va")


def test_a_missing_column_names_its_line_and_variable(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("id,AGE\np1,30\n", "utf-8")
    with pytest.raises(
        ColumnMissing, match=r"mapping.yaml, line 3, age: the source has no column 'AEG'; did you mean 'AGE'"
    ) as caught:
        load(study("age"), mapping("age: AEG"), tmp_path, site="a")
    assert caught.value.variable == "age"
    with pytest.raises(ColumnMissing, match=r"mapping.yaml, line 2, person: the source has no column 'nobody'") as caught:
        load(study("age"), mapping("age: AGE", "person: nobody"), tmp_path, site="a")
    assert caught.value.variable == ""


def test_a_unit_that_does_not_convert_names_its_line() -> None:
    with pytest.raises(UnitUnknown, match=r"mapping.yaml, line 3, age: 'kg' does not convert") as caught:
        run(study("age"), mapping("age: {column: AGE, unit: kg}"), AGE=["1"])
    assert (caught.value.variable, "factor" in caught.value.hint) == ("age", True)
