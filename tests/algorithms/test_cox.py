"""Federated Cox models against pooled ones: lifelines (Efron, weights, strata, entry, robust errors), statsmodels (Breslow)."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pandas as pd
import pytest
from lifelines import CoxPHFitter, CoxTimeVaryingFitter
from lifelines.exceptions import StatisticalWarning
from lifelines.statistics import proportional_hazard_test
from statsmodels.duration.hazard_regression import PHReg

from fivefold.algorithms.cox import METHOD
from fivefold.errors import (
    NotConverged,
    TooFewPersons,
)
from fivefold.protocol.results import Result
from fivefold.study.definition import Analysis
from tests.algorithms import plain
from tests.algorithms.cox_fits import DAILY, TIGHT, assert_equals, fit, lifelines, values
from tests.algorithms.survival_data import gbsg2, lung, number, regimes, sites_of, transplants


def coefficients(result: Result) -> dict[Any, Any]:
    table = result.tables["coefficients"]
    return dict(zip(table.column("term"), table.column("coefficient"), strict=True))


# ---- equal to the pooled fit ----------------------------------------------------------------------------------------
def test_lung_on_a_daily_grid_is_the_pooled_fit() -> None:
    data = lung()
    result = fit(data, "Surv(time, status) ~ age + sex + ecog + loss", time_grid=DAILY)
    pooled = lifelines(data[0], ["age", "sex[female]", "ecog", "loss"])
    assert_equals(result, pooled)
    assert (result.facts["persons"], result.facts["events"]) == (len(pooled.durations), int(pooled.event_observed.sum()))
    assert (result.facts["missing_loss"], result.facts["missing_ecog"]) == (14, 1)
    assert result.facts["iterations"] <= 7
    assert abs(result.facts["concordance"] - pooled.concordance_index_) <= result.facts["concordance_bound"]


def test_complete_cases_over_many_covariates_are_167_as_published() -> None:
    data = lung()
    result = fit(data, "Surv(time, status) ~ age + sex + ecog + karno + patkarno + meal + loss", time_grid=DAILY)
    assert_equals(result, lifelines(data[0], ["age", "sex[female]", "ecog", "karno", "patkarno", "meal", "loss"]))
    assert result.facts["persons"] == 167


def test_interactions() -> None:
    data = lung()
    result = fit(data, "Surv(time, status) ~ age * sex + ecog", time_grid=DAILY)
    assert_equals(result, lifelines(data[0], ["age", "sex[female]", "ecog", "age:sex[female]"]))


def test_an_interaction_without_its_main_effects_cannot_be_centred_and_still_agrees() -> None:
    data = lung()
    result = fit(data, "Surv(time, status) ~ age:ecog", time_grid=DAILY)
    assert_equals(result, lifelines(data[0], ["age:ecog"]))


def test_many_ties_and_six_categories() -> None:
    data = regimes()
    result = fit(data, "Surv(duration, observed) ~ regime + start_year", time_grid={"step": 1, "end": 50, "event_totals": True})
    names = [f"regime[{r}]" for r in ("Military", "Mixed", "Monarchy", "Parliamentary", "Presidential")]
    pooled = lifelines(data[0], [*names, "start_year"], "duration", "observed")
    ours = coefficients(result)
    for name, value in pooled.params_.items():
        assert ours[name] == pytest.approx(value, rel=1e-8)


@pytest.mark.parametrize("ties", ["efron", "breslow"])
def test_ties_as_in_statsmodels(ties: str) -> None:
    data = lung()
    result = fit(data, "Surv(time, status) ~ age + sex + ecog", time_grid=DAILY, ties=ties)
    frame = data[0][["time", "status", "age", "sex", "ecog"]].dropna()
    exog = np.column_stack([frame["age"], frame["sex"] == "female", frame["ecog"]]).astype(float)
    pooled = PHReg(frame["time"], exog, status=frame["status"], ties=ties).fit(tol=1e-13, maxiter=100)
    table = result.tables["coefficients"]
    np.testing.assert_allclose(table.column("coefficient"), pooled.params, rtol=1e-8)
    np.testing.assert_allclose(table.column("standard_error"), pooled.bse, rtol=1e-8)
    assert result.facts["log_likelihood"] == pytest.approx(pooled.llf, rel=1e-11)


def test_strata_of_a_category() -> None:
    data = lung()
    result = fit(data, "Surv(time, status) ~ age + ecog + strata(sex)", time_grid=DAILY)
    pooled = lifelines(data[0], ["age", "ecog"], strata=["sex"])
    assert_equals(result, pooled)
    assert abs(result.facts["concordance"] - pooled.concordance_index_) <= result.facts["concordance_bound"]


def test_strata_by_site_share_no_event_time_and_are_the_pooled_stratified_fit() -> None:
    frame, variables, site = lung()
    result = fit((frame, variables, site), "Surv(time, status) ~ age + sex + ecog + strata(site)")
    pooled = lifelines(frame.assign(place=site), ["age", "sex[female]", "ecog"], strata=["place"])
    assert_equals(result, pooled)
    assert result.facts["concordance"] == pytest.approx(pooled.concordance_index_, abs=1e-12)
    assert result.facts["concordance_bound"] == 0.0


def test_strata_by_site_and_category() -> None:
    frame, variables, site = lung()
    result = fit((frame, variables, site), "Surv(time, status) ~ age + ecog + strata(site, sex)")
    assert_equals(result, lifelines(frame.assign(place=site), ["age", "ecog"], strata=["place", "sex"]))


@pytest.mark.parametrize("strata", ["", " + strata(site)"])
def test_case_weights(strata: str) -> None:
    frame, variables, site = lung()
    frame["weight"] = 0.5 + (np.arange(len(frame)) % 7) / 3
    data = (frame.assign(place=site), [*variables, number("weight", 0.1, 5)], site)
    result = fit(data, f"Surv(time, status) ~ age + sex{strata}", weights="weight", time_grid=None if strata else DAILY)
    with pytest.warns(StatisticalWarning, match="weights are not integers"):
        pooled = lifelines(data[0], ["age", "sex[female]"], weights_col="weight", **({"strata": ["place"]} if strata else {}))
    assert_equals(result, pooled)


def test_weights_on_a_coarse_grid_are_asked_when_the_counts_are_large_enough() -> None:
    frame, variables, site = gbsg2()
    frame["weight"] = 1.0 + np.arange(len(frame)) % 3
    edges = [0, 730, 1460, 3000]
    data = (frame, [*variables, number("weight", 1, 3)], site)
    result = fit(data, "Surv(time, status) ~ age + nodes", {2: ["site1"]}, time_grid=edges, weights="weight")
    assert len(result.sites) == 4  # the site that missed the weights' round is counted again
    gridded = frame.assign(time=np.array(edges)[np.searchsorted(edges, frame["time"])])
    assert_equals(result, lifelines(gridded, ["age", "nodes"], weights_col="weight"))
    setting, tables = sites_of(*data)
    options = {"time_grid": {"step": 30, "end": 3000}, "weights": "weight"}
    generator = METHOD.rounds(METHOD.parse(Analysis("m", "cox", "Surv(time, status) ~ age", options=options), setting))
    question = next(generator)
    assert not any("weight" in f.name for s in question for f in s.fields)
    totals = tuple(plain.aggregate(s, tables, tables, setting) for s in question)
    with pytest.raises(TooFewPersons):
        generator.send(totals)


def untied(frame: pd.DataFrame) -> np.ndarray:
    """Rows without a second row at their time: lifelines' robust errors and ranks are for data without ties."""
    return ~frame["time"].duplicated(keep=False).to_numpy()


