"""Federated survival curves and log-rank tests against lifelines (statsmodels where lifelines has none), on one grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
from lifelines import KaplanMeierFitter
from lifelines.statistics import multivariate_logrank_test
from lifelines.utils import median_survival_times, restricted_mean_survival_time
from statsmodels.duration.survfunc import SurvfuncRight, survdiff

from fivefold.algorithms.kaplan_meier import METHOD
from fivefold.errors import CategoryAbsent, FivefoldError, FormulaInvalid, OutOfBounds, StudyInvalid, TooFewPersons
from fivefold.protocol.results import Result, ResultTable
from fivefold.study.definition import Analysis
from tests.algorithms import plain
from tests.algorithms.survival_data import category, gbsg2, lung, number, sites_of, transplants

DAILY = {"step": 1, "end": 1100}
YEARS = [0, 365, 730, 1095, 1460, 1825, 2190, 3000]


def fit(
    data: tuple[pd.DataFrame, Sequence[Any], np.ndarray], formula: str, drops: Any = None, subgroup: str = "", **options: Any
) -> Result:
    setting, tables = sites_of(*data)
    analysis = Analysis("curves", "kaplan_meier", formula, subgroup=subgroup, options=options)
    return plain.run(METHOD, analysis, setting, tables, drops, ring=True)


def of(table: ResultTable, group: str) -> pd.DataFrame:
    frame = pd.DataFrame(table.rows, columns=list(table.columns))
    return (
        frame[frame["group"] == group].set_index("time")
        if "time" in frame
        else frame[frame["group"] == group].set_index("group")
    )


def assert_curve(found: pd.DataFrame, pooled: KaplanMeierFitter) -> None:
    """Survival and bands at 1e-10, counts exact."""
    table = pooled.event_table.loc[found.index]
    np.testing.assert_allclose(
        found["survival"].astype(float), pooled.survival_function_.iloc[:, 0].loc[found.index], atol=1e-10
    )
    bands = pooled.confidence_interval_.loc[found.index]
    np.testing.assert_allclose(found["low"].astype(float), bands.iloc[:, 0], atol=1e-10)
    np.testing.assert_allclose(found["high"].astype(float), bands.iloc[:, 1], atol=1e-10)
    for ours, theirs in (("at_risk", "at_risk"), ("events", "observed"), ("censored", "censored")):
        np.testing.assert_array_equal(found[ours].astype(int), table[theirs])


def pooled_of(frame: pd.DataFrame, time: str = "time", status: str = "status") -> KaplanMeierFitter:
    return KaplanMeierFitter().fit(frame[time], frame[status])


# ---- equal to the pooled curves -------------------------------------------------------------------------------------
def test_lung_by_sex_on_a_daily_grid() -> None:
    data = lung()
    result = fit(data, "Surv(time, status) ~ sex", time_grid=DAILY)
    for sex in ("male", "female"):
        part = data[0][data[0]["sex"] == sex]
        pooled = pooled_of(part)
        found = of(result.tables["curves"], sex)
        assert_curve(found, pooled)
        expected = pooled.event_table[pooled.event_table["at_risk"] >= 5].index
        np.testing.assert_array_equal(found.index, expected)
        group = of(result.tables["groups"], sex).loc[sex]
        assert (group["persons"], group["persons_with_event"]) == (len(part), part["status"].sum())
        assert group["median"] == pooled.median_survival_time_
        np.testing.assert_array_equal(
            group[["median_low", "median_high"]].astype(float), median_survival_times(pooled.confidence_interval_).to_numpy()[0]
        )
    assert result.facts["persons"] == 227
    assert result.facts["events"] == data[0]["status"].sum()
    assert any("ends at" in note and "fewer than 5" in note for note in result.notes)


def test_the_log_rank_test_of_two_groups() -> None:
    data = lung()
    result = fit(data, "Surv(time, status) ~ sex", time_grid=DAILY)
    pooled = multivariate_logrank_test(data[0]["time"], data[0]["sex"], data[0]["status"])
    row = result.tables["log_rank"].rows[0]
    assert row[1] == pytest.approx(pooled.test_statistic, rel=1e-10)
    assert row[2] == 1
    assert row[3] == pytest.approx(pooled.p_value, rel=1e-9)
    observed = dict(zip(*(result.tables["log_rank_groups"].column(c) for c in ("group", "observed")), strict=True))
    assert observed == dict(data[0].groupby("sex")["status"].sum())


def test_four_groups_of_larynx_cancer() -> None:
    from lifelines.datasets import load_larynx

    frame = load_larynx()
    stages = frame[["Stage_II", "Stage_III", "Stage_IV"]].to_numpy() @ [1, 2, 3]
    frame["stage"] = np.array(["I", "II", "III", "IV"])[stages]
    variables = [number("time", 0, 12, "year"), number("death", 0, 1, whole=True), category("stage", "I", "II", "III", "IV")]
    grid = {"step": 0.1, "end": 12}
    result = fit(
        (frame, variables, np.arange(len(frame)) % 3), "Surv(time, death) ~ stage", time_grid=grid | {"event_totals": True}
    )
    pooled = multivariate_logrank_test(frame["time"], frame["stage"], frame["death"])
    assert result.tables["log_rank"].rows[0][1] == pytest.approx(pooled.test_statistic, rel=1e-9)
    assert result.tables["log_rank"].rows[0][2] == 3
    for stage in ("I", "II", "III", "IV"):
        found = of(result.tables["curves"], stage)
        found.index = found.index.to_numpy().round(6)
        assert_curve(found, pooled_of(frame[frame["stage"] == stage], "time", "death"))


def test_a_log_rank_test_with_strata() -> None:
    data = lung()
    data[0]["limited"] = np.where(data[0]["ecog"] >= 2, "yes", "no")
    frame = data[0].dropna(subset=["ecog"]).reset_index(drop=True)
    variables = [*data[1], category("limited", "no", "yes")]
    site = data[2][data[0]["ecog"].notna()]
    result = fit((frame, variables, site), "Surv(time, status) ~ sex + strata(limited)", time_grid=DAILY)
    statistic, p = survdiff(frame["time"], frame["status"], frame["sex"], strata=frame["limited"])
    assert result.tables["log_rank"].rows[0][1] == pytest.approx(statistic, rel=1e-9)
    assert result.tables["log_rank"].rows[0][3] == pytest.approx(p, rel=1e-8)
    assert result.tables["log_rank"].rows[0][4] == "limited"
    assert_curve(of(result.tables["curves"], "male"), pooled_of(frame[frame["sex"] == "male"]))


def test_a_log_rank_test_within_sites() -> None:
    data = lung()
    result = fit(data, "Surv(time, status) ~ sex + strata(site)", time_grid=DAILY)
    statistic, p = survdiff(data[0]["time"], data[0]["status"], data[0]["sex"], strata=data[2])
    assert result.tables["log_rank"].rows[0][1] == pytest.approx(statistic, rel=1e-9)
    assert result.tables["log_rank"].rows[0][3] == pytest.approx(p, rel=1e-8)
    assert result.tables["log_rank"].rows[0][4] == "site"


def test_groups_of_two_categories_together() -> None:
    data = gbsg2()
    result = fit(data, "Surv(time, status) ~ hormone + menostat", time_grid={"step": 1, "end": 3000})
    names = data[0]["hormone"] + data[0]["menostat"]
    pooled = multivariate_logrank_test(data[0]["time"], names, data[0]["status"])
    assert result.tables["log_rank"].rows[0][1] == pytest.approx(pooled.test_statistic, rel=1e-9)
    found = of(result.tables["curves"], "hormone: yes, menostat: Post")
    assert_curve(found, pooled_of(data[0][names == "yesPost"]))


def test_one_curve_for_all_and_its_restricted_mean() -> None:
    data = lung()
    result = fit(data, "Surv(time, status) ~ 1", time_grid=DAILY, restricted_mean=365)
    pooled = pooled_of(data[0])
    assert "log_rank" not in result.tables
    assert_curve(of(result.tables["curves"], "all"), pooled)
    group = of(result.tables["groups"], "all").loc["all"]
    assert group["restricted_mean"] == pytest.approx(restricted_mean_survival_time(pooled, 365), rel=1e-10)
    assert group["restricted_mean_low"] < group["restricted_mean"] < group["restricted_mean_high"]


def test_the_error_of_a_restricted_mean_without_censoring_is_that_of_a_mean() -> None:
    """With nobody censored the restricted mean is the mean of min(time, until), and its Greenwood error that mean's."""
    data = lung()
    frame = data[0].assign(status=1.0)
    result = fit((frame, data[1], data[2]), "Surv(time, status) ~ 1", time_grid=DAILY, restricted_mean=400)
    cut = np.minimum(frame["time"], 400)
    group = of(result.tables["groups"], "all").loc["all"]
    assert group["restricted_mean"] == pytest.approx(cut.mean(), rel=1e-12)
    assert group["restricted_mean_error"] == pytest.approx(cut.std(ddof=0) / np.sqrt(len(cut)), rel=1e-10)


