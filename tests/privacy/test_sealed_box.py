"""Sealed boxes: each recipient opens them with their signing key, nobody else does, and no byte can be changed."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from fivefold.auth import keys
from fivefold.errors import FivefoldError, KeyProblem
from fivefold.privacy import sealed_box

PRIVATE = [bytes([i]) * 32 for i in (1, 2, 3)]
PUBLIC = [keys.public_of(p) for p in PRIVATE]
BOX = sealed_box.seal(b"four hundred and eleven", PUBLIC[:2], "test")


def test_each_recipient_opens_it_and_nobody_else() -> None:
    for private, public in zip(PRIVATE[:2], PUBLIC[:2], strict=True):
        assert sealed_box.open_box(BOX, private, public, "test") == b"four hundred and eleven"
    assert sealed_box.recipients(BOX) == tuple(sorted(p.hex() for p in PUBLIC[:2]))
    with pytest.raises(KeyProblem, match="sealed for others"):
        sealed_box.open_box(BOX, PRIVATE[2], PUBLIC[2], "test")
    with pytest.raises(FivefoldError):
        sealed_box.open_box(BOX, PRIVATE[2], PUBLIC[0], "test")  # in another's name
    with pytest.raises(KeyProblem):
        sealed_box.open_box(BOX, PRIVATE[0], PUBLIC[0], "something else")
    assert b"four" not in BOX


def test_two_boxes_of_the_same_bytes_differ() -> None:
    assert sealed_box.seal(b"x", PUBLIC[:1], "test") != sealed_box.seal(b"x", PUBLIC[:1], "test")


@settings(max_examples=150, deadline=None)
@given(st.integers(0, len(BOX) - 1), st.integers(1, 255))
def test_every_changed_byte_is_found(place: int, change: int) -> None:
    altered = BOX[:place] + bytes([BOX[place] ^ change]) + BOX[place + 1 :]
    try:
        said = sealed_box.open_box(altered, PRIVATE[0], PUBLIC[0], "test")
    except FivefoldError:
        return
    assert said == b"four hundred and eleven"  # the other recipient's wrap is authenticated by the body, ours by itself
    pytest.fail("a changed byte went unseen")


@settings(max_examples=30, deadline=None)
@given(st.binary(min_size=32, max_size=32))
def test_the_two_forms_of_a_key_belong_together(seed: bytes) -> None:
    """The X25519 public key from the Ed25519 one is that of the private key from the Ed25519 seed (RFC 7748, RFC 8032)."""
    import hashlib

    own = X25519PrivateKey.from_private_bytes(hashlib.sha512(seed).digest()[:32])
    assert own.public_key().public_bytes_raw() == sealed_box.to_x25519(keys.public_of(seed))


@pytest.mark.parametrize("point", [bytes(32), (1).to_bytes(32, "little"), (2**255 - 20).to_bytes(32, "little"), b"short"])
def test_weak_keys_are_refused(point: bytes) -> None:
    with pytest.raises(KeyProblem):
        sealed_box.seal(b"x", [point], "test")


@given(st.binary(max_size=200))
@settings(max_examples=50, deadline=None)
def test_any_bytes_are_a_box_or_an_error(data: bytes) -> None:
    with pytest.raises(FivefoldError):
        sealed_box.open_box(data, PRIVATE[0], PUBLIC[0], "test")