@pytest.mark.parametrize("strata", ["", " + strata(site)"])
def test_robust_errors_clustered_by_person(strata: str) -> None:
    frame, variables, site = lung()
    keep = untied(frame)
    frame, site = frame[keep].reset_index(drop=True).assign(place=site[keep]), site[keep]
    setting, tables = sites_of(frame, variables, site, person=frame["inst"].to_numpy())
    analysis = Analysis("m", "cox", f"Surv(time, status) ~ age + sex + ecog{strata}", options={"robust": True})
    result = plain.run(METHOD, analysis, dataclasses.replace(setting, minimum_persons=1), tables, ring=True)
    more = {"strata": ["place"]} if strata else {}
    pooled = lifelines(frame, ["age", "sex[female]", "ecog"], cluster_col="inst", **more)
    assert_equals(result, pooled)
    assert result.facts["persons"] == 18


def test_robust_errors_of_one_row_each_are_lifelines_robust() -> None:
    frame, variables, site = lung()
    keep = untied(frame)
    data = (frame[keep].reset_index(drop=True), variables, site[keep])
    result = fit(data, "Surv(time, status) ~ age + ecog", robust=True, time_grid=DAILY)
    assert_equals(result, lifelines(data[0], ["age", "ecog"], robust=True))


def test_left_truncation_and_spells_of_one_person() -> None:
    frame, variables, site = transplants()
    setting, tables = sites_of(frame, variables, site, person=frame["id"].to_numpy())
    formula = "Surv(start, stop, event) ~ age + year + surgery + transplant"
    grid = {"step": 0.5, "end": 2000}
    result = plain.run(METHOD, Analysis("m", "cox", formula, options={"time_grid": grid}), setting, tables, ring=True)
    columns = ["age", "year", "surgery", "transplant"]
    varying = CoxTimeVaryingFitter().fit(frame, "event", id_col="id", show_progress=False, fit_options={"precision": 1e-14})
    table = result.tables["coefficients"]
    assert table.column("term") == ("age", "year", "surgery[yes]", "transplant[yes]")
    np.testing.assert_allclose(table.column("coefficient"), varying.params_[columns], rtol=1e-8)
    np.testing.assert_allclose(table.column("standard_error"), varying.standard_errors_[columns], rtol=1e-8)
    # statsmodels counts who enters at an event's time as at risk then; a little later is the other convention
    pooled = PHReg(frame["stop"], frame[columns], frame["event"], entry=frame["start"] + 0.01, ties="efron").fit(tol=1e-13)
    np.testing.assert_allclose(table.column("coefficient"), pooled.params, rtol=1e-7)
    assert (result.facts["persons"], result.facts["rows"]) == (103, 172)
    assert "concordance" not in result.facts


