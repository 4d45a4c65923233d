"""GLMs over sites, and the pooled fit by statsmodels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
import pytest
import statsmodels.api as sm
import statsmodels.formula.api as smf

from fivefold.algorithms.glm import METHOD
from fivefold.algorithms.method import Setting
from fivefold.protocol.results import Result
from fivefold.study.definition import Analysis
from fivefold.study.table import Table
from tests.algorithms import plain, real_data

FAMILIES = {
    "gaussian": sm.families.Gaussian(), "binomial": sm.families.Binomial(), "poisson": sm.families.Poisson(),
}  # fmt: skip


LEVELS = {
    "grade": ("small", "middle", "large"), "sex": ("one", "two"), "cp": ("typical", "atypical", "other", "none"),
}  # fmt: skip


def analysis(formula: str, family: str, subgroup: str = "", **options: Any) -> Analysis:
    return Analysis("model", "glm", formula, subgroup=subgroup, options={"family": family, **options})


def fitted(
    formula: str, family: str, here: Setting, tables: Sequence[Table], drops: plain.Drops | None = None, **options: Any
) -> Result:
    return plain.run(METHOD, analysis(formula, family, **options), here, tables, drops)


def pooled(frame: pd.DataFrame, formula: str, family: str, here: Setting, offset: str = "") -> Any:
    """statsmodels' fit of the same rows, iterated to the end, with its weights at the estimate."""
    frame = real_data.codes(frame, {n: v for n, v in LEVELS.items() if n in frame})
    if "site" in formula:
        frame = frame.assign(site=frame.site.map(lambda i: f"{i}{here.sites[i]}"))
    model = smf.glm(formula, frame, family=FAMILIES[family], offset=frame[offset] if offset else None)
    return model.fit(tol=1e-13, tol_criterion="params", maxiter=100)


def name_of(term: str) -> str:
    """statsmodels' name of a column as this project writes it."""
    parts = []
    for part in term.split(":"):
        variable, _, level = part.partition("[")
        level = level.rstrip("]").removeprefix("T.").lstrip("0123456789")
        parts.append(f"{variable}[{level}]" if level else variable)
    return ":".join(parts).replace("Intercept", "intercept")


def assert_same_fit(result: Result, reference: Any, *, null: bool = True) -> None:
    table = result.tables["coefficients"]
    ours = dict(
        zip(table.column("term"), zip(table.column("estimate"), table.column("standard_error"), strict=True), strict=True)
    )
    theirs = {name_of(t): (reference.params[t], reference.bse[t]) for t in reference.params.index}
    assert set(ours) == set(theirs)
    for term, (value, error) in theirs.items():
        assert ours[term] == (pytest.approx(value, rel=1e-8), pytest.approx(error, rel=1e-8)), term
    facts = result.facts
    assert facts["deviance"] == pytest.approx(reference.deviance, rel=1e-10)
    if null:
        assert facts["null_deviance"] == pytest.approx(reference.null_deviance, rel=1e-10)
    assert facts["log_likelihood"] == pytest.approx(reference.llf, rel=1e-10)
    assert facts["aic"] == pytest.approx(reference.aic, rel=1e-10)
    assert facts["dispersion"] == pytest.approx(reference.scale, rel=1e-10)
    assert facts["degrees_of_freedom"] == reference.df_resid
    assert facts["rows"] == reference.nobs
