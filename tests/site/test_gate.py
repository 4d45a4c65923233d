"""The gate, part by part and in order: it refuses, it never alters a number, and nothing leaves after a refusal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fivefold.errors import AnswerMalformed, FivefoldError, OutOfBounds, PolicyRefuses, TooFewPersons, ValueNotFinite
from fivefold.privacy.fixed_point import unpack
from fivefold.protocol.questions import PERSONS, WEIGHTS, Field, Sum, site_step
from fivefold.replay.cursor import Asked
from fivefold.site import gate
from fivefold.site.gate import DISCLOSURE_CHECKS, GATE, Departure, leave, seen
from fivefold.study.definition import Analysis, DifferentialPrivacy, Privacy, Study
from fivefold.study.dictionary import Dictionary
from fivefold.study.table import Table
from tests.plain_study import policy_of, study_of

DICTIONARY = Dictionary("d", "1", {})


@site_step("toy.sums")
def sums(table: Any) -> Mapping[str, Any]:
    return {}


def study(**private: Any) -> Study:
    return study_of(Analysis("x", "toy"), privacy=Privacy(**private))


def departure(
    state: Path, fields: tuple[Field, ...] = (Field("s", "real", 100.0, (2,)),), answer: Any = None, persons: int = 20,
    per_person: int = 1, round: int = 1, it: Study | None = None, known: int | None = None, **rules: Any,
) -> Departure:  # fmt: skip
    table = Table("a", DICTIONARY, {}, np.repeat(np.arange(persons), per_person))
    question = Sum(sums, fields, {"round": round})
    return Departure(
        it or study(), "d" * 64, policy_of(**rules), Asked(round, Analysis("x", "toy"), "toy", question), table,
        {f.name: np.zeros(f.shape) for f in fields} if answer is None else answer, state, known,
    )  # fmt: skip


def rule_of(kind: type[FivefoldError], it: Departure, parts: Any = GATE) -> str:
    with pytest.raises(kind) as caught:
        leave(it, parts)
    assert set(caught.value.public().values()) <= {caught.value.code, caught.value.rule, caught.value.variable}
    assert not any(ch.isdigit() for ch in caught.value.public()["rule"])
    return caught.value.rule


def test_the_order_is_the_promise() -> None:
    assert [part.__name__ for part in GATE] == [
        "minimum_persons", "local_minimum", "effective_rows", "degrees_of_freedom", "numbers_per_person",
        "clip", "round_to_ring", "noise", "reserve_budget",
    ]  # fmt: skip
    assert GATE[: len(DISCLOSURE_CHECKS)] == DISCLOSURE_CHECKS


def test_numbers_pass_unaltered(tmp_path: Path) -> None:
    fields = (Field("s", "real", 100.0, (2,)), Field("n", "persons", 1000.0))
    answer = {"s": np.array([1.25, -3.5]), "n": np.array(20.0)}
    passed = leave(departure(tmp_path, fields, answer), GATE)
    assert passed.vector is not None
    total = unpack(passed.vector, fields, 3, 1)
    assert total["s"].tolist() == [1.25, -3.5]
    assert int(total["n"]) == 20
    shown = seen(departure(tmp_path, fields, answer))
    assert shown["s"].tolist() == [1.25, -3.5]


def test_nothing_comes_after_a_refusal(tmp_path: Path) -> None:
    sent: list[Departure] = []

    def send(it: Departure) -> Departure:
        sent.append(it)
        return it

    leave(departure(tmp_path), (*GATE, send))
    assert len(sent) == 1
    for bad in (departure(tmp_path, persons=4), departure(tmp_path, answer={"s": np.array([np.nan, 1.0])})):
        with pytest.raises(FivefoldError):
            leave(bad, (*GATE, send))
    assert len(sent) == 1


def test_persons_are_counted_not_rows(tmp_path: Path) -> None:
    assert rule_of(TooFewPersons, departure(tmp_path, persons=4, per_person=50)) == "minimum_persons"
    leave(departure(tmp_path, persons=5), GATE)
    assert rule_of(TooFewPersons, departure(tmp_path, persons=9, minimum_persons=10)) == "minimum_persons"


@pytest.mark.parametrize("kind", ["persons", "cell"])
def test_a_local_minimum_refuses_and_never_alters(tmp_path: Path, kind: Any) -> None:
    fields = (Field("table", kind, 1000.0, (2, 2)),)
    small = {"table": np.array([[10, 0], [2, 8]])}
    kept = small["table"].copy()
    assert rule_of(TooFewPersons, departure(tmp_path, fields, small, local_minimum=3)) == "local_minimum"
    assert np.array_equal(small["table"], kept)
    leave(departure(tmp_path, fields, small, local_minimum=2), GATE)
    leave(departure(tmp_path, fields, small), GATE)
    rows = (Field("table", "count", 1000.0, (2, 2)),)
    leave(departure(tmp_path, rows, small, local_minimum=3), GATE)  # a count of missing values is no count of persons


def weighted(state: Path, weights: Any, **more: Any) -> Departure:
    it = departure(state, **more)
    return replace(it, answer={**it.answer, WEIGHTS: np.asarray(weights)})


def test_a_weighted_sum_rests_on_enough_persons(tmp_path: Path) -> None:
    passed = leave(weighted(tmp_path, np.ones(20)), GATE)
    assert WEIGHTS not in passed.answer
    steep = np.full(20, 1e-12)
    steep[3] = 0.25  # what a steep β makes of the logistic weights: one patient's row would come back
    assert rule_of(TooFewPersons, weighted(tmp_path, steep)) == "effective_rows"
    four = np.zeros(20)
    four[:4] = 1.0
    assert rule_of(TooFewPersons, weighted(tmp_path, four)) == "effective_rows"
    five = np.zeros(20)
    five[:5] = 1.0
    leave(weighted(tmp_path, five), GATE)
    leave(weighted(tmp_path, np.zeros(20)), GATE)


def test_weights_are_added_up_within_persons(tmp_path: Path) -> None:
    rows = np.zeros(200)
    rows[:40] = 1.0  # 40 rows of 4 persons
    assert rule_of(TooFewPersons, weighted(tmp_path, rows, persons=20, per_person=10)) == "effective_rows"


def test_a_step_may_say_whose_rows_it_used(tmp_path: Path) -> None:
    used = {WEIGHTS: np.ones(6), PERSONS: np.array([0, 0, 0, 1, 2, 3])}  # six complete cases of four persons
    it = departure(tmp_path)
    it = replace(it, answer={**it.answer, **used})
    assert rule_of(TooFewPersons, it) == "effective_rows"
    used[PERSONS] = np.arange(6)
    passed = leave(replace(it, answer={**it.answer, **used}), GATE)
    assert set(passed.answer) == {"s"}


def test_one_person_may_not_dominate(tmp_path: Path) -> None:
    weights = np.ones(200)
    weights[0] = 100.0  # effective rows 8.7
    leave(weighted(tmp_path, weights, persons=200), GATE)
    assert rule_of(TooFewPersons, weighted(tmp_path, weights, persons=200, dominance=0.3)) == "dominance"
    two = np.stack([np.ones(200), weights], axis=1)
    assert rule_of(TooFewPersons, weighted(tmp_path, two, persons=200, dominance=0.3)) == "dominance"


@pytest.mark.parametrize("weights", [np.ones(19), np.full(20, np.nan), np.full(20, np.inf), np.array(1.0), np.ones((19, 2))])
def test_weights_that_cannot_be_judged_are_a_refusal(tmp_path: Path, weights: Any) -> None:
    assert rule_of(PolicyRefuses, weighted(tmp_path, weights)) == "effective_rows"


@given(st.lists(st.floats(0, 1e300), min_size=20, max_size=20))
def test_effective_rows_against_the_formula(weights: list[float]) -> None:
    w = np.array(weights)
    it = weighted(Path("unused"), w)
    if w.max() > 0:
        w = w / w.max()
    fine = w.max() == 0 or (w.sum() ** 2 / (w**2).sum() >= 5 and w.max() / w.sum() <= 0.5)
    try:
        gate.effective_rows(it)
    except TooFewPersons:
        assert not fine
    else:
        assert fine


def test_all_numbers_of_all_rounds_count(tmp_path: Path) -> None:
    limit = {"numbers_per_person": 0.3}  # 20 persons: 6 numbers, that is 3 rounds of 2
    for round in (1, 2, 3):
        leave(departure(tmp_path, round=round, **limit), GATE)
    leave(departure(tmp_path, round=2, **limit), GATE)  # the same question tells nothing new
    assert rule_of(PolicyRefuses, departure(tmp_path, round=4, **limit)) == "numbers_per_person"
    assert rule_of(PolicyRefuses, departure(tmp_path, round=5, **limit)) == "numbers_per_person"
    leave(departure(tmp_path, round=4, numbers_per_person=0.4), GATE)
    other = replace(departure(tmp_path, round=9, **limit), study_digest="e" * 64)
    leave(other, GATE)


def test_a_rehearsal_counts_nothing(tmp_path: Path) -> None:
    for round in range(9):
        seen(departure(tmp_path, round=round, numbers_per_person=0.1))
    assert not (tmp_path / "released").exists()


def test_a_fit_leaves_persons_beside_its_parameters(tmp_path: Path) -> None:
    fields = (Field("information", "real", 100.0, (8, 8)), Field("score", "real", 100.0, (8,)))
    assert rule_of(PolicyRefuses, departure(tmp_path, fields, known=17)) == "degrees_of_freedom"
    leave(departure(tmp_path, fields, known=18), GATE)
    leave(departure(tmp_path, fields, known=None), GATE)
    packed = (Field("information", "real", 100.0, (36,)), Field("score", "real", 100.0, (8,)))
    assert rule_of(PolicyRefuses, departure(tmp_path, packed, known=17)) == "degrees_of_freedom"
    leave(departure(tmp_path, packed, known=18), GATE)
    cells = (Field("table", "cell", 100.0, (8, 8)),)
    leave(departure(tmp_path, cells, known=10), GATE)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ({"s": np.array([np.nan, 0.0])}, ValueNotFinite),
        ({"s": np.array([np.inf, 0.0])}, ValueNotFinite),
        ({"s": np.array([100.1, 0.0])}, OutOfBounds),
        ({"s": np.array([-1e308, 0.0])}, OutOfBounds),
        ({"s": np.zeros(3)}, AnswerMalformed),
        ({"s": np.zeros((2, 1))}, AnswerMalformed),
        ({}, AnswerMalformed),
        ({"s": np.zeros(2), "extra": np.zeros(1)}, AnswerMalformed),
        ({"s": np.array(["a", "b"])}, AnswerMalformed),
    ],
)
def test_bounds_shape_and_finiteness(tmp_path: Path, answer: Any, kind: type[FivefoldError]) -> None:
    rule_of(kind, departure(tmp_path, answer=answer))


def test_without_sensitivity_no_answer_where_noise_was_promised(tmp_path: Path) -> None:
    private = study(differential_privacy=DifferentialPrivacy("person", 1.0, 1e-6, 1.0))
    assert rule_of(PolicyRefuses, departure(tmp_path, it=private)) == "sensitivity"
    assert rule_of(PolicyRefuses, departure(tmp_path, exact_sums="refused")) == "exact_sums"