@pytest.mark.parametrize("bands", ["log", "plain"])
def test_other_bands(bands: str) -> None:
    data = lung()
    found = of(fit(data, "Surv(time, status) ~ 1", time_grid=DAILY, bands=bands).tables["curves"], "all")
    pooled = SurvfuncRight(data[0]["time"], data[0]["status"])
    errors = pd.Series(pooled.surv_prob_se, index=pooled.surv_times)
    times = [t for t in found.index if t in errors.index]
    s, e = found.loc[times, "survival"].to_numpy(float), errors.loc[times].to_numpy()
    np.testing.assert_allclose(found.loc[times, "standard_error"].to_numpy(float), e, rtol=1e-9)
    half = 1.959963984540054 * e
    low, high = (s - half, s + half) if bands == "plain" else (s * np.exp(-half / s), s * np.exp(half / s))
    np.testing.assert_allclose(found.loc[times, "low"].to_numpy(float), np.clip(low, 0, 1), rtol=1e-9)
    np.testing.assert_allclose(found.loc[times, "high"].to_numpy(float), np.clip(high, 0, 1), rtol=1e-9)


def test_a_coarse_grid_is_the_pooled_curve_on_gridded_times() -> None:
    frame, variables, site = gbsg2()
    edges = np.array([0, 730, 1460, 3000])
    gridded = frame.assign(time=edges[np.searchsorted(edges, frame["time"])])
    result = fit((frame, variables, site), "Surv(time, status) ~ hormone", time_grid=[int(e) for e in edges])
    for hormone in ("no", "yes"):
        part = gridded[gridded["hormone"] == hormone]
        assert_curve(of(result.tables["curves"], hormone), pooled_of(part))
    pooled = multivariate_logrank_test(gridded["time"], gridded["hormone"], gridded["status"])
    assert result.tables["log_rank"].rows[0][1] == pytest.approx(pooled.test_statistic, rel=1e-10)