def test_left_truncation_within_sites() -> None:
    frame, variables, site = transplants()
    result = fit((frame, variables, site), "Surv(start, stop, event) ~ age + transplant + strata(site)")
    with_place = frame.assign(place=site)
    pooled = lifelines(with_place, ["age", "transplant"], "stop", "event", entry_col="start", strata=["place"])
    np.testing.assert_allclose(result.tables["coefficients"].column("coefficient"), pooled.params_, rtol=1e-8)


def test_a_coarse_grid_is_screened_and_is_the_pooled_fit_on_gridded_times() -> None:
    frame, variables, site = gbsg2()
    edges = [0, 365, 550, 730, 1100, 1500, 2000, 3000]
    result = fit((frame, variables, site), "Surv(time, status) ~ hormone + grade + age + nodes", time_grid=edges)
    gridded = frame.assign(time=np.array(edges)[np.searchsorted(edges, frame["time"])])
    pooled = lifelines(gridded, ["hormone[yes]", "grade[II]", "grade[III]", "age", "nodes"])
    ours = result.tables["coefficients"]
    for name, value, error in zip(ours.column("term"), ours.column("coefficient"), ours.column("standard_error"), strict=True):
        assert value == pytest.approx(pooled.params_[name], rel=1e-8)
        assert error == pytest.approx(pooled.standard_errors_[name], rel=1e-8)


def test_times_beyond_a_grid_that_censors_count_as_censored_at_its_end() -> None:
    data = lung()
    result = fit(data, "Surv(time, status) ~ age + sex", time_grid={"step": 1, "end": 365, "censor_beyond": True})
    late = data[0]["time"] > 365
    cut = data[0].assign(time=data[0]["time"].clip(upper=365), status=data[0]["status"].where(~late, 0))
    assert_equals(result, lifelines(cut, ["age", "sex[female]"]))
    assert any("censored" in note for note in result.notes)


def test_a_subgroup() -> None:
    data = lung()
    setting, tables = sites_of(*data)
    analysis = Analysis("m", "cox", "Surv(time, status) ~ ecog + sex", subgroup="age >= 60", options={"time_grid": DAILY})
    result = plain.run(METHOD, analysis, setting, tables)
    pooled = lifelines(data[0][data[0]["age"] >= 60], ["ecog", "sex[female]"])
    ours = coefficients(result)
    assert ours == pytest.approx(dict(pooled.params_), rel=1e-8)


# ---- diagnostics ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("strata", ["", " + strata(sex)"])
def test_proportional_hazards_as_in_lifelines(strata: str) -> None:
    frame, variables, _ = lung()
    keep = untied(frame)
    frame = frame[keep].dropna(subset=["ecog"]).sort_values("time").reset_index(drop=True)
    variables[0] = number("time", 1, 1100, "day", whole=True)
    transforms = ["km", "identity", "log", *([] if strata else ["rank"])]
    data = (frame, variables, np.arange(len(frame)) % 4)
    result = fit(data, f"Surv(time, status) ~ age + ecog{strata}", proportional_hazards=transforms, time_grid=DAILY)
    used = frame[["time", "status", "age", "ecog", *(["sex"] if strata else [])]]
    pooled = CoxPHFitter().fit(used, "time", "status", fit_options=TIGHT, strata=["sex"] if strata else None)
    table = result.tables["proportional_hazards"]
    assert len(table.rows) == 3 * len(transforms)
    for transform in transforms:
        expected = proportional_hazard_test(pooled, used, time_transform=transform).summary
        for term, time, statistic, freedom, p in table.rows:
            if time == transform and term != "all together":
                assert freedom == 1
                assert statistic == pytest.approx(expected.loc[term, "test_statistic"], rel=1e-7)
                assert p == pytest.approx(expected.loc[term, "p"], rel=1e-7)


