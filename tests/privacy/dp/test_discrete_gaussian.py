"""The sampler is exact: goodness of fit against exact probabilities, its undecided cases forced, huge scales, determinism."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import pytest

from fivefold.privacy.dp import discrete_gaussian as dg

KEY = bytes(range(32))


def weights(variance: float, reach: int) -> npt.NDArray[np.float64]:
    """Exact probabilities of -reach..reach, to double precision."""
    x = np.arange(-reach, reach + 1)
    w = np.exp(-(x**2) / (2 * variance))
    return w / math.fsum(w)


def fits(drawn: npt.NDArray[np.int64], variance: float, *, cell: int = 1) -> float:
    """p-value of the chi-square test over cells of `cell` numbers, tails joined so that each cell expects at least 8."""
    from scipy.stats import chi2

    reach = int(14 * math.sqrt(variance)) + 2
    p = weights(variance, reach)
    at = (np.arange(-reach, reach + 1) + reach) // cell
    expected = np.bincount(at, weights=p) * len(drawn)
    seen = np.bincount((drawn + reach) // cell, minlength=len(expected)).astype(float)
    keep = np.flatnonzero(expected >= 8)
    first, last = keep[0], keep[-1]
    e, s = expected[first : last + 1].copy(), seen[first : last + 1].copy()
    e[0] += expected[:first].sum()
    s[0] += seen[:first].sum()
    e[-1] += expected[last + 1 :].sum()
    s[-1] += seen[last + 1 :].sum()
    return float(chi2.sf(((s - e) ** 2 / e).sum(), len(e) - 1))


@pytest.mark.parametrize(("variance", "cell"), [(Fraction(1, 4), 1), (Fraction(2), 1), (Fraction(37) ** 2, 1), (10**10, 997)])
def test_goodness_of_fit(variance: Fraction, cell: int) -> None:
    drawn = dg.sample(variance, 1_000_000, KEY)
    assert fits(drawn, float(variance), cell=cell) > 1e-3


def test_the_test_of_fit_would_notice_a_small_error() -> None:
    assert fits(dg.sample(Fraction(37) ** 2, 1_000_000, KEY), 37.5**2) < 1e-6
    rounded = np.rint(np.random.default_rng(1).normal(scale=0.7, size=1_000_000)).astype(np.int64)
    assert fits(rounded, 0.49) < 1e-6


@pytest.mark.parametrize("variance", [Fraction(3), Fraction(40) ** 2])
def test_undecided_cells_are_decided_exactly(variance: Fraction) -> None:
    """With 4 bits of the first uniform number nearly every draw needs further bits; the distribution stays the same."""
    table, stream = dg._table(variance, 4), dg.Stream(KEY)
    drawn = np.concatenate([dg._draw(table, stream, 2000) for _ in range(5)])
    assert fits(drawn, float(variance)) > 1e-3


def test_the_guide_and_the_search_agree() -> None:
    table, u = dg._table(Fraction(1000) ** 2), dg.Stream(KEY).words(50_000) >> np.uint64(1)
    k, _ = dg._look_up(table, u, len(u))
    plain, _ = dg._look_up(table, u[:2000], 2000)
    assert np.array_equal(k, np.searchsorted(table.floors, u))
    assert np.array_equal(k[:2000], plain)


def test_the_exponential_is_bracketed_closely() -> None:
    from decimal import Decimal, localcontext

    with localcontext() as context:
        context.prec = 120
        for x in (Fraction(0), Fraction(1, 10**9), Fraction(3, 7), Fraction(1), Fraction(50, 3), Fraction(80)):
            low, high = dg.exp_minus(x, 200)
            true = (-(Decimal(x.numerator) / Decimal(x.denominator))).exp() * Decimal(2) ** 200
            assert low <= true <= high
            assert high - low <= 8


def test_comparison_with_the_exponential_draws_as_many_bits_as_it_needs() -> None:
    low, _ = dg.exp_minus(Fraction(1, 3), 32)
    stream = dg.Stream(KEY)
    outcomes = {dg.below_exp(low, 32, Fraction(1, 3), stream) for _ in range(200)}
    assert outcomes == {True, False}
    assert dg.below_exp(0, 32, Fraction(1, 3), stream)
    assert not dg.below_exp(2**32 - 1, 32, Fraction(1, 3), stream)


def test_the_quick_test_brackets_the_true_exponent() -> None:
    """t of the quick test lies below the true one by less than its slack, at both ends of σ/L and for coarse and fine j."""
    r = np.random.default_rng(3)
    for sd in (16, 31.99, 33, 2**20 + 1, 2.0**45 * 1.99):
        table = dg._table(Fraction(sd) ** 2)
        if table.shift == 0:
            continue
        for _ in range(300):
            k, j = int(r.integers(0, 300)), int(r.integers(0, 2**table.shift))
            fine = j >> (table.shift - 24) if table.shift > 24 else j << (24 - table.shift)
            quick = (((fine * ((k << 25) + fine)) >> 20) * table.constant) >> 28
            true = table.c * Fraction(j, 2**table.shift) * (2 * k + Fraction(j, 2**table.shift)) * 2**32
            assert quick <= true < quick + dg.SLACK
            assert table.constant <= 2**23
            t = min(quick, 2**32 - 1)
            assert abs(int(dg._series(np.array([t]))[0]) - math.exp(-t / 2**32) * 2**32) < 16


@pytest.mark.parametrize("sd", [2.0**33, 2.0**50, 2.0**55.9])
def test_scales_whose_squares_leave_an_int64(sd: float) -> None:
    drawn = dg.sample(Fraction(sd) ** 2, 200_000, KEY)
    z = drawn / sd
    assert abs(z.mean()) < 0.012
    assert abs(z.std() - 1) < 0.008
    assert abs((z**4).mean() - 3) < 0.12
    assert np.abs(z).max() < 7
    assert len(np.unique(drawn & 1023)) == 1024  # the low bits are used as well


def test_one_key_one_noise() -> None:
    a, b = (dg.sample(12345, 5000, KEY) for _ in range(2))
    assert np.array_equal(a, b)
    assert not np.array_equal(a, dg.sample(12345, 5000, bytes(32)))
    assert hash(a.tobytes()) != hash(dg.sample(12346, 5000, KEY).tobytes())
    # Fixed for ever: a site that is asked again after an update of the software must give the same noise.
    assert dg.sample(Fraction(9), 8, KEY).tolist() == PINNED[3]
    assert dg.sample(Fraction(10**6) ** 2, 4, KEY).tolist() == PINNED[10**6]


def test_what_makes_no_sense_is_refused() -> None:
    for variance in (0, -1, Fraction(2) ** 113):
        with pytest.raises(ValueError, match="variance"):
            dg.sample(variance, 3, KEY)
    with pytest.raises(ValueError, match="32 bytes"):
        dg.sample(1, 3, b"short")
    assert dg.sample(1, 0, KEY).shape == (0,)


def test_tiny_and_huge_ends() -> None:
    assert not dg.sample(Fraction(1, 10**4), 1000, KEY).any()
    assert np.abs(dg.sample(dg.LARGEST, 1000, KEY)).max() < 2**60


PINNED = {3: [2, 3, -3, -2, 1, 2, -1, -2], 10**6: [551931, 1100906, -925928, -608171]}