def test_delayed_entry() -> None:
    frame, variables, site = transplants()
    whole = frame.assign(**{c: np.ceil(frame[c]) for c in ("start", "stop")})
    whole["stop"] = np.maximum(whole["stop"], whole["start"] + 1)
    result = fit((whole, variables, site), "Surv(start, stop, event) ~ transplant", time_grid={"step": 1, "end": 2000})
    for code, name in ((0, "transplant: no"), (1, "transplant: yes")):
        part = whole[whole["transplant"] == code]
        found = of(result.tables["curves"], name)
        if code == 0:
            pooled = SurvfuncRight(part["stop"], part["event"], entry=part["start"] + 0.5)
            expected = pd.Series(pooled.surv_prob, index=pooled.surv_times)
            times = [t for t in found.index if t in expected.index]
            assert len(times) > 10
            np.testing.assert_allclose(found.loc[times, "survival"].astype(float), expected.loc[times], rtol=1e-10)
        for t in found.index[1:]:
            assert found.loc[t, "at_risk"] == ((part["start"] < t) & (part["stop"] >= t)).sum()


def test_a_subgroup_and_a_missing_group() -> None:
    data = lung()
    data[1][3] = category("sex", "male", "female", "other")
    result = fit(data, "Surv(time, status) ~ sex", subgroup="age >= 60", time_grid=DAILY)
    older = data[0][data[0]["age"] >= 60]
    assert result.facts["persons"] == len(older)
    assert_curve(of(result.tables["curves"], "female"), pooled_of(older[older["sex"] == "female"]))
    assert any("other" in note for note in result.notes)
    pooled = multivariate_logrank_test(older["time"], older["sex"], older["status"])
    assert result.tables["log_rank"].rows[0][1:3] == (pytest.approx(pooled.test_statistic, rel=1e-10), 1)


def test_a_site_that_drops_leaves_the_curves_of_the_others() -> None:
    frame, variables, site = lung()
    result = fit((frame, variables, site), "Surv(time, status) ~ sex", {1: ["site3"]}, time_grid=DAILY)
    rest = frame[site != 3]
    assert result.sites == ("site0", "site1", "site2", "site4")
    assert result.dropped == ("site3",)
    assert_curve(of(result.tables["curves"], "male"), pooled_of(rest[rest["sex"] == "male"]))
    pooled = multivariate_logrank_test(rest["time"], rest["sex"], rest["status"])
    assert result.tables["log_rank"].rows[0][1] == pytest.approx(pooled.test_statistic, rel=1e-10)


# ---- small numbers --------------------------------------------------------------------------------------------------
def test_a_screened_curve_ends_before_the_first_number_that_would_show() -> None:
    frame, variables, site = gbsg2()
    result = fit((frame, variables, site), "Surv(time, status) ~ grade", time_grid=YEARS)
    table = result.tables["curves"]
    for column in ("events", "censored"):
        assert not [v for v in table.column(column) if v is not None and 0 < v < 5]
    first = of(table, "I")
    assert first.index.max() < 3000
    assert any("curve of I ends" in n or "curve of I is not shown" in n for n in result.notes)
    whole = of(table, "II")
    gridded = frame.assign(time=np.array(YEARS)[np.searchsorted(YEARS, frame["time"])])
    pooled = pooled_of(gridded[gridded["grade"] == "II"])
    np.testing.assert_allclose(
        whole["survival"].astype(float), pooled.survival_function_.iloc[:, 0].loc[whole.index], atol=1e-10
    )
    assert any("log-rank test" in n for n in result.notes)


