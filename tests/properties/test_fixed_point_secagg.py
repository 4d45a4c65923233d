"""For all bounds from 1e-300 to 1e300 and all sites: pack, add, unpack is the exact sum to n * 2^-90 of the bound."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fivefold.privacy.fixed_point import pack, ring_for, scale_exponent, unpack, width
from fivefold.privacy.secagg.ring import RING32, add_into, zeros
from fivefold.protocol.questions import Field

BOUNDS = st.builds(lambda m, e: m * 10.0**e, st.floats(1.0, 9.99), st.integers(-300, 299))


@st.composite
def answers(draw: st.DrawFn) -> tuple[float, int, list[list[float]]]:
    """A public bound, the study's sites, and what some of them answer: anything within the bound, down to subnormal numbers."""
    bound, sites = draw(BOUNDS), draw(st.integers(1, 200))
    value = st.floats(-bound, bound) | st.sampled_from([bound, -bound, 0.0, bound / 3, -bound * 2.0**-60])
    rows = draw(st.lists(st.lists(value, min_size=3, max_size=3), min_size=1, max_size=min(sites, 8)))
    return bound, sites, rows


@given(answers())
def test_reals(drawn: tuple[float, int, list[list[float]]]) -> None:
    bound, sites, rows = drawn
    fields = (Field("x", "real", bound, (3,)),)
    acc = zeros(3, ring_for(fields))
    for row in rows:
        add_into(acc, pack({"x": np.array(row)}, fields, sites), ring_for(fields))
    got = unpack(acc, fields, sites, len(rows))["x"]
    allowed = len(rows) * Fraction(2) ** -90 * Fraction(bound)
    for i, value in enumerate(got):
        exact = sum((Fraction(row[i]) for row in rows), Fraction(0))
        rounding = Fraction(float(np.spacing(abs(value)))) / 2
        assert abs(Fraction(float(value)) - exact) <= allowed + rounding


@given(answers())
def test_updates(drawn: tuple[float, int, list[list[float]]]) -> None:
    bound, sites, rows = drawn
    fields = (Field("x", "update", bound, (3,)),)
    acc = zeros(3, RING32)
    for row in rows:
        add_into(acc, pack({"x": np.array(row)}, fields, sites), RING32)
    got = unpack(acc, fields, sites, len(rows))["x"]
    step = Fraction(2) ** -scale_exponent(fields[0], RING32, sites)
    assert step <= Fraction(bound) * sites * Fraction(2) ** -29
    for i, value in enumerate(got):
        exact = sum((Fraction(row[i]) for row in rows), Fraction(0))
        assert abs(Fraction(float(value)) - exact) <= len(rows) * step / 2 + Fraction(float(np.spacing(abs(value))))


@given(st.integers(0, 2**50), st.integers(1, 1000), st.data())
def test_counts(bound: int, sites: int, data: st.DataObject) -> None:
    fields = (Field("persons", "persons", float(max(bound, 1))), Field("cells", "cell", float(max(bound, 1)), (2,)))
    rows = data.draw(st.lists(st.tuples(*[st.integers(0, max(bound, 1))] * 3), min_size=1, max_size=min(sites, 6)))
    acc = zeros(width(fields), ring_for(fields))
    for p, a, b in rows:
        add_into(acc, pack({"persons": np.array(p), "cells": np.array([a, b])}, fields, sites), ring_for(fields))
    got = unpack(acc, fields, sites, len(rows))
    assert int(got["persons"]) == sum(r[0] for r in rows)
    assert got["cells"].tolist() == [sum(r[1] for r in rows), sum(r[2] for r in rows)]


@given(BOUNDS, st.integers(1, 100))
def test_one_value_comes_back_as_itself(bound: float, sites: int) -> None:
    """53 bits below a bound of 127 - log2(sites) bits: what is not smaller than 2^-60 of the bound is kept to the last bit."""
    fields = (Field("x", "real", bound, (4,)),)
    x = np.array([bound, -bound / 3, bound * 1e-5, math.ldexp(bound, -18)])
    assert unpack(pack({"x": x}, fields, sites), fields, sites)["x"].tolist() == x.tolist()
