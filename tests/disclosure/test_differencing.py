"""Differencing over declared cells: textbook pairs are found, harmless ones pass."""

from __future__ import annotations

import numpy as np

from fivefold.disclosure.differencing import isolated, judge
from fivefold.disclosure.tables import KNOWN, MISSING, Count, CountTable

LEVELS = {"sex": ("m", "f"), "smoker": ("0", "1")}
FIVE = 5


def test_a_table_with_enough_in_every_cell_is_permitted() -> None:
    assert judge([Count.of({"sex": "m"}, 10), Count.of({"sex": "f"}, 8), Count.of({}, 18)], LEVELS, FIVE).permitted


def test_a_total_beside_its_complete_cases_tells_the_missing_one() -> None:
    found = judge([Count.of({}, 228), Count.of({"ecog": KNOWN}, 227)], LEVELS, FIVE)
    assert not found.permitted
    assert dict(found.cell) == {"ecog": "missing"}
    assert judge([Count.of({}, 230, 5), Count.of({"ecog": KNOWN}, 225, 5)], LEVELS, FIVE).permitted  # rounded, they do not


def test_overlapping_tables_of_two_releases() -> None:
    first = [Count.of({"sex": "m"}, 20), Count.of({"sex": "f"}, 20)]
    second = [Count.of({"sex": "m", "smoker": "1"}, 17)]
    assert judge(first, LEVELS, FIVE).permitted
    assert judge(second, LEVELS, FIVE).permitted
    assert not judge(first + second, LEVELS, FIVE).permitted  # three men do not smoke


def test_three_releases_that_are_harmless_two_by_two() -> None:
    a = [Count.of({"sex": "m", "smoker": "1"}, 12)]
    b = [Count.of({"sex": "m"}, 30), Count.of({"smoker": MISSING}, 0)]
    c = [Count.of({"sex": "m", "smoker": "0"}, 16), Count.of({"sex": "f"}, 40)]
    d = [Count.of({"sex": MISSING}, 0), Count.of({}, 72)]
    for pair in (a + b, a + d, b + d, c + d, a + c):
        assert judge(pair, LEVELS, FIVE).permitted
    assert not judge(a + b + c, LEVELS, FIVE).permitted  # 30 - 12 is not 16: counts of different people
    assert not judge(b + c + d, LEVELS, FIVE).permitted  # two persons have a sex that is neither


def test_intervals_of_time_with_different_ends() -> None:
    inf = float("inf")
    first = [Count.of({"time": (0.0, 100.0)}, 30), Count.of({"time": (100.0, inf)}, 40)]
    second = [Count.of({"time": (0.0, 101.0)}, 31)]
    assert judge(first, {}, FIVE).permitted
    assert not judge(first + second, {}, FIVE).permitted  # one person between 100 and 101


def test_counts_that_contradict_each_other_are_of_different_people() -> None:
    found = judge([Count.of({"sex": "m"}, 10), Count.of({}, 9)], LEVELS, FIVE)
    assert not found.permitted
    assert "contradict" in found.why


def test_a_whole_number_is_asked_for_where_fractions_would_do() -> None:
    """x + y = y + z = x + z = 2m - 1 has fractions only for some m; and where whole numbers exist they decide."""
    a = np.array([[1, 1, 0], [0, 1, 1], [1, 0, 1]])
    nine = np.array([9, 9, 9])
    assert isolated(a, nine, nine, 4) is not None  # 4.5 each would be enough, but nobody is half a person
    ten = np.array([10, 10, 10])
    assert isolated(a, ten, ten, 5) is None


def test_a_large_table_goes_beside_its_margins_alone() -> None:
    levels = tuple(str(i) for i in range(10))
    table = CountTable("a_by_b", (("a", levels), ("b", levels)), np.full((10, 10), 7.0))
    known = {"a": levels, "b": levels, "sex": ("m", "f")}
    assert judge([Count.of({"a": "3"}, 70), Count.of({"sex": "m"}, 300)], known, FIVE, [table]).permitted
    assert not judge([Count.of({"a": "3", "sex": "m"}, 30)], known, FIVE, [table]).permitted
    low = table.counts.copy()
    low[0, 0] = 3
    assert not judge([], known, FIVE, [CountTable("a_by_b", table.axes, low)]).permitted
    low[0, 0] = np.nan  # one hidden cell: the margin gives it back
    assert not judge([], known, FIVE, [CountTable("a_by_b", table.axes, low)]).permitted
    low[0, 1] = low[1, 0] = low[1, 1] = np.nan
    assert not judge([], known, FIVE, [CountTable("a_by_b", table.axes, low)]).permitted  # unknown counts promise nothing
    assert judge([], known, FIVE, [CountTable("a_by_b", table.axes, low, table.counts)]).permitted


def test_a_dozen_variables_are_solved_in_parts() -> None:
    """Twelve lists of eight levels are 8¹² elementary cells; what shares no variable is solved by itself."""
    levels = {f"v{i}": tuple(str(k) for k in range(8)) for i in range(12)}
    counts = [Count.of({}, 80), *(Count.of({n: MISSING}, 0) for n in levels), Count.of(dict.fromkeys(levels, KNOWN), 80)]
    counts += [Count.of({n: level}, 10) for n in levels for level in levels[n]]
    assert judge(counts, levels, FIVE).permitted
    crossed = [Count.of({"v0": "0", "v1": level}, n) for level, n in zip(levels["v1"], (5, 5, 0, 0, 0, 0, 0, 0), strict=True)]
    assert judge(counts + crossed, levels, FIVE).permitted
    narrow = [Count.of({"v0": "0", "v1": "0"}, 7)]  # three more are somewhere else in this row
    assert judge(counts + narrow, levels, FIVE).permitted is False


def test_parts_of_different_sizes_are_not_of_one_population() -> None:
    counts = [Count.of({n: MISSING}, 0) for n in ("sex", "smoker")]
    counts += [Count.of({"sex": s}, n) for s, n in (("m", 20), ("f", 30))]
    assert judge([*counts, Count.of({"smoker": "0"}, 25), Count.of({"smoker": "1"}, 25)], LEVELS, FIVE).permitted
    assert "contradict" in judge([*counts, Count.of({"smoker": "0"}, 25), Count.of({"smoker": "1"}, 26)], LEVELS, FIVE).why
