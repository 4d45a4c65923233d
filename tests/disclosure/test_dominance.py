"""The rules of dominance, and the bound by which a site judges from its own share alone."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fivefold.disclosure.dominance import may_dominate, nk, p_percent


def test_textbook_cells() -> None:
    assert nk([60, 35, 3, 2])
    assert not nk([40, 30, 20, 10])
    assert p_percent([100, 50, 4, 5])  # the second can tell the first within 9 %
    assert not p_percent([100, 50, 20, 5])
    assert not p_percent([0, 0, 0])


@given(st.lists(st.integers(0, 1000), min_size=2, max_size=8))
def test_where_a_rule_is_broken_the_largest_objects(contributions: list[int]) -> None:
    total, largest = sum(contributions), max(contributions)
    if nk(contributions) or p_percent(contributions):
        assert may_dominate(total, largest)


def test_it_judges_many_cells_at_once() -> None:
    found = may_dominate(np.array([100.0, 100.0]), np.array([44.0, 46.0]))
    assert found.tolist() == [False, True]
