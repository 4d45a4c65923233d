"""Small linear algebra: the inverse whatever the units, the dependent column by its place; tails as SciPy has them."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from fivefold.algorithms.numerics import (
    Dependence,
    chi_square_tail,
    critical,
    inverse_information,
    packed,
    two_sided,
    unpacked,
)


@given(st.integers(1, 8), st.integers(0, 10_000), st.integers(0, 120))
@settings(max_examples=100, deadline=None)
def test_the_inverse_does_not_mind_units(p: int, seed: int, spread: int) -> None:
    rng = np.random.default_rng(seed)
    units = 10.0 ** rng.uniform(-spread / 40, spread / 40, p)
    x = rng.normal(size=(60, p))
    inverse = inverse_information((x * units).T @ (x * units))
    assert not isinstance(inverse, Dependence)
    np.testing.assert_allclose(inverse * np.outer(units, units), np.linalg.inv(x.T @ x), rtol=1e-8, atol=1e-12)


@given(st.integers(3, 8), st.integers(0, 10_000))
@settings(max_examples=100, deadline=None)
def test_a_dependent_column_is_found_with_its_partners(p: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(80, p))
    x[:, -1] = 2 * x[:, 0] - x[:, 1]
    assert inverse_information(x.T @ x) == Dependence(p - 1, (0, 1))


def test_columns_that_do_not_vary() -> None:
    assert inverse_information(np.diag([1.0, 0.0, 1.0])) == Dependence(1, ())
    assert inverse_information(np.zeros((2, 2))) == Dependence(0, ())
    assert inverse_information(np.array([[np.nan]])) == Dependence(0, ())


@given(st.integers(1, 7))
def test_triangles_come_back(p: int) -> None:
    square = np.arange(p * p, dtype=float).reshape(p, p)
    square = square + square.T
    np.testing.assert_array_equal(unpacked(packed(square), p), square)
    several = np.stack([square, 2 * square])
    np.testing.assert_array_equal(unpacked(packed(several), p), several)


def test_tails_and_critical_values() -> None:
    z = np.array([-3.0, 0.0, 1.5, 40.0])
    np.testing.assert_allclose(two_sided(z), 2 * scipy.stats.norm.sf(np.abs(z)), rtol=1e-12)
    np.testing.assert_allclose(two_sided(z, 7), 2 * scipy.stats.t.sf(np.abs(z), 7), rtol=1e-10)
    assert critical(0.95) == pytest.approx(scipy.stats.norm.ppf(0.975), rel=1e-12)
    assert critical(0.9, 11) == pytest.approx(scipy.stats.t.ppf(0.95, 11), rel=1e-12)
    np.testing.assert_allclose(chi_square_tail([3.0, 50.0], [4, 2]), scipy.stats.chi2.sf([3, 50], [4, 2]), rtol=1e-12)
    assert chi_square_tail(3.0, 0) == 1.0
