"""The sentences in which a GLM ends, and what it says of rows that it leaves out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf

from fivefold.algorithms.glm import METHOD
from fivefold.algorithms.method import Setting
from fivefold.errors import (
    CategoryAbsent,
    Collinear,
    FivefoldError,
    FormulaInvalid,
    NotConverged,
    Separation,
    StudyInvalid,
    TooFewPersons,
)
from fivefold.study.definition import Analysis
from fivefold.study.table import Table
from tests.algorithms import plain, real_data
from tests.algorithms.glm_fits import FAMILIES, analysis, assert_same_fit, fitted, pooled


def made(frame: pd.DataFrame, *variables: Any, minimum: int = 5) -> tuple[Setting, tuple[Table, ...]]:
    here = real_data.setting(variables, ["a", "b", "c"], minimum=minimum)
    return here, real_data.tables(frame, here, np.arange(len(frame)) % 3)


def ends(
    kind: type[FivefoldError], variable: str, formula: str, family: str, here: Setting, tables: Sequence[Table], **options: Any
) -> str:
    with pytest.raises(kind) as caught:
        fitted(formula, family, here, tables, **options)
    assert caught.value.variable == variable
    assert variable in caught.value.message
    assert caught.value.hint
    return caught.value.message


def test_complete_separation_names_the_variable() -> None:
    rng = np.random.default_rng(1)
    x = rng.uniform(0, 10, 120)
    frame = pd.DataFrame({"x": x, "z": rng.uniform(0, 1, 120), "y": (x > 5) * 1.0})
    here, tables = made(frame, real_data.number("x", 0, 10), real_data.number("z", 0, 1), real_data.boolean("y"))
    ends(Separation, "x", "y ~ x + z", "binomial", here, tables)


@pytest.mark.parametrize("family", ["binomial", "poisson"])
@pytest.mark.parametrize("level", [0, 1, 2])
def test_a_category_without_events_names_the_category(family: str, level: int) -> None:
    rng = np.random.default_rng(2)
    g = rng.integers(0, 3, 300)
    y = np.where(g == level, 0, rng.integers(0, 2, 300))
    frame = pd.DataFrame({"g": g, "z": rng.uniform(0, 1, 300), "y": y})
    response = real_data.boolean("y") if family == "binomial" else real_data.number("y", 0, 5, "integer")
    here, tables = made(frame, real_data.category("g", "u", "v", "w"), real_data.number("z", 0, 1), response)
    ends(Separation, "g", "y ~ z + g", family, here, tables)


def test_collinear_columns_are_named() -> None:
    frame, here, tables = real_data.diabetes()
    assert "'s2', 's3'" in ends(Collinear, "sum", "target ~ bmi + s2 + s3 + sum", "gaussian", *_with_sum(frame, here))
    here, tables = made(
        frame.assign(one=7.0),
        real_data.number("one", 0, 10),
        real_data.number("bmi", 0, 50),
        real_data.number("target", 0, 400),
    )
    assert "one value" in ends(Collinear, "one", "target ~ bmi + one", "gaussian", here, tables)


def _with_sum(frame: pd.DataFrame, here: Setting) -> tuple[Setting, tuple[Table, ...]]:
    frame = frame.assign(sum=frame.s2 + 2 * frame.s3)
    variables = [here.dictionary[n] for n in ("bmi", "s2", "s3", "target")]
    return made(frame, *variables, real_data.number("sum", 0, 900))


def test_an_absent_category_and_a_small_one_are_named() -> None:
    frame, _, _ = real_data.breast()
    grade = real_data.category("grade", "small", "middle", "large", "giant")
    here, tables = made(frame, grade, real_data.boolean("malignant"))
    assert "grade = giant" in ends(CategoryAbsent, "grade", "malignant ~ grade", "binomial", here, tables)
    frame.loc[frame.index[:3], "grade"] = 3
    here, tables = made(frame, grade, real_data.boolean("malignant"))
    message = ends(TooFewPersons, "grade", "malignant ~ grade", "binomial", here, tables)
    assert "3" not in message


def test_an_outcome_that_nobody_or_hardly_anybody_has() -> None:
    frame, _, _ = real_data.breast()
    variables = (real_data.boolean("malignant"), real_data.number("mean_texture", 0, 100))
    here, tables = made(frame.assign(malignant=0.0), *variables)
    ends(CategoryAbsent, "malignant", "malignant ~ mean_texture", "binomial", here, tables)
    here, tables = made(frame.assign(malignant=np.arange(len(frame)) < 3), *variables)
    ends(TooFewPersons, "malignant", "malignant ~ mean_texture", "binomial", here, tables)
    here, tables = made(frame.assign(count=0.0), variables[1], real_data.number("count", 0, 5, "integer"))
    ends(CategoryAbsent, "count", "count ~ mean_texture", "poisson", here, tables)


def test_more_coefficients_than_rows() -> None:
    frame, here, _ = real_data.diabetes()
    variables = [here.dictionary[n] for n in ("age", "bmi", "bp", "s1", "s2", "s3", "target")]
    here, tables = made(frame[:6], *variables)
    with pytest.raises(TooFewPersons, match="as many coefficients as rows"):
        fitted("target ~ age + bmi + bp + s1 + s2 + s3", "gaussian", here, tables)


def test_too_few_iterations() -> None:
    _, here, tables = real_data.breast()
    with pytest.raises(NotConverged, match="2 iterations"):
        fitted("malignant ~ mean_area", "binomial", here, tables, max_iterations=2)


def test_a_fit_without_residuals_has_no_infinite_number_in_its_tables() -> None:
    x = np.arange(60) % 7 / 1.0
    here, tables = made(pd.DataFrame({"x": x, "y": 2 * x + 1}), real_data.number("x", 0, 8), real_data.number("y", 0, 16))
    result = fitted("y ~ x", "gaussian", here, tables)
    np.testing.assert_allclose(result.tables["coefficients"].column("estimate"), [1, 2], rtol=1e-12)
    values = [v for t in result.tables.values() for row in t.rows for v in row if isinstance(v, float)]
    assert np.all(np.isfinite([*values, *(v for v in result.facts.values() if isinstance(v, float))]))


def test_a_wild_start_is_halved_back() -> None:
    rng = np.random.default_rng(4)
    x = rng.uniform(0, 1, 200)
    frame = pd.DataFrame({"x": x, "y": rng.poisson(np.exp(7 * x))})
    here, tables = made(frame, real_data.number("x", 0, 1), real_data.number("y", 0, 5000, "integer"))
    result = fitted("y ~ x - 1", "poisson", here, tables)  # starts at a mean of 1, where the first step goes far too far
    reference = smf.glm("y ~ x - 1", frame, family=FAMILIES["poisson"]).fit(tol=1e-13, tol_criterion="params")
    assert result.tables["coefficients"].column("estimate") == (pytest.approx(reference.params["x"], rel=1e-8),)


def test_a_subgroup_and_its_unknown_rows() -> None:
    frame, here, tables = real_data.breast()
    frame.loc[frame.index[:20], "grade"] = np.nan
    tables = real_data.tables(frame, here, frame.site)
    asked = analysis("malignant ~ mean_texture", "binomial", 'grade != "small"')
    result = plain.run(METHOD, asked, here, tables)
    assert_same_fit(result, pooled(frame[frame.grade > 0], "malignant ~ mean_texture", "binomial", here))
    assert result.facts["subgroup_unknown"] == 20


def test_several_rows_of_a_person_are_counted_once_and_said() -> None:
    frame, here, _ = real_data.breast()
    frame = frame.assign(person=np.arange(len(frame)) // 2)
    result = fitted("malignant ~ mean_texture", "binomial", here, real_data.tables(frame, here, frame.site))
    persons = frame.groupby("site").person.nunique().sum()
    assert result.facts["persons"] == persons
    assert result.facts["rows"] == len(frame)
    assert any("several rows" in n for n in result.notes)


@pytest.mark.parametrize("round_", [1, 2, 3])
def test_asked_to_stop_it_says_who_was_in_it_and_estimates_nothing(round_: int) -> None:
    _, here, tables = real_data.breast()
    result = plain.run(METHOD, analysis("malignant ~ mean_texture", "binomial"), here, tables, stop_at=round_)
    assert result.facts["converged"] is False
    assert result.facts["persons"] == 569
    assert result.tables == {}


@pytest.mark.parametrize(
    ("formula", "options", "kind", "words"),
    [
        ("malignant ~ mean_area", {}, StudyInvalid, "gaussian, binomial, poisson"),
        ("malignant ~ mean_area", {"family": "gamma"}, StudyInvalid, "gaussian, binomial, poisson"),
        ("malignant ~ mean_area", {"family": "binomial", "ofset": "x"}, StudyInvalid, "offset"),
        ("malignant ~ mean_area", {"family": "binomial", "max_iterations": 0}, StudyInvalid, "from 1 to 100"),
        ("malignant ~ mean_area", {"family": "binomial", "max_iterations": True}, StudyInvalid, "from 1 to 100"),
        ("malignant ~ mean_area", {"family": "binomial", "confidence": 95}, StudyInvalid, "from 0.5"),
        ("malignant ~ mean_area", {"family": "binomial", "heterogeneity": "yes"}, StudyInvalid, "heterogeneity: true"),
        ("malignant ~ mean_area", {"family": "binomial", "offset": "mean_area"}, StudyInvalid, "one of the two"),
        ("malignant ~ mean_area", {"family": "binomial", "offset": "grade"}, StudyInvalid, "Name a number"),
        ("malignant ~ mean_area", {"family": "gaussian"}, StudyInvalid, "family: binomial"),
        ("mean_area ~ mean_texture", {"family": "poisson"}, StudyInvalid, "family: gaussian"),
        ("mean_area ~ mean_texture", {"family": "binomial"}, StudyInvalid, "Derive a boolean"),
        ("grade ~ mean_texture", {"family": "binomial"}, StudyInvalid, "Derive a boolean"),
        ("malignant ~ mean_aera", {"family": "binomial"}, FormulaInvalid, "mean_area"),
        ("Surv(mean_area, malignant) ~ grade", {"family": "binomial"}, FormulaInvalid, "cox"),
        ("malignant ~ mean_area + strata(grade)", {"family": "binomial"}, FormulaInvalid, "+ grade"),
    ],
)
def test_options_that_are_wrong_say_what_to_write(
    formula: str, options: dict[str, Any], kind: type[FivefoldError], words: str
) -> None:
    _, here, _ = real_data.breast()
    with pytest.raises(kind) as caught:
        METHOD.parse(Analysis("model", "glm", formula, options=options), here)
    assert words in f"{caught.value.message} {caught.value.hint}"
