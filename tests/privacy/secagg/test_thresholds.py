"""The promise in numbers: defaults, what they tolerate, and combinations that cannot be kept."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from fivefold.errors import StudyInvalid
from fivefold.privacy.secagg.thresholds import Thresholds, default_threshold


@pytest.mark.parametrize(("n", "t"), [(3, 3), (4, 3), (5, 4), (6, 5), (7, 5), (9, 7), (10, 7), (40, 27), (100, 67)])
def test_default_threshold(n: int, t: int) -> None:
    assert default_threshold(n) == t
    assert Thresholds(n).t == t


def test_three_sites_bear_no_drop_out_and_it_is_said() -> None:
    assert Thresholds(3).dropouts_tolerated == 0
    assert "any of the 3 sites drops out" in Thresholds(3).sentences()[2]
    assert Thresholds(5).dropouts_tolerated == 1
    assert "up to 1 site of 5" in Thresholds(5).sentences()[2]
    assert Thresholds(40).dropouts_tolerated == 13


def test_survivors_needed_is_the_largest_of_three() -> None:
    assert Thresholds(10).survivors_needed == 7
    assert Thresholds(10, minimum_sites=9).survivors_needed == 9
    assert Thresholds(10, threshold=6, colluders=1, honest=2).survivors_needed == 6
    assert Thresholds(10, threshold=6, minimum_sites=3, colluders=2, honest=4, adversary="curious").survivors_needed == 6
    assert Thresholds(10, minimum_sites=9).dropouts_tolerated == 1


def test_colluders_tolerated() -> None:
    assert Thresholds(10).colluders_tolerated == 3  # min(2·7 - 10 - 1, 7 - 2)
    assert Thresholds(10, adversary="curious").colluders_tolerated == 5  # 7 - 2
    assert Thresholds(3).colluders_tolerated == 1
    assert Thresholds(10, threshold=6).colluders_tolerated == 1
    assert "alone" in Thresholds(4, threshold=3, honest=3).sentences()[1]
    assert "together with up to 3 sites" in Thresholds(10).sentences()[1]


def test_what_stands_keeps_the_inequalities_of_the_protocol() -> None:
    """Everything that is accepted: no c colluders reach t, and an active coordinator cannot get both shares of one site."""
    accepted = 0
    for n, t, c, h, adversary in product(range(3, 10), range(2, 10), range(4), range(2, 5), ("active", "curious")):
        try:
            thresholds = Thresholds(n, t, 3, c, h, adversary)
        except StudyInvalid:
            continue
        accepted += 1
        assert t <= n
        assert c + h <= t
        assert adversary == "curious" or 2 * t > n + c
        assert thresholds.survivors_needed <= n
        assert 0 <= thresholds.dropouts_tolerated == n - max(t, 3)
    assert accepted > 300


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"n": 5, "minimum_sites": 2}, "subtraction"),
        ({"n": 2}, "2 sites"),
        ({"n": 5, "minimum_sites": 6}, "at least 6"),
        ({"n": 5, "honest": 1}, "honest"),
        ({"n": 5, "colluders": -1}, "colluders"),
        ({"n": 5, "threshold": 6}, "threshold of 6"),
        ({"n": 5, "threshold": 1}, "threshold of 1"),
        ({"n": 6, "threshold": 3}, "lies about drop-outs"),
        ({"n": 5, "colluders": 4}, "more than the study's 5"),
        ({"n": 10, "colluders": 4}, "4 colluders"),
        ({"n": 10, "threshold": 3, "honest": 4, "adversary": "curious"}, "not withstood"),
    ],
)
def test_promises_that_cannot_be_kept_are_refused(arguments: dict[str, Any], word: str) -> None:
    with pytest.raises(StudyInvalid, match=word) as caught:
        Thresholds(**arguments)
    assert caught.value.hint


def test_the_advice_is_right() -> None:
    with pytest.raises(StudyInvalid) as caught:
        Thresholds(10, colluders=4)
    assert "at least 8" in caught.value.hint
    assert Thresholds(10, threshold=8, colluders=4).colluders_tolerated == 5
