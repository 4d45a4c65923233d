"""The class rule: over all exact sums on a data asset, each class of sites by membership is a crowd."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fivefold.errors import DifferencingRefused
from fivefold.site.class_rule import Answered, ClassRule, check, classes

SITES = tuple(f"{i:064x}" for i in range(10))


def sites(*numbers: int) -> frozenset[str]:
    return frozenset(SITES[i] for i in numbers)


ALL = sites(*range(10))
NOBODY: frozenset[str] = frozenset()


def judge(
    history: list[frozenset[str]], new: frozenset[str], least: int = 2, c: int = 0, permitted: frozenset[str] = NOBODY
) -> None:
    check([Answered(s, permitted & s) for s in history], new, minimum_difference=least, colluders=c, totals_permitted=permitted)


def test_one_site_less_is_that_sites_own_total() -> None:
    judge([ALL], ALL)
    with pytest.raises(DifferencingRefused) as caught:
        judge([ALL], ALL - sites(3))
    assert caught.value.rule == "class_rule"


def test_a_class_of_one_by_three_survivor_sets() -> None:
    """Each two of the sets differ by two sites or more; the three together single out sites 0, 1 and 2."""
    first, second, third = ALL, ALL - sites(0, 1), ALL - sites(1, 2)
    judge([first], second)
    judge([first], third)
    with pytest.raises(DifferencingRefused):
        judge([first, second], third)


def test_order_and_repetition_do_not_matter() -> None:
    sets = [ALL, ALL - sites(0, 1), ALL - sites(0, 1, 2, 3)]
    for order in ([0, 1, 2], [2, 1, 0], [1, 2, 0]):
        judge([sets[i] for i in order[:2]] * 3, sets[order[2]])


def test_minimum_difference_and_colluders_add_up() -> None:
    judge([ALL], ALL - sites(0, 1, 2), least=3)
    with pytest.raises(DifferencingRefused):
        judge([ALL], ALL - sites(0, 1, 2), least=3, c=1)
    judge([ALL], ALL - sites(0, 1, 2, 3), least=3, c=1)


def test_a_class_of_one_needs_permission_whatever_the_minimum_says() -> None:
    with pytest.raises(DifferencingRefused):
        judge([ALL], ALL - sites(3), least=1)


def test_permission_of_every_site_of_the_class() -> None:
    judge([ALL], ALL - sites(3), permitted=sites(3))
    with pytest.raises(DifferencingRefused):
        judge([ALL], ALL - sites(3), permitted=ALL - sites(3))
    with pytest.raises(DifferencingRefused):
        judge([ALL], ALL - sites(3, 4), least=3, permitted=sites(3))
    judge([ALL], ALL - sites(3, 4), least=3, permitted=sites(3, 4))


def test_a_permission_covers_the_sums_for_which_it_was_given() -> None:
    """A site that refused while it was in a sum is not shown by a later permission, nor the other way round."""
    refused_then = [Answered(ALL, NOBODY)]
    with pytest.raises(DifferencingRefused):
        check(refused_then, ALL - sites(3), minimum_difference=2, colluders=0, totals_permitted=ALL)
    dropped = [Answered(ALL, sites(3))]
    check(dropped, ALL - sites(3), minimum_difference=2, colluders=0, totals_permitted=NOBODY)
    back = [*dropped, Answered(ALL - sites(3), NOBODY)]
    with pytest.raises(DifferencingRefused):
        check(back, ALL, minimum_difference=2, colluders=0, totals_permitted=NOBODY)


def test_sites_in_all_sets_and_sites_in_none() -> None:
    found = classes([sites(0, 1, 2), sites(0, 1, 3)], roster=sites(0, 1, 2, 3, 4))
    assert found == {
        (True, True): sites(0, 1),
        (True, False): sites(2),
        (False, True): sites(3),
        (False, False): sites(4),
    }
    judge([], sites(0, 1, 2))  # the roster's other sites are in no sum
    with pytest.raises(DifferencingRefused):
        judge([], sites(0))
    with pytest.raises(DifferencingRefused):
        judge([sites(0, 1, 2), sites(0, 3, 4)], sites(0, 1, 2, 3, 4))  # site 0 is in every set, alone


@given(st.lists(st.sets(st.integers(0, 6), min_size=1), min_size=1, max_size=5))
def test_no_combination_of_admitted_sums_shows_fewer_than_two_sites(drawn: list[set[int]]) -> None:
    """The rule's promise, by linear algebra: no site's own total lies in the span of the sums that the rule admits."""
    admitted: list[frozenset[str]] = []
    for numbers in drawn:
        try:
            judge(admitted, sites(*numbers))
        except DifferencingRefused:
            continue
        admitted.append(sites(*numbers))
    if not admitted:
        return
    matrix = np.array([[site in s for site in SITES[:7]] for s in admitted], dtype=float)
    rank = np.linalg.matrix_rank(matrix)
    for j in range(7):
        unit = np.eye(7)[j]
        assert np.linalg.matrix_rank(np.vstack([matrix, unit])) == rank + 1
    for i, j in combinations(range(7), 2):  # nor the difference to any other site
        if any((SITES[i] in s) != (SITES[j] in s) for s in admitted):
            between = np.eye(7)[i] - np.eye(7)[j]
            assert np.linalg.matrix_rank(np.vstack([matrix, between])) == rank + 1


# ---- on disk ----------------------------------------------------------------------------------------------------------
def rule(folder: Path) -> ClassRule:
    return ClassRule(folder / "asset.journal", minimum_difference=2, colluders=0)


def test_sets_of_every_run_and_study_count(tmp_path: Path) -> None:
    rule(tmp_path).admit(ALL, NOBODY, study="one", run="a", round=1)
    rule(tmp_path).admit(ALL, NOBODY, study="one", run="a", round=2)
    rule(tmp_path).admit(ALL - sites(0, 1), NOBODY, study="two", run="b", round=1)
    assert len(list(rule(tmp_path).history())) == 2
    with pytest.raises(DifferencingRefused):
        rule(tmp_path).admit(ALL - sites(1, 2), NOBODY, study="three", run="c", round=1)
    with pytest.raises(DifferencingRefused):
        rule(tmp_path).consider(ALL - sites(1, 2), NOBODY)
    assert len(list(rule(tmp_path).history())) == 2


def test_considering_leaves_no_trace(tmp_path: Path) -> None:
    rule(tmp_path).consider(ALL, NOBODY)
    assert not list(tmp_path.iterdir())


def test_torn_record_is_not_a_set(tmp_path: Path) -> None:
    rule(tmp_path).admit(ALL, NOBODY, study="one", run="a", round=1)
    path = tmp_path / "asset.journal"
    whole = path.read_bytes()
    path.write_bytes(whole + whole[: len(whole) // 2])
    assert list(rule(tmp_path).history()) == [Answered(ALL)]
    rule(tmp_path).admit(ALL - sites(0, 1), NOBODY, study="one", run="a", round=2)
    assert len(list(rule(tmp_path).history())) == 2


def _admit(folder: str, number: int) -> bool:
    try:
        rule(Path(folder)).admit(ALL - sites(number), NOBODY, study="one", run=str(number), round=1)
    except DifferencingRefused:
        return False
    return True


def test_two_runs_at_once_are_judged_one_after_the_other(tmp_path: Path) -> None:
    """Eight runs each want another nine of the ten sites: only the first may have them."""
    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(_admit, [str(tmp_path)] * 8, range(8))) == 1
