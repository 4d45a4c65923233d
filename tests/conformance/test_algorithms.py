"""What any method has to satisfy, whoever wrote it. A new method needs one line in CASES; without one a test fails."""

from __future__ import annotations

import ast
import dataclasses
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fivefold.algorithms.method import Method, Setting
from fivefold.errors import FivefoldError, StudyInvalid
from fivefold.plugins import METHODS, method
from fivefold.protocol.encoding import decode, encode
from fivefold.protocol.questions import STATE, Sum
from fivefold.protocol.results import Result
from fivefold.study.definition import Analysis
from fivefold.study.table import Table
from tests.algorithms import plain, real_data, survival_data

FORBIDDEN = {"time", "random", "os", "pathlib", "threading", "multiprocessing", "socket", "subprocess", "datetime", "secrets"}
TRAINED = "malignant ~ mean_radius + mean_texture + grade"
FOLLOWS_A_PATH = {"fedavg", "fedprox", "fedopt", "fedbuff", "scaffold", "personalised", "cyclic", "robust"}
"""Trainings: the weights depend on every round before, so a site that left has had its part in them."""
GRID = {"step": 30, "end": 1110, "event_totals": True}


def lung() -> tuple[Any, Setting, tuple[Table, ...]]:
    frame, variables, site = survival_data.lung()
    return (frame, *survival_data.sites_of(frame, variables, site))


