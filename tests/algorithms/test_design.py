"""Columns: the same as patsy's, the same at coordinator and site, and scaled so that results come back exactly."""

from __future__ import annotations

import numpy as np
import pandas as pd
import patsy
import pytest

from fivefold.algorithms.cohort import count, facts, question, require_categories, select
from fivefold.algorithms.design import column_bounds, design, level_label, matrix, response, scaling, transform
from fivefold.errors import CategoryAbsent, FormulaInvalid, StudyInvalid, TooFewPersons
from fivefold.study.dictionary import Dictionary, Variable
from fivefold.study.table import Table
from tests.algorithms import plain, real_data

SITES = ("A", "B", "C")
VARIABLES = [
    real_data.boolean("y"), real_data.number("a", 0, 100), real_data.number("b", -5, 1e4), real_data.boolean("smoker"),
    real_data.category("s", "male", "female"), real_data.category("g", "u", "v", "w"), Variable("bare", "", "number"),
    Variable("words", "", "text"), Variable("alone", "", "category", codes={"1": "one"}),
]  # fmt: skip
HERE = real_data.setting(VARIABLES, SITES)
RNG = np.random.default_rng(11)
FRAME = pd.DataFrame(
    {
        "y": RNG.integers(0, 2, 300), "a": RNG.uniform(0, 100, 300), "b": RNG.uniform(10, 20, 300),
        "s": RNG.integers(0, 2, 300), "g": RNG.integers(0, 3, 300), "smoker": RNG.integers(0, 2, 300),
        "bare": 0.0, "words": 0.0, "alone": 0.0,
    }
)  # fmt: skip
TABLES = real_data.tables(FRAME, HERE, np.arange(300) % 3)
FORMULAS = [
    "y ~ a + b", "y ~ a * s + b", "y ~ 0 + s", "y ~ a:s", "y ~ s * g * a", "y ~ 0 + s + g", "y ~ s:g", "y ~ 0 + a + s:g",
    "y ~ a:b:s + a", "y ~ a * b * s", "y ~ a:g + a + s:g", "y ~ site * a", "y ~ 0 + site + g", "y ~ s:site + b", "y ~ 1",
    "y ~ smoker * g", "y ~ g:s + g", "y ~ g:s:smoker",
]  # fmt: skip


def pooled_columns(formula: str) -> pd.DataFrame:
    frame = pd.concat([FRAME[np.arange(300) % 3 == i].assign(site=f"{i}") for i in range(3)])
    frame = frame.assign(**{n: frame[n].map(str) for n in ("s", "g", "smoker")})
    return patsy.dmatrix(formula.split("~")[1], frame, return_type="dataframe")


@pytest.mark.parametrize("formula", FORMULAS)
def test_the_same_columns_as_patsy(formula: str) -> None:
    model = design(formula, HERE.dictionary, SITES)
    ours = np.vstack([matrix(model, t) for t in TABLES])
    theirs = pooled_columns(formula).to_numpy()
    assert ours.shape == theirs.shape
    order = [
        np.flatnonzero([np.allclose(theirs[:, j], ours[:, i]) for j in range(theirs.shape[1])]) for i in range(model.width)
    ]
    assert sorted(int(o[0]) for o in order) == list(range(model.width))
    assert np.linalg.matrix_rank(ours) == model.width


@pytest.mark.parametrize("formula", FORMULAS)
@pytest.mark.parametrize("known", [False, True])
def test_scaled_columns_come_back_exactly_and_stay_in_bounds(formula: str, known: bool) -> None:
    model = design(formula, HERE.dictionary, SITES)
    mean = np.array([FRAME[n].mean() for n in model.numbers]) if known else None
    deviation = np.array([FRAME[n].std() for n in model.numbers]) if known else None
    constants = scaling(model, HERE.dictionary, mean, deviation)
    bounds = column_bounds(model, HERE.dictionary, constants)
    for table in TABLES:
        scaled = matrix(model, table, constants)
        np.testing.assert_allclose(scaled @ transform(model, constants), matrix(model, table), rtol=1e-11, atol=1e-9)
        assert np.all(np.abs(scaled) <= bounds * (1 + 1e-12))


def test_columns_have_the_names_of_their_levels() -> None:
    assert design("y ~ a * s + site + smoker", HERE.dictionary, SITES).names == (
        "intercept", "a", "s[female]", "site[B]", "site[C]", "smoker[yes]", "a:s[female]",
    )  # fmt: skip
    unclear = Variable("g", "", "category", codes={"1": "same", "2": "same"})
    assert level_label(unclear, 1) == "2"


