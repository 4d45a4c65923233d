"""The accountant and that of Opacus: the same curve and the same ε where both mean the same, never less than the exact one."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from opacus.accountants import PRVAccountant
from opacus.accountants.analysis import rdp

from fivefold.privacy.dp.accounting import spent
from fivefold.privacy.dp.events import ORDERS, Event, composed, curve, epsilon_of

CASES = [(1.1, 1, 1e-5), (4.0, 60, 1e-5), (8.0, 60, 1e-6), (20.0, 500, 1e-5), (50.0, 40, 1e-5)]


@pytest.mark.parametrize(("multiplier", "rounds", "delta"), CASES)
def test_the_curve_and_the_epsilon_of_a_gaussian_are_opacus_own(multiplier: float, rounds: int, delta: float) -> None:
    theirs = np.array(rdp.compute_rdp(q=1.0, noise_multiplier=multiplier, steps=rounds, orders=list(ORDERS)))
    ours = composed([curve(Event("discrete_gaussian", multiplier, rounds))])
    np.testing.assert_allclose(ours, theirs, rtol=1e-12)
    told, _ = rdp.get_privacy_spent(orders=list(ORDERS), rdp=list(theirs), delta=delta)
    assert epsilon_of(ours, delta) == pytest.approx(told, rel=1e-9)
    assert spent(rounds, multiplier, delta) == pytest.approx(told, rel=1e-9)  # the shares' extra is below what a double holds


@pytest.mark.parametrize(("multiplier", "rounds", "delta"), CASES)
def test_it_never_tells_less_than_the_numeric_accountant(multiplier: float, rounds: int, delta: float) -> None:
    """Opacus' PRV accountant (Gopi, Lee and Wutschitz, NeurIPS 2021) is tight to its own error of 0.01."""
    exact = PRVAccountant()
    exact.history = [(multiplier, 1.0, rounds)]
    with np.errstate(divide="ignore"), warnings.catch_warnings():  # without sampling it takes the logarithm of 0: -infinity
        warnings.filterwarnings("ignore", "Optimal order is the largest alpha")  # of its first rough guess
        told = exact.get_epsilon(delta=delta)
    ours = spent(rounds, multiplier, delta)
    assert told - 0.011 <= ours <= 1.25 * told + 0.02


def test_rounds_over_all_rows_cost_what_sampling_would_spare() -> None:
    """A round here is one sum over all persons; with a tenth of them drawn (Mironov, Talwar and Zhang, 2019), Opacus tells
    less, and with all of them the same."""
    epsilons = []
    for share in (0.1, 0.5, 1.0):
        curve_of = rdp.compute_rdp(q=share, noise_multiplier=4.0, steps=60, orders=list(ORDERS))
        epsilons.append(rdp.get_privacy_spent(orders=list(ORDERS), rdp=list(curve_of), delta=1e-5)[0])
    assert epsilons[0] < epsilons[1] < epsilons[2] == pytest.approx(spent(60, 4.0, 1e-5), rel=1e-9)
