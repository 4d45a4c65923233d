"""Statistics with noise: near the exact ones, their intervals cover the truth, and no person counts for more than one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fivefold.algorithms import statistics_noisy
from fivefold.algorithms.method import Setting
from fivefold.algorithms.statistics import METHOD
from fivefold.errors import FivefoldError
from fivefold.protocol.questions import Array
from fivefold.study.definition import Analysis
from fivefold.study.dictionary import Dictionary, Variable
from fivefold.study.table import Table
from tests.algorithms import noisy, plain, real_data

SITES = ("a", "b", "c")
DICTIONARY = Dictionary(
    "d",
    "1",
    {
        "x": Variable("x", "", "number", minimum=0.0, maximum=100.0),
        "g": Variable("g", "", "category", codes={"0": "no", "1": "yes", "2": "maybe"}),
        "h": Variable("h", "", "boolean"),
    },
)
SETTING = Setting(DICTIONARY, SITES, 5, 10_000)


def asked(*variables: str, **options: Any) -> Analysis:
    return Analysis("a", "statistics", variables=variables, options=options)


def table(site: str, x: Any, person: Any = None, g: Any = None, h: Any = None) -> Table:
    n = len(x)
    columns = {"x": np.asarray(x, float), "g": np.zeros(n) if g is None else np.asarray(g, float)}
    columns["h"] = np.zeros(n) if h is None else np.asarray(h, float)
    return Table(site, DICTIONARY, columns, np.arange(n) if person is None else np.asarray(person))


def row(result: Any, name: str, table: str = "numbers") -> dict[str, Any]:
    found = result.tables[table]
    return next(dict(zip(found.columns, r, strict=True)) for r in found.rows if r[0] == name)


def test_with_little_noise_they_are_the_exact_ones() -> None:
    frame, here, tables = real_data.breast()
    names = ("mean_area", "mean_texture", "grade", "malignant")
    analysis = asked(*names, tables=[["grade", "malignant"]])
    result = noisy.run(METHOD, analysis, noisy.private(here, 1e-5), tables)
    exact = plain.run(METHOD, asked(*names), here, tables)
    for name in ("mean_area", "mean_texture"):
        got = row(result, name)
        assert got["persons"] == frame[name].count()
        assert got["mean"] == pytest.approx(frame[name].mean(), rel=1e-4)
        assert got["variance"] == pytest.approx(frame[name].var(), rel=1e-2)
        assert got["standard_error"] == pytest.approx(frame[name].sem(), rel=1e-2)
    ours, theirs = result.tables["categories"], exact.tables["categories"]
    assert ours.column("persons") == theirs.column("persons")
    for a, b in zip(result.tables["quantiles"].rows, exact.tables["quantiles"].rows, strict=True):
        assert a[2] == pytest.approx(b[2], rel=1e-2)  # the exact ones hide small bins
    cells = {r[:2]: r[2] for r in result.tables["grade_by_malignant"].rows}
    assert sum(cells.values()) == len(frame)
    assert result.facts["persons"] == len(frame)


def test_small_cells_are_shown_with_their_noise() -> None:
    tables = [table(s, np.full(30, 50.0), g=[1] + [0] * 29) for s in SITES]
    result = noisy.run(METHOD, asked("g"), noisy.private(SETTING, 0.5), tables)
    found = result.tables["categories"]
    assert None not in found.column("persons")
    assert found.column("noise")[0] == pytest.approx(0.5 * np.sqrt(2), rel=1e-6)


def test_the_interval_of_a_mean_covers_the_truth_and_would_not_without_the_noise() -> None:
    """300 studies on fresh rows: 95 % intervals from the printed standard error, and from sampling alone."""
    truth, inside, narrow, printed, trials = 40.0, 0, 0, 0, 300
    r = np.random.default_rng(5)
    setting, analysis = noisy.private(SETTING, 1.5), asked("x", quantiles=[], clip={"x": [20, 60]})
    for trial in range(trials):
        tables = [table(s, np.clip(r.normal(truth, 5.0, 70), 0, 100)) for s in SITES]
        got = row(noisy.run(METHOD, analysis, setting, tables, seed=trial), "x")
        if got["standard_error"] is None:
            continue
        printed += 1
        away = abs(got["mean"] - truth)
        inside += away <= 1.96 * got["standard_error"]
        narrow += away <= 1.96 * 5.0 / np.sqrt(210)
    assert printed >= 0.9 * trials
    assert 0.91 <= inside / printed <= 0.99  # three standard errors around 0.95
    assert narrow / printed < 0.9


def test_a_narrower_clip_means_less_noise() -> None:
    r = np.random.default_rng(6)
    tables = [table(s, r.normal(40, 5, 200)) for s in SITES]
    wide = row(noisy.run(METHOD, asked("x", quantiles=[]), noisy.private(SETTING, 0.5), tables), "x")
    close = row(noisy.run(METHOD, asked("x", quantiles=[], clip={"x": [20, 60]}), noisy.private(SETTING, 0.5), tables), "x")
    assert close["standard_error"] < wide["standard_error"]
    assert (close["clipped_from"], close["clipped_to"]) == (20.0, 60.0)


ROWS = st.lists(
    st.tuples(st.integers(0, 4), st.one_of(st.floats(0, 100), st.just(float("nan"))), st.integers(0, 2), st.integers(0, 1)),
    min_size=1,
    max_size=25,
)


@settings(max_examples=150, deadline=None)
@given(rows=ROWS, who=st.integers(0, 4))
def test_no_person_changes_a_field_by_more_than_its_sensitivity(rows: list[tuple[int, float, int, int]], who: int) -> None:
    """All rows of one person in or out, whatever the rows are: the declared sensitivity of every field holds."""
    spec = METHOD.parse(asked("x", "g", "h", tables=[["g", "h"]], bins=5, clip={"x": [10, 60]}), noisy.private(SETTING))
    question = statistics_noisy.question(spec)

    def answers(chosen: list[tuple[int, float, int, int]]) -> dict[str, Array]:
        person, x, g, h = zip(*chosen, strict=True) if chosen else ((), (), (), ())
        it = Table(
            "a", DICTIONARY, {"x": np.array(x, float), "g": np.array(g, float), "h": np.array(h, float)},
            np.array(person, dtype=np.int64),
        )  # fmt: skip
        return {n: np.asarray(v) for n, v in question.step(it, **question.arguments).items()}

    with_, without = answers(rows), answers([r for r in rows if r[0] != who])
    for f in question.fields:
        assert f.sensitivity is not None
        assert np.linalg.norm((with_[f.name] - without[f.name]).reshape(-1)) <= f.sensitivity
        assert np.abs(with_[f.name]).max() <= f.bound


def test_sums_are_exact_in_any_order() -> None:
    r = np.random.default_rng(7)
    parts = statistics_noisy.on_grid(r.uniform(-1, 1, 10_000) / r.integers(1, 9, 10_000), 10_000)
    assert len({float(r.permutation(parts).sum()) for _ in range(20)} | {float(np.cumsum(parts)[-1])}) == 1
    assert np.abs(parts).max() <= 1
    weights = statistics_noisy.on_grid(np.full(49, 1 / 49), 10_000)
    assert weights.sum() <= 1  # 49 times the double nearest to 1/49 would not be


def test_what_the_noise_left_no_sense_in_is_not_printed() -> None:
    assert statistics_noisy.moments(2.0, 1.0, 1.0, (1.0, 1.0, 1.0), (0, 1)) == (None, None, None)
    mean, error, variance = statistics_noisy.moments(100.0, 10.0, 3.0, (1.0, 1.0, 1.0), (0.0, 2.0))
    assert mean == pytest.approx(1.1)
    assert variance is None
    assert error is not None
    assert error > np.sqrt(2) / 100  # the noise on both sums, and the largest variance that is likely


@pytest.mark.parametrize(
    ("clip", "words"),
    [({"y": [0, 1]}, "names 'y'"), ({"x": [1, 0]}, "not a range"), ({"x": 3}, "not a range"), ([1], "not a mapping")],
)
def test_clips_that_make_no_sense(clip: Any, words: str) -> None:
    with pytest.raises(FivefoldError, match=words):
        METHOD.parse(asked("x", clip=clip), noisy.private(SETTING))


def test_exact_studies_have_no_clip() -> None:
    with pytest.raises(FivefoldError, match="differential privacy"):
        METHOD.parse(asked("x", clip={"x": [0, 1]}), SETTING)