def test_an_absorbed_constant_has_no_column_but_its_contrasts() -> None:
    model = design("Surv(a, y) ~ s + b", HERE.dictionary, (), absorbed=True)
    assert model.names == ("s[female]", "b")
    assert model.closed
    np.testing.assert_array_equal(response(model, TABLES[0])[1], TABLES[0]["a"])


def test_site_columns_are_of_the_sites_that_take_part() -> None:
    model = design("y ~ site", HERE.dictionary, ("B", "C"))
    assert model.names == ("intercept", "site[C]")
    assert [matrix(model, t)[:, 1].mean() for t in TABLES] == [0, 0, 1]
    assert design("y ~ a", HERE.dictionary, SITES).sites == ()


@pytest.mark.parametrize(
    ("formula", "kind", "words"),
    [
        ("y ~ aa", FormulaInvalid, "'a'"), ("y ~ bare", StudyInvalid, "minimum"), ("nothing ~ a", FormulaInvalid, "nothing"),
        ("y ~ words", FormulaInvalid, "category"), ("y ~ alone", FormulaInvalid, "fewer than two codes"),
        ("y ~ 0", FormulaInvalid, "~ 1"),
    ],
)  # fmt: skip
def test_a_formula_that_the_dictionary_does_not_carry(formula: str, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind) as caught:
        design(formula, HERE.dictionary, SITES)
    assert words in f"{caught.value} {caught.value.hint}"


def test_a_variable_called_site_is_refused_beside_site_effects() -> None:
    dictionary = Dictionary("x", "1", {v.name: v for v in (*VARIABLES, real_data.category("site", "x", "y"))})
    with pytest.raises(FormulaInvalid, match="the study's sites"):
        design("y ~ site", dictionary, SITES)


# ---- the first count ------------------------------------------------------------------------------------------------
def test_the_count_tells_persons_missing_values_and_cells() -> None:
    frame = FRAME.assign(person=np.arange(300) // 2, a=FRAME.a.where(FRAME.a < 90))
    tables = real_data.tables(frame, HERE, np.arange(300) // 100)
    asked = question(HERE, ("y", "a", "g"), "s == 'male'", outcome="y", crosses=(("g",), ("g", "s"), ("site",)), numbers=("a",))
    found = facts(plain.aggregate(asked, tables, tables, HERE, stop=False), asked, HERE)
    men = frame[frame.s == 0]
    cases = men.dropna(subset=["a"])
    assert found.persons == cases.person.nunique()
    assert found.rows == len(cases)
    assert found.missing == {"y": 0, "a": int(men.a.isna().sum()), "g": 0}
    assert found.outcome is not None
    assert found.outcome[1] == cases[cases.y == 1].person.nunique()
    assert sum(found.outcome) == found.persons
    assert found.counts[("g",)].tolist() == [cases[cases.g == i].person.nunique() for i in range(3)]
    assert found.counts[("site",)].tolist() == [cases[cases.index // 100 == i].person.nunique() for i in range(3)]
    assert found.mean[0] == pytest.approx(cases.a.mean(), rel=1e-12)
    assert found.deviation[0] == pytest.approx(cases.a.std(ddof=0), rel=1e-9)
    assert asked.needs == ("site_totals",)
    assert len(select(tables[0], ("y", "a", "g"), "s == 'male'")) == int((cases.index < 100).sum())


def test_an_empty_cell_of_an_interaction_is_named() -> None:
    frame = FRAME.assign(s=FRAME.s.where(FRAME.g != 1, 0))
    tables = real_data.tables(frame, HERE, np.arange(300) % 3)
    model = design("y ~ s * g", HERE.dictionary, SITES)
    asked = question(HERE, model.variables, crosses=model.crosses)
    found = facts(plain.aggregate(asked, tables, tables, HERE, stop=False), asked, HERE)
    with pytest.raises(CategoryAbsent, match="s = female and g = v"):
        require_categories(found, model, HERE)


def test_an_empty_site_answers_with_zeros_and_nobody_is_too_few() -> None:
    empty = Table("A", HERE.dictionary, {n: np.zeros(0) for n in FRAME}, np.zeros(0, dtype=np.int64))
    asked = question(HERE, ("y", "a"), "a > 3", outcome="y", crosses=(("g", "site"),), numbers=("a",))
    answer = plain.checked(asked, empty)
    assert all(not np.any(v) for v in answer.values())
    with pytest.raises(TooFewPersons):
        plain.aggregate(asked, [empty], [empty], HERE, stop=False)
    assert count.identity == "cohort.count/1"
