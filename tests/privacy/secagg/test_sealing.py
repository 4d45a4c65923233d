"""Sealed messages open only as they were made, with the same key and for the same place."""

from __future__ import annotations

import os

import pytest

from fivefold.errors import MessageMalformed, ProtocolError, SealBroken
from fivefold.privacy.secagg.sealing import open_sealed, seal

KEY, PLAIN, PLACE = bytes(range(32)), b"two shares", b"study 1, round 2, attempt 0, from a, to b"


def test_there_and_back() -> None:
    sealed = seal(KEY, PLAIN, PLACE)
    assert len(sealed) == len(PLAIN) + 28
    assert PLAIN not in sealed
    assert open_sealed(KEY, sealed, PLACE) == PLAIN
    assert open_sealed(KEY, seal(KEY, b"", b""), b"") == b""
    assert seal(KEY, PLAIN, PLACE) != sealed


def test_every_changed_byte_is_found() -> None:
    sealed = seal(KEY, PLAIN, PLACE)
    for i in range(len(sealed)):
        with pytest.raises(SealBroken):
            open_sealed(KEY, sealed[:i] + bytes([sealed[i] ^ 1]) + sealed[i + 1 :], PLACE)


def test_another_key_place_or_length_is_refused() -> None:
    sealed = seal(KEY, PLAIN, PLACE)
    for key, data, place in ((os.urandom(32), sealed, PLACE), (KEY, sealed, PLACE + b"!"), (KEY, sealed[:-1], PLACE)):
        with pytest.raises(SealBroken):
            open_sealed(key, data, place)
    with pytest.raises(MessageMalformed):
        open_sealed(KEY, sealed[:27], PLACE)
    assert issubclass(SealBroken, ProtocolError)
