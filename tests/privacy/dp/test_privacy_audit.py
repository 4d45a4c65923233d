"""The audit's bound itself, and what it finds in the mechanism: the promise holds, and planted bugs are caught.

A canary update beyond the largest norm is or is not at one of three sites. What lies on its way is the gate's own: clip,
conditional rounding, three shares of the discrete Gaussian, their sum in the ring, decoded. The guesser knows all other sites'
updates and projects the total on the canary; its threshold is fixed beforehand.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
from scipy.stats import binomtest, norm

from fivefold.privacy.dp.audit import clopper_pearson, epsilon_lower_bound
from fivefold.privacy.dp.events import Event, curve, epsilon_of
from fivefold.privacy.dp.rounding import clipped, conditional
from fivefold.privacy.dp.shares import Sharing, add_share, noisy, share_of
from fivefold.privacy.secagg.ring import RING32, add_into, zeros
from fivefold.protocol.questions import Field, Noise

DELTA, TRIALS, WIDTH, SITES, NORM = 1e-5, 200_000, 2, 3, 0.7
EACH = 0.9995
CANARY = np.array([0.6, -0.8])
Bug = Callable[[Noise], Noise]


@lru_cache
def noise_of(multiplier: float) -> Noise:
    field = Field("update", "update", 1.0, (WIDTH,), sensitivity=NORM)
    found = noisy((field,), Sharing(multiplier, "site", SITES, 0, 0))[0].noise
    assert found is not None
    return found


def totals(multiplier: float, there: bool, seed: int, bug: Bug = lambda n: n, clip: float = NORM) -> np.ndarray:
    """TRIALS noisy totals, projected on the canary, in units of its norm."""
    noise = noise_of(multiplier)
    rng = np.random.default_rng(seed)
    total = zeros(TRIALS * WIDTH, RING32)
    for site in range(SITES):
        update = clipped(np.array(3 * NORM * CANARY if there else np.zeros(WIDTH)), clip) if site == 0 else 0.1 * CANARY[::-1]
        steps = np.ldexp(update, noise.exponent)
        # A few roundings, each for many trials: the rounding is small beside the noise.
        rounded = [conditional(steps, math.ldexp(max(clip, NORM), noise.exponent), rng.random) for _ in range(20)]
        part = zeros(TRIALS * WIDTH, RING32)
        add_share(part, np.tile(np.concatenate(rounded).astype(np.int64), TRIALS // 20), RING32)
        add_share(part, share_of(bug(noise), TRIALS * WIDTH, bytes([seed, site] * 16)), RING32)
        add_into(total, part, RING32)
    decoded = np.ldexp(total.view(np.int32).astype(np.float64), -noise.exponent).reshape(TRIALS, WIDTH)
    return (decoded - 2 * 0.1 * CANARY[::-1]) @ CANARY / NORM


@lru_cache
def threshold(deviation: float) -> float:
    """Where a guesser who expects noise of this deviation would set the threshold, from formulas alone."""
    tried = np.linspace(0, 1 + 5 * deviation, 200)
    hits, false = (np.round(TRIALS * norm.sf(tried, mean, deviation)).astype(int) for mean in (1, 0))
    bounds = [epsilon_lower_bound(int(h), TRIALS, int(f), TRIALS, DELTA, EACH) for h, f in zip(hits, false, strict=True)]
    return float(tried[np.argmax(bounds)])


def audited(multiplier: float, bug: Bug = lambda n: n, clip: float = NORM) -> float:
    """The lower bound on ε, at 99.9 %, by two thresholds that are fixed beforehand: for the noise as promised, and for half of
    it. The confidence is split between the two."""
    there, absent = totals(multiplier, True, 1, bug, clip), totals(multiplier, False, 2, bug, clip)
    bounds = []
    for at in (threshold(multiplier), threshold(multiplier / 2)):
        hits, false = int(np.sum(there > at)), int(np.sum(absent > at))
        bounds.append(epsilon_lower_bound(hits, TRIALS, false, TRIALS, DELTA, EACH))
    return max(bounds)


@pytest.mark.parametrize("multiplier", [1.0, 2.0, 4.0])
def test_the_bound_never_exceeds_the_promise_and_planted_bugs_are_caught(multiplier: float) -> None:
    promised = epsilon_of(curve(Event("discrete_gaussian", multiplier)), DELTA)
    honest = audited(multiplier)
    halved = audited(multiplier, lambda noise: replace(noise, share=noise.share / 2))
    unclipped = audited(multiplier, clip=3 * NORM)
    print(
        f"z = {multiplier:g}: promised ε = {promised:.2f}; audit at least {honest:.2f}; "
        f"with half the noise {halved:.2f}; without the clip {unclipped:.2f}"
    )
    assert 0.25 * promised < honest <= promised
    assert halved > promised
    assert unclipped > promised


@pytest.mark.parametrize(("hits", "trials"), [(0, 10), (10, 10), (3, 40), (977, 1000)])
def test_clopper_pearson_is_that_of_scipy(hits: int, trials: int) -> None:
    exact = binomtest(hits, trials).proportion_ci(0.95, method="exact")
    assert clopper_pearson(hits, trials, 0.025) == pytest.approx((exact.low, exact.high))


def test_the_bound_covers_randomised_response() -> None:
    """A mechanism whose ε is known exactly: the truth with probability e^ε/(1 + e^ε). Of 400 audits at 95 % few exceed it."""
    epsilon, rng, trials = 1.2, np.random.default_rng(3), 500
    truth = math.exp(epsilon) / (1 + math.exp(epsilon))
    hits, false = rng.binomial(trials, truth, 400), rng.binomial(trials, 1 - truth, 400)
    found = [epsilon_lower_bound(int(h), trials, int(f), trials, 0.0) for h, f in zip(hits, false, strict=True)]
    assert np.mean(np.array(found) > epsilon) <= 0.05
    assert np.mean(found) > 0.8 * epsilon


def test_both_sides_count_and_nothing_shows_nothing() -> None:
    assert epsilon_lower_bound(50, 100, 50, 100, 0.0) == 0.0
    assert epsilon_lower_bound(0, 100, 100, 100, 0.0) == 0.0
    often_missed = epsilon_lower_bound(1000, 1000, 900, 1000, 0.0)  # a miss tells more than a hit
    assert often_missed > 2.5
    assert math.isfinite(epsilon_lower_bound(10**6, 10**6, 0, 10**6, 1e-9))


@pytest.mark.parametrize(
    "wrong", [(-1, 10, 0, 10, 0.0, 0.9), (11, 10, 0, 10, 0.0, 0.9), (0, 0, 0, 1, 0.0, 0.9),
              (1, 2, 1, 2, 1.0, 0.9), (1, 2, 1, 2, 0.0, 1.0)],
)  # fmt: skip
def test_counts_that_make_no_sense(wrong: tuple[int, int, int, int, float, float]) -> None:
    with pytest.raises(ValueError):
        epsilon_lower_bound(*wrong)
