"""The federated GLM is the pooled one: statsmodels on real data, over all sites and over survivors."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
import statsmodels.formula.api as smf
from statsmodels.stats.meta_analysis import combine_effects

from fivefold.algorithms.glm import METHOD
from fivefold.errors import (
    CategoryAbsent,
    NotConverged,
)
from tests.algorithms import plain, real_data
from tests.algorithms.glm_fits import FAMILIES, analysis, assert_same_fit, fitted, name_of, pooled

DATA = {"breast": real_data.breast, "diabetes": real_data.diabetes, "rossi": real_data.rossi}


MODELS = [
    ("breast", "malignant ~ mean_radius + mean_texture + mean_smoothness", "binomial"),
    ("breast", "malignant ~ mean_area + mean_texture + mean_smoothness + worst_symmetry + grade", "binomial"),
    ("breast", "malignant ~ mean_area + mean_texture + site", "binomial"),
    ("breast", "malignant ~ 0 + grade + mean_texture", "binomial"),
    ("breast", "malignant ~ mean_texture * mean_smoothness + mean_area", "binomial"),
    ("breast", "malignant ~ mean_texture:mean_smoothness", "binomial"),
    ("breast", "malignant ~ 1", "binomial"),
    ("diabetes", "target ~ age + sex + bmi + bp + s1 + s2 + s3 + s4 + s5 + s6", "gaussian"),
    ("diabetes", "target ~ age * sex + bmi + bp - 1", "gaussian"),
    ("diabetes", "target ~ bmi - 1", "gaussian"),
    ("diabetes", "s1 ~ s2 + s3 + s4 + bmi * sex + site", "gaussian"),
    ("diabetes", "target ~ site * sex + bmi", "gaussian"),
    ("rossi", "prio ~ age + fin + race + wexp + mar", "poisson"),
    ("rossi", "prio ~ age + fin + site", "poisson"),
    ("rossi", "prio ~ age - 1", "poisson"),
]


@pytest.mark.parametrize(("data", "formula", "family"), MODELS)
def test_equal_to_the_pooled_fit(data: str, formula: str, family: str) -> None:
    frame, here, tables = DATA[data]()
    result = plain.run(METHOD, analysis(formula, family), here, tables, ring=True)
    assert_same_fit(result, pooled(_booleans_as_text(frame, formula), formula, family, here))
    assert result.sites == here.sites
    assert result.facts["persons"] == len(frame)
    assert result.facts["converged"] is True


def _booleans_as_text(frame: pd.DataFrame, formula: str) -> pd.DataFrame:
    """A boolean covariate has a column called `x[yes]`, as a category has."""
    response = formula.split("~")[0].strip()
    booleans = [n for n in ("fin", "race", "wexp", "mar", "exang") if n in frame and n != response]
    return frame.assign(**{n: frame[n].map({0: "0no", 1: "1yes"}) for n in booleans})


@pytest.mark.parametrize(
    ("data", "formula", "family", "offset", "null"),
    [
        ("rossi", "prio ~ age + race", "poisson", "log_week", True),
        ("rossi", "arrest ~ age + prio", "binomial", "log_week", False),
        ("diabetes", "target ~ age + sex", "gaussian", "bp", True),
        ("diabetes", "target ~ age - 1", "gaussian", "bp", True),
    ],
)
def test_with_an_offset(data: str, formula: str, family: str, offset: str, null: bool) -> None:
    frame, here, tables = DATA[data]()
    result = fitted(formula, family, here, tables, offset=offset)
    with warnings.catch_warnings():
        # statsmodels starts the null model of the second case where it overflows; it is fitted from a better start below.
        warnings.simplefilter("ignore", RuntimeWarning)
        assert_same_fit(result, pooled(_booleans_as_text(frame, formula), formula, family, here, offset), null=null)
    if not null:
        constant = sm.GLM(frame.arrest, np.ones(len(frame)), family=FAMILIES[family], offset=frame[offset])
        assert result.facts["null_deviance"] == pytest.approx(constant.fit(start_params=[-4.0]).deviance, rel=1e-10)


def test_tests_and_intervals_are_those_of_the_textbooks() -> None:
    frame, here, tables = real_data.diabetes()
    ordinary = smf.ols("target ~ age + bmi", frame).fit()
    table = fitted("target ~ age + bmi", "gaussian", here, tables, confidence=0.9).tables["coefficients"]
    assert table.columns[3] == "t"
    np.testing.assert_allclose(table.column("p"), ordinary.pvalues, rtol=1e-8)
    np.testing.assert_allclose(np.column_stack([table.column("low"), table.column("high")]), ordinary.conf_int(0.1), rtol=1e-8)
    frame, here, tables = real_data.breast()
    reference = pooled(frame, "malignant ~ mean_texture", "binomial", here)
    result = fitted("malignant ~ mean_texture", "binomial", here, tables)
    table = result.tables["coefficients"]
    np.testing.assert_allclose(table.column("p"), reference.pvalues, rtol=1e-6)
    np.testing.assert_allclose(np.column_stack([table.column("low"), table.column("high")]), reference.conf_int(), rtol=1e-8)
    effects = result.tables["effects"]
    assert effects.columns[1] == "odds_ratio"
    assert effects.column("term") == ("mean_texture",)
    assert effects.column("odds_ratio") == (pytest.approx(np.exp(reference.params["mean_texture"])),)
    (figure,) = result.figures
    assert figure.kind == "forest"
    assert figure.log_x
    assert set(figure.mapping.values()) <= set(result.tables[figure.table].columns)


def test_four_hospitals_with_their_own_missing_values() -> None:
    data = real_data.heart()
    if data is None:
        return
    frame, here, tables = data
    formula = "disease ~ age + sex + cp + trestbps + chol + thalach + exang + oldpeak"
    used = ["age", "sex", "cp", "trestbps", "chol", "thalach", "exang", "oldpeak", "disease"]
    reference = pooled(_booleans_as_text(frame.dropna(subset=used), formula), formula, "binomial", here)
    result = fitted(formula, "binomial", here, tables)
    assert {n: result.facts[f"missing_{n}"] for n in used} == frame[used].isna().sum().to_dict()
    values = dict(
        zip(result.tables["coefficients"].column("term"), result.tables["coefficients"].column("estimate"), strict=True)
    )
    theirs = {name_of(t).replace("[two]", "[male]"): v for t, v in reference.params.items()}
    assert values == {t: pytest.approx(v, rel=1e-8) for t, v in theirs.items()}
    assert result.facts["aic"] == pytest.approx(reference.aic, rel=1e-10)
    with pytest.raises(CategoryAbsent, match="site = switzerland"):  # where cholesterol was never measured
        fitted("disease ~ chol + site", "binomial", here, tables)


def test_far_apart_units_and_careless_ranges_lose_no_digits() -> None:
    frame, _, _ = real_data.diabetes()
    frame = frame.assign(tiny=frame.bmi * 1e-9, huge=frame.bp * 1e9, shifted=frame.s6 + 1e5)
    variables = [
        real_data.number("tiny", 0, 1e-6), real_data.number("huge", 0, 1e13), real_data.number("shifted", 0, 1e7),
        real_data.number("target", 0, 1e5),
    ]  # fmt: skip
    here = real_data.setting(variables, ["a", "b", "c", "d"])
    tables = real_data.tables(frame, here, frame.site)
    result = plain.run(METHOD, analysis("target ~ tiny + huge + shifted", "gaussian"), here, tables, ring=True)
    exact = smf.ols("target ~ bmi + bp + s6", frame).fit()
    expected = exact.params.to_numpy() / [1, 1e-9, 1e9, 1]
    expected[0] -= exact.params["s6"] * 1e5
    np.testing.assert_allclose(result.tables["coefficients"].column("estimate"), expected, rtol=1e-8)
    np.testing.assert_allclose(
        result.tables["coefficients"].column("standard_error")[1:], exact.bse.to_numpy()[1:] / [1e-9, 1e9, 1], rtol=1e-8
    )


# ---- drop-outs --------------------------------------------------------------------------------------------------------
DROPS: list[tuple[Mapping[int, Sequence[str]], set[str]]] = [
    ({1: ["h1"]}, set()),
    ({2: ["h1"]}, set()),
    ({n: ["h1"] for n in range(1, 50)}, {"h1"}),
    ({n: ["h1"] for n in range(2, 50)}, {"h1"}),
    ({n: ["h3"] for n in range(4, 50)}, {"h3"}),
    ({n: ["h0"] for n in range(7, 50)}, {"h0"}),
    ({3: ["h1"], 4: ["h2"], 5: ["h1", "h3"], **{n: ["h4"] for n in range(6, 50)}}, {"h4"}),
]


@pytest.mark.parametrize(("drops", "gone"), DROPS)
@pytest.mark.parametrize("formula", ["malignant ~ mean_area + mean_texture", "malignant ~ mean_area + mean_texture + site"])
def test_a_site_that_drops_leaves_the_pooled_fit_of_the_survivors(
    formula: str, drops: Mapping[int, Sequence[str]], gone: set[str]
) -> None:
    frame, here, tables = real_data.breast()
    result = fitted(formula, "binomial", here, tables, drops)
    survivors = tuple(s for s in here.sites if s not in gone)
    assert result.sites == survivors
    frame = frame[frame.site.isin([here.sites.index(s) for s in survivors])]
    assert_same_fit(result, pooled(frame, formula, "binomial", here))
    assert result.facts["persons"] == len(frame)
    assert result.facts["events"] == int(frame.malignant.sum())
    assert set(result.dropped) == {s for sites in drops.values() for s in sites}
    assert any("h" in note and "did not answer" in note for note in result.notes)


def test_sites_that_drop_for_ever_in_turn_end_in_a_sentence() -> None:
    _, here, tables = real_data.breast()
    with pytest.raises(NotConverged, match="25 iterations"):
        fitted("malignant ~ mean_area", "binomial", here, tables, lambda number: [here.sites[number % 5]])


def test_no_more_rounds_than_the_cost_says() -> None:
    _, here, tables = real_data.breast()
    asked = analysis("malignant ~ mean_area + grade + site", "binomial", heterogeneity=True)
    log = plain.transcript(METHOD, asked, here, tables, {3: ["h1"]})
    cost = METHOD.cost(METHOD.parse(asked, here))
    assert len(log.questions) <= cost.rounds
    sizes = [sum(f.size for s in (q if isinstance(q, tuple) else (q,)) for f in s.fields) for q in log.questions]
    assert max(sizes) <= cost.numbers_per_round


# ---- between sites ----------------------------------------------------------------------------------------------------
def test_heterogeneity_is_that_of_the_sites_own_fits() -> None:
    frame, here, tables = real_data.breast()
    formula = "malignant ~ mean_texture + mean_smoothness"
    result = fitted(formula + " + site", "binomial", here, tables, heterogeneity=True)
    own = [pooled(frame[frame.site == i], formula, "binomial", here) for i in range(5)]
    estimates = result.tables["site_estimates"]
    np.testing.assert_allclose(
        np.reshape(estimates.column("estimate"), (3, 5)).T, [m.params for m in own], rtol=1e-8
    )  # fmt: skip
    np.testing.assert_allclose(np.reshape(estimates.column("standard_error"), (3, 5)).T, [m.bse for m in own], rtol=1e-8)
    table = result.tables["heterogeneity"]
    for row, term in enumerate(("Intercept", "mean_texture", "mean_smoothness")):
        effects = np.array([m.params[term] for m in own])
        with np.errstate(invalid="ignore"):  # its random-effects part, where tau² is below 0
            reference = combine_effects(effects, np.array([m.bse[term] ** 2 for m in own]), method_re="dl")
        assert table.column("q")[row] == pytest.approx(reference.q, rel=1e-7)
        assert table.column("i_squared")[row] == pytest.approx(100 * max(reference.i2, 0.0), rel=1e-6)
        assert table.column("tau_squared")[row] == pytest.approx(max(reference.tau2, 0.0), rel=1e-6)
        assert table.column("pooled")[row] == pytest.approx(reference.mean_effect_fe, rel=1e-8)
        assert table.column("p")[row] == pytest.approx(reference.test_homogeneity().pvalue, rel=1e-7)


def test_heterogeneity_of_a_gaussian_uses_each_site_s_own_variance() -> None:
    frame, here, tables = real_data.diabetes()
    result = fitted("target ~ bmi + sex", "gaussian", here, tables, heterogeneity=True)
    own = [pooled(frame[frame.site == i], "target ~ bmi + sex", "gaussian", here) for i in range(4)]
    errors = np.reshape(result.tables["site_estimates"].column("standard_error"), (3, 4)).T
    np.testing.assert_allclose(errors[:, [0, 1]], [[m.bse["Intercept"], m.bse["bmi"]] for m in own], rtol=1e-8)


def test_a_site_with_a_small_category_has_no_model_of_its_own() -> None:
    frame, here, tables = real_data.breast()
    few = frame.index[(frame.site == 2) & (frame.grade == 2)][3:]
    frame = frame.drop(index=few)
    tables = real_data.tables(frame, here, frame.site)
    log = plain.transcript(METHOD, analysis("malignant ~ mean_texture + grade", "binomial", heterogeneity=True), here, tables)
    assert log.result is not None
    assert "h2" not in log.result.tables["site_estimates"].column("site")
    assert any("h2" in n and "model of its own" in n for n in log.result.notes)
    for asked, answered in zip(log.questions, log.aggregates, strict=True):
        for question, total in zip(asked, answered, strict=True):
            if question.step.name == "glm.by_site":
                assert not np.any(total["information"][2])  # nothing of the small site was ever laid open
                assert question.needs == ("site_totals",)


def test_what_each_question_needs_permitted() -> None:
    _, here, tables = real_data.breast()

    def needs(formula: str, **options: Any) -> set[str]:
        log = plain.transcript(METHOD, analysis(formula, "binomial", **options), here, tables)
        return {n for q in log.questions for s in q for n in s.needs}

    assert needs("malignant ~ mean_texture") == set()
    assert needs("malignant ~ mean_texture + site") == {"site_totals"}
    assert needs("malignant ~ mean_texture", heterogeneity=True) == {"site_totals"}
