"""Shamir's sharing: the field, what gives the secret back, what does not, and what is refused."""

from __future__ import annotations

import os
from itertools import combinations

import pytest

from fivefold.errors import MessageMalformed, ProtocolViolation, TooManyDropouts
from fivefold.privacy.secagg.shamir import PRIME, SHARE, combine, combine_many, split


def test_the_field_is_prime_and_holds_every_secret() -> None:
    """Miller and Rabin's test with 64 bases: a composite passes each with probability 1/4 at most."""
    assert PRIME > 2**256
    d, s = PRIME - 1, 0
    while d % 2 == 0:
        d, s = d // 2, s + 1
    for base in range(2, 66):
        x = pow(base, d, PRIME)
        assert x == 1 or any(pow(x, 2**i, PRIME) == PRIME - 1 for i in range(s))


@pytest.mark.parametrize("secret", [bytes(32), b"\xff" * 32, bytes(range(32))], ids=["zero", "largest", "some"])
def test_any_threshold_of_the_shares_gives_the_secret(secret: bytes) -> None:
    shares = split(secret, [1, 2, 5, 9, 77], 3)
    assert {len(s) for s in shares.values()} == {SHARE}
    for size in (3, 4, 5):
        for points in combinations(shares, size):
            assert combine({x: shares[x] for x in points}, 3) == secret


def test_fewer_shares_are_refused_and_say_nothing() -> None:
    shares = split(os.urandom(32), [1, 2, 3, 4], 3)
    with pytest.raises(TooManyDropouts):
        combine({1: shares[1], 2: shares[2]}, 3)
    with pytest.raises(TooManyDropouts):
        combine({}, 1)
    # Two shares are consistent with every secret: the third share that would make it so exists.
    for guess in (bytes(32), os.urandom(32)):
        a, b = (int.from_bytes(shares[x], "big") for x in (1, 2))
        c = (3 * b - 3 * a + int.from_bytes(guess, "big")) % PRIME
        assert combine({1: shares[1], 2: shares[2], 3: c.to_bytes(SHARE, "big")}, 3) == guess


def test_many_secrets_with_one_set_of_coefficients() -> None:
    secrets = [os.urandom(32) for _ in range(6)]
    sharings = [split(s, range(1, 11), 7) for s in secrets]
    for points in (range(1, 11), range(4, 11)):
        assert combine_many([{x: s[x] for x in points} for s in sharings], 7) == secrets
    assert combine_many([], 7) == []


def test_a_false_share_is_found_wherever_one_is_to_spare() -> None:
    shares = split(os.urandom(32), range(1, 8), 4)
    for x in shares:
        false = shares | {x: (int.from_bytes(shares[x], "big") ^ 1).to_bytes(SHARE, "big")}
        with pytest.raises(ProtocolViolation, match="contradict"):
            combine(false, 4)


def test_shares_of_another_degree_contradict_each_other() -> None:
    with pytest.raises(ProtocolViolation):
        combine(split(os.urandom(32), range(1, 8), 5), 4)


def test_a_secret_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ProtocolViolation, match="32 bytes"):
        combine({1: (2**256 + 3).to_bytes(SHARE, "big")}, 1)


@pytest.mark.parametrize("share", [b"", bytes(32), bytes(34), PRIME.to_bytes(33, "big"), b"\xff" * 33])
def test_what_is_no_share_is_refused(share: bytes) -> None:
    shares = split(os.urandom(32), [1, 2, 3], 2)
    with pytest.raises(MessageMalformed):
        combine({**shares, 2: share}, 2)


def test_points_are_checked() -> None:
    one, other = split(os.urandom(32), [1, 2, 3], 2), split(os.urandom(32), [1, 2, 4], 2)
    with pytest.raises(MessageMalformed):
        combine_many([one, other], 2)
    with pytest.raises(MessageMalformed):
        combine({0: one[1], 2: one[2]}, 2)
    with pytest.raises(MessageMalformed):
        combine({1: one[1], PRIME + 2: one[2]}, 2)


@pytest.mark.parametrize(
    ("secret", "points", "threshold"),
    [(bytes(31), [1, 2], 2), (bytes(32), [1, 1], 2), (bytes(32), [0, 1], 2), (bytes(32), [1, 2], 3), (bytes(32), [1, 2], 0)],
)
def test_impossible_sharings_are_refused(secret: bytes, points: list[int], threshold: int) -> None:
    with pytest.raises(ValueError, match=r"secret|points|threshold"):
        split(secret, points, threshold)


def test_shares_come_from_the_randomness_given() -> None:
    secret = os.urandom(32)
    assert split(secret, [1, 2, 3], 2, bytes) == dict.fromkeys((1, 2, 3), b"\x00" + secret)
    assert split(secret, [1, 2, 3], 2) != split(secret, [1, 2, 3], 2)
