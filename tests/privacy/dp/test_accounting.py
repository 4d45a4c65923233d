"""The accountant: never below an exact ε, equal to dp-accounting where both speak of a Gaussian, and its own inverse."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest

from fivefold.privacy.dp.accounting import epsilon, foreseen, multiplier_for, question_event, spent, tau
from fivefold.privacy.dp.events import ORDERS, Event, curve
from fivefold.privacy.dp.shares import Sharing, noisy
from fivefold.protocol.questions import Field

Floats = npt.NDArray[np.float64]


def pmf(share: float, shares: int, reach: int = 120) -> Floats:
    """Of the sum of discrete Gaussians of deviation `share`: by convolution, on -shares·reach … shares·reach."""
    x = np.arange(-reach, reach + 1)
    one = np.exp(-(x**2) / (2 * share**2))
    one /= one.sum()
    out = np.ones(1)
    for _ in range(shares):
        out = np.convolve(out, one)
    return out


def exact_delta(p: Floats, q: Floats, epsilon: float) -> float:
    """The hockey-stick divergence: the least δ at ε for this pair of outputs, and the other way round."""
    return max(float(np.maximum(a - math.exp(epsilon) * b, 0).sum()) for a, b in ((p, q), (q, p)))


def exact_epsilon(p: Floats, q: Floats, delta: float) -> float:
    low, high = 0.0, 60.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if exact_delta(p, q, middle) <= delta else (middle, high)
    return high


def shifted(p: Floats, by: int) -> tuple[Floats, Floats]:
    return np.concatenate([p, np.zeros(by)]), np.concatenate([np.zeros(by), p])


@pytest.mark.parametrize("share", [0.6, 1.0, 4.0])
@pytest.mark.parametrize("shares", [1, 2, 4])
@pytest.mark.parametrize("shift", [1, 3])
def test_never_below_the_exact_epsilon(share: float, shares: int, shift: int) -> None:
    total = share * math.sqrt(shares)
    event = Event("discrete_gaussian", total / shift, 1, tau(share, shares) / 4)
    p, q = shifted(pmf(share, shares), shift)
    for delta in (1e-2, 1e-5, 1e-8):
        exact = exact_epsilon(p, q, delta)
        ours = epsilon([event], delta)
        assert ours >= exact
        if share >= 4:
            assert ours <= exact * 1.6 + 0.15  # and it is no empty promise


@pytest.mark.parametrize("share", [0.6, 1.5])
def test_never_below_the_exact_epsilon_of_two_and_three_questions(share: float) -> None:
    """The product of two and three independent answers, each of a sum of three shares."""
    one = shifted(pmf(share, 3, reach=int(9 * share) + 2), 1)
    for count in (2, 3):
        p, q = one
        for _ in range(count - 1):
            p, q = np.multiply.outer(p, one[0]).reshape(-1), np.multiply.outer(q, one[1]).reshape(-1)
        event = Event("discrete_gaussian", share * math.sqrt(3), count, tau(share, 3) / 4)
        for delta in (1e-2, 1e-5):
            assert epsilon([event], delta) >= exact_epsilon(p, q, delta)


@pytest.mark.parametrize("share", [0.5, 0.7, 1.0])
def test_the_extra_term_covers_the_divergence_of_a_sum_of_shares(share: float) -> None:
    """Rényi divergences of the true sum lie under the charged curve at every order up to 32; without the extra term they would
    not always."""
    for shares in (2, 3, 5):
        total = share * math.sqrt(shares)
        with np.errstate(divide="ignore", invalid="ignore"):
            p, q = shifted(pmf(share, shares, reach=40), 1)
            charged = curve(Event("discrete_gaussian", total, 1, tau(share, shares) / 4))
            for i, order in enumerate(ORDERS[:31]):
                inside = (p > 1e-280) & (q > 1e-280)
                terms = order * np.log(p[inside]) - (order - 1) * np.log(q[inside])
                true = (terms.max() + math.log(np.exp(terms - terms.max()).sum())) / (order - 1)
                assert true <= charged[i] * (1 + 1e-9)


def test_the_extra_term_vanishes_at_four_steps_and_matters_below_one() -> None:
    assert tau(4.0, 100) < 1e-64
    assert tau(0.5, 3) > 0.1
    assert tau(3.0, 1) == 0.0
    assert tau(1.0, 2) == pytest.approx(10 * math.exp(-(math.pi**2)))


@pytest.mark.parametrize("multiplier", [0.7, 1.0, 4.0])
@pytest.mark.parametrize("count", [1, 20, 400])
def test_agrees_with_dp_accounting_at_the_same_orders(multiplier: float, count: int) -> None:
    from dp_accounting import GaussianDpEvent
    from dp_accounting.rdp import RdpAccountant

    oracle = RdpAccountant(list(ORDERS))
    oracle.compose(GaussianDpEvent(multiplier), count)
    for delta in (1e-5, 1e-8):
        assert spent(count, multiplier, delta) == pytest.approx(oracle.get_epsilon(delta), rel=1e-9)


def test_agrees_with_the_figures_of_opacus_by_its_formula() -> None:
    """Opacus' RDP of an unsampled Gaussian is steps·α/(2z²), and its conversion rdp - (log δ + log α)/(α - 1) + log((α - 1)/α);
    written out here, so that nothing hangs on its being installed."""
    steps, z, delta = 50, 2.0, 1e-6
    rdp = [steps * a / (2 * z * z) for a in ORDERS]
    theirs = min(
        r - (math.log(delta) + math.log(a)) / (a - 1) + math.log((a - 1) / a) for r, a in zip(rdp, ORDERS, strict=True)
    )
    assert spent(steps, z, delta) == pytest.approx(theirs, rel=1e-9)


@pytest.mark.parametrize(("questions", "cap", "delta"), [(1, 1.0, 1e-5), (3, 3.0, 1e-6), (200, 10.0, 1e-5), (25, 0.1, 1e-7)])
def test_the_multiplier_that_reaches_a_cap(questions: int, cap: float, delta: float) -> None:
    z = multiplier_for(questions, cap, delta)
    assert spent(questions, z, delta) <= cap
    assert spent(questions, z * 0.99, delta) > cap
    assert float(f"{z:.4g}") == z


def test_an_event_of_a_question_charges_every_number() -> None:
    fields = (Field("a", "real", 10.0, (7,), 1.0), Field("b", "real", 10.0, (), 2.0))
    sharing = Sharing(2.0, "person", 5, 1, 0)
    event = question_event(noisy(fields, sharing), 2.0, sharing.honest)
    assert event.noise_multiplier == 2.0
    assert event.count == 1
    assert 0 <= event.extra < 1e-60
    with pytest.raises(ValueError, match="no noise"):
        question_event(fields, 2.0, 4)


def test_what_is_foreseen_is_never_less_than_what_is_charged() -> None:
    assert foreseen(3, 1.0, 1000, 4).extra == pytest.approx(1000 * tau(4.0, 4) / 4)
    assert spent(0, 1.0, 1e-5) == 0.0
    assert epsilon([], 1e-5) == 0.0
