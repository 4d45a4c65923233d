"""Events and their curves, against dp-accounting and against the exact privacy loss of a Gaussian."""

from __future__ import annotations

import math

import numpy as np
import pytest
from dp_accounting.rdp import rdp_privacy_accountant as oracle
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from fivefold.privacy.dp.events import ORDERS, Event, allowance, composed, curve, epsilon_of, from_plain, to_plain

MULTIPLIERS = (0.5, 1.0, 2.7, 10.0, 80.0)
DELTAS = (1e-2, 1e-5, 1e-9)


@pytest.mark.parametrize("delta", DELTAS)
@pytest.mark.parametrize("z", MULTIPLIERS)
@pytest.mark.parametrize("count", [1, 40])
def test_epsilon_is_that_of_dp_accounting(z: float, count: int, delta: float) -> None:
    total = curve(Event("discrete_gaussian", z, count))
    expected, _ = oracle.compute_epsilon(list(ORDERS), list(total), delta)
    assert epsilon_of(total, delta) == pytest.approx(expected, rel=1e-12, abs=1e-12)


def test_the_gaussian_accountant_of_dp_accounting_agrees() -> None:
    import dp_accounting

    accountant = oracle.RdpAccountant(list(ORDERS))
    accountant.compose(dp_accounting.GaussianDpEvent(1.3), 25)
    accountant.compose(dp_accounting.GaussianDpEvent(4.0), 3)
    total = composed([curve(Event("discrete_gaussian", 1.3, 25)), curve(Event("discrete_gaussian", 4.0, 3))])
    assert epsilon_of(total, 1e-6) == pytest.approx(accountant.get_epsilon(1e-6), rel=1e-12)


@pytest.mark.parametrize("delta", DELTAS)
@pytest.mark.parametrize("z", MULTIPLIERS)
def test_epsilon_is_never_below_the_exact_one_of_a_gaussian(z: float, delta: float) -> None:
    """Balle & Wang (2018), Theorem 8: the exact δ of a Gaussian with sensitivity 1 at the ε that is claimed."""
    epsilon = epsilon_of(curve(Event("discrete_gaussian", z)), delta)
    exact = norm.cdf(0.5 / z - epsilon * z) - math.exp(epsilon) * norm.cdf(-0.5 / z - epsilon * z)
    assert exact <= delta


@settings(max_examples=60, deadline=None)
@given(z=st.floats(0.05, 1e4), count=st.integers(1, 1000), extra=st.floats(0, 1), delta=st.floats(1e-12, 0.4))
def test_the_allowance_is_the_inverse_of_the_conversion(z: float, count: int, extra: float, delta: float) -> None:
    total = curve(Event("discrete_gaussian", z, count, extra))
    epsilon = epsilon_of(total, delta)
    if epsilon > 1e-6:
        assert np.any(total <= allowance(epsilon * (1 + 1e-9), delta))
        assert not np.any(total <= allowance(epsilon * (1 - 1e-6) - 1e-9, delta)) if epsilon > 1e-3 else True


def test_an_exact_sum_has_no_finite_epsilon_and_nothing_costs_nothing() -> None:
    assert epsilon_of(curve(Event("exact")), 1e-6) == math.inf
    assert epsilon_of(composed([]), 1e-6) == 0.0


@given(z=st.floats(1e-3, 1e6), count=st.integers(1, 10**6), extra=st.floats(0, 1e3))
def test_plain_values_give_the_event_back(z: float, count: int, extra: float) -> None:
    event = Event("discrete_gaussian", z, count, extra)
    assert from_plain(to_plain(event)) == event


@pytest.mark.parametrize(
    ("mechanism", "z", "count", "extra"),
    [
        ("laplace", 1.0, 1, 0.0),
        ("discrete_gaussian", 0.0, 1, 0.0),
        ("discrete_gaussian", -1.0, 1, 0.0),
        ("discrete_gaussian", math.inf, 1, 0.0),
        ("discrete_gaussian", math.nan, 1, 0.0),
        ("discrete_gaussian", 1.0, 0, 0.0),
        ("discrete_gaussian", 1.0, 1, -1.0),
        ("exact", 1.0, 1, 0.0),
    ],
)
def test_events_that_make_no_sense_are_refused(mechanism: str, z: float, count: int, extra: float) -> None:
    with pytest.raises(ValueError):
        Event(mechanism, z, count, extra)


@pytest.mark.parametrize("delta", [0.0, 1.0, -1.0, math.nan])
def test_a_delta_lies_between_0_and_1(delta: float) -> None:
    with pytest.raises(ValueError):
        epsilon_of(composed([]), delta)
    with pytest.raises(ValueError):
        allowance(1.0, delta)


def test_what_is_no_event_is_refused() -> None:
    with pytest.raises(ValueError):
        from_plain({"mechanism": "discrete_gaussian"})
