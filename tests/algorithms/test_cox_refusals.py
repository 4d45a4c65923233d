"""What a Cox model asks of the sites, and the sentences in which it ends where it has no answer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from fivefold.algorithms.cox import METHOD
from fivefold.errors import (
    CategoryAbsent,
    Collinear,
    FivefoldError,
    FormulaInvalid,
    NotConverged,
    OutOfBounds,
    Separation,
    StudyInvalid,
    TooFewPersons,
)
from fivefold.protocol.questions import Sum
from fivefold.study.definition import Analysis
from tests.algorithms import plain
from tests.algorithms.cox_fits import DAILY, assert_equals, fit, lifelines
from tests.algorithms.survival_data import category, gbsg2, lung, number, sites_of, transplants


# ---- what has no answer ---------------------------------------------------------------------------------------------
def test_separation_names_the_variable() -> None:
    frame, variables, site = lung()
    frame["marker"] = np.where(frame["status"] == 1, "absent", "present")
    frame.loc[frame.index % 3 == 0, "marker"] = "absent"
    data = (frame, [*variables, category("marker", "absent", "present")], site)
    for strata in ("", " + strata(site)"):
        with pytest.raises(Separation, match=r"marker\[present\]") as caught:
            fit(data, f"Surv(time, status) ~ age + marker{strata}", ring=False)
        assert caught.value.exit_code == 62
        assert caught.value.variable == "marker"


def test_a_number_that_orders_the_events_is_monotone_too() -> None:
    frame, variables, site = lung()
    frame["clock"] = -frame["time"]
    with pytest.raises(Separation, match="clock"):
        fit((frame, [*variables, number("clock", -1100, 0)], site), "Surv(time, status) ~ clock", ring=False)


def test_collinear_columns_are_named() -> None:
    frame, variables, site = lung()
    frame["months"] = frame["age"] * 12
    with pytest.raises(Collinear, match="'months' is determined by 'age'"):
        fit((frame, [*variables, number("months", 0, 1200)], site), "Surv(time, status) ~ age + sex + months")


def test_a_column_that_does_not_vary_is_named() -> None:
    frame, variables, site = lung()
    frame["same"] = 3.0
    with pytest.raises(Collinear, match="'same' does not vary"):
        fit((frame, [*variables, number("same", 0, 10)], site), "Surv(time, status) ~ age + same")


def test_an_absent_category_is_named() -> None:
    frame, variables, site = lung()
    variables[3] = category("sex", "male", "female", "other")
    with pytest.raises(CategoryAbsent, match="sex = other"):
        fit((frame, variables, site), "Surv(time, status) ~ age + sex")


def test_a_small_category_ends_the_model() -> None:
    frame, variables, site = lung()
    frame["rare"] = np.where(frame.index < 3, "yes", "no")
    with pytest.raises(TooFewPersons, match="rare"):
        fit((frame, [*variables, category("rare", "no", "yes")], site), "Surv(time, status) ~ age + rare")


def test_a_screened_interval_with_few_events_is_named() -> None:
    with pytest.raises(TooFewPersons, match=r"fewer than 5 persons .* in the interval \(.*\]") as caught:
        fit(lung(), "Surv(time, status) ~ age + sex", time_grid={"step": 30, "end": 1110})
    assert "event_totals" in caught.value.hint


def test_a_screened_grid_refuses_several_rows_a_person() -> None:
    frame, variables, site = gbsg2()
    setting, tables = sites_of(frame, variables, site, person=np.arange(len(frame)) // 2)
    analysis = Analysis("m", "cox", "Surv(time, status) ~ age", options={"time_grid": [0, 1000, 3000]})
    with pytest.raises(OutOfBounds, match="more than one row"):
        plain.run(METHOD, analysis, setting, tables)


def test_too_few_iterations_end_in_a_sentence() -> None:
    with pytest.raises(NotConverged, match="2 iterations"):
        fit(lung(), "Surv(time, status) ~ age + sex", max_iterations=2)


def test_no_event_on_the_grid() -> None:
    with pytest.raises(FivefoldError, match="no event happens"):
        fit(lung(), "Surv(time, status) ~ age", time_grid={"step": 1, "end": 3, "censor_beyond": True})


def test_a_time_or_value_beyond_its_public_range_is_an_error_at_the_site() -> None:
    frame, variables, site = lung()
    variables[0] = number("time", 0, 1000, "day")
    with pytest.raises(OutOfBounds) as caught:
        fit((frame, variables, site), "Surv(time, status) ~ age")
    assert caught.value.variable == "time"
    frame, variables, site = lung()
    variables[2] = number("age", 18, 70)
    with pytest.raises(OutOfBounds, match="age"):
        fit((frame, variables, site), "Surv(time, status) ~ age", ring=False)


def test_an_entry_after_the_exit_is_an_error_at_the_site() -> None:
    frame, variables, site = transplants()
    frame.loc[5, "start"] = frame.loc[5, "stop"]
    with pytest.raises(OutOfBounds) as caught:
        fit((frame, variables, site), "Surv(start, stop, event) ~ age")
    assert caught.value.public() == {"code": "OutOfBounds", "rule": "entry_before_exit", "variable": "start"}


BAD: list[tuple[str, Mapping[str, Any], type[FivefoldError], str]] = [
    ("time ~ age", {}, FormulaInvalid, "survival time"),
    ("Surv(time, status) ~ 1", {}, FormulaInvalid, "kaplan_meier"),
    ("Surv(time, status) ~ site", {}, FormulaInvalid, r"strata\(site\)"),
    ("Surv(time, status) ~ wrong", {}, FormulaInvalid, "wrong"),
    ("Surv(time, age) ~ sex", {}, StudyInvalid, "age"),
    ("Surv(sex, status) ~ age", {}, FivefoldError, "sex"),
    ("Surv(time, status) ~ age + strata(ecog)", {}, FormulaInvalid, "ecog"),
    ("Surv(time, status) ~ age", {"ties": "exact"}, StudyInvalid, "ties"),
    ("Surv(time, status) ~ age", {"time_grid": {"step": 1, "end": 500}}, StudyInvalid, "ends at 500"),
    ("Surv(time, status) ~ age", {"time_grid": {"step": 0.01}}, StudyInvalid, "intervals"),
    ("Surv(time, status) ~ age", {"time_grid": {"step": -1}}, StudyInvalid, "step"),
    ("Surv(time, status) ~ age", {"time_grid": {"stepp": 1}}, StudyInvalid, "stepp"),
    ("Surv(time, status) ~ age", {"time_grid": [0, 500, 400, 1100]}, StudyInvalid, "increase"),
    ("Surv(time, status) ~ age", {"time_grid": "daily"}, StudyInvalid, "mapping"),
    ("Surv(time, status) ~ age", {"time_grid": {"edges": [0, "x"]}}, StudyInvalid, "number"),
    ("Surv(time, status) ~ age", {"weights": "nothing"}, StudyInvalid, "nothing"),
    ("Surv(time, status) ~ age", {"weights": "ecog"}, StudyInvalid, "ecog"),
    ("Surv(time, status) ~ age", {"robust": "yes"}, StudyInvalid, "robust"),
    ("Surv(time, status) ~ age", {"proportional_hazards": "log"}, StudyInvalid, "above 0"),
    ("Surv(time, status) ~ age", {"proportional_hazards": ["cube"]}, StudyInvalid, "cube"),
    ("Surv(time, status) ~ age + strata(site)", {"proportional_hazards": "km"}, StudyInvalid, "km"),
    ("Surv(time, status) ~ age + strata(site)", {"baseline": True}, StudyInvalid, "baseline"),
    ("Surv(time, status) ~ age", {"max_iterations": 0}, StudyInvalid, "max_iterations"),
    ("Surv(time, status) ~ age", {"confidence": 95}, StudyInvalid, "confidence"),
]


@pytest.mark.parametrize(("formula", "options", "error", "words"), BAD)
def test_what_a_study_cannot_ask_is_said_when_it_is_read(
    formula: str, options: Mapping[str, Any], error: type[FivefoldError], words: str
) -> None:
    setting, _ = sites_of(*lung())
    with pytest.raises(error) as caught:
        METHOD.parse(Analysis("m", "cox", formula, options=options), setting)
    assert re.search(words, f"{caught.value.message} {caught.value.hint}")
    assert caught.value.hint


# ---- what is asked --------------------------------------------------------------------------------------------------
def asked(formula: str, options: Mapping[str, Any], data: tuple[Any, ...]) -> list[Sum]:
    setting, tables = sites_of(*data)
    log = plain.transcript(METHOD, Analysis("m", "cox", formula, options=options), setting, tables)
    return [s for q in log.questions for s in (q if isinstance(q, tuple) else (q,))]


def test_totals_at_single_events_need_permission_and_sums_within_sites_do_not() -> None:
    daily = asked("Surv(time, status) ~ age", {"time_grid": DAILY}, lung())
    assert all(s.needs == ("event_totals",) for s in daily if s.step.name.startswith("cox."))
    by_site = asked("Surv(time, status) ~ age + strata(site)", {"robust": True, "time_grid": DAILY}, lung())
    assert all(s.needs == () for s in by_site)
    coarse = asked("Surv(time, status) ~ age", {"time_grid": [0, 730, 1500, 3000]}, gbsg2())
    assert all(s.needs == () for s in coarse)
    assert {f.kind for s in coarse for f in s.fields if f.name in ("events", "censored", "score_events")} == {"cell"}


def test_after_the_count_only_times_with_events_are_asked() -> None:
    questions = asked("Surv(time, status) ~ age", {"time_grid": DAILY}, lung())
    events = lung()[0].query("status == 1")["time"]
    sums = next(s for s in questions if s.step.name == "cox.risk_sums")
    np.testing.assert_array_equal(sums.arguments["time"], np.unique(events))
    shapes = {f.name: f.shape for f in sums.fields}
    assert shapes["s0"] == (events.nunique(),)
    assert shapes["d0"] == ((events.value_counts() > 1).sum(),)


def test_the_gate_can_judge_how_much_each_person_weighs() -> None:
    setting, tables = sites_of(*lung())
    log = plain.transcript(METHOD, Analysis("m", "cox", "Surv(time, status) ~ age + ecog"), setting, tables)
    question = next(q for q in log.questions if isinstance(q, Sum) and np.any(q.arguments.get("gamma", 0)))
    answer = question.step(tables[0], **question.arguments)
    assert answer["@weights"].shape == answer["@persons"].shape
    assert answer["s0"].max() == pytest.approx(answer["@weights"].sum())


def test_a_wide_dictionary_range_costs_no_digits() -> None:
    frame, variables, site = lung()
    variables[2] = number("age", 0, 2000)
    result = fit((frame, variables, site), "Surv(time, status) ~ age + sex", time_grid=DAILY)
    assert_equals(result, lifelines(frame, ["age", "sex[female]"]))


def test_a_status_may_be_a_category_of_two_codes() -> None:
    frame, variables, site = lung()
    frame["state"] = frame["status"].map({0: "alive", 1: "dead"})
    data = (frame, [*variables, category("state", "alive", "dead")], site)
    result = fit(data, "Surv(time, state) ~ age + sex", time_grid=DAILY)
    assert_equals(result, lifelines(frame, ["age", "sex[female]"]))