def test_proportional_hazards_within_sites() -> None:
    frame, variables, site = lung()
    used = frame.assign(place=site)[["time", "status", "age", "ecog", "place"]].dropna()
    pooled = CoxPHFitter().fit(used, "time", "status", fit_options=TIGHT, strata=["place"])
    expected = proportional_hazard_test(pooled, used, time_transform="identity").summary
    result = fit((frame, variables, site), "Surv(time, status) ~ age + ecog + strata(site)")
    for term in ("age", "ecog"):
        row = next(r for r in result.tables["proportional_hazards"].rows if r[0] == term)
        assert row[2] == pytest.approx(expected.loc[term, "test_statistic"], rel=1e-7)


def test_concordance_lies_within_its_bound_and_more_bins_narrow_it() -> None:
    data = lung()
    exact = lifelines(data[0], ["age", "ecog"]).concordance_index_
    bounds = []
    for bins in (5, 25, 400):
        result = fit(data, "Surv(time, status) ~ age + ecog", time_grid=DAILY, concordance_bins=bins, ring=False)
        assert abs(result.facts["concordance"] - exact) <= result.facts["concordance_bound"] + 1e-12
        assert f"± {result.facts['concordance_bound']:.4f}" in " ".join(result.notes)
        bounds.append(result.facts["concordance_bound"])
    assert bounds[0] > 2 * bounds[1] > 4 * bounds[2]


def test_the_baseline_hazard_is_breslow_s_for_the_average_numbers_and_first_codes() -> None:
    data = lung()
    result = fit(data, "Surv(time, status) ~ age + sex", time_grid=DAILY, baseline=True)
    pooled = lifelines(data[0], ["age", "sex[female]"])
    table = result.tables["baseline"]
    male = np.exp(
        pooled.params_["sex[female]"] * (0 - values(data[0], "sex[female]").mean())
    )  # lifelines takes the average sex
    expected = pooled.baseline_cumulative_hazard_["baseline cumulative hazard"] * male
    for _, time, at_risk, _, cumulative, survival in table.rows[1:]:
        assert cumulative == pytest.approx(expected[time], rel=1e-8)
        assert survival == pytest.approx(np.exp(-expected[time]), rel=1e-8)
        assert at_risk >= 5
    assert max(table.column("time")) < 1022
    assert any(f.kind == "survival" for f in result.figures)


# ---- sites that drop ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("formula", ["Surv(time, status) ~ age + sex", "Surv(time, status) ~ age + sex + strata(site)"])
@pytest.mark.parametrize("round_", [1, 2, 3, 4, 6, 7])
def test_a_site_that_drops_for_good_leaves_the_pooled_fit_of_the_others(formula: str, round_: int) -> None:
    frame, variables, site = lung()
    gone = {n: ["site2"] for n in range(round_, 60)}
    result = fit((frame, variables, site), formula, gone, robust=True)
    rest = frame.assign(place=site)[site != 2]
    pooled = lifelines(rest, ["age", "sex[female]"], **({"strata": ["place"]} if "strata" in formula else {}))
    assert result.sites == ("site0", "site1", "site3", "site4")
    assert result.dropped == ("site2",)
    assert result.facts["persons"] == len(rest)
    assert any("site2" in note for note in result.notes)
    table = result.tables["coefficients"]
    np.testing.assert_allclose(table.column("coefficient"), pooled.params_, rtol=1e-8)
    np.testing.assert_allclose(table.column("standard_error"), pooled.standard_errors_, rtol=1e-8)
    assert result.facts["log_likelihood"] == pytest.approx(pooled.log_likelihood_, rel=1e-11)
    assert result.tables["tests"].rows[0][1] == pytest.approx(pooled.log_likelihood_ratio_test().test_statistic, rel=1e-7)
    assert abs(result.facts["concordance"] - pooled.concordance_index_) <= result.facts["concordance_bound"] + 1e-12


def test_a_site_that_misses_one_round_and_comes_back_is_in_the_result() -> None:
    data = lung()
    result = fit(data, "Surv(time, status) ~ age + sex", {3: ["site1"]}, time_grid=DAILY)
    assert_equals(result, lifelines(data[0], ["age", "sex[female]"]))
    assert len(result.sites) == 5
    assert result.dropped == ("site1",)


def test_a_site_that_comes_and_goes_ends_in_a_sentence() -> None:
    with pytest.raises(NotConverged):
        fit(lung(), "Surv(time, status) ~ age + sex", lambda n: ["site1"] if n % 2 else [], time_grid=DAILY)
