"""Vectors over the two rings: carries, bytes, and what is refused."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from fivefold.errors import MessageMalformed
from fivefold.privacy.secagg.ring import RING32, RING128, Ring, add_into, from_bytes, require, to_bytes, zeros

RINGS = pytest.mark.parametrize("ring", [RING32, RING128], ids=["32", "128"])


def vector(values: list[int], ring: Ring) -> np.ndarray:
    data = b"".join((v % (1 << ring.bits)).to_bytes(ring.element_bytes, "little") for v in values)
    return from_bytes(data, len(values), ring).copy()


def integers(v: np.ndarray, ring: Ring) -> list[int]:
    data = to_bytes(v, ring)
    return [int.from_bytes(data[i : i + ring.element_bytes], "little") for i in range(0, len(data), ring.element_bytes)]


@RINGS
def test_sums_carry_and_wrap_at_every_edge(ring: Ring) -> None:
    edges = [0, 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1, 2**64, 2**127, 2**128 - 1, 2**128 - 2**64]
    left, right = [a for a in edges for _ in edges], [b for _ in edges for b in edges]
    a, b = vector(left, ring), vector(right, ring)
    add_into(a, b, ring)
    assert integers(a, ring) == [(x + y) % (1 << ring.bits) for x, y in zip(left, right, strict=True)]


@RINGS
def test_a_vector_can_be_added_to_itself(ring: Ring) -> None:
    v = vector([2**64 - 1, 2**127 + 5], ring)
    add_into(v, v, ring)
    assert integers(v, ring) == [2 * (2**64 - 1) % (1 << ring.bits), 10]


@RINGS
def test_a_sum_needs_no_second_vector(ring: Ring) -> None:
    n = 400_000
    acc, v = zeros(n, ring), zeros(n, ring)
    tracemalloc.start()
    add_into(acc, v, ring)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100_000


@RINGS
def test_bytes_are_little_endian_and_the_view_is_read_only(ring: Ring) -> None:
    v = vector([1, 2**31 + 3], ring)
    assert to_bytes(v, ring)[: ring.element_bytes] == b"\x01" + bytes(ring.element_bytes - 1)
    view = from_bytes(to_bytes(v, ring), 2, ring)
    assert np.array_equal(view, v)
    assert not view.flags.writeable


@RINGS
def test_other_lengths_and_types_are_refused(ring: Ring) -> None:
    data = to_bytes(zeros(5, ring), ring)
    for wrong in (data[:-1], data + b"\0", b""):
        with pytest.raises(MessageMalformed):
            from_bytes(wrong, 5, ring)
    with pytest.raises(MessageMalformed):
        from_bytes(b"", -1, ring)
    with pytest.raises(MessageMalformed):
        add_into(zeros(5, ring), zeros(4, ring), ring)
    with pytest.raises(MessageMalformed):
        add_into(zeros(5, ring), np.zeros(5), ring)
    with pytest.raises(MessageMalformed):
        require(np.zeros((), dtype=ring.limb), ring)
    with pytest.raises(MessageMalformed):
        require(zeros(5, RING32 if ring is RING128 else RING128), ring)
    assert require(zeros(5, ring), ring, 5).shape == ring.shape(5)
