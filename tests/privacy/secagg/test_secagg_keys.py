"""Key agreement against RFC 7748's own numbers, and what is refused."""

from __future__ import annotations

import os

import pytest

from fivefold.errors import MessageMalformed, ProtocolViolation
from fivefold.privacy.secagg.keys import KeyPair, agree, agree_all, new_pair, pair_from_private

ALICE = bytes.fromhex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a")
BOB = bytes.fromhex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb")
LOW_ORDER = (
    bytes(32),
    (1).to_bytes(32, "little"),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
    (2**255 - 20).to_bytes(32, "little"),
)


def test_keys_of_rfc_7748_section_6_1() -> None:
    assert pair_from_private(ALICE).public.hex() == "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"
    assert pair_from_private(BOB).public.hex() == "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"


def test_both_sides_agree_and_the_context_counts() -> None:
    a, b = new_pair(), new_pair()
    key = agree(a.private, b.public, b"study 1, round 2")
    assert len(key) == 32
    assert key == agree(b.private, a.public, b"study 1, round 2")
    assert key != agree(a.private, b.public, b"study 1, round 3")
    assert key != agree(new_pair().private, b.public, b"study 1, round 2")


def test_the_key_is_hkdf_of_the_shared_secret() -> None:
    """By hand, from RFC 5869: extract with a zero salt, expand one block."""
    import hashlib
    import hmac

    shared = bytes.fromhex("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742")
    extracted = hmac.digest(bytes(32), shared, hashlib.sha256)
    expected = hmac.digest(extracted, b"context" + b"\x01", hashlib.sha256)
    assert agree(ALICE, pair_from_private(BOB).public, b"context") == expected


def test_many_at_once_are_the_same() -> None:
    a, peers = new_pair(), [new_pair() for _ in range(4)]
    wanted = [agree(a.private, p.public, bytes([i])) for i, p in enumerate(peers)]
    assert agree_all(a.private, [(p.public, bytes([i])) for i, p in enumerate(peers)]) == wanted


def test_a_pair_is_rebuilt_from_its_private_half_and_does_not_show_it() -> None:
    pair = new_pair()
    assert pair_from_private(pair.private) == pair
    assert pair.private.hex() not in repr(pair)
    assert repr(pair.private) not in repr(pair)
    assert isinstance(pair, KeyPair)


@pytest.mark.parametrize("point", LOW_ORDER, ids=range(len(LOW_ORDER)))
def test_points_of_low_order_are_refused(point: bytes) -> None:
    with pytest.raises(ProtocolViolation, match="low order"):
        agree(new_pair().private, point, b"")


@pytest.mark.parametrize("length", [0, 31, 33])
def test_keys_of_another_length_are_refused(length: int) -> None:
    with pytest.raises(MessageMalformed):
        agree(os.urandom(length), new_pair().public, b"")
    with pytest.raises(MessageMalformed):
        agree(new_pair().private, os.urandom(length), b"")
    with pytest.raises(MessageMalformed):
        pair_from_private(os.urandom(length))
