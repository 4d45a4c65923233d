"""Key agreement: X25519 (RFC 7748), then HKDF-SHA256 (RFC 5869) with the context as its info.

The context says what a key is for (protocol version, study, run, round, attempt, digest of the key list, sender and
receiver): two sites with different views of these get unrelated keys, never a partly right sum.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from fivefold.errors import MessageMalformed, ProtocolViolation

LENGTH = 32


@dataclass(frozen=True)
class KeyPair:
    """An X25519 pair, 32 bytes each. The private half never shows in a repr."""

    private: bytes = field(repr=False)
    public: bytes


def new_pair() -> KeyPair:
    """A fresh pair from the operating system's randomness."""
    return _pair(X25519PrivateKey.generate())


def pair_from_private(private: bytes) -> KeyPair:
    """The pair of a private key (32 bytes), as it is rebuilt from shares. Raises `MessageMalformed`."""
    return _pair(_loaded(private))


def agree(private: bytes, peer_public: bytes, context: bytes) -> bytes:
    """The key (32 bytes) that two sites share in a context: agree(a, B, x) = agree(b, A, x).

    Raises `ProtocolViolation` for a low-order point (whose result anybody knows), `MessageMalformed` for a wrong length.
    """
    return agree_all(private, [(peer_public, context)])[0]


def agree_all(private: bytes, peers: Iterable[tuple[bytes, bytes]]) -> list[bytes]:
    """`agree` with each (public key, context) in turn; the private key is loaded once."""
    own = _loaded(private)
    return [_derived(_exchanged(own, public), context) for public, context in peers]


def _pair(key: X25519PrivateKey) -> KeyPair:
    return KeyPair(key.private_bytes_raw(), key.public_key().public_bytes_raw())


def _loaded(private: bytes) -> X25519PrivateKey:
    if len(private) != LENGTH:
        raise MessageMalformed("an X25519 private key has 32 bytes")
    return X25519PrivateKey.from_private_bytes(private)


def _exchanged(own: X25519PrivateKey, public: bytes) -> bytes:
    if len(public) != LENGTH:
        raise MessageMalformed("an X25519 public key has 32 bytes")
    try:
        return own.exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError as error:
        raise ProtocolViolation("a peer's key is a point of low order, whose shared secret anybody knows") from error


def _derived(shared: bytes, context: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=LENGTH, salt=None, info=context).derive(shared)
