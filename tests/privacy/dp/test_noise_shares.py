"""Shares: enough noise after drop-outs and collusion, the rounded sensitivity, room in the ring, and refusals."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fivefold.errors import OutOfBounds, StudyInvalid
from fivefold.privacy.dp import rounding
from fivefold.privacy.dp.shares import Sharing, add_share, deviation, noisy, share_of
from fivefold.privacy.fixed_point import pack, ring_for, unpack, width
from fivefold.privacy.secagg.ring import RING32, RING128, add_into, zeros
from fivefold.protocol.questions import Field

FIVE = Sharing(1.5, "person", 5, 1, 1)
FIELDS = (
    Field("persons", "persons", 1e4, (), 1.0),
    Field("cells", "cell", 1e4, (3,), math.sqrt(2)),
    Field("sums", "real", 1e9, (4,), 250.0),
)


def test_variances_follow_the_formula() -> None:
    for f in noisy(FIELDS, FIVE):
        assert f.noise is not None
        assert f.sensitivity is not None
        # Three of five are certain to be honest and present: their noise alone has deviation z·√k·Δ.
        assert deviation(f.noise, 3) == pytest.approx(1.5 * math.sqrt(3) * f.sensitivity, rel=1e-6)
        assert deviation(f.noise, 3) >= 1.5 * math.sqrt(3) * f.sensitivity
        assert f.noise.share >= 2**30
        assert f.noise.share == pytest.approx(1.5 * math.sqrt(3 / 3) * f.noise.sensitivity)


def test_a_field_without_sensitivity_gets_no_noise_and_none_else_does() -> None:
    fields = (*FIELDS, Field("other", "real", 1.0))
    assert all(f.noise is None for f in noisy(fields, FIVE))


@settings(max_examples=60, deadline=None)
@given(
    bound=st.floats(1e-250, 1e250),
    ratio=st.floats(1e-6, 1.0),
    z=st.floats(0.1, 50.0),
    size=st.integers(1, 40),
    kind=st.sampled_from(["real", "update"]),
    unit=st.sampled_from(["person", "site"]),
)
def test_totals_come_back_with_their_noise_and_nothing_wraps(
    bound: float, ratio: float, z: float, size: int, kind: str, unit: str
) -> None:
    sites = 5
    sharing = Sharing(z, unit, sites, 1, 0)
    fields = noisy((Field("x", kind, bound, (size,), bound * ratio),), sharing)
    ring, noise = ring_for(fields), fields[0].noise
    assert noise is not None
    assert sites * noise.limit + noise.allowance < 2 ** (ring.bits - 1)
    top = bound if unit == "person" else bound * ratio / math.sqrt(size)
    total, exact, drawn = zeros(width(fields), ring), np.zeros(size), np.zeros(size, dtype=object)
    for site in range(sites):
        values = np.linspace(-top, top, size) * (-1) ** site
        vector, share = pack({"x": values}, fields, sites), share_of(noise, size, bytes([site]) * 32)
        add_share(vector, share, ring)
        add_into(total, vector, ring)
        exact += values
        drawn += share.astype(object)
    opened = unpack(total, fields, sites)["x"]
    expected = exact + np.array([math.ldexp(float(d), -noise.exponent) for d in drawn])
    step = math.ldexp(1.0, -noise.exponent)
    assert np.all(np.abs(opened - expected) <= sites * step + 1e-12 * np.abs(expected).max())


def test_counts_may_come_back_negative_and_are_whole() -> None:
    fields = noisy((Field("n", "count", 100.0, (2000,), 1.0),), Sharing(3.0, "person", 3, 0, 0))
    noise = fields[0].noise
    assert noise is not None
    vector = pack({"n": np.zeros(2000, dtype=np.int64)}, fields, 3)
    add_share(vector, share_of(noise, 2000, bytes(32)), RING128)
    counts = unpack(vector, fields, 3)["n"]
    assert counts.dtype == np.int64
    assert counts.min() < 0 < counts.max()
    assert counts.std() == pytest.approx(3.0 / math.sqrt(3), rel=0.05)


def test_negative_noise_wraps_rightly_in_both_rings() -> None:
    for ring in (RING32, RING128):
        vector = zeros(3, ring)
        add_share(vector, np.array([5, -7, 0]), ring)
        add_share(vector, np.array([-6, 7, 0]), ring)
        assert not vector[1:].any()
        assert int.from_bytes(vector[:1].tobytes(), "little") == 2**ring.bits - 1


def test_bounds_are_checked_before_noise() -> None:
    fields = noisy(FIELDS, FIVE)
    with pytest.raises(OutOfBounds):
        pack({"persons": np.array(10_001), "cells": np.zeros(3), "sums": np.zeros(4)}, fields, 5)


def test_a_share_below_four_steps_is_refused() -> None:
    coarse = (Field("w", "update", 1.0, (10,), 1e-9),)
    with pytest.raises(StudyInvalid, match="4 steps"):
        noisy(coarse, FIVE)
    with pytest.raises(StudyInvalid, match="no noise is certain"):
        noisy(FIELDS, replace(FIVE, dropouts=4))
    with pytest.raises(StudyInvalid, match="not above 0"):
        noisy((Field("w", "real", 1.0, (), 0.0),), FIVE)


@settings(max_examples=50, deadline=None)
@given(norm=st.floats(0.0, 1e6), size=st.integers(1, 60), seed=st.integers(0, 2**32))
def test_conditional_rounding_keeps_its_bound_and_has_no_bias(norm: float, size: int, seed: int) -> None:
    r = np.random.default_rng(seed)
    x = r.normal(size=size)
    x = rounding.clipped(x * norm, norm)
    limit = rounding.after_conditional(norm, size)
    y = rounding.conditional(x, norm, r.random)
    assert np.array_equal(y, np.rint(y))
    assert np.linalg.norm(y) <= limit
    assert np.abs(y - x).max() <= 1
    assert limit <= (norm + math.sqrt(size)) * rounding.MARGIN


def test_conditional_rounding_gives_the_value_on_average() -> None:
    r, x = np.random.default_rng(1), np.array([0.25, -1.5, 3.9])
    mean = np.mean([rounding.conditional(x, 10.0, r.random) for _ in range(4000)], axis=0)
    assert np.abs(mean - x).max() < 0.03


def test_where_no_rounding_fits_it_goes_towards_zero() -> None:
    x = np.full(100, 0.999)
    stubborn = rounding.conditional(x, 0.001, lambda n: np.zeros(n))
    assert not stubborn.any()


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32), size=st.integers(1, 50), move=st.floats(0.0, 100.0))
def test_sensitivity_after_rounding_to_nearest(seed: int, size: int, move: float) -> None:
    r = np.random.default_rng(seed)
    x = r.normal(scale=100, size=size)
    y = x + rounding.clipped(r.normal(size=size), move)
    moved = np.linalg.norm(rounding.nearest(x) - rounding.nearest(y))
    assert moved <= rounding.after_nearest(float(np.linalg.norm(x - y)), size)


def test_clipping() -> None:
    x = np.array([3.0, 4.0])
    assert rounding.clipped(x, 5.0) is x
    assert np.linalg.norm(rounding.clipped(x, 1.0)) <= 1.0
    assert rounding.clipped(x, 1.0) == pytest.approx([0.6, 0.8])
    huge = rounding.clipped(np.array([1e300, 1e300]), 1.0)
    assert huge == pytest.approx([math.sqrt(0.5)] * 2)
    assert not rounding.clipped(np.zeros(3), 1.0).any()


def test_a_share_is_what_the_study_fixes() -> None:
    noise = noisy(FIELDS, FIVE)[2].noise
    assert noise is not None
    assert Fraction(noise.share) ** 2 > 0
    assert np.array_equal(share_of(noise, 4, bytes(32)), share_of(noise, 4, bytes(32)))
