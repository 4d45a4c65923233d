"""Sealed boxes: bytes that only named people can open, each with the key with which they sign.

A box holds the bytes once, under a fresh key (ChaCha20-Poly1305), and that key once for each recipient: X25519 with a key made
for this box alone, HKDF-SHA256 over both public keys and the shared secret (the shape of RFC 9180's base mode), and
ChaCha20-Poly1305 again. The recipient's X25519 key is their Ed25519 key on the other form of the same curve; signing and
opening with one key is safe together (Thormarker, "On using the same key pair for Ed25519 and an X25519 based KEM", 2021).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from fivefold.errors import KeyProblem, MessageMalformed, SealBroken
from fivefold.protocol.encoding import decode, encode

FORMAT = "fivefold sealed box 1"
P = 2**255 - 19
NONCE = 12


def seal(data: bytes, recipients: Sequence[bytes], purpose: str) -> bytes:
    """Seal bytes for the holders of Ed25519 public keys (32 bytes each). `purpose` binds what the box is for. Raises
    `KeyProblem` for a key that is none."""
    key = os.urandom(32)
    own = X25519PrivateKey.generate()
    ephemeral = own.public_key().public_bytes_raw()
    wraps = {}
    for recipient in dict.fromkeys(recipients):
        public = to_x25519(recipient)
        shared = _exchange(own, public)
        wraps[recipient.hex()] = ChaCha20Poly1305(_derived(shared, ephemeral, public, purpose)).encrypt(bytes(NONCE), key, b"")
    head = encode({"format": FORMAT, "purpose": purpose, "ephemeral": ephemeral, "keys": wraps})
    nonce = os.urandom(NONCE)
    return encode({"head": head, "nonce": nonce, "body": ChaCha20Poly1305(key).encrypt(nonce, data, head)})


def open_box(box: bytes, private: bytes, public: bytes, purpose: str) -> bytes:
    """What a box holds, for one of its recipients (Ed25519 private and public key). Raises `KeyProblem` where the box was
    sealed for others, `SealBroken` where it was altered, `MessageMalformed` where it is none."""
    parts, head = _read(box)
    if head["purpose"] != purpose or public.hex() not in head["keys"]:
        raise KeyProblem(
            "this was sealed for others: the key is not among its recipients",
            help="Open it with the key of an output checker whom the study names.",
        )
    own = X25519PrivateKey.from_private_bytes(hashlib.sha512(private).digest()[:32])
    ephemeral = bytes(head["ephemeral"])
    try:
        wrap = _derived(_exchange(own, ephemeral), ephemeral, own.public_key().public_bytes_raw(), purpose)
        key = ChaCha20Poly1305(wrap).decrypt(bytes(NONCE), bytes(head["keys"][public.hex()]), b"")
        return ChaCha20Poly1305(key).decrypt(bytes(parts["nonce"]), bytes(parts["body"]), bytes(parts["head"]))
    except (InvalidTag, ValueError) as error:
        raise SealBroken(
            "what was sealed cannot be opened: it was altered", help="Take it from a copy, or run the study again."
        ) from error


def recipients(box: bytes) -> tuple[str, ...]:
    """The public keys (hex) of those who can open a box."""
    return tuple(_read(box)[1]["keys"])


def to_x25519(public: bytes) -> bytes:
    """An Ed25519 public key as X25519: u = (1 + y)/(1 - y) mod 2^255 - 19 (RFC 7748, section 4.1). Raises `KeyProblem`."""
    y = int.from_bytes(public, "little") & ((1 << 255) - 1)
    if len(public) != 32 or y >= P or y in (0, 1, P - 1):
        raise KeyProblem("this public key cannot be sealed for")
    return ((1 + y) * pow(1 - y, P - 2, P) % P).to_bytes(32, "little")


def _exchange(own: X25519PrivateKey, public: bytes) -> bytes:
    try:
        return own.exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError as error:  # a point of low order
        raise KeyProblem("this public key cannot be sealed for") from error


def _derived(shared: bytes, ephemeral: bytes, public: bytes, purpose: str) -> bytes:
    info = f"{FORMAT}\0{purpose}\0".encode() + ephemeral + public
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=info).derive(shared)


def _read(box: bytes) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    try:
        parts = decode(box)
        head = decode(bytes(parts["head"]))
        shaped = set(parts) == {"head", "nonce", "body"} and set(head) == {"format", "purpose", "ephemeral", "keys"}
        if not shaped or head["format"] != FORMAT or not all(map(_is_bytes, (*head["keys"].values(), head["ephemeral"]))):
            raise ValueError("form")
        if not _is_bytes(parts["nonce"]) or not _is_bytes(parts["body"]):
            raise ValueError("form")
    except (MessageMalformed, ValueError, KeyError, TypeError, AttributeError) as error:
        raise MessageMalformed("this is not a sealed box", help="Name a file that `fivefold run --sealed` wrote.") from error
    return parts, head


def _is_bytes(value: object) -> bool:
    return isinstance(value, (bytes, bytearray, memoryview))
