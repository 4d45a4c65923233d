"""A study and a mapping, harmonised."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from fivefold.data.harmonise import harmonise, needed_columns
from fivefold.data.mapping import Mapping
from fivefold.study.definition import Analysis, Cohort, Derived, Study
from fivefold.study.dictionary import Dictionary, Variable
from tests.plain_study import sites_of, study_of

VARIABLES = (
    Variable("patient", "Patient", "text"),
    Variable("age", "Age", "number", "year", 0, 120),
    Variable("temp", "Temperature", "number", "degC", 30, 45, missing_codes=("-1",)),
    Variable("visits", "Visits", "integer", "", 0, 50),
    Variable("sex", "Sex", "category", codes={"female": "F", "male": "M"}, missing_codes=("unknown",)),
    Variable("smoker", "Smoker", "boolean"),
    Variable("born", "Born", "date"),
)


def study(
    *names: str, include: tuple[str, ...] = (), exclude: tuple[str, ...] = (), derived: tuple[Derived, ...] = ()
) -> Study:
    return study_of(
        Analysis("x", "glm"), sites=sites_of("a"), dictionary=Dictionary("d", "1", {v.name: v for v in VARIABLES}),
        cohort=Cohort(include, exclude), variables=dict.fromkeys(names, "why"), derived=derived,
    )  # fmt: skip


def mapping(variables: str, rest: str = "person: id") -> Mapping:
    return Mapping.of(f"source: {{kind: csv, path: x.csv}}\n{rest}\nvariables: {{{variables}}}\n".encode())


def run(it: Study, how: Mapping, opt_outs: tuple[str, ...] = (), **columns: Any) -> Any:
    length = len(next(iter(columns.values())))
    columns = {"id": [f"p{i}" for i in range(length)]} | columns
    arrow = {n: pa.chunked_array([c if isinstance(c, pa.Array) else pa.array(c)]) for n, c in columns.items()}
    return harmonise(it, how, {n: arrow[n] for n in needed_columns(it, how)}, site="a", opt_outs=opt_outs)


def counts(found: Any, name: str) -> dict[str, int]:
    quality = next(v for v in found.report.variables if v.name == name)
    parts = {
        f: getattr(quality, f)
        for f in ("missing", "missing_coded", "out_of_type", "out_of_range", "unknown_code", "not_finite")
    }
    assert quality.rows == quality.valid + sum(parts.values())
    return {k: v for k, v in parts.items() if v}
