"""Numbers to ring elements and back: exactness, scales, and errors that name the field and never the value."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from fivefold.errors import (
    AnswerMalformed,
    FivefoldError,
    MessageMalformed,
    OutOfBounds,
    ProtocolViolation,
    StudyInvalid,
    ValueInvalid,
    ValueNotFinite,
)
from fivefold.privacy.fixed_point import pack, ring_for, scale_exponent, unpack, width
from fivefold.privacy.secagg.masks import apply_masks
from fivefold.privacy.secagg.ring import RING32, RING128, add_into, zeros
from fivefold.protocol.questions import Array, Field, FieldKind

COUNT, CELL, PERSONS = Field("rows", "count", 1e6), Field("cells", "cell", 1e6, (2, 3)), Field("persons", "persons", 1e6)
REAL, UPDATE = Field("score", "real", 250.0, (4,)), Field("weights", "update", 1.0, (5,))


def total(answers: list[dict[str, Array]], fields: tuple[Field, ...], sites: int) -> dict[str, Array]:
    acc = zeros(width(fields), ring_for(fields))
    for answer in answers:
        add_into(acc, pack(answer, fields, sites), ring_for(fields))
    return unpack(acc, fields, sites, len(answers))


def test_ring_follows_from_the_fields() -> None:
    assert ring_for([UPDATE]) is RING32
    assert ring_for([UPDATE, PERSONS]) is RING128
    assert ring_for([REAL]) is RING128
    assert ring_for([]) is RING128
    assert width([COUNT, CELL, REAL]) == 1 + 6 + 4


def test_types_and_shapes_come_back() -> None:
    fields = (COUNT, CELL, PERSONS, REAL)
    answer = {
        "rows": np.int64(7),
        "cells": np.arange(6).reshape(2, 3),
        "persons": np.array(5),
        "score": np.array([1.5, -2, 0, 250]),
    }
    got = total([answer] * 3, fields, 3)
    assert {n: (a.dtype.kind, a.shape) for n, a in got.items()} == {
        "rows": ("i", ()), "cells": ("i", (2, 3)), "persons": ("i", ()), "score": ("f", (4,))
    }  # fmt: skip
    assert got["cells"].tolist() == [[0, 3, 6], [9, 12, 15]]
    assert got["score"].tolist() == [4.5, -6, 0, 750]


def test_counts_are_exact_up_to_2_63() -> None:
    fields = (Field("rows", "count", float(2**60), (2,)),)
    values = [np.array([2**60 - i, 2**53 + 1], dtype=np.int64) for i in range(7)]
    assert total([{"rows": v} for v in values], fields, 7)["rows"].tolist() == [7 * 2**60 - 21, 7 * (2**53 + 1)]
    with pytest.raises(StudyInvalid, match="rows"):
        pack({"rows": values[0]}, fields, 8)


def test_values_at_the_bound_do_not_wrap() -> None:
    """All sites at either end, for bounds that are and are not powers of two, and for every number of sites up to 40."""
    for bound in (1.0, 0.1, math.pi, 1e9, np.nextafter(2.0, 0)):
        for sites in range(1, 41):
            for kind in ("real", "update"):
                fields = (Field("x", kind, float(bound), (2,)),)
                got = total([{"x": np.array([bound, -bound])}] * sites, fields, sites)["x"]
                slack = sites * 2.0 ** -scale_exponent(fields[0], ring_for(fields), sites)
                assert np.allclose(got, [sites * bound, -sites * bound], rtol=1e-15, atol=slack)


def test_the_scale_is_the_largest_that_cannot_wrap() -> None:
    for ring, kind in ((RING32, "update"), (RING128, "real")):
        for bound in (1.0, 0.1, 3.0, 1e-300, 1e300):
            for sites in (3, 5, 40, 1000):
                step = Fraction(2) ** -scale_exponent(Field("x", kind, bound), ring, sites)
                half = 2 ** (ring.bits - 1)
                assert sites * Fraction(bound) / step < half <= sites * (2 * Fraction(bound) / step + 1)


def test_counts_have_no_scale() -> None:
    assert scale_exponent(PERSONS, RING128, 10) == 0


def test_a_float32_update_comes_back_to_the_grid() -> None:
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (10, 5)).astype(np.float32)
    got = total([{"weights": row} for row in x], (UPDATE,), 10)["weights"]
    assert np.abs(got - x.astype(np.float64).sum(axis=0)).max() <= 5 * 2.0 ** -scale_exponent(UPDATE, RING32, 10)


def test_the_total_is_rounded_once() -> None:
    """Totals between two doubles go to the nearest one, ties to even: as math.fsum does."""
    fields = (Field("x", "real", 2.0**60, (1,)),)
    for parts in (
        [2.0**53, 1.0],
        [2.0**53, 1.0, 2.0**-20],
        [2.0**54, 2.0, 1.0],
        [-(2.0**53), -1.0, -(2.0**-30)],
        [2.0**60, -1.0],
    ):
        got = total([{"x": np.array([p])} for p in parts], fields, 5)["x"][0]
        assert got == math.fsum(parts)


@pytest.mark.parametrize("kind", ["real", "update", "persons", "count", "cell"])
@pytest.mark.parametrize(
    ("value", "error"), [(math.nan, ValueNotFinite), (math.inf, ValueNotFinite), (-math.inf, ValueNotFinite)]
)
def test_values_that_are_not_finite(kind: FieldKind, value: float, error: type[FivefoldError]) -> None:
    fields = (Field("fever", kind, 50.0, (3,)),)
    with pytest.raises(ValueNotFinite) as caught:
        pack({"fever": np.array([1.0, value, 2.0])}, fields, 3)
    assert_says_no_more_than_the_field(caught.value, "fever")


@pytest.mark.parametrize("kind", ["real", "update", "persons", "count", "cell"])
def test_values_beyond_their_bound(kind: FieldKind) -> None:
    fields = (Field("fever", kind, 41.0, (3,)),)
    pack({"fever": np.array([1.0, 41.0, 2.0])}, fields, 3)
    beyond = 42.0 if kind in ("persons", "count", "cell") else math.nextafter(41.0, 50)
    for value in (beyond, -42.0, 1e300):
        with pytest.raises(OutOfBounds) as caught:
            pack({"fever": np.array([1.0, value, 2.0])}, fields, 3)
        assert_says_no_more_than_the_field(caught.value, "fever")


def test_counts_are_whole_and_not_negative() -> None:
    for value, error in ((1.5, ValueInvalid), (-1.0, OutOfBounds)):
        with pytest.raises(error) as caught:
            pack({"persons": np.array(value)}, (PERSONS,), 3)
        assert_says_no_more_than_the_field(caught.value, "persons")
    for integer in (np.int8(-1), np.int64(-(2**62)), np.uint64(2**64 - 1)):
        with pytest.raises(OutOfBounds):
            pack({"persons": np.array(integer)}, (PERSONS,), 3)
    assert unpack(pack({"persons": np.array(True)}, (PERSONS,), 3), (PERSONS,), 3)["persons"] == 1


def assert_says_no_more_than_the_field(error: FivefoldError, field: str) -> None:
    assert error.variable == field
    said = f"{error.message} {error.hint} {error.public()}"
    assert field in said
    assert not any(c.isdigit() for c in said)


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"score": np.zeros(4), "more": np.zeros(1)},
        {"score": np.zeros(5)},
        {"score": np.zeros((4, 1))},
        {"score": np.zeros(4, dtype=complex)},
        {"score": np.array(["a", "b", "c", "d"])},
        {"score": np.array([None] * 4)},
    ],
)
def test_answers_that_do_not_fit_their_question(answer: dict[str, Array]) -> None:
    with pytest.raises(AnswerMalformed) as caught:
        pack(answer, (REAL,), 3)
    assert caught.value.variable in ("score", "more")


def test_bounds_that_no_number_can_hold() -> None:
    with pytest.raises(StudyInvalid, match="score"):
        pack({"score": np.zeros(4)}, (Field("score", "real", 1e308, (4,)),), 3)
    with pytest.raises(ValueError, match="one site"):
        pack({"score": np.zeros(4)}, (REAL,), 0)


@pytest.mark.parametrize("field", [REAL, UPDATE, PERSONS, CELL], ids=lambda f: f.kind)
def test_a_total_with_a_mask_left_in_it_is_refused(field: Field) -> None:
    fields = (field,)
    ring = ring_for(fields)
    vector = pack({field.name: np.zeros(field.shape)}, fields, 5)
    apply_masks(vector, ring, [(bytes(32), 1)])
    with pytest.raises(ProtocolViolation, match="masks"):
        unpack(vector, fields, 5)


def test_a_total_beyond_the_sites_that_gave_it_is_refused() -> None:
    for field in (REAL, UPDATE, PERSONS):
        fields = (field,)
        vector = zeros(width(fields), ring_for(fields))
        for _ in range(3):
            add_into(vector, pack({field.name: np.full(field.shape, field.bound)}, fields, 5), ring_for(fields))
        assert unpack(vector, fields, 5, 3)[field.name].max() == pytest.approx(3 * field.bound, rel=1e-8)
        with pytest.raises(ProtocolViolation):
            unpack(vector, fields, 5, 2)


def test_a_vector_of_another_ring_or_length_is_refused() -> None:
    for vector in (zeros(4, RING32), zeros(3, RING128), np.zeros((4, 2))):
        with pytest.raises(MessageMalformed):
            unpack(vector, (REAL,), 3)


def test_empty_fields_and_answers() -> None:
    empty = Field("none", "real", 1.0, (0,))
    assert pack({}, (), 3).shape == (0, 2)
    assert unpack(pack({"none": np.zeros(0)}, (empty,), 3), (empty,), 3)["none"].shape == (0,)
