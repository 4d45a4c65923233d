"""Formulas: what they mean, and for what they do not say, the position and what to write instead."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fivefold.errors import FormulaInvalid
from fivefold.study.formula import Survival, parse


def terms(text: str) -> list[str]:
    return [str(t) for t in parse(text).terms]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("y ~ a + b", ["a", "b"]),
        ("y ~ a * b", ["a", "b", "a:b"]),
        ("y ~ a:b", ["a:b"]),
        ("y ~ a + b * c", ["a", "b", "c", "b:c"]),
        ("y ~ a * b:c", ["a", "b:c", "a:b:c"]),
        ("y ~ (a + b):c", ["a:c", "b:c"]),
        ("y ~ (a + b) * c", ["a", "b", "c", "a:c", "b:c"]),
        ("y ~ a * b * c", ["a", "b", "c", "a:b", "a:c", "b:c", "a:b:c"]),
        ("y ~ b:a + a + a:b + a", ["a", "b:a"]),
        ("y ~ 1", []),
        ("y~0+a", ["a"]),
        ("y ~ größe + x_1", ["größe", "x_1"]),
        ("y ~ ((a))", ["a"]),
        ("y ~ site * a", ["site", "a", "site:a"]),
    ],
)
def test_terms_in_ascending_degree(text: str, expected: list[str]) -> None:
    assert terms(text) == expected


@pytest.mark.parametrize(
    ("text", "intercept"),
    [
        ("y ~ a", True),
        ("y ~ 1 + a", True),
        ("y ~ 0 + a", False),
        ("y ~ a - 1", False),
        ("y ~ a + 0", False),
        ("y ~ -1 + a", False),
    ],
)
def test_the_intercept(text: str, intercept: bool) -> None:
    assert parse(text).intercept is intercept


def test_survival_responses_and_strata() -> None:
    formula = parse("Surv(time, status) ~ age + sex + strata(site) + strata(ward, sexes)")
    assert formula.response == Survival("time", "status")
    assert formula.strata == ("site", "ward", "sexes")
    assert formula.variables == ("time", "status", "age", "sex", "ward", "sexes")
    assert not formula.by_site
    late = parse("Surv(start, stop, status) ~ site")
    assert late.response == Survival("stop", "status", "start")
    assert late.by_site
    assert late.variables == ("start", "stop", "status")


@pytest.mark.parametrize(
    ("text", "position", "words"),
    [
        ("y ~", 4, "name of a variable"),
        ("~ a", 1, "before the ~"),
        ("y a", 3, "then ~"),
        ("y ~ a b", 7, "+"),
        ("y ~ a +", 8, "name of a variable"),
        ("y ~ (a", 7, "Close the parenthesis"),
        ("y ~ a)", 6, "+"),
        ("y ~ a ^ 2", 7, "a * b"),
        ("y ~ a ** 2", 7, "a * b"),
        ("y ~ .", 5, "one by one"),
        ("y ~ (1 | site)", 8, "strata(site)"),
        ("y = a", 3, "~"),
        ("y ~ a > 3", 7, "derived variable"),
        ("y ~ 'a'", 5, "without quotes"),
        ("y ~ 2", 5, "1 for an intercept"),
        ("y ~ a - b", 9, "Leave the covariate out"),
        ("y ~ a:a", 6, "a * a"),
        ("y ~ a:1", 6, "Name variables"),
        ("y ~ log(a)", 5, "derived variable with the expression log(x)"),
        ("y ~ I(a)", 5, "derived variable"),
        ("y ~ offset(a)", 5, "option"),
        ("y ~ weights(a)", 5, "option"),
        ("y ~ C(a)", 5, "name it alone"),
        ("y ~ cluster(a)", 5, "robust: true"),
        ("y ~ Surv(a, b)", 5, "before the ~"),
        ("y ~ strata(a):b", 14, "strata(a, b)"),
        ("y ~ strata", 5, "strata(...)"),
        ("y ~ strata()", 12, "name of a variable"),
        ("y ~ strata(a b)", 14, "commas"),
        ("Surv(t) ~ a", 1, "Surv(time, status)"),
        ("Surv(t, t) ~ a", 1, "Surv(time, status)"),
        ("log(y) ~ a", 1, "derived variable"),
        ("site ~ a", 1, "variable of the dictionary"),
        ("y ~ a + y", 9, "covariates"),
        ("y ~ a + strata(a)", 5, "strata(a)"),
    ],
)
def test_what_cannot_be_read_says_where_and_what_to_write(text: str, position: int, words: str) -> None:
    with pytest.raises(FormulaInvalid) as caught:
        parse(text)
    assert f"at position {position}:" in caught.value.message
    assert words in caught.value.hint


@pytest.mark.parametrize(
    "text", ["", "   ", "y ~ " + "(" * 30 + "a" + ")" * 30, "y ~ " + " + ".join(f"x{i}" for i in range(2000))]
)
def test_nothing_and_too_much_are_refused(text: str) -> None:
    with pytest.raises(FormulaInvalid):
        parse(text)


def test_a_product_of_many_terms_ends_soon() -> None:
    many = " + ".join(f"x{i}" for i in range(100))
    with pytest.raises(FormulaInvalid, match="more than 500 terms"):
        parse(f"y ~ ({many}) * ({many.replace('x', 'z')})")


@given(st.text(alphabet="yabs~+*:()01-, Surv_.^", max_size=40))
@settings(max_examples=500, deadline=None)
def test_any_text_is_a_formula_or_a_sentence(text: str) -> None:
    try:
        formula = parse(text)
    except FormulaInvalid:
        return
    assert parse(formula.text) == formula
