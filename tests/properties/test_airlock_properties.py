"""The airlock against two attackers: a linear programme on every hidden cell, and one who lists every table that could be."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations

import numpy as np
import numpy.typing as npt
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fivefold.disclosure.differencing import judge
from fivefold.disclosure.suppression import bounds, covered, suppress
from fivefold.disclosure.tables import KNOWN, MISSING, Condition, Count, rounded

SHAPES = st.one_of(
    st.tuples(st.integers(2, 12)),
    st.tuples(st.integers(2, 7), st.integers(2, 7)),
    st.tuples(st.integers(2, 3), st.integers(2, 3), st.integers(2, 4)),
)
SPARSE = st.sampled_from([0, 0, 1, 2, 3, 4, 5, 7, 11, 40])


@settings(max_examples=100, deadline=None)
@given(hnp.arrays(np.int64, SHAPES, elements=SPARSE), st.integers(2, 10))
def test_no_programme_bounds_a_hidden_cell_within_the_protection_interval(table: npt.NDArray[np.int64], minimum: int) -> None:
    found = suppress(table, minimum)
    small = (table > 0) & (table < minimum)
    assert not (small & ~found.mask).any()
    if not found.margins:  # nothing of the table is shown
        assert found.mask.all() or not small.any()
        return
    for low, high in bounds(table, found.mask).values():
        assert high - low >= minimum - 1e-6
    shown = np.where(found.mask, np.nan, table)
    assert covered(shown, minimum, table)


@settings(max_examples=50, deadline=None)
@given(hnp.arrays(np.int64, SHAPES, elements=SPARSE), st.integers(3, 8))
def test_taking_one_hidden_cell_back_is_noticed(table: npt.NDArray[np.int64], minimum: int) -> None:
    found = suppress(table, minimum)
    if not found.margins or not found.mask.any():
        return
    shown = np.where(found.mask, np.nan, table)
    at = tuple(np.argwhere(found.mask)[0])
    shown[at] = table[at]
    if covered(shown, minimum, table):  # then it was not needed, and the attacker says so, too
        left = np.isnan(shown)
        assert all(high - low >= minimum - 1e-6 for low, high in bounds(table, left).values())


# ---- sequences of releases ------------------------------------------------------------------------------------------
LEVELS = {"a": ("0", "1"), "b": ("0", "1")}
ATOMS = [(a, b) for a in ("0", "1", None) for b in ("0", "1", None)]
CONDITIONS: list[Condition | None] = ["0", "1", KNOWN, MISSING, None]


def holds(atom: tuple[str | None, str | None], where: dict[str, Condition]) -> bool:
    values = dict(zip(("a", "b"), atom, strict=True))
    return all((values[n] is not None) == c if isinstance(c, bool) else values[n] == c for n, c in where.items())


def tables(counts: Sequence[Count], atoms: Sequence[tuple[str | None, str | None]], most: int) -> Iterator[tuple[int, ...]]:
    """Every table of whole numbers that agrees with all counts; no atom above `most`."""
    rows = [([holds(a, dict(c.where)) for a in atoms], c.low, c.high) for c in counts]

    def fill(done: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        k = len(done)
        for inside, low, high in rows:
            so_far = sum(x for x, i in zip(done, inside, strict=False) if i)
            open_ones = sum(inside[k:])
            if so_far > high or (open_ones == 0 and so_far < low) or so_far + open_ones * most < low:
                return
        if k == len(atoms):
            yield done
            return
        for value in range(most + 1):
            yield from fill((*done, value))

    yield from fill(())


@st.composite
def requests(draw: st.DrawFn) -> tuple[tuple[int, ...], list[dict[str, Condition]], int]:
    """A population over four cells, and a sequence of questions about declared cells."""
    people = tuple(draw(st.lists(st.integers(0, 5), min_size=4, max_size=4)))
    questions = []
    for _ in range(draw(st.integers(1, 5))):
        chosen = {n: draw(st.sampled_from(CONDITIONS)) for n in ("a", "b")}
        questions.append({n: c for n, c in chosen.items() if c is not None})
    return people, questions, draw(st.sampled_from([1, 3]))


KEPT = [(a, b) for a in ("0", "1") for b in ("0", "1")]


@settings(max_examples=60, deadline=None)
@given(requests())
def test_no_permitted_sequence_isolates_fewer_than_the_minimum(
    case: tuple[tuple[int, ...], list[dict[str, Condition]], int],
) -> None:
    """Every question that the airlock permits is answered; then somebody lists all tables that agree with the answers. No union
    of cells may hold at least one and fewer than the minimum in all of them."""
    people, questions, base = case
    minimum = 3
    empty = [Count.of({n: MISSING}, 0) for n in ("a", "b")]  # public: nobody's value is missing
    released: list[Count] = list(empty)
    for where in questions:
        true = sum(x for x, atom in zip(people, KEPT, strict=True) if holds(atom, where))
        told = rounded(true, base)
        if base > 1 and told == 0 and true > 0:
            continue  # what would be rounded to 0 is hidden
        proposed = Count.of(where, told, base)
        if judge([*released, proposed], LEVELS, minimum).permitted:
            released.append(proposed)
    most = 3 * max(sum(people), minimum)
    worlds = np.array(list(tables(released, KEPT, min(most, 12))))
    assert len(worlds)
    assert any((w == people).all() for w in worlds)
    for size in range(1, len(KEPT) + 1):
        for union in combinations(range(len(KEPT)), size):
            held = worlds[:, union].sum(axis=1)
            assert not (held.min() >= 1 and held.max() < minimum), (released, union)


@settings(max_examples=30, deadline=None)
@given(requests())
def test_a_refusal_is_not_arbitrary(case: tuple[tuple[int, ...], list[dict[str, Condition]], int]) -> None:
    """A sequence is refused only where some cell is not known to be empty and cannot hold the minimum."""
    people, questions, _ = case
    minimum = 3
    counts = [Count.of({n: MISSING}, 0) for n in ("a", "b")]
    for where in questions:
        counts.append(Count.of(where, sum(x for x, atom in zip(people, KEPT, strict=True) if holds(atom, where))))
    worlds = np.array(list(tables(counts, KEPT, 21)))
    narrow = [k for k in range(4) if 0 < worlds[:, k].max() < minimum]
    assert judge(counts, LEVELS, minimum).permitted == (not narrow)
