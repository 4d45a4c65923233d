"""The expression language: values, three-valued logic, and a sentence with a position for everything else."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fivefold.errors import StudyInvalid
from fivefold.study import expressions
from fivefold.study.dictionary import Dictionary, Variable
from fivefold.study.table import Table

NAN = math.nan
SEX = Variable("sex", "Sex", "category", codes={"1": "male", "2": "female"}, missing_codes=("9",))
AGE_GROUP = Variable("group", "Age group", "category", codes={"a": "young", "b": "middle", "c": "old"})
DICTIONARY = Dictionary(
    "test",
    "1",
    {
        "age": Variable("age", "Age", "number", "year", 0, 120),
        "sex": SEX,
        "sex_at_birth": Variable("sex_at_birth", "Sex at birth", "category", codes={"1": "male", "2": "female"}),
        "stage": Variable("stage", "Stage", "category", codes={"I": "one", "II": "two", "III": "three"}),
        "smoker": Variable("smoker", "Smoker", "boolean"),
        "seen": Variable("seen", "First seen", "date"),
        "died": Variable("died", "Died", "date"),
        "note": Variable("note", "Note", "text"),
        "größe": Variable("größe", "Height", "number", "cm", 50, 250),
    },
)
TABLE = Table(
    "north",
    DICTIONARY,
    {
        "age": np.array([20.0, 50.0, 70.0, NAN]),
        "sex": np.array([0.0, 1.0, NAN, 1.0]),
        "sex_at_birth": np.array([0.0, 0.0, 1.0, 1.0]),
        "stage": np.array([0.0, 1.0, 2.0, NAN]),
        "smoker": np.array([1.0, 0.0, NAN, NAN]),
        "seen": np.array([0.0, 18262.0, NAN, 3.0]),
        "died": np.array([10.0, 18262.0, 5.0, NAN]),
        "größe": np.array([170.0, 180.0, 190.0, 200.0]),
    },
    np.arange(4),
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("age >= 18 and not smoker", [0, 1, NAN, NAN]),
        ("18 <= age < 60", [1, 1, 0, NAN]),
        ("smoker or age > 60", [1, 0, 1, NAN]),
        ("smoker and age > 60", [0, 0, NAN, NAN]),
        ("age > 60 and smoker and False", [0, 0, 0, 0]),
        ("ismissing(age) or age < 30", [1, 0, 0, 1]),
        ("sex == 'female'", [0, 1, NAN, 1]),
        ('"1" == sex', [1, 0, NAN, 0]),
        ("'male' != sex", [0, 1, NAN, 1]),
        ("sex in ('1', 'female')", [1, 1, NAN, 1]),
        ("stage not in ['II', 'three']", [1, 0, 0, NAN]),
        ("age not in (20, 50)", [0, 0, 1, NAN]),
        ("sex == sex_at_birth", [1, 0, NAN, 1]),
        ("sex == '1' and age > 10 or smoker", [1, 0, NAN, NAN]),
        ("seen >= '2020-01-01'", [0, 1, NAN, 0]),
        ("'2020-01-01' > seen", [1, 0, NAN, 1]),
        ("died - seen", [10, 0, NAN, NAN]),
        ("died >= seen + 5", [1, 0, NAN, NAN]),
        ("died - 5 > seen", [1, 0, NAN, NAN]),
        ("cut(age, 50, 70)", [0, 1, 2, NAN]),
        ("where(smoker, 1, 2)", [1, 2, NAN, NAN]),
        ("where(age > 30, seen, died) == seen", [0, 1, NAN, NAN]),
        ("where(age > 30, sex, sex_at_birth) == sex_at_birth", [1, 0, NAN, NAN]),
        ("where(age > 30, smoker, not smoker)", [0, 0, NAN, NAN]),
        ("age ** 0", [1, 1, 1, NAN]),
        ("1 ** age", [1, 1, 1, NAN]),
        ("log(age - 20)", [NAN, math.log(30), math.log(50), NAN]),
        ("1 / (age - 20)", [NAN, 1 / 30, 1 / 50, NAN]),
        ("sqrt(20 - age)", [0, NAN, NAN, NAN]),
        ("exp(age * 100)", [NAN, NAN, NAN, NAN]),
        ("abs(-age)", [20, 50, 70, NAN]),
        ("min(age, 30, 25)", [20, 25, 25, NAN]),
        ("max(age, 30)", [30, 50, 70, NAN]),
        ("round(age / 3, 1)", [6.7, 16.7, 23.3, NAN]),
        ("round(age / 3)", [7, 17, 23, NAN]),
        ("-age + +age * 2 - 1", [19, 49, 69, NAN]),
        ("(sex == '2') * 10", [0, 10, NAN, 10]),
        ("smoker == True", [1, 0, NAN, NAN]),
        ("smoker + 1", [2, 1, NAN, NAN]),
        ("1.5e1 < age", [1, 1, 1, NAN]),
        ("größe > 175", [0, 1, 1, 1]),
        ("\n  age >\n  30\n", [0, 1, 1, NAN]),
        ("2", [2, 2, 2, 2]),
    ],
)
def test_values(text: str, expected: list[float]) -> None:
    values = expressions.evaluate(text, TABLE)
    assert values.dtype == np.float64
    assert values.shape == (4,)
    np.testing.assert_allclose(values, expected, rtol=1e-15)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cut(age, 50, 70)", [0, 1, 2, NAN]),
        ("where(age < 30, 'young', where(age < 60, 'b', 'old'))", [0, 1, 2, NAN]),
        ("'middle'", [1, 1, 1, 1]),
    ],
)
def test_a_derived_category(text: str, expected: list[float]) -> None:
    np.testing.assert_array_equal(expressions.evaluate(text, TABLE, AGE_GROUP), expected)


def test_a_derived_category_may_copy_another_with_the_same_codes() -> None:
    np.testing.assert_array_equal(expressions.evaluate("sex", TABLE, SEX), TABLE["sex"])
    np.testing.assert_array_equal(expressions.evaluate("where(age > 30, sex, '1')", TABLE, SEX), [0, 1, NAN, NAN])


@pytest.mark.parametrize(
    ("text", "position", "words", "instead"),
    [
        ("age => 3", 5, "`=>`", "`>=`"),
        ("age = 3", 5, "one `=`", "`==`"),
        ("age > 3 && smoker", 9, "`&&`", "`and`"),
        ("sexx == '1'", 1, "no variable 'sexx'", "Did you mean 'sex'?"),
        ("größe > 3 and ag > 2", 15, "no variable 'ag'", "Did you mean 'age'?"),
        ("  agee > 2", 3, "no variable 'agee'", "'age'"),
        ("sex == 1", 8, "'sex' is a category", 'quotes: "1"'),
        ("1 == sex", 1, "'sex' is a category", 'quotes: "1"'),
        ("sex == age", 8, "none of its codes", "a code"),
        ("sex == stage", 8, "different codes", "Compare each"),
        ("sex > '1'", 1, "no order", "in ("),
        ("sex == 'malee'", 8, "no code or label 'malee'", "'male'"),
        ("sex == '9'", 8, "not known", "ismissing(sex)"),
        ("sex + 1", 1, "not a number", '(sex == "1")'),
        ("age == '5'", 8, "a number is compared with a text", "without quotes"),
        ("smoker == 'yes'", 11, "a condition is compared", "`not`"),
        ("seen > '2020-13-01'", 8, "not a date", "2020-12-31"),
        ("seen > 5", 8, "a date is compared with a number", "like with like"),
        ("seen * 2", 1, "a date is not a number", "Subtract"),
        ("'a' + 1", 1, "a text is not a number", "without quotes"),
        ("note == 'x'", 1, "free text", "category"),
        ("foo(age)", 1, "no function 'foo'", "log"),
        ("logg(age)", 1, "no function 'logg'", "'log'"),
        ("log", 1, "is a function", "log("),
        ("log(1, 2)", 1, "other arguments", "log(x)"),
        ("log(x=1)", 1, "plain arguments", "log(x)"),
        ("max(age)", 1, "other arguments", "max(a, b)"),
        ("round(age, 1.5)", 12, "0 to 15", "round(x, 2)"),
        ("round(age, age)", 12, "not a formula", "number itself"),
        ("cut(age, 3, 2)", 10, "do not ascend", "ascending"),
        ("cut(age, age)", 10, "an edge must be a number", "number"),
        ("where(age, 1, 2)", 7, "a number, not a condition", "> 0"),
        ("where(smoker, 'a', 'b')", 15, "derived category", "numbers"),
        ("where(smoker, sex, stage)", 20, "different codes", "like"),
        ("True and age", 10, "a number, not a condition", "> 0"),
        ("not sex", 5, "a category, not a condition", "=="),
        ("sex", 1, "a category, not a condition or a number", "=="),
        ("age in 3", 8, "a list", 'in ("a"'),
        ("age in ()", 8, "a list", 'in ("a"'),
        ("[1, 2]", 1, "only after `in`", "in ("),
        ("age is None", 8, "`is`", "ismissing(x)"),
        ("age is 3", 8, "`is`", "`==`"),
        ("age == None", 8, "None", "ismissing"),
        ("null", 1, "null", "ismissing"),
        ("true", 1, "true", "True"),
        ("age & 3", 7, "this operator", "`and`"),
        ("age % 2", 7, "this operator", "+ - * / **"),
        ("age ^ 2", 7, "this operator", "`**`"),
        ("age if smoker else 2", 1, "`if`", "where"),
        ("age.real", 1, "a name with a dot", "log"),
        ("age[0]", 1, "a bracket", "log"),
        ("lambda: 1", 1, "lambda", "log"),
        ("f'{age}'", 1, "f before a text", "log"),
        ("(x := 3)", 4, "`:=`", "`==`"),
        ("{1: 2}", 1, "a brace", "log"),
        ("__import__('os')", 1, "no function '__import__'", "log"),
        ("(lambda: 1)()", 1, "only the language's own functions", "log"),
        ("1j > 0", 1, "a number runs into a word", "space"),
        ("3if smoker else 2", 1, "a number runs into a word", "space"),
        ("b'x' == 2", 1, "not a number or a text", "quotes"),
        ("9" * 400, 1, "too large", "finite"),
        ("age # x", 5, "`#`", "Take it out"),
        ("age\\d", 4, "`\\`", "Take it out"),
        ("age) + (age", 4, "unmatched", "Write"),
        ("age >", 6, "cannot be read", "Write"),
        ("", 1, "empty", "age >= 18"),
        ("   ", 1, "empty", "age >= 18"),
        ("(" * 250 + "1" + ")" * 250, 201, "too many nested", "Write"),
        ("-" * 100 + "1", 1, "too large", "Derive"),
        ("1" + "+1" * 300, 1, "too large", "Derive"),
        ("age > 1 or " * 300 + "smoker", 1, "longer than", "Derive"),
    ],
)
def test_everything_else_is_refused_with_its_position(text: str, position: int, words: str, instead: str) -> None:
    with pytest.raises(StudyInvalid) as caught:
        expressions.check(text, DICTIONARY)
    assert words in caught.value.message
    assert f"at character {position}:" in caught.value.message
    assert instead in caught.value.hint


@pytest.mark.parametrize(
    ("text", "target", "words"),
    [
        ("cut(age, 50)", AGE_GROUP, "3 codes"),
        ("age", AGE_GROUP, "3 codes"),
        ("sex", AGE_GROUP, "3 codes"),
        ("where(smoker, 'young', age)", AGE_GROUP, "this is a number"),
        ("where(smoker, 'young', 'ancient')", AGE_GROUP, "no code or label 'ancient'"),
        ("age", Variable("b", "B", "boolean"), "declared as boolean"),
        ("sex", Variable("n", "N", "number"), "declared as number"),
        ("seen", Variable("n", "N", "number"), "gives a date"),
        ("age", Variable("d", "D", "date"), "declared as date"),
    ],
)
def test_a_result_has_to_fit_its_variable(text: str, target: Variable, words: str) -> None:
    with pytest.raises(StudyInvalid, match=words):
        expressions.check(text, DICTIONARY, target)


def test_a_condition_is_asked_for_where_one_is_needed() -> None:
    expressions.check_condition("age > 3", DICTIONARY)
    with pytest.raises(StudyInvalid, match="a number, not a condition") as caught:
        expressions.check_condition("age + 3", DICTIONARY)
    assert "age + 3` > 0" in caught.value.hint


def test_names_in_order_without_functions() -> None:
    assert expressions.names("max(b, log(a)) > b and c == 'd'") == ("b", "a", "c")
    assert expressions.names("log(log)") == ("log",)


def test_nesting_costs_no_more_than_its_size() -> None:
    began = time.perf_counter()
    for text in [
        "(" * 12 + "age" + " in (1, 2, 3))" * 12,
        "(1 < " * 12 + "age" + " < 2)" * 12,
        "(1 - " * 20 + "age" + ")" * 20,
    ]:
        expressions.evaluate(text, TABLE)
    assert time.perf_counter() - began < 2


TRUTHS = st.sampled_from([0.0, 1.0, NAN])


@given(st.lists(st.tuples(TRUTHS, TRUTHS, TRUTHS), min_size=1, max_size=20))
def test_logic_is_kleenes(rows: list[tuple[float, float, float]]) -> None:
    """Against the definition: a formula is known where every completion of its unknowns gives the same value."""
    variables = {n: Variable(n, n, "boolean") for n in "pqr"}
    columns = {n: np.array([r[i] for r in rows]) for i, n in enumerate("pqr")}
    table = Table("x", Dictionary("x", "1", variables), columns, np.arange(len(rows)))
    for text in ("p and q", "p or q", "not p", "p and q and r", "p or q and r", "(p or q) and not r"):
        got = expressions.evaluate(text, table)
        for row, value in zip(rows, got, strict=True):
            choices = [{0.0, 1.0} if math.isnan(x) else {x} for x in row]
            outcomes = {
                float(
                    eval(text, {"__builtins__": {}}, {"p": bool(p), "q": bool(q), "r": bool(r)})
                )  # the reference, on booleans
                for p in choices[0]
                for q in choices[1]
                for r in choices[2]
            }
            assert (outcomes == {value}) if not math.isnan(value) else (outcomes == {0.0, 1.0})


@given(st.text(max_size=60) | st.text(alphabet="age sx()<>=+-*/'1,.notrd[]{}:@", max_size=40))
def test_any_text_ends_in_a_value_or_a_sentence(text: str) -> None:
    fault: StudyInvalid | None = None
    try:
        values = expressions.evaluate(text, TABLE)
    except StudyInvalid as error:
        fault = error
    if fault is None:
        assert values.shape == (4,)
        assert not np.isinf(values).any()
    else:
        assert fault.message.startswith("in `")
        assert fault.hint
