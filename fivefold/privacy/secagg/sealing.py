"""Sealed shares: ChaCha20-Poly1305 (RFC 8439) under a key that two sites agreed on for one round.

A sealed message is nonce (12 bytes, random) || ciphertext || tag (16 bytes). The associated data (study, run, round, attempt,
sender, receiver) is not sent: whoever opens it must expect the same.
"""

from __future__ import annotations

import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from fivefold.errors import MessageMalformed, SealBroken

NONCE = 12
TAG = 16


def seal(key: bytes, plaintext: bytes, associated: bytes) -> bytes:
    """Seal bytes under a 32-byte key: 28 bytes longer."""
    nonce = os.urandom(NONCE)
    return nonce + ChaCha20Poly1305(key).encrypt(nonce, plaintext, associated)


def open_sealed(key: bytes, sealed: bytes, associated: bytes) -> bytes:
    """What was sealed. Raises `SealBroken` for anything altered, `MessageMalformed` for what is too short to be sealed."""
    if len(sealed) < NONCE + TAG:
        raise MessageMalformed("a sealed message is too short")
    try:
        return ChaCha20Poly1305(key).decrypt(sealed[:NONCE], sealed[NONCE:], associated)
    except InvalidTag as error:
        raise SealBroken("a sealed message cannot be opened: it was altered or is meant for another place") from error
