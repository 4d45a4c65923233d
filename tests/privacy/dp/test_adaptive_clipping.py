"""Adaptive clipping: the clip finds the quantile, through noise, and the counts are paid for."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fivefold.privacy.dp.adaptive_clipping import (
    SENSITIVITY,
    centred_count,
    count_deviation,
    count_multiplier,
    next_clip,
    update_multiplier,
)
from fivefold.privacy.dp.discrete_gaussian import sample
from fivefold.privacy.dp.events import Event, composed, curve

GRID = 64


@pytest.mark.parametrize("start", [1e-3, 0.5, 200.0])
@pytest.mark.parametrize("quantile", [0.5, 0.8])
@pytest.mark.parametrize("seed", range(5))
def test_the_clip_finds_the_quantile_from_far_below_and_above(start: float, quantile: float, seed: int) -> None:
    """Norms of 400 persons at three sites, log-normal; the count's noise is an exact discrete Gaussian on a grid of 1/64.
    From above, with the quantile 0.8, the clip falls by 4 % a round at most."""
    rng, units, clip = np.random.default_rng(seed), 400, start
    noise = sample((GRID * count_deviation(units)) ** 2, 250, bytes([seed] * 32)) / GRID
    late = []
    for turn in range(250):
        sites = np.split(rng.lognormal(1.0, 0.7, units), (100, 250))
        clip = next_clip(clip, sum(centred_count(s, clip) for s in sites) + noise[turn], units, quantile=quantile)
        late.append(clip)
    wanted = float(np.quantile(np.random.default_rng(99).lognormal(1.0, 0.7, 100_000), quantile))
    assert np.exp(np.mean(np.log(late[-100:]))) == pytest.approx(wanted, rel=0.06)


def test_the_papers_update_by_hand() -> None:
    assert centred_count(np.array([0.5, 1.0, 2.0, np.nan]), 1.0) == 0.0
    assert next_clip(1.0, 0.0, 4, quantile=0.5) == 1.0
    assert next_clip(2.0, 2.0, 4, quantile=0.5, rate=0.2) == pytest.approx(2 * math.exp(-0.1))
    assert next_clip(2.0, -2.0, 4, quantile=0.5, rate=0.2) == pytest.approx(2 * math.exp(0.1))
    assert next_clip(2.0, 1e12, 4, low=0.5, high=8) == pytest.approx(0.5)
    assert next_clip(2.0, -1e12, 4, low=0.5, high=8) == pytest.approx(8.0)


@given(z=st.floats(0.1, 20), factor=st.floats(1.001, 1e4))
def test_update_and_count_together_cost_what_the_round_costs(z: float, factor: float) -> None:
    deviation = SENSITIVITY * z * factor
    parts = [
        Event("discrete_gaussian", update_multiplier(z, deviation)),
        Event("discrete_gaussian", count_multiplier(deviation)),
    ]
    together, whole = composed(curve(e) for e in parts), curve(Event("discrete_gaussian", z))
    assert np.allclose(together, whole, rtol=1e-9)
    assert update_multiplier(z, deviation) >= z


@given(norms=st.lists(st.floats(0, 1e9), max_size=30), one=st.floats(0, 1e9), clip=st.floats(1e-6, 1e6))
def test_one_unit_changes_the_count_by_no_more_than_is_charged(norms: list[float], one: float, clip: float) -> None:
    without, beside = centred_count(np.array(norms), clip), centred_count(np.array([*norms, one]), clip)
    assert abs(beside - without) == SENSITIVITY


@pytest.mark.parametrize(
    ("clip", "count", "units", "more"),
    [(0.0, 0.0, 4, {}), (1.0, math.nan, 4, {}), (1.0, 0.0, 0, {}), (1.0, 0.0, 4, {"quantile": 1.1}),
     (1.0, 0.0, 4, {"rate": 0.0}), (1.0, 0.0, 4, {"low": 2.0}), (1.0, 0.0, 4, {"high": math.inf})],
)  # fmt: skip
def test_values_that_make_no_sense(clip: float, count: float, units: float, more: dict[str, float]) -> None:
    with pytest.raises(ValueError):
        next_clip(clip, count, units, **more)


@pytest.mark.parametrize(("z", "deviation"), [(0.0, 10.0), (math.inf, 10.0), (2.0, 1.0), (2.0, 0.5), (2.0, math.nan)])
def test_a_count_that_costs_the_whole_round_is_refused(z: float, deviation: float) -> None:
    with pytest.raises(ValueError):
        update_multiplier(z, deviation)
