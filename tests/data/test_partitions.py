"""Partitions: what a client holds follows from the seed and its number, and spreads as its law says."""

from __future__ import annotations

import numpy as np
import pytest

from fivefold.data.partitions import Partition, chance, drawn, holding, parse
from fivefold.errors import SimulationInvalid

PRIOR = np.array([0.5, 0.3, 0.2])


def many(text: str, clients: int = 400, rows: int = 50) -> np.ndarray:
    return np.array([holding(parse(text), rows, PRIOR, chance(1, "client", i)) for i in range(clients)])


@pytest.mark.parametrize("text", ["iid", "dirichlet:0.3", "label:2", "quantity:0.5", "natural", "natural:sex"])
def test_a_partition_is_written_as_it_is_read(text: str) -> None:
    assert str(parse(text)) == text


@pytest.mark.parametrize("text", ["", "nat", "dirichlet:x", "dirichlet:-1", "label:0", "label:1.5", "iid:3", "quantity:nan"])
def test_what_is_no_partition_is_refused_with_examples(text: str) -> None:
    with pytest.raises(SimulationInvalid) as caught:
        parse(text)
    assert "dirichlet:0.3" in caught.value.hint


def test_the_same_client_holds_the_same_and_another_seed_another() -> None:
    one, again, other = (holding(parse("dirichlet:0.3"), 50, PRIOR, chance(s, "client", 7)) for s in (1, 1, 2))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)


def test_clients_differ_by_outcome_as_much_as_the_concentration_says_and_agree_on_average() -> None:
    spread = {}
    for concentration in (0.3, 3.0, 300.0):
        share = many(f"dirichlet:{concentration}") / 50
        assert np.abs(share.mean(axis=0) - PRIOR).max() < 0.08
        spread[concentration] = share.var(axis=0).sum()
        # The variance of a Dirichlet share, and that of the draw of 50 rows from it.
        exact = (PRIOR * (1 - PRIOR)).sum() * (1 / (concentration + 1) * (1 - 1 / 50) + 1 / 50)
        assert spread[concentration] == pytest.approx(exact, rel=0.15)


def test_so_many_outcomes_and_no_more() -> None:
    held = many("label:2")
    assert (np.count_nonzero(held, axis=1) <= 2).all()
    assert (held.sum(axis=1) == 50).all()
    assert (held.sum(axis=0) > 0).all()
    assert (np.count_nonzero(many("label:9"), axis=1) <= 3).all()


def test_sizes_differ_and_outcomes_do_not() -> None:
    sizes = many("quantity:0.5").sum(axis=1)
    assert sizes.min() >= 1
    assert sizes.mean() == pytest.approx(50, rel=0.2)
    assert sizes.std() == pytest.approx(50 / np.sqrt(0.5), rel=0.25)


def test_a_concentration_near_nothing_still_gives_a_client_its_rows() -> None:
    assert (many("dirichlet:0.001", 50).sum(axis=1) == 50).all()


def test_rows_are_drawn_without_repeats_where_there_are_enough() -> None:
    assert np.array_equal(drawn(9, 9, chance(1)), np.arange(9))
    assert len(drawn(20, 9, chance(1))) == 20


def test_a_natural_partition_names_its_variable() -> None:
    assert parse("natural:sex") == Partition("natural", variable="sex")
