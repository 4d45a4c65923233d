"""Descriptive statistics equal those of pandas over all rows; small cells stay hidden; quantiles lie where they are said to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fivefold.algorithms.method import Setting
from fivefold.algorithms.statistics import METHOD
from fivefold.algorithms.statistics_tables import quantile
from fivefold.disclosure.rules import suppressed
from fivefold.errors import FivefoldError, FormulaInvalid, StudyInvalid, TooFewPersons
from fivefold.protocol.results import Result, ResultTable
from fivefold.study.definition import Analysis
from fivefold.study.table import Table
from tests.algorithms import plain, real_data


def asked(variables: Sequence[str], subgroup: str = "", **options: Any) -> Analysis:
    return Analysis("table one", "statistics", variables=tuple(variables), subgroup=subgroup, options=options)


def run(
    variables: Sequence[str], here: Setting, sites: Sequence[Table], drops: plain.Drops | None = None, **options: Any
) -> Result:
    return plain.run(METHOD, asked(variables, **options), here, sites, drops, ring=True)


def by_name(table: ResultTable, key: str = "variable") -> dict[Any, dict[str, Any]]:
    return {row[table.columns.index(key)]: dict(zip(table.columns, row, strict=True)) for row in table.rows}


def assert_equals_pandas(result: Result, frame: pd.DataFrame, names: Sequence[str]) -> None:
    rows = by_name(result.tables["numbers"])
    for name in names:
        column = frame[name]
        assert rows[name]["n"] == column.count()
        assert rows[name]["missing"] == column.isna().sum()
        assert rows[name]["mean"] == pytest.approx(column.mean(), rel=1e-12)
        assert rows[name]["variance"] == pytest.approx(column.var(), rel=1e-12)
        assert rows[name]["standard_deviation"] == pytest.approx(column.std(), rel=1e-12)
    for row in result.tables["quantiles"].rows:
        name, probability, estimate, low, high, _ = row
        exact = frame[name].quantile(probability)
        assert low - 1e-12 * abs(low) <= exact <= high + 1e-12 * abs(high), (name, probability)
        assert low <= estimate <= high


def test_every_number_of_breast_cancer() -> None:
    frame, here, tables = real_data.breast()
    names = [n for n in here.dictionary.variables if n not in ("malignant", "grade")]
    result = run(names, here, tables, quantiles=[0.05, 0.25, 0.5, 0.75, 0.95])
    assert_equals_pandas(result, frame, names)
    assert result.facts["persons"] == 569
    assert result.sites == here.sites


def test_every_number_of_diabetes_and_rossi() -> None:
    for data, names in (
        (real_data.diabetes, ["age", "bmi", "bp", "s1", "s6", "target"]),
        (real_data.rossi, ["age", "prio", "week"]),
    ):
        frame, here, tables = data()
        assert_equals_pandas(run(names, here, tables, bins=50), frame, names)


def test_four_hospitals_with_their_own_missing_values() -> None:
    data = real_data.heart()
    if data is None:
        return
    frame, here, tables = data
    names = ["age", "trestbps", "chol", "thalach", "oldpeak"]
    result = run([*names, "sex", "cp", "disease", "exang"], here, tables, tables=[["cp", "disease"]])
    assert_equals_pandas(result, frame, names)
    rows = by_name(result.tables["categories"], "label")
    assert rows["sex = male"]["persons"] == int((frame.sex == 1).sum())
    assert rows["exang = yes"]["persons"] == int((frame.exang == 1).sum())
    assert rows["exang = yes"]["share"] == pytest.approx(frame.exang.mean(), rel=1e-12)
    counted = pd.crosstab(frame.cp, frame.disease)
    assert [r[2] for r in result.tables["cp_by_disease"].rows] == counted.to_numpy().ravel().tolist()


@pytest.mark.parametrize("round_", [1, 2, 3])
@pytest.mark.parametrize("site", ["h0", "h3"])
def test_a_site_that_drops_leaves_the_statistics_of_the_survivors(round_: int, site: str) -> None:
    frame, here, tables = real_data.breast()
    names = ["mean_area", "worst_symmetry", "area_error"]
    away = {n: [site] for n in range(round_, 10)}
    result = run([*names, "grade"], here, tables, away)
    rest = frame[frame.site != here.sites.index(site)]
    assert_equals_pandas(result, rest, names)
    assert result.sites == tuple(s for s in here.sites if s != site)
    assert result.dropped == (site,)
    assert result.facts["persons"] == len(rest)
    cells = [row["persons"] for row in by_name(result.tables["categories"], "label").values()]
    assert cells == rest.grade.value_counts().sort_index().tolist()


def test_a_site_that_misses_one_round_is_in_the_result_again() -> None:
    frame, here, tables = real_data.breast()
    for round_ in (1, 2, 3):
        result = run(["mean_area"], here, tables, {round_: ["h1"]})
        assert_equals_pandas(result, frame, ["mean_area"])
        assert result.sites == here.sites
        assert result.notes == (f"h1 did not answer in round {round_} of 4",)


def test_means_far_from_zero_keep_their_digits() -> None:
    rng = np.random.default_rng(3)
    frame = pd.DataFrame({"x": 1e9 + rng.normal(0, 1e-2, 500), "z": rng.uniform(1e-12, 2e-12, 500)})
    here = real_data.setting([real_data.number("x", 0, 1e12), real_data.number("z", 0, 1)], ["a", "b", "c"])
    tables = real_data.tables(frame, here, np.arange(500) % 3)
    rows = by_name(run(["x", "z"], here, tables, quantiles=[]).tables["numbers"])
    assert rows["x"]["variance"] == pytest.approx(frame.x.var(), rel=1e-9)  # x itself has no more digits than that
    assert rows["z"]["mean"] == pytest.approx(frame.z.mean(), rel=1e-12)
    assert rows["z"]["variance"] == pytest.approx(frame.z.var(), rel=1e-12)


def test_small_cells_are_hidden_with_others_that_would_give_them_away() -> None:
    frame = pd.DataFrame({"g": [0] * 3 + [1] * 40 + [2] * 60, "s": ([0, 1] * 60)[:103]})
    here = real_data.setting([real_data.category("g", "u", "v", "w"), real_data.category("s", "m", "f")], ["a", "b", "c"])
    tables = real_data.tables(frame, here, np.arange(103) % 3)
    result = run(["g", "s"], here, tables, tables=[["g", "s"]])
    rows = by_name(result.tables["categories"], "label")
    assert rows["g = u"]["persons"] is None
    assert rows["g = v"]["persons"] is None
    assert rows["g = w"]["persons"] == 60
    cells = np.array([np.nan if r[2] is None else r[2] for r in result.tables["g_by_s"].rows], dtype=float).reshape(3, 2)
    hidden = np.isnan(cells)
    assert hidden[0].all()
    assert all(n == 0 or n >= 2 for n in hidden.sum(axis=0))
    assert "fewer persons" in result.tables["categories"].notes[0]


def test_a_variable_that_hardly_anybody_has_is_left_out_and_said() -> None:
    frame, here, _ = real_data.breast()
    frame.loc[frame.index[3:], "mean_area"] = np.nan
    tables = real_data.tables(frame, here, frame.site)
    log = plain.transcript(METHOD, asked(["mean_area", "mean_texture"]), here, tables)
    assert log.result is not None
    rows = by_name(log.result.tables["numbers"])
    assert rows["mean_area"]["mean"] is None
    assert rows["mean_texture"]["n"] == 569
    assert all("mean_area" not in q.arguments["numbers"] for (q,) in log.questions[1:])
    assert "mean_area: fewer than 5 persons have a value" in log.result.notes
    with pytest.raises(TooFewPersons):
        run(["mean_area"], here, tables)


def test_survivors_with_too_few_persons_end_it() -> None:
    frame, here, _ = real_data.breast()
    keep = (frame.site == 0) | (np.arange(len(frame)) < 6)
    frame.loc[~keep, "mean_area"] = np.nan
    tables = real_data.tables(frame, here, frame.site)
    with pytest.raises(TooFewPersons):
        run(["mean_area", "grade"], here, tables, {n: ["h0"] for n in range(2, 10)})


def test_own_edges_and_persons_with_several_rows() -> None:
    frame, here, _ = real_data.rossi()
    frame = frame.assign(person=np.arange(len(frame)) // 3)
    tables = real_data.tables(frame, here, frame.site)
    result = run(["age", "fin"], here, tables, grid={"age": [15, 20, 25, 30, 40, 60]}, quantiles=[0.5])
    ((_, _, _, low, high, width),) = result.tables["quantiles"].rows
    assert (low, high, width) == (20, 25, 5)
    persons = frame.groupby("site").person.nunique().sum()
    assert result.facts["persons"] == persons
    assert by_name(result.tables["numbers"])["age"]["persons"] == persons
    assert by_name(result.tables["numbers"])["age"]["n"] == len(frame)
    assert any("several rows" in n for n in result.tables["quantiles"].notes)
    assert all(row[5] is None for row in result.tables["categories"].rows)


def test_a_subgroup() -> None:
    frame, here, tables = real_data.breast()
    result = plain.run(METHOD, asked(["mean_area"], "malignant and mean_texture > 20"), here, tables)
    assert_equals_pandas(result, frame[(frame.malignant == 1) & (frame.mean_texture > 20)], ["mean_area"])


@pytest.mark.parametrize("round_", [1, 2])
def test_asked_to_stop_it_gives_the_counts(round_: int) -> None:
    _, here, tables = real_data.breast()
    result = plain.run(METHOD, asked(["mean_area", "grade"]), here, tables, stop_at=round_)
    assert result.facts["persons"] == 569
    assert by_name(result.tables["categories"], "label")["grade = small"]["persons"] == 179
    assert by_name(result.tables["numbers"])["mean_area"]["mean"] is None
    assert "stopped" in result.notes[0]


@given(
    arrays(np.float64, st.integers(10, 120), elements=st.floats(0, 100)),
    st.integers(2, 25),
    st.floats(0.01, 0.99),
    st.integers(2, 6),
)
@settings(max_examples=200, deadline=None)
def test_a_quantile_lies_in_its_interval_whatever_was_hidden(
    values: np.ndarray, bins: int, probability: float, minimum: int
) -> None:
    edges = np.linspace(0, 100, bins + 1)
    at = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, bins - 1)
    counts = suppressed(np.bincount(at, minlength=bins), minimum)
    found = quantile(probability, counts, len(values), edges)
    exact = float(np.quantile(values, probability))
    assert found.low - 1e-9 <= exact <= found.high + 1e-9
    assert found.low <= found.estimate <= found.high


@pytest.mark.parametrize(
    ("variables", "options", "kind", "words"),
    [
        ([], {}, StudyInvalid, "variables: [age, sex]"),
        (["mean_aera"], {}, FormulaInvalid, "mean_area"),
        (["mean_area"], {"quantile": [0.5]}, StudyInvalid, "quantiles"),
        (["mean_area"], {"quantiles": [50]}, StudyInvalid, "between 0 and 1"),
        (["mean_area"], {"bins": 1}, StudyInvalid, "2 to 1000"),
        (["mean_area"], {"grid": [0, 1]}, StudyInvalid, "grid: {age"),
        (["mean_area"], {"grid": {"mean_texture": [0, 1, 2]}}, StudyInvalid, "mean_area"),
        (["mean_area"], {"grid": {"mean_area": [0, 5000, 1000]}}, StudyInvalid, "ascending"),
        (["mean_area"], {"grid": {"mean_area": [0, 100, 1000]}}, StudyInvalid, "end at 3000"),
        (["mean_area", "grade"], {"tables": [["grade", "mean_area"]]}, StudyInvalid, "grade"),
        (["mean_area", "grade"], {"tables": [["grade"]]}, StudyInvalid, "pairs"),
    ],
)
def test_options_that_are_wrong_say_what_to_write(
    variables: list[str], options: dict[str, Any], kind: type[FivefoldError], words: str
) -> None:
    _, here, _ = real_data.breast()
    with pytest.raises(kind) as caught:
        METHOD.parse(asked(variables, **options), here)
    assert words in f"{caught.value.message} {caught.value.hint}"


def test_a_number_without_a_range_says_what_to_write() -> None:
    from fivefold.study.dictionary import Variable

    here = real_data.setting([Variable("x", "x", "number")], ["a", "b", "c"])
    with pytest.raises(StudyInvalid, match="no range") as caught:
        METHOD.parse(asked(["x"]), here)
    assert "minimum" in caught.value.hint
