"""Robust means under poisoning: the plain mean goes wherever one liar wants, these do not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from fivefold.algorithms.robust import bulyan, coordinate_median, krum, multi_krum, trimmed_mean

N, FALSE, SIZE = 11, 2, 40
MEANS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "median": coordinate_median,
    "trimmed": lambda u: trimmed_mean(u, FALSE),
    "krum": lambda u: krum(u, FALSE),
    "multi_krum": lambda u: multi_krum(u, FALSE, N - FALSE),
    "bulyan": lambda u: bulyan(u, FALSE),
}
LIES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "sign flipped and scaled": lambda honest: np.tile(-50 * honest.mean(axis=0), (FALSE, 1)),
    "noise": lambda honest: np.random.default_rng(9).normal(0, 1e3, (FALSE, SIZE)),
    "one vast coordinate": lambda honest: honest[:FALSE] + 1e6 * np.eye(SIZE)[0],
    "one against the other": lambda honest: np.outer([1e9, -1e9], np.ones(SIZE)),
}


def honest() -> np.ndarray:
    return 1.0 + np.random.default_rng(5).normal(0, 0.1, (N - FALSE, SIZE))


@pytest.mark.parametrize("name", MEANS)
@pytest.mark.parametrize("lie", LIES)
def test_a_minority_of_false_updates_moves_no_robust_mean(name: str, lie: str) -> None:
    true = honest()
    poisoned = np.vstack([LIES[lie](true), true])
    found = MEANS[name](poisoned)
    # Each coordinate stays within what honest sites sent.
    assert np.all(found >= true.min(axis=0) - 1e-12)
    assert np.all(found <= true.max(axis=0) + 1e-12)
    order = np.random.default_rng(1).permutation(N)
    np.testing.assert_allclose(MEANS[name](poisoned[order]), found, rtol=1e-12)


def test_the_plain_mean_goes_where_one_liar_wants() -> None:
    true = honest()
    assert np.abs(np.vstack([LIES["sign flipped and scaled"](true), true]).mean(axis=0) - 1).min() > 5


def test_krum_returns_an_update_that_was_sent_and_multi_krum_leaves_the_false_ones_out() -> None:
    true = honest()
    poisoned = np.vstack([LIES["noise"](true), true])
    assert any(np.array_equal(krum(poisoned, FALSE), u) for u in true)
    np.testing.assert_allclose(multi_krum(poisoned, FALSE, N - FALSE), true.mean(axis=0), rtol=1e-12)


def test_small_cases_by_hand() -> None:
    values = np.array([[0.0], [1.0], [2.2], [3.4], [100.0]])
    assert coordinate_median(values) == [2.2]
    assert trimmed_mean(values, 1)[0] == pytest.approx(2.2)
    # n - f - 2 = 2 neighbours: scores 5.84, 2.44, 2.88, …
    assert krum(values, 1) == [1.0]
    # Seven sites, f = 1: Krum takes five; of these the three nearest to the median.
    assert bulyan(np.array([[0.0], [1.0], [2.0], [3.0], [4.0], [5.0], [1e6]]), 1)[0] == pytest.approx(2.0, abs=1.0)


@pytest.mark.parametrize(
    "call",
    [
        lambda: trimmed_mean(np.ones((4, 2)), 2),
        lambda: krum(np.ones((6, 2)), 2),
        lambda: multi_krum(np.ones((7, 2)), 2, 6),
        lambda: bulyan(np.ones((10, 2)), 2),
        lambda: coordinate_median(np.array([[np.nan]])),
    ],
)
def test_too_few_sites_for_the_promise_are_refused(call: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=r"needed|kept|finite"):
        call()
