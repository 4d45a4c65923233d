"""Weights and exposure: the federated fit is statsmodels' weighted one, and no weight lets one person show."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
import statsmodels.formula.api as smf

from fivefold.algorithms.glm import METHOD, by_site, score_and_information
from fivefold.algorithms.method import Setting
from fivefold.errors import FormulaInvalid, StudyInvalid
from fivefold.protocol.questions import PERSONS, WEIGHTS
from fivefold.protocol.results import Result
from fivefold.study.definition import Analysis
from fivefold.study.dictionary import Variable
from fivefold.study.table import Table
from tests.algorithms import plain, real_data

FAMILIES = {"gaussian": sm.families.Gaussian(), "binomial": sm.families.Binomial(), "poisson": sm.families.Poisson()}


def weighted(which: str) -> tuple[pd.DataFrame, Setting, tuple[Table, ...]]:
    """Real rows with two weights of their own: `copies` (1 to 4) and `trust` (0.2 to 3)."""
    frame, here, _ = {"breast": real_data.breast, "diabetes": real_data.diabetes, "rossi": real_data.rossi}[which]()
    chance = np.random.default_rng(11)
    frame = frame.assign(copies=chance.integers(1, 5, len(frame)), trust=chance.uniform(0.2, 3.0, len(frame)))
    variables = [
        *here.dictionary.variables.values(),
        real_data.number("copies", 1, 10, "integer"),
        real_data.number("trust", 0.1, 5),
    ]
    here = real_data.setting(variables, here.sites)
    return frame, here, real_data.tables(frame, here, frame.site)


def fitted(formula: str, here: Setting, tables: Any, drops: Any = None, **options: Any) -> Result:
    return plain.run(METHOD, Analysis("model", "glm", formula, options=options), here, tables, drops, ring=True)


def same(result: Result, reference: Any, *, rows: int) -> None:
    table, facts = result.tables["coefficients"], result.facts
    np.testing.assert_allclose(table.column("estimate"), reference.params, rtol=1e-8)
    np.testing.assert_allclose(table.column("standard_error"), reference.bse, rtol=1e-8)
    np.testing.assert_allclose(table.column("p"), reference.pvalues, rtol=1e-6)
    for ours, theirs in (
        ("deviance", reference.deviance), ("null_deviance", reference.null_deviance), ("log_likelihood", reference.llf),
        ("aic", reference.aic), ("dispersion", reference.scale),
    ):  # fmt: skip
        assert facts[ours] == pytest.approx(theirs, rel=1e-9), ours
    assert facts["degrees_of_freedom"] == reference.df_resid
    assert facts["rows"] == rows


CASES = [
    ("breast", "malignant ~ mean_texture + mean_smoothness", "binomial"),
    ("diabetes", "target ~ age + bmi + bp", "gaussian"),
    ("rossi", "prio ~ age", "poisson"),
]


@pytest.mark.parametrize(
    ("kind", "column", "keyword"), [("frequency", "copies", "freq_weights"), ("precision", "trust", "var_weights")]
)
@pytest.mark.parametrize(("data", "formula", "family"), CASES)
def test_weights_are_those_of_statsmodels(data: str, formula: str, family: str, kind: str, column: str, keyword: str) -> None:
    frame, here, tables = weighted(data)
    result = fitted(formula, here, tables, family=family, weights=column, weights_are=kind)
    model = smf.glm(formula, frame, family=FAMILIES[family], **{keyword: frame[column]})
    options = {"use_t": True} if family == "gaussian" else {}
    same(result, model.fit(tol=1e-13, tol_criterion="params", maxiter=100, **options), rows=len(frame))
    assert result.facts["sum_of_weights"] == pytest.approx(frame[column].sum(), rel=1e-12)
    assert any(f"weighted by {column}" in note for note in result.notes)


@pytest.mark.parametrize(("data", "formula", "family"), CASES)
def test_a_frequency_of_two_is_the_row_twice(data: str, formula: str, family: str) -> None:
    frame, here, tables = weighted(data)
    once = fitted(formula, here, tables, family=family, weights="copies", weights_are="frequency")
    repeated = frame.loc[frame.index.repeat(frame.copies)].reset_index(drop=True)
    twice = fitted(formula, here, real_data.tables(repeated, here, repeated.site), family=family)
    for name in ("estimate", "standard_error", "p", "low", "high"):
        np.testing.assert_allclose(
            np.array(once.tables["coefficients"].column(name), float),
            np.array(twice.tables["coefficients"].column(name), float),
            rtol=1e-8,
        )
    for name in ("deviance", "null_deviance", "log_likelihood", "aic", "degrees_of_freedom", "dispersion"):
        assert once.facts[name] == pytest.approx(twice.facts[name], rel=1e-9), name


def test_a_site_that_drops_leaves_the_weighted_fit_of_the_survivors() -> None:
    frame, here, tables = weighted("diabetes")
    result = fitted("target ~ age + bmi", here, tables, lambda n: ("c",) if n >= 2 else (), family="gaussian", weights="trust",
                    weights_are="precision")  # fmt: skip
    left = frame[frame.site != 2]
    model = smf.glm("target ~ age + bmi", left, var_weights=left.trust).fit(tol=1e-13, tol_criterion="params", use_t=True)
    same(result, model, rows=len(left))


@pytest.mark.parametrize(
    ("kind", "column", "keyword"), [("frequency", "copies", "freq_weights"), ("precision", "trust", "var_weights")]
)
def test_heterogeneity_with_weights(kind: str, column: str, keyword: str) -> None:
    frame, here, tables = weighted("diabetes")
    result = fitted("target ~ bmi", here, tables, family="gaussian", weights=column, weights_are=kind, heterogeneity=True)
    own = [frame[frame.site == i] for i in range(4)]
    models = [smf.glm("target ~ bmi", f, **{keyword: f[column]}).fit(tol=1e-13, tol_criterion="params") for f in own]
    table = result.tables["site_estimates"]
    np.testing.assert_allclose(np.reshape(table.column("estimate"), (2, 4)).T, [m.params for m in models], rtol=1e-8)
    np.testing.assert_allclose(np.reshape(table.column("standard_error"), (2, 4)).T, [m.bse for m in models], rtol=1e-8)


def test_exposure_is_that_of_statsmodels() -> None:
    frame, here, _ = weighted("rossi")
    week = real_data.number("week", 1, 60, "integer")
    here = replace(here, dictionary=replace(here.dictionary, variables={**here.dictionary.variables, "week": week}))
    result = fitted("prio ~ age", here, real_data.tables(frame, here, frame.site), family="poisson", exposure="week")
    model = smf.glm("prio ~ age", frame, family=FAMILIES["poisson"], exposure=frame.week)
    same(result, model.fit(tol=1e-13, tol_criterion="params", maxiter=100), rows=len(frame))


def test_the_gate_sees_the_weights_in_every_step() -> None:
    """One person with nearly all of the weight is what `effective_rows` and `dominance` look at."""
    frame, here, tables = weighted("diabetes")
    analysis = Analysis("model", "glm", "target ~ bmi", options={
        "family": "gaussian", "weights": "trust", "weights_are": "precision", "heterogeneity": True,
    })  # fmt: skip
    log = plain.transcript(METHOD, analysis, here, tables)
    seen = set()
    for asked in log.questions:
        for question in asked if isinstance(asked, tuple) else (asked,):
            if question.step in (score_and_information, by_site):
                answer = question.step(tables[0], **question.arguments)
                np.testing.assert_allclose(answer[WEIGHTS], frame.trust[frame.site == 0])
                np.testing.assert_array_equal(answer[PERSONS], tables[0].person)
                seen.add(question.step.name)
    assert seen == {"glm.score_and_information", "glm.by_site"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"weights": "trust"}, "one of: frequency, precision"),
        ({"weights": "trust", "weights_are": "trust"}, "one of: frequency, precision"),
        ({"weights_are": "frequency"}, "`weights:` and a variable"),
        ({"weights": "trust", "weights_are": "frequency"}, "Declare it as an integer"),
        ({"weights": "sex", "weights_are": "frequency"}, "Name a number"),
        ({"weights": "bmi", "weights_are": "precision"}, "Take one of the two out"),
        ({"weights": "nothing", "weights_are": "precision"}, "nothing"),
        ({"weights": "any", "weights_are": "precision"}, "`minimum` above 0"),
        ({"exposure": "trust"}, "family: poisson"),
        ({"family": "poisson", "exposure": "any"}, "`minimum` above 0"),
    ],
)
def test_options_that_are_wrong_say_what_to_write(options: dict[str, Any], words: str) -> None:
    _, here, _ = weighted("diabetes")
    any_ = Variable("any", "Any", "number", minimum=0, maximum=9)
    count = Variable("count", "Count", "integer", minimum=0, maximum=9)
    variables = {**here.dictionary.variables, "any": any_, "count": count}
    here = replace(here, dictionary=replace(here.dictionary, variables=variables))
    given = {"family": "gaussian", **options}
    with pytest.raises((StudyInvalid, FormulaInvalid)) as caught:
        METHOD.parse(Analysis("model", "glm", "count ~ bmi", options=given), here)
    assert words in f"{caught.value.message} {caught.value.hint}"
