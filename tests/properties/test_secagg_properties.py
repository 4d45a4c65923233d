"""For all vectors, seeds, subsets: the ring is a group, masks cancel, any quorum rebuilds, and a round gives the plain sum."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fivefold.privacy.secagg import shamir
from fivefold.privacy.secagg.keys import agree, agree_all, new_pair, pair_from_private
from fivefold.privacy.secagg.masks import apply_masks, pair_sign, unmask
from fivefold.privacy.secagg.ring import RING32, RING128, Ring, add_into, from_bytes, to_bytes, zeros
from fivefold.privacy.secagg.sealing import open_sealed, seal

RINGS = st.sampled_from([RING32, RING128])
SEEDS = st.binary(min_size=32, max_size=32)


@st.composite
def vectors(draw: st.DrawFn, count: int) -> tuple[Ring, list[np.ndarray]]:
    """`count` vectors of one ring and length; elements near the limbs' edges as often as any."""
    ring, n = draw(RINGS), draw(st.integers(0, 12))
    top = 1 << ring.bits
    edges = st.builds(
        lambda e, d: ((1 << e) + d) % top, st.sampled_from([0, 31, 32, 63, 64, 127, ring.bits]), st.integers(-2, 2)
    )
    element = edges | st.integers(0, top - 1)
    lists = [draw(st.lists(element, min_size=n, max_size=n)) for _ in range(count)]
    data = [b"".join(x.to_bytes(ring.element_bytes, "little") for x in values) for values in lists]
    return ring, [from_bytes(d, n, ring).copy() for d in data]


def plus(a: np.ndarray, b: np.ndarray, ring: Ring) -> np.ndarray:
    out = a.copy()
    add_into(out, b, ring)
    return out


@given(vectors(3))
def test_vectors_add_up_in_any_order(drawn: tuple[Ring, list[np.ndarray]]) -> None:
    ring, (a, b, c) = drawn
    assert np.array_equal(plus(a, b, ring), plus(b, a, ring))
    assert np.array_equal(plus(plus(a, b, ring), c, ring), plus(a, plus(b, c, ring), ring))
    assert np.array_equal(plus(a, zeros(len(a), ring), ring), a)


@given(vectors(2))
def test_addition_is_that_of_integers(drawn: tuple[Ring, list[np.ndarray]]) -> None:
    ring, (a, b) = drawn
    size = ring.element_bytes
    got, left, right = (to_bytes(v, ring) for v in (plus(a, b, ring), a, b))
    for i in range(0, len(got), size):
        x, y, z = (int.from_bytes(d[i : i + size], "little") for d in (left, right, got))
        assert z == (x + y) % (1 << ring.bits)


@given(vectors(1), st.lists(st.tuples(SEEDS, st.sampled_from([1, -1])), max_size=6), st.randoms())
def test_masks_cancel_in_any_order(
    drawn: tuple[Ring, list[np.ndarray]], seeds: list[tuple[bytes, int]], random: object
) -> None:
    ring, (v,) = drawn
    masked = v.copy()
    apply_masks(masked, ring, seeds)
    undo = [(seed, -sign) for seed, sign in seeds]
    random.shuffle(undo)
    apply_masks(masked, ring, undo, threads=2)
    assert np.array_equal(masked, v)


@given(SEEDS, st.data())
def test_any_quorum_rebuilds_a_secret(secret: bytes, data: st.DataObject) -> None:
    points = data.draw(st.lists(st.integers(1, 300), min_size=1, max_size=12, unique=True))
    threshold = data.draw(st.integers(1, len(points)))
    shares = shamir.split(secret, points, threshold)
    quorum = data.draw(st.lists(st.sampled_from(points), min_size=threshold, unique=True))
    assert shamir.combine({x: shares[x] for x in quorum}, threshold) == secret


@given(st.binary(max_size=200), st.binary(max_size=50), SEEDS)
def test_sealed_messages_open(plain: bytes, place: bytes, key: bytes) -> None:
    assert open_sealed(key, seal(key, plain, place), place) == plain


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_a_round_gives_the_plain_sum_of_its_survivors(data: st.DataObject) -> None:
    """A whole round out of the pure functions: keys, shares, masks, drop-outs, unmasking. Nothing but the sum is left."""
    ring, n = data.draw(RINGS), data.draw(st.integers(3, 7))
    threshold, width = data.draw(st.integers(2, n)), data.draw(st.integers(1, 5))
    survivors = data.draw(st.lists(st.sampled_from(range(n)), min_size=threshold, unique=True).map(sorted))
    pairs, own, context = [new_pair() for _ in range(n)], [bytes([i]) * 32 for i in range(n)], b"round"
    points = range(1, n + 1)
    shared_keys = [shamir.split(p.private, points, threshold) for p in pairs]
    shared_seeds = [shamir.split(s, points, threshold) for s in own]

    plain, total = zeros(width, ring), zeros(width, ring)
    for i in survivors:
        vector = zeros(width, ring)
        vector[:] = np.arange(1, vector.size + 1, dtype=ring.limb).reshape(vector.shape) * (i + 1)
        add_into(plain, vector, ring)
        others = [j for j in range(n) if j != i]
        agreed = agree_all(pairs[i].private, [(pairs[j].public, context) for j in others])
        apply_masks(vector, ring, [(own[i], 1), *((s, pair_sign(i, j)) for s, j in zip(agreed, others, strict=True))])
        add_into(total, vector, ring)

    held = [x + 1 for x in survivors]
    seeds = shamir.combine_many([{x: shared_seeds[i][x] for x in held} for i in survivors], threshold)
    dead = [j for j in range(n) if j not in survivors]
    rebuilt = shamir.combine_many([{x: shared_keys[j][x] for x in held} for j in dead], threshold)
    keys = dict(zip(dead, map(pair_from_private, rebuilt), strict=True))
    assert all(keys[j].public == pairs[j].public for j in dead)
    pair_seeds = [(agree(keys[j].private, pairs[i].public, context), pair_sign(i, j)) for j in dead for i in survivors]
    assert not np.array_equal(total, plain)
    unmask(total, ring, seeds, pair_seeds)
    assert np.array_equal(total, plain)