def test_at_risk_after_a_hidden_number_is_not_shown_either() -> None:
    """From two neighbouring numbers at risk the hidden leavers between them would follow."""
    frame, variables, site = lung()
    found = of(
        fit((frame, variables, site), "Surv(time, status) ~ 1", time_grid={"step": 150, "end": 1200}).tables["curves"], "all"
    )
    hidden = found["censored"].isna()
    assert hidden.sum() <= 1
    assert not hidden.iloc[:-1].any()


def test_no_shown_curve_has_fewer_at_risk_than_the_minimum() -> None:
    data = lung()
    table = fit(data, "Surv(time, status) ~ sex", time_grid=DAILY).tables["curves"]
    assert min(v for v in table.column("at_risk") if v is not None) >= 5


def test_a_small_group_ends_the_analysis() -> None:
    data = lung()
    data[0]["rare"] = np.where(data[0].index < 3, "yes", "no")
    with pytest.raises(TooFewPersons, match="rare") as caught:
        fit((data[0], [*data[1], category("rare", "no", "yes")], data[2]), "Surv(time, status) ~ rare", time_grid=DAILY)
    assert caught.value.variable == "rare"


def test_a_group_in_which_few_are_censored_hides_how_many_had_the_event() -> None:
    """Persons less persons with the event would tell how few had none."""
    frame, variables, site = gbsg2()
    frame.loc[(frame["grade"] == "I") & (frame.groupby("grade").cumcount() > 3), "status"] = 1
    for strata in ("", " + strata(site)"):
        result = fit((frame, variables, site), f"Surv(time, status) ~ grade{strata}", time_grid=YEARS)
        assert 0 < ((frame["grade"] == "I") & (frame["status"] == 0)).sum() < 5
        assert pd.isna(of(result.tables["groups"], "I").loc["I", "persons_with_event"])
        shown = of(result.tables["log_rank_groups"], "I").loc["I", "observed"]
        assert pd.isna(shown) or shown < (frame["grade"] == "I").sum() - 5


def test_no_event_at_all() -> None:
    data = lung()
    with pytest.raises(CategoryAbsent, match="status"):
        fit((data[0].assign(status=0.0), data[1], data[2]), "Surv(time, status) ~ 1")


def test_a_screened_grid_refuses_several_rows_a_person() -> None:
    frame, variables, site = gbsg2()
    setting, tables = sites_of(frame, variables, site, person=np.arange(len(frame)) // 2)
    with pytest.raises(OutOfBounds, match="more than one row"):
        plain.run(
            METHOD, Analysis("c", "kaplan_meier", "Surv(time, status) ~ 1", options={"time_grid": YEARS}), setting, tables
        )


def test_single_times_need_permission_and_coarse_grids_do_not() -> None:
    for data, grid, needs, kind in ((lung(), DAILY, ("event_totals",), "count"), (gbsg2(), YEARS, (), "cell")):
        setting, tables = sites_of(*data)
        analysis = Analysis("c", "kaplan_meier", "Surv(time, status) ~ 1", options={"time_grid": grid})
        log = plain.transcript(METHOD, analysis, setting, tables)
        assert len(log.questions) == 1
        counts = log.questions[0][1]
        assert counts.needs == needs
        assert {f.kind for f in counts.fields if f.name in ("events", "censored")} == {kind}


BAD: list[tuple[str, Mapping[str, Any], type[FivefoldError]]] = [
    ("time ~ sex", {}, FormulaInvalid),
    ("Surv(time, status) ~ age", {}, FormulaInvalid),
    ("Surv(time, status) ~ site", {}, FormulaInvalid),
    ("Surv(time, status) ~ sex + strata(age)", {}, FormulaInvalid),
    ("Surv(time, status) ~ missing", {}, FormulaInvalid),
    ("Surv(time, status) ~ sex", {"bands": "wide"}, StudyInvalid),
    ("Surv(time, status) ~ sex", {"restricted_mean": 5000}, StudyInvalid),
    ("Surv(time, status) ~ sex", {"confidence": 2}, StudyInvalid),
    ("Surv(time, status) ~ sex", {"time_grid": [5]}, StudyInvalid),
    ("Surv(time, status) ~ sex", {"time_grid": {"end": 100}}, StudyInvalid),
]


@pytest.mark.parametrize(("formula", "options", "error"), BAD)
def test_what_a_study_cannot_ask_is_said_when_it_is_read(
    formula: str, options: Mapping[str, Any], error: type[FivefoldError]
) -> None:
    setting, _ = sites_of(*lung())
    with pytest.raises(error) as caught:
        METHOD.parse(Analysis("c", "kaplan_meier", formula, options=options), setting)
    assert caught.value.hint