CASES: dict[str, tuple[Callable[[], Any], Analysis]] = {
    "statistics": (
        real_data.breast,
        Analysis(
            "a", "statistics", variables=("mean_area", "mean_texture", "grade", "malignant"), subgroup="mean_texture > 12",
            options={"tables": [["grade", "malignant"]]},
        ),
    ),
    "gaussian": (real_data.diabetes, Analysis("a", "glm", "target ~ bmi * sex + bp", options={"family": "gaussian"})),
    "binomial": (
        real_data.breast,
        Analysis("a", "glm", "malignant ~ mean_texture + grade + site", options={"family": "binomial", "heterogeneity": True}),
    ),
    "poisson": (real_data.rossi, Analysis("a", "glm", "prio ~ age + fin", options={"family": "poisson", "offset": "log_week"})),
    "cox": (lung, Analysis("a", "cox", "Surv(time, status) ~ age + sex", options={"time_grid": GRID})),
    "cox by site": (lung, Analysis("a", "cox", "Surv(time, status) ~ age + sex + strata(site)")),
    "kaplan_meier": (lung, Analysis("a", "kaplan_meier", "Surv(time, status) ~ sex", options={"time_grid": GRID})),
    "fedavg": (real_data.breast, Analysis("a", "fedavg", TRAINED, options={"rounds": 4, "batch_size": 32, "local_epochs": 2})),
    "fedprox": (real_data.diabetes, Analysis("a", "fedprox", "target ~ bmi * sex + bp", options={"rounds": 3, "mu": 0.5})),
    "fedopt": (
        real_data.breast, Analysis("a", "fedopt", TRAINED, options={"rounds": 4, "optimiser": "yogi", "holdout": 0.3}),
    ),
    "fedbuff": (
        real_data.breast, Analysis("a", "fedbuff", TRAINED, options={"rounds": 4, "site_totals": "needed", "holdout": 0.3}),
    ),
    "scaffold": (real_data.breast, Analysis("a", "scaffold", TRAINED, options={"rounds": 4, "batch_size": 32})),
    "cyclic": (real_data.breast, Analysis("a", "cyclic", TRAINED, options={"rounds": 5, "batch_size": 32})),
    "robust": (real_data.breast, Analysis("a", "robust", TRAINED, options={"rounds": 4, "rule": "median", "batch_size": 32})),
    "personalised": (
        real_data.breast,
        Analysis("a", "personalised", TRAINED, options={"rounds": 4, "model": {"kind": "mlp", "hidden": [4]}}),
    ),
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Case:
    method: Method
    analysis: Analysis
    setting: Setting
    tables: tuple[Table, ...]
    log: plain.Transcript

    @property
    def result(self) -> Result:
        assert self.log.result is not None
        return self.log.result

    @property
    def sums(self) -> list[Sum]:
        return [s for q in self.log.questions for s in (q if isinstance(q, tuple) else (q,))]


_made: dict[str, Case] = {}


@pytest.fixture(params=list(CASES))
def case(request: pytest.FixtureRequest) -> Case:
    name = request.param
    if name not in _made:
        data, analysis = CASES[name]
        _, setting, tables = data()
        chosen = method(analysis.method)
        _made[name] = Case(chosen, analysis, setting, tables, plain.transcript(chosen, analysis, setting, tables))
    return _made[name]


def test_every_built_in_method_has_a_case() -> None:
    assert {analysis.method for _, analysis in CASES.values()} == set(METHODS)


def test_it_is_described(case: Case) -> None:
    assert method(case.analysis.method) is case.method
    assert case.method.name == case.analysis.method
    assert case.method.title
    assert case.method.paper
    identities = [s.identity for s in case.method.steps]
    assert len(set(identities)) == len(identities)


def test_it_ends_with_a_result_whose_figures_are_drawn_from_its_tables(case: Case) -> None:
    result = case.result
    assert result.method == case.method.name
    assert result.sites == case.setting.sites
    assert result.dropped == ()
    assert result.facts["persons"] > 0
    assert result.tables
    for figure in result.figures:
        columns = result.tables[figure.table].columns
        assert set(figure.mapping.values()) <= set(columns)
    encode({"facts": dict(result.facts), "notes": result.notes, "rows": [t.rows for t in result.tables.values()]})
    numbers = [v for t in result.tables.values() for row in t.rows for v in row if isinstance(v, float)]
    assert np.all(np.isfinite(numbers)), "a table holds None where a value is undefined, never infinity"


def test_every_question_is_a_sum_of_its_own_steps_and_gives_what_it_declares(case: Case) -> None:
    for question in case.sums:  # shapes, bounds and whole counts are checked by the driver on the way
        assert question.step in case.method.steps
        assert question.step.leaves == ("sum" if isinstance(question, Sum) else "reply")
        assert any(f.kind == "persons" for s in case.sums for f in s.fields)


def test_the_ring_of_the_secure_sum_holds_every_total(case: Case) -> None:
    for question in case.sums:
        answers = [plain.checked(question, t) for t in case.tables]
        totals = plain.in_the_ring(question, answers, len(answers))
        for f in question.fields:
            parts = np.array([a[f.name] for a in answers], dtype=np.float64)
            if f.kind in ("count", "cell", "persons"):
                np.testing.assert_array_equal(totals[f.name], parts.sum(axis=0))
            else:
                size = np.abs(parts).max(initial=0.0)
                narrow = all(other.kind == "update" for other in question.fields)  # 31 bits less those of the sites
                step = f.bound * len(answers) ** 2 * 2.0**-30 if narrow else 0.0
                np.testing.assert_allclose(totals[f.name], parts.sum(axis=0), rtol=0, atol=1e-12 * size + step + 1e-300)


def test_questions_are_the_same_bytes_every_time(case: Case) -> None:
    again = plain.transcript(case.method, case.analysis, case.setting, case.tables)
    assert again.encoded == case.log.encoded


def test_a_replay_from_the_aggregates_asks_and_says_the_same(case: Case) -> None:
    again = plain.replay(case.method, case.analysis, case.setting, case.log)
    assert again.encoded == case.log.encoded
    assert again.result == case.log.result


def test_steps_answer_the_question_as_it_travels(case: Case) -> None:
    table = case.tables[0]
    for question in case.sums:
        arrived = decode(encode(dict(question.arguments)))
        answer, direct = question.step(table, **arrived), question.step(table, **question.arguments)
        for name, value in direct.items():
            if name == STATE:
                assert {k: v.tolist() for k, v in answer[name].items()} == {k: v.tolist() for k, v in value.items()}
                continue
            np.testing.assert_array_equal(answer[name], value)


def test_the_order_of_a_site_s_rows_means_nothing(case: Case) -> None:
    table = case.tables[1]
    shuffled = table.take(np.random.default_rng(1).permutation(len(table)))
    for question in case.sums:
        answer, direct = plain.checked(question, shuffled), plain.checked(question, table)
        for f in question.fields:
            size = max(1.0, float(np.abs(direct[f.name]).max(initial=0.0)))
            np.testing.assert_allclose(answer[f.name], direct[f.name], rtol=1e-9, atol=1e-9 * size)


def test_a_site_without_rows_answers_with_nothing_in_it(case: Case) -> None:
    empty = case.tables[0].take(np.zeros(len(case.tables[0]), dtype=bool))
    for question in case.sums:
        answer = plain.checked(question, empty)
        assert all(not np.any(value) for value in answer.values()), question.step.identity


def test_it_closes_at_every_yield(case: Case) -> None:
    for stop in range(len(case.log.questions)):
        generator = case.method.rounds(case.method.parse(case.analysis, case.setting))
        generator.send(None)
        for aggregate in case.log.aggregates[:stop]:
            generator.send(aggregate)
        generator.close()  # a RuntimeError here is a yield inside a finally


def test_it_stops_when_asked(case: Case) -> None:
    for round_ in range(1, len(case.log.questions) + 1):
        log = plain.transcript(case.method, case.analysis, case.setting, case.tables, stop_at=round_)
        assert log.result is not None
        assert len(log.questions) <= max(round_ + 3, 4)
        assert log.result.facts["persons"] == case.result.facts["persons"]


def test_it_stays_within_its_cost(case: Case) -> None:
    cost = case.method.cost(case.method.parse(case.analysis, case.setting))
    assert len(case.log.questions) <= cost.rounds
    sizes = [sum(f.size for s in (q if isinstance(q, tuple) else (q,)) for f in s.fields) for q in case.log.questions]
    assert max(sizes) <= cost.numbers_per_round


@pytest.mark.parametrize("round_", [1, 2, 3])
def test_a_site_that_drops_is_listed_and_the_rest_is_one_cohort(case: Case, round_: int) -> None:
    gone = case.tables[-1].site
    away = {n: [gone] for n in range(round_, 100)}
    log = plain.transcript(case.method, case.analysis, case.setting, case.tables, away)
    result = log.result
    assert result is not None
    if round_ > len(case.log.questions):
        assert result.sites == case.setting.sites
        return
    rest = tuple(t for t in case.tables if t.site != gone)
    assert result.sites == tuple(t.site for t in rest)
    assert result.dropped == (gone,)
    alone = dataclasses.replace(case.setting, sites=result.sites)
    expected = plain.run(case.method, case.analysis, alone, rest)
    assert {k: v for k, v in result.facts.items() if k in COHORT} == {k: v for k, v in expected.facts.items() if k in COHORT}
    if case.method.name in FOLLOWS_A_PATH and round_ > 1:
        return
    for name, table in expected.tables.items():
        assert_close(result.tables[name].rows, table.rows)


COHORT = ("persons", "rows", "events")


def assert_close(a: Sequence[Sequence[Any]], b: Sequence[Sequence[Any]]) -> None:
    assert len(a) == len(b)
    for left, right in zip(a, b, strict=True):
        for x, y in zip(left, right, strict=True):
            if isinstance(x, float) and isinstance(y, float):
                assert x == pytest.approx(y, rel=1e-6, abs=1e-9)
            else:
                assert x == y


def test_an_option_that_it_does_not_know_is_refused_with_those_it_knows(case: Case) -> None:
    wrong = dataclasses.replace(case.analysis, options={**case.analysis.options, "colour": "red"})
    with pytest.raises(StudyInvalid) as caught:
        case.method.parse(wrong, case.setting)
    assert "colour" in caught.value.message
    assert caught.value.hint


def test_a_subgroup_that_cannot_be_read_is_refused_when_parsed(case: Case) -> None:
    with pytest.raises(FivefoldError):
        case.method.parse(dataclasses.replace(case.analysis, subgroup="no_such_variable > 3"), case.setting)


def test_the_spec_is_frozen(case: Case) -> None:
    spec = case.method.parse(case.analysis, case.setting)
    assert dataclasses.is_dataclass(spec)
    with pytest.raises(dataclasses.FrozenInstanceError):
        spec.name = "another"


@pytest.mark.parametrize("name", sorted(METHODS))
def test_no_clock_no_chance_no_disc_and_no_heavy_import(name: str) -> None:
    """The module and all of fivefold.algorithms that it imports: what a method knows comes from study and aggregates alone."""
    heavy = {"pandas", "scipy", "matplotlib", "sqlalchemy", "pyarrow"}
    import_module(METHODS[name])
    waiting, seen = [METHODS[name]], set[str]()
    while waiting:
        module = waiting.pop()
        if module in seen:
            continue
        seen.add(module)
        spec = find_spec(module)
        assert spec is not None
        assert spec.origin is not None
        tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
        assert not any(isinstance(n, ast.Try) and any(isinstance(x, ast.Yield) for x in ast.walk(n)) for n in ast.walk(tree))
        for node in ast.walk(tree):
            found = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module:
                found = [node.module, *(f"{node.module}.{a.name}" for a in node.names)]
            assert not {f.split(".")[0] for f in found} & FORBIDDEN, module
            if node in tree.body:
                assert not {f.split(".")[0] for f in found} & heavy, module
            waiting += [f for f in found if f.startswith("fivefold.algorithms.") and f in sys.modules]
