"""Checks and forms of outputs on results made by hand: what is told, what is hidden, and what is said about it."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fivefold.disclosure.report import acro
from fivefold.disclosure.tables import Count
from fivefold.governance.output_checks import NEEDS_NOISE, propose
from fivefold.governance.output_counts import cell_of, told
from fivefold.governance.output_forms import absent, intervals, numbers_in, shaped
from fivefold.protocol.objections import Objections
from fivefold.protocol.results import Figure, Result, ResultTable
from fivefold.results.tables import csv_of
from fivefold.study.definition import Agreements, Analysis, DifferentialPrivacy, Lead, Privacy, Study, StudySite
from fivefold.study.dictionary import Dictionary, Variable
from tests.plain_study import study_of as plain_study

SEX = Variable("sex", "Sex", "category", codes={"m": "male", "f": "female"})
STAGE = Variable("stage", "Stage", "category", codes={"1": "one", "2": "two", "3": "three"})
DIED = Variable("died", "Died", "boolean")
TIME = Variable("time", "Time", "integer", "day", 0, 1000)
AGE = Variable("age", "Age", "number", "year", 0, 120)
DICTIONARY = Dictionary("d", "1", {v.name: v for v in (SEX, STAGE, DIED, TIME, AGE)})
SITES = ("alder", "birch", "cedar")
NONE = Objections(5)


def study_of(*analyses: Analysis, **privacy: Any) -> Study:
    sites = tuple(StudySite(name, f"{i:064x}") for i, name in enumerate(SITES, 1))
    return plain_study(
        *analyses,
        sites=sites,
        dictionary=DICTIONARY,
        lead=Lead("Lead", "Office", "0" * 64),
        privacy=Privacy(minimum_persons=5, **privacy),
        agreements=Agreements("none", "a test", "2099-12-31"),
    )


DESCRIBED = Analysis("description", "statistics", variables=("sex", "stage"), options={"tables": (("sex", "stage"),)})
SURVIVAL = Analysis("survival", "kaplan_meier", formula="Surv(time, died) ~ sex")


def description(cells: tuple[int | None, ...], persons: int, **facts: Any) -> Result:
    rows = [
        (s, t, n)
        for (s, t), n in zip([(s, t) for s in ("male", "female") for t in ("one", "two", "three")], cells, strict=True)
    ]
    table = ResultTable("sex by stage", ("sex", "stage", "persons"), tuple(rows))
    base = {"persons": persons, "rows": persons, "missing_sex": 0, "missing_stage": 0}
    return Result("statistics", {"sex_by_stage": table}, base | facts, SITES)


def statuses(made: Any, rule: str) -> set[str]:
    found = [f for o in made.report.outputs for f in o.findings] + list(made.report.together)
    return {f.status for f in found if f.rule == rule}


def test_suppressed_is_not_zero() -> None:
    study = study_of(DESCRIBED)
    result = description((30, 2, 0, 40, 35, 0), 107)
    made = propose(study, {"description": result}, "suppressed", objections=NONE)
    table = made.results["description"].tables["sex_by_stage"]
    persons = table.column("persons")
    assert persons[1] is None
    assert persons[5] == 0  # nobody is there, and that is told
    assert sum(p is None for p in persons) == 4  # a box: the margins give nothing back
    lines = list(csv.reader(io.StringIO(csv_of(table).decode())))
    assert lines[2][2] == ""
    assert lines[6][2] == "0"
    assert statuses(made, "threshold") == {"pass"}
    assert statuses(made, "differencing") == {"pass"}
    assert statuses(made, "zeros") == {"review"}


def test_what_is_shown_as_it_is_fails_with_the_cells() -> None:
    made = propose(study_of(DESCRIBED), {"description": description((30, 2, 25, 40, 35, 9), 141)}, "as_is", objections=NONE)
    assert made.report.status == "fail"
    value = acro(made.report, "fivefold 1", "2026-11-24T12:00:00")
    (output,) = value["results"].values()
    assert {
        "uid",
        "status",
        "type",
        "properties",
        "files",
        "outcome",
        "command",
        "summary",
        "timestamp",
        "comments",
        "exception",
    } <= set(output)
    assert output["summary"].startswith("fail; ")
    assert "threshold: 1 cells may need suppressing" in output["summary"]
    assert made.report.outputs[0].findings[1].cells == ((0, 1),)


def test_a_class_that_all_have_is_named_and_hidden() -> None:
    result = description((0, 30, 0, 40, 35, 20), 125)  # all men are in stage two
    assert statuses(propose(study_of(DESCRIBED), {"description": result}, "as_is", objections=NONE), "all-values-are-same") == {
        "fail"
    }
    made = propose(study_of(DESCRIBED), {"description": result}, "suppressed", objections=NONE)
    assert statuses(made, "all-values-are-same") == set()
    assert made.results["description"].tables["sex_by_stage"].column("persons")[1] is None


def test_too_few_sites_and_objections() -> None:
    result = replace(description((30, 20, 25, 40, 35, 9), 159), sites=("alder", "birch"))
    made = propose(study_of(DESCRIBED), {"description": result}, "as_is", objections=Objections(5, 2, {"threshold": 2}))
    assert statuses(made, "sites") == {"fail"}
    assert [f.words for f in made.report.binding] == ["sites: 2 of 5 sites object (threshold)"]
    asked_nobody = propose(study_of(DESCRIBED), {"description": result}, "as_is")
    assert not asked_nobody.report.binding
    assert statuses(asked_nobody, "nk-rule, p-ratio") == {"fail"}  # no simple release; an exception has a written reason


def test_other_cohorts_need_differential_privacy_and_the_report_says_so() -> None:
    part = replace(DESCRIBED, subgroup="age > 64.5")
    made = propose(study_of(part), {"description": description((30, 20, 25, 40, 35, 9), 159)}, "as_is", objections=NONE)
    assert "fail" in statuses(made, "differencing")
    assert any(NEEDS_NOISE in f.words for f in made.report.outputs[0].findings)


def test_subgroups_of_declared_categories_are_cells() -> None:
    assert cell_of("", DICTIONARY) == {}
    assert cell_of('sex == "m"', DICTIONARY) == {"sex": "m"}
    assert cell_of("sex == 'm' and died == 1", DICTIONARY) == {"sex": "m", "died": "1"}
    for other in ('sex == "x"', "age > 50", 'sex == "m" or died == 1', 'sex == "m" and sex == "f"', 'not sex == "m"'):
        assert cell_of(other, DICTIONARY) is None


def test_a_subgroup_beside_its_whole_tells_the_few_who_are_not_in_it() -> None:
    one = Analysis("all", "statistics", variables=("stage",))
    two = Analysis("men", "statistics", variables=("stage",), subgroup='sex == "m"')
    facts = {"missing_stage": 0, "missing_sex": 0}
    whole = Result("statistics", {}, {"persons": 100, "rows": 100} | facts, SITES)
    men = Result("statistics", {}, {"persons": 97, "rows": 97, "missing_stage": 0}, SITES)
    made = propose(study_of(one, two), {"all": whole, "men": men}, "as_is", objections=NONE)
    assert "fail" in statuses(made, "differencing")
    assert propose(study_of(one, two), {"all": whole}, "as_is", objections=NONE).report.status == "pass"
    before = (Count.of({}, 100),)
    assert propose(study_of(one, two), {"men": men}, "as_is", objections=NONE, before=before).report.binding


def test_few_missing_values_are_not_told_by_a_difference() -> None:
    numbers = Analysis("numbers", "statistics", variables=("age",))
    columns = ("variable", "unit", "persons", "n", "missing", "mean", "variance", "standard_deviation")
    table = ResultTable("Numbers", columns, (("age", "year", 98, 98, 2, 61.234567, 81.7654321, 9.04242),))
    result = Result("statistics", {"numbers": table}, {"persons": 100, "rows": 100, "missing_age": 2}, SITES)
    made = propose(study_of(numbers), {"numbers": result}, "suppressed", objections=NONE)
    row = dict(zip(columns, made.results["numbers"].tables["numbers"].rows[0], strict=True))
    assert (row["persons"], row["n"], row["missing"]) == (None, None, None)
    assert row["mean"] == 61.23  # more digits would tell the number of persons as a fraction's denominator
    assert made.results["numbers"].facts["missing_age"] is None
    assert made.report.status == "pass"


def test_rounding_comes_before_what_is_derived() -> None:
    facts = {"persons": 103, "rows": 103, "parameters": 3, "degrees_of_freedom": 100, "deviance": 250.0, "dispersion": 2.5}
    columns = ("term", "estimate")
    table = ResultTable("Coefficients", columns, (("intercept", 1.23456789), ("age", 0.5), ("sex", 0.25)))
    fit = Analysis("fit", "glm", formula="age ~ sex + stage")
    study = study_of(fit)
    shown = shaped(study, fit, Result("glm", {"coefficients": table}, facts, SITES), "rounded", 5)
    assert shown.facts["rows"] == 105
    assert shown.facts["degrees_of_freedom"] == 102
    assert shown.facts["dispersion"] == pytest.approx(250 / 102, rel=1e-5)
    assert shown.tables["coefficients"].rows[0][1] == 1.23457


def test_a_fit_with_too_many_parameters() -> None:
    fit = Analysis("fit", "glm", formula="age ~ sex + stage")
    table = ResultTable("Coefficients", ("term", "estimate"), tuple((f"x{i}", 0.1) for i in range(8)))
    result = Result("glm", {"coefficients": table}, {"persons": 17, "rows": 17}, SITES)
    made = propose(study_of(fit), {"fit": result}, "as_is", objections=NONE)
    assert statuses(made, "dof") == {"fail"}
    assert statuses(made, "parameters") == {"fail"}


@pytest.mark.parametrize(
    ("persons", "options", "private", "room", "tried"),
    [
        (300, {"holdout": 0.2}, None, "pass", "pass"),
        (299, {"holdout": 0.2}, None, "fail", "pass"),  # 99 weights are more than a third of them
        (300, {}, None, "pass", "review"),
        (50, {"holdout": 0.2}, DifferentialPrivacy("person", 1.0, 1e-6, 1.0), "pass", "pass"),
    ],
)
def test_a_model_with_room_for_its_persons_is_no_simple_release(
    persons: int, options: dict[str, Any], private: Any, room: str, tried: str
) -> None:
    fit = Analysis("fit", "fedavg", formula="age ~ sex", options=options)
    rows = [("layer1", str(i), float(i)) for i in range(99)]
    tables = {"weights": ResultTable.of("Weights", ("layer", "index", "value"), rows)}
    result = Result("fedavg", tables, {"persons": persons, "weights": 99}, SITES)
    study = study_of(fit, differential_privacy=private)
    made = propose(study, {"fit": result}, "as_is", objections=NONE, models={"fit": b"a file"})
    assert statuses(made, "parameters") == {room}
    assert statuses(made, "membership") == {tried}
    wide = replace(result, tables={"weights": replace(tables["weights"], rows=())})
    made = propose(study, {"fit": wide}, "as_is", objections=NONE)  # no file of it
    assert statuses(made, "membership") == {"review"}


def curve(group: str, deaths: list[tuple[float, int, int]], at_risk: int) -> list[tuple[Any, ...]]:
    rows: list[tuple[Any, ...]] = [(group, 0.0, None, None, None, 1.0, 0.0, 1.0, 1.0)]
    survival = 1.0
    for time, events, censored in deaths:
        survival *= 1 - events / at_risk
        rows.append((group, time, at_risk, events, censored, survival, 0.01, 0.1, 0.9))
        at_risk -= events + censored
    return rows


def survived(deaths: list[tuple[float, int, int]], persons: int) -> Result:
    columns = ("group", "time", "at_risk", "events", "censored", "survival", "standard_error", "low", "high")
    curves = ResultTable("Survival", columns, tuple(curve("male", deaths, persons)))
    total = sum(d for _, d, _ in deaths)
    median = next((t for t, *_ in deaths[len(deaths) // 2 :]), None)
    groups = ResultTable(
        "Groups", ("group", "persons", "persons_with_event", "median", "median_low", "median_high"),
        (("male", persons, total, median, None, None),),
    )  # fmt: skip
    note = f"the curve of male ends at {deaths[-1][0]:g} day: afterwards fewer than 5 persons are at risk"
    figure = Figure("survival", "curves", "Survival", {"group": "group", "time": "time", "estimate": "survival"})
    facts = {"persons": persons, "rows": persons, "events": total, "confidence": 0.95, "missing_sex": 0}
    return Result("kaplan_meier", {"curves": curves, "groups": groups}, facts, SITES, figures=(figure,), notes=(note,))


def test_no_time_of_a_single_death_is_left() -> None:
    deaths = [(float(t), 1, int(t % 3 == 0)) for t in range(7, 207, 2)]
    result = survived(deaths, 160)
    study = study_of(SURVIVAL)
    assert statuses(propose(study, {"survival": result}, "as_is", objections=NONE), "event-times") == {"fail"}
    for form in ("suppressed", "rounded"):
        made = propose(study, {"survival": result}, form, objections=NONE)
        shown = made.results["survival"]
        rows = [r for r in shown.tables["curves"].rows if r[2] is not None]
        assert len(rows) > 3
        for _, _, at_risk, events, censored, survival, *_ in rows:
            assert events >= 5
            assert censored in (None, 0) or censored >= 5
            assert at_risk >= 5
            assert isinstance(survival, float)
        assert shown.notes == ()  # the sentence named a day
        assert not made.report.binding
        times = {r[1] for r in shown.tables["curves"].rows}
        assert shown.tables["groups"].rows[0][3] in times | {None}
        truth = {r[1]: r[5] for r in result.tables["curves"].rows}
        for _, time, *_, survival, _, low, high in [r for r in rows if r[0] == "male"]:
            assert abs(survival - truth[time]) < 0.06
            assert low <= survival <= high


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 6), st.integers(0, 4)), min_size=1, max_size=60), st.integers(0, 20), st.integers(2, 8)
)
def test_intervals_hold_the_minimum_and_leave_it(steps: list[tuple[int, int]], alive: int, minimum: int) -> None:
    persons = sum(d + c for d, c in steps) + alive
    lines, at_risk = [], persons
    for time, (events, censored) in enumerate(steps, 1):
        lines.append({"time": float(time), "at_risk": at_risk, "events": events, "censored": censored})
        at_risk -= events + censored
    total = sum(d for d, _ in steps)
    found = intervals(lines, minimum, (persons, total))
    for cell in found:
        assert cell["events"] >= minimum
        assert cell["censored"] == 0 or cell["censored"] >= minimum
        assert cell["at_risk"] >= minimum
    if found:
        tail = total - sum(c["events"] for c in found)
        rest = persons - total - sum(c["censored"] for c in found)
        assert all(n == 0 or n >= minimum for n in (tail, rest))
        assert found[0]["at_risk"] == persons


def test_a_sentence_with_a_number_of_its_own_is_left_out() -> None:
    result = description((30, 20, 25, 40, 35, 9), 159)
    values = numbers_in(result)
    assert absent("of 159 persons 35 are in stage two", values) == []
    assert absent("the curve ends at 731 day", values) == ["731"]
    assert absent("95 % bands (Grambsch and Therneau 1994)", values) == []
    noted = replace(result, notes=("ends at 731 day", "every cell counts persons"))
    assert shaped(study_of(DESCRIBED), DESCRIBED, noted, "suppressed", 5).notes == ("every cell counts persons",)


def test_everything_that_is_told_is_a_count_of_a_declared_cell() -> None:
    found = told(study_of(DESCRIBED), DESCRIBED, description((30, None, 25, 40, 35, 9), 150))
    assert found.linear
    assert {dict(c.where).get("stage"): c.low for c in found.counts if dict(c.where).get("sex") == "m"} == {"1": 30, "3": 25}
    several = description((30, 20, 25, 40, 35, 9), 150, rows=170)  # persons with several rows are no partition
    assert not told(study_of(DESCRIBED), DESCRIBED, several).linear
    assert math.isnan(
        told(study_of(DESCRIBED), DESCRIBED, description((30, None, 25, 40, 35, 9), 150)).tables["sex_by_stage"].counts[0, 1]
    )
