"""Masks: the stream is what its definition says, every bit of a seed counts, threads and chunks change nothing."""

from __future__ import annotations

import hashlib
import os

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from fivefold.errors import MessageMalformed
from fivefold.privacy.secagg.masks import LABEL, WIDE, apply_masks, pair_sign, unmask
from fivefold.privacy.secagg.ring import RING32, RING128, Ring, add_into, zeros

RINGS = pytest.mark.parametrize("ring", [RING32, RING128], ids=["32", "128"])


def mask(seed: bytes, n: int, ring: Ring) -> np.ndarray:
    v = zeros(n, ring)
    apply_masks(v, ring, [(seed, 1)])
    return v


def by_gcm(seed: bytes, size: int) -> bytes:
    """The stream by another road: AES-GCM's keystream starts at the same counter."""
    derived = hashlib.sha256(LABEL + seed).digest()
    return Cipher(algorithms.AES(derived[:16]), modes.GCM(derived[16:28])).encryptor().update(bytes(size))


def test_narrow_mask_is_the_keystream() -> None:
    seed = os.urandom(32)
    for n in (1, 3, 100_001):
        assert mask(seed, n, RING32).tobytes() == by_gcm(seed, 4 * n)


def test_wide_mask_gives_low_limbs_then_high_limbs_of_each_chunk() -> None:
    seed = os.urandom(32)
    n = 2 * WIDE + 5
    stream = np.frombuffer(by_gcm(seed, 16 * n), dtype="<u8")
    got = mask(seed, n, RING128)
    for start in range(0, n, WIDE):
        m = min(WIDE, n - start)
        part = stream[2 * start : 2 * (start + m)]
        assert np.array_equal(got[start : start + m, 0], part[:m])
        assert np.array_equal(got[start : start + m, 1], part[m:])


def test_the_stream_is_fixed_for_ever() -> None:
    """Sites of two versions have to make the same mask: a change of these digests is a change of the protocol."""
    seed = bytes(range(32))
    digests = [hashlib.sha256(mask(seed, 10_000, ring).tobytes()).hexdigest()[:16] for ring in (RING32, RING128)]
    assert digests == ["e92e0847ea5bd53b", "1dd80e83ec9ef1c7"]


@RINGS
def test_masks_are_added_as_integers_with_carries(ring: Ring) -> None:
    n, seeds = 5000, [(os.urandom(32), 1 if i % 3 else -1) for i in range(250)]
    v = np.frombuffer(os.urandom(n * ring.element_bytes), dtype=ring.limb).reshape(ring.shape(n)).copy()
    start = v.copy()
    apply_masks(v, ring, seeds)
    index = [0, 1, WIDE - 1, WIDE, n - 1]
    masks = [(mask(seed, n, ring), sign) for seed, sign in seeds]
    for i in index:
        expected = number(start, i) + sum(sign * number(m, i) for m, sign in masks)
        assert number(v, i) == expected % (1 << ring.bits)


def number(v: np.ndarray, i: int) -> int:
    return int.from_bytes(v[i].tobytes(), "little")


@RINGS
@pytest.mark.parametrize("threads", [2, 3, 8])
def test_threads_change_nothing(ring: Ring, threads: int) -> None:
    n, seeds = 200_003, [(os.urandom(32), 1 if i % 2 else -1) for i in range(5)]
    one, more = zeros(n, ring), zeros(n, ring)
    apply_masks(one, ring, seeds)
    apply_masks(more, ring, seeds, threads)
    assert one.any()
    assert np.array_equal(one, more)


@RINGS
def test_more_seeds_than_contexts_stay_open_and_a_generator_will_do(ring: Ring) -> None:
    seeds = [(os.urandom(32), 1) for _ in range(600)]
    expected = zeros(20, ring)
    for seed, _ in seeds:
        add_into(expected, mask(seed, 20, ring), ring)
    v = zeros(20, ring)
    apply_masks(v, ring, (s for s in seeds))
    assert np.array_equal(v, expected)


@RINGS
def test_every_bit_of_a_seed_changes_the_mask(ring: Ring) -> None:
    """No part of the seed is folded away: 256 neighbours at distance one give 256 other masks, and so do swapped halves."""
    seed = os.urandom(32)
    flipped = [(int.from_bytes(seed, "big") ^ (1 << bit)).to_bytes(32, "big") for bit in range(256)]
    seeds = [seed, *flipped, seed[16:] + seed[:16], seed[::-1]]
    assert len({mask(s, 4, ring).tobytes() for s in seeds}) == len(seeds)


@RINGS
def test_unmask_takes_away_what_survivors_put_in(ring: Ring) -> None:
    n, own, pair = 1000, [os.urandom(32) for _ in range(3)], [(os.urandom(32), 1), (os.urandom(32), -1)]
    v = zeros(n, ring)
    apply_masks(v, ring, [*((s, 1) for s in own), *pair])
    assert v.any()
    unmask(v, ring, own, pair)
    assert not v.any()


@RINGS
def test_an_empty_vector_and_no_seeds(ring: Ring) -> None:
    apply_masks(zeros(0, ring), ring, [(os.urandom(32), 1)], threads=4)
    v = zeros(3, ring)
    apply_masks(v, ring, [])
    assert not v.any()


def test_signs_of_a_pair_cancel() -> None:
    assert pair_sign(3, 7) == -pair_sign(7, 3)
    with pytest.raises(ValueError, match="itself"):
        pair_sign(2, 2)


def test_what_is_not_a_seed_a_sign_or_a_vector_is_refused() -> None:
    v = zeros(10, RING32)
    for seed, sign in ((bytes(31), 1), (bytes(33), 1), (bytes(32), 0), (bytes(32), 2)):
        with pytest.raises(ValueError, match=r"seed|sign"):
            apply_masks(v, RING32, [(seed, sign)])
    with pytest.raises(ValueError, match="contiguous"):
        apply_masks(v[::2], RING32, [])
    frozen = v.copy()
    frozen.setflags(write=False)
    with pytest.raises(ValueError, match="writable"):
        apply_masks(frozen, RING32, [])
    with pytest.raises(MessageMalformed):
        apply_masks(v, RING128, [])
    assert not v.any()
