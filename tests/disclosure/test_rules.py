"""Small totals: what is hidden stays hidden, also from someone who knows every margin."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fivefold.disclosure.rules import hidden, screen, suppressed
from fivefold.errors import TooFewPersons
from fivefold.protocol.questions import Field

tables = st.one_of(
    arrays(np.int64, st.tuples(st.integers(1, 7)), elements=st.integers(0, 12)),
    arrays(np.int64, st.tuples(st.integers(1, 5), st.integers(1, 5)), elements=st.integers(0, 12)),
    arrays(np.int64, st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3)), elements=st.integers(0, 12)),
)


def test_too_few_persons_end_in_a_sentence_without_the_number() -> None:
    fields = (Field("persons", "persons", 100.0), Field("rows", "count", 100.0))
    with pytest.raises(TooFewPersons) as caught:
        screen({"persons": np.asarray(3), "rows": np.asarray(3)}, fields, 5)
    assert "3" not in caught.value.message
    assert "5" in caught.value.message
    with pytest.raises(TooFewPersons):
        screen({"persons": np.asarray(0), "rows": np.asarray(0)}, fields, 5)


def test_each_of_several_totals_of_persons_has_to_reach_the_minimum() -> None:
    with pytest.raises(TooFewPersons):
        screen({"persons": np.array([90, 4])}, (Field("persons", "persons", 100.0, (2,)),), 5)


def test_the_minimum_itself_is_enough_and_other_totals_pass_unchanged() -> None:
    fields = (
        Field("persons", "persons", 9.0),
        Field("rows", "count", 9.0),
        Field("sum", "real", 9.0),
        Field("one", "cell", 9.0),
    )
    totals = {"persons": np.asarray(5), "rows": np.asarray(1), "sum": np.asarray(2.0), "one": np.asarray(4)}
    out = screen(totals, fields, 5)
    assert out["persons"] == 5
    assert out["rows"] == 1
    assert out["sum"] == 2.0
    assert np.isnan(out["one"])


def test_zeros_stay_and_large_cells_stay() -> None:
    assert suppressed([0, 20, 30], 5).tolist() == [0, 20, 30]
    assert suppressed([0, 0], 5).tolist() == [0, 0]


def test_one_small_cell_takes_the_next_smallest_with_it() -> None:
    assert np.isnan(suppressed([3, 20, 30, 0], 5)).tolist() == [True, True, False, False]


def test_two_small_cells_whose_sum_is_small_take_a_third() -> None:
    assert np.isnan(suppressed([1, 1, 30, 40], 5)).tolist() == [True, True, True, False]
    assert np.isnan(suppressed([3, 2, 30, 40], 5)).tolist() == [True, True, False, False]


def test_a_two_way_table_cannot_be_solved_from_its_margins() -> None:
    mask = hidden([[2, 30, 40], [25, 35, 45], [50, 60, 70]], 5)
    assert mask[0, 0]
    assert mask.sum() == 4
    assert ((mask.sum(axis=0) == 0) | (mask.sum(axis=0) >= 2)).all()
    assert ((mask.sum(axis=1) == 0) | (mask.sum(axis=1) >= 2)).all()


@given(tables, st.integers(2, 6))
@settings(max_examples=200, deadline=None)
def test_in_every_line_with_a_hidden_cell_margins_tell_no_cell_and_no_small_sum(counts: np.ndarray, minimum: int) -> None:
    mask = hidden(counts, minimum)
    assert mask[(counts > 0) & (counts < minimum)].all()
    for axis in range(counts.ndim):
        lines = np.moveaxis(counts, axis, -1).reshape(-1, counts.shape[axis])
        masks = np.moveaxis(mask, axis, -1).reshape(-1, counts.shape[axis])
        for line, shown in zip(lines, masks, strict=True):
            if shown.any() and not shown.all():
                assert shown.sum() >= 2
                assert line[shown].sum() >= minimum
    assert mask.any() == bool(((counts > 0) & (counts < minimum)).any())


@given(tables)
@settings(max_examples=100, deadline=None)
def test_screening_twice_is_screening_once(counts: np.ndarray) -> None:
    field = Field("table", "cell", 1e6, counts.shape)
    once = screen({"table": counts}, (field,), 5)["table"]
    np.testing.assert_array_equal(screen({"table": once}, (field,), 5)["table"], once)
