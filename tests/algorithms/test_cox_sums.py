"""The partial likelihood from risk sets, as pure functions: what no fitted model of another package shows directly."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fivefold.algorithms import cox_diagnostics
from fivefold.algorithms.cox_newton import Evaluated, move
from fivefold.algorithms.cox_sums import (
    Cells,
    Likelihood,
    RiskSums,
    Rows,
    Ties,
    clustered_squares,
    event_totals,
    hazard,
    likelihood,
    own_cells,
    risk_sums,
    score_residuals,
)
from fivefold.algorithms.design import Column
from fivefold.errors import Separation


def rows(seed: int, n: int = 60, p: int = 2, strata: int = 2, times: int = 8, *, late: bool = True) -> Rows:
    """Many ties, delayed entries, weights."""
    rng = np.random.default_rng(seed)
    stop = rng.integers(1, times, n)
    start = np.where(rng.random(n) < 0.4, rng.integers(0, times, n), -1) if late else np.full(n, -1)
    return Rows(
        z=rng.uniform(-1, 1, (n, p)),
        start=np.minimum(start, stop - 1).astype(np.int64),
        stop=stop.astype(np.int64),
        event=rng.random(n) < 0.6,
        weight=rng.uniform(0.5, 2, n),
        stratum=rng.integers(0, strata, n).astype(np.int64),
        person=rng.integers(0, n // 2, n).astype(np.int64),
        time=stop.astype(float),
    )


def evaluate(data: Rows, gamma: np.ndarray, ties: Ties) -> tuple[Likelihood, Cells, RiskSums]:
    cells = own_cells(data)
    deaths, weight = event_totals(data, cells)
    sums = risk_sums(data, cells, gamma)
    event_sum = data.weight[data.event] @ data.z[data.event]
    return likelihood(sums, deaths, weight, event_sum, gamma, ties), cells, sums


def by_hand(data: Rows, gamma: np.ndarray, ties: Ties) -> float:
    """Efron's and Breslow's likelihood written down row by row."""
    risk, total = data.weight * np.exp(data.z @ gamma), 0.0
    for s in np.unique(data.stratum):
        for t in np.unique(data.stop[data.event & (data.stratum == s)]):
            here = data.stratum == s
            at_risk = here & (data.start < t) & (t <= data.stop)
            died = here & data.event & (data.stop == t)
            total += float(data.weight[died] @ (data.z[died] @ gamma))
            d, mean_weight = int(died.sum()), float(data.weight[died].mean())
            for l in range(d):
                less = l / d if ties == "efron" else 0.0
                total -= mean_weight * np.log(risk[at_risk].sum() - less * risk[died].sum())
    return total


@pytest.mark.parametrize("ties", ["efron", "breslow"])
@given(seed=st.integers(0, 10_000), late=st.booleans())
@settings(max_examples=25, deadline=None)
def test_value_and_derivatives(ties: Ties, seed: int, late: bool) -> None:
    data = rows(seed, late=late)
    gamma = np.random.default_rng(seed + 1).uniform(-1, 1, 2)
    found, _, _ = evaluate(data, gamma, ties)
    assert found.value == pytest.approx(by_hand(data, gamma, ties), rel=1e-11)
    step = 1e-5
    for j in range(2):
        up, down = gamma.copy(), gamma.copy()
        up[j] += step
        down[j] -= step
        above, below = evaluate(data, up, ties)[0], evaluate(data, down, ties)[0]
        assert (above.value - below.value) / (2 * step) == pytest.approx(found.score[j], rel=1e-5, abs=1e-5)
        slope = -(above.score - below.score) / (2 * step)
        np.testing.assert_allclose(slope, found.information[j], rtol=1e-5, atol=1e-5)


@given(seed=st.integers(0, 10_000), parts=st.integers(2, 4))
@settings(max_examples=25, deadline=None)
def test_sums_over_sites_are_the_sums_of_all_rows(seed: int, parts: int) -> None:
    data = rows(seed)
    cells, gamma = own_cells(data), np.array([0.3, -0.7])
    whole = risk_sums(data, cells, gamma)
    where = np.random.default_rng(seed).integers(0, parts, len(data.stop))
    each = [risk_sums(take(data, where == i), cells, gamma) for i in range(parts)]
    for field in dataclasses.fields(RiskSums):
        total = np.sum([getattr(part, field.name) for part in each], axis=0)
        np.testing.assert_allclose(total, getattr(whole, field.name), rtol=1e-10, atol=1e-10)


def take(data: Rows, keep: np.ndarray) -> Rows:
    return Rows(**{f.name: getattr(data, f.name)[keep] for f in dataclasses.fields(Rows)})


def maximum(data: Rows, ties: Ties) -> np.ndarray:
    gamma = np.zeros(data.z.shape[1])
    for _ in range(25):
        found, _, _ = evaluate(data, gamma, ties)
        gamma = gamma + np.linalg.solve(found.information, found.score)
    return gamma


@pytest.mark.parametrize("ties", ["efron", "breslow"])
def test_a_score_residual_is_the_influence_of_its_row_s_weight(ties: Ties) -> None:
    """d estimate / d weight = information⁻¹ × residual / weight, exactly, with ties, entries, strata and weights."""
    data = rows(3)
    gamma = maximum(data, ties)
    found, cells, sums = evaluate(data, gamma, ties)
    residuals = score_residuals(data, cells, gamma, hazard(sums, *event_totals(data, cells), ties))
    np.testing.assert_allclose(residuals.sum(axis=0), 0, atol=1e-10)
    influence = (residuals / data.weight[:, None]) @ np.linalg.inv(found.information)
    step = 1e-4
    for i in range(0, len(data.stop), 7):
        moved = []
        for sign in (1, -1):
            weight = data.weight.copy()
            weight[i] += sign * step
            moved.append(maximum(dataclasses.replace(data, weight=weight), ties))
        np.testing.assert_allclose((moved[0] - moved[1]) / (2 * step), influence[i], rtol=1e-5, atol=1e-8)


def test_residuals_stay_within_the_bound_that_scales_their_squares() -> None:
    """Σ|residual| ≤ 4W, whatever the coefficients: the hazards of all rows add up to the events."""
    for seed in range(20):
        data = rows(seed)
        gamma = np.random.default_rng(seed).uniform(-4, 4, 2)
        _, cells, sums = evaluate(data, gamma, "efron")
        deaths, weight = event_totals(data, cells)
        residuals = score_residuals(data, cells, gamma, hazard(sums, deaths, weight, "efron"))
        assert np.abs(residuals).sum(axis=0).max() <= 4 * weight.sum()
        assert np.abs(clustered_squares(residuals, data.person)).max() <= 16 * weight.sum() ** 2


@given(seed=st.integers(0, 10_000), bins=st.integers(2, 30))
@settings(max_examples=40, deadline=None)
def test_pairs_are_those_counted_one_by_one(seed: int, bins: int) -> None:
    data = rows(seed, n=30, late=False)
    cells = own_cells(data)
    score = np.random.default_rng(seed).integers(0, bins, 30).astype(np.int64)
    expected = [0, 0, 0]
    for i in np.flatnonzero(data.event):
        for j in range(30):
            later = data.stop[j] > data.stop[i] or (data.stop[j] == data.stop[i] and not data.event[j])
            if later and data.stratum[i] == data.stratum[j] and i != j:
                expected[0 if score[i] > score[j] else 1 if score[i] < score[j] else 2] += 1
    found = cox_diagnostics.pairs(*cox_diagnostics.score_histograms(data, cells, score, bins), cells.stratum)
    assert found == tuple(expected)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_a_site_s_own_pairs_are_those_of_its_histograms(seed: int) -> None:
    data = rows(seed, n=40, strata=3, late=False)
    data = dataclasses.replace(data, z=np.round(data.z, 1))  # some scores are tied
    cells, gamma = own_cells(data), np.array([1.0, 0.0])
    _, bins = np.unique(data.z @ gamma, return_inverse=True)
    histograms = cox_diagnostics.score_histograms(data, cells, bins.astype(np.int64), int(bins.max()) + 1)
    found = cox_diagnostics.local_pairs(data, cells, gamma)
    assert tuple(found[n] for n in ("concordant", "discordant", "tied")) == cox_diagnostics.pairs(*histograms, cells.stratum)


def test_many_scores_within_one_site_are_binned_and_the_bound_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    data = rows(5, n=300, times=50, late=False)
    cells, gamma = own_cells(data), np.array([1.0, -0.5])
    exact = cox_diagnostics.concordance(**cox_diagnostics.local_pairs(data, cells, gamma))
    assert exact.bound == 0.0
    monkeypatch.setattr(cox_diagnostics, "LOCAL_BINS", 20)
    coarse = cox_diagnostics.concordance(**cox_diagnostics.local_pairs(data, cells, gamma))
    assert 0 < coarse.bound < 0.1
    assert abs(coarse.value - exact.value) <= coarse.bound


def test_a_step_that_lowers_the_likelihood_is_halved() -> None:
    here = Evaluated(np.array([2.0]), Likelihood(-11.0, np.array([1.0]), np.eye(1)))
    before = Evaluated(np.array([1.0]), Likelihood(-10.0, np.array([1.0]), np.eye(1)))
    going = move(here, before, np.eye(1), [Column("x", ("x",))])
    assert going.gamma == pytest.approx([1.5])
    assert not going.done


def test_a_rare_column_whose_information_vanishes_is_separated() -> None:
    """A category of one in ten thousand moves the predictor's deviation by next to nothing while its coefficient runs away."""
    covariance = np.diag([1e-5, 0.2])
    here = Evaluated(
        np.array([-9.0, 0.1]), Likelihood(-10.0, np.array([-1e-6, 0.0]), np.diag([1e-6, 20.0]) * np.array([1e-2, 1]))
    )
    before = Evaluated(np.array([-8.0, 0.1]), Likelihood(-10.0, np.array([-1e-6, 0.0]), np.eye(2)))
    with pytest.raises(Separation, match="rare"):
        move(here, before, covariance, [Column("rare", ("rare",)), Column("age", ("age",))])
