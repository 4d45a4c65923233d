"""Shamir's secret sharing (CACM 1979) of 32-byte secrets, over the field of integers modulo 2^256 + 297.

That is the smallest prime above every 32-byte secret, so a share has 33 bytes. Sites have the same point in every sharing of a
round, so one set of Lagrange coefficients serves all secrets that the same sites help to rebuild.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Mapping, Sequence

from fivefold.errors import MessageMalformed, ProtocolViolation, TooManyDropouts

PRIME = 2**256 + 297
SECRET = 32
SHARE = 33


def split(
    secret: bytes, points: Sequence[int], threshold: int, random: Callable[[int], bytes] = os.urandom
) -> dict[int, bytes]:
    """Shares (33 bytes) of a 32-byte secret, one a point (1 or above): any `threshold` of them give it back, fewer say nothing.

    `random(n)` gives n bytes; only a test passes its own. Raises `ValueError` for impossible arguments.
    """
    if len(secret) != SECRET:
        raise ValueError("a shared secret has 32 bytes")
    if len(set(points)) != len(points) or any(not 1 <= x < PRIME for x in points):
        raise ValueError("the points of a sharing are distinct and 1 or above")
    if not 1 <= threshold <= len(points):
        raise ValueError(f"a threshold of {threshold} does not fit {len(points)} shares")
    # Twice the field's length: the remainder is uniform to 2^-255.
    coefficients = [int.from_bytes(random(64), "big") % PRIME for _ in range(threshold - 1)]
    coefficients.append(int.from_bytes(secret, "big"))
    return {x: _value(coefficients, x).to_bytes(SHARE, "big") for x in points}


def combine(shares: Mapping[int, bytes], threshold: int) -> bytes:
    """The secret of at least `threshold` shares, by point. See `combine_many`."""
    return combine_many([shares], threshold)[0]


def combine_many(sharings: Sequence[Mapping[int, bytes]], threshold: int) -> list[bytes]:
    """The secrets of several sharings with shares at the same points.

    Shares beyond the threshold are not thrown away: they must lie on the same polynomial. Raises `TooManyDropouts` for too few
    shares, `MessageMalformed` for a share of the wrong form or other points, `ProtocolViolation` where shares contradict each
    other.
    """
    if not sharings:
        return []
    points = sorted(sharings[0])
    if threshold < 1 or len(points) < threshold:
        raise TooManyDropouts(f"{len(points)} shares are not enough to rebuild a secret that needs {threshold}")
    if any(not 1 <= x < PRIME for x in points) or any(s.keys() != sharings[0].keys() for s in sharings):
        raise MessageMalformed("shares of a round stand at the same points, 1 or above")
    used = points[:threshold]
    lagrange = _at_zero(used)
    parity = _parity(points, threshold) if len(points) > threshold else None
    return [_secret([_number(sharing[x]) for x in points], lagrange, parity) for sharing in sharings]


def _secret(values: list[int], lagrange: list[int], parity: list[int] | None) -> bytes:
    if parity is not None and _product(parity, values):
        raise ProtocolViolation("the shares of a secret contradict each other: at least one site sent a false one")
    secret = _product(lagrange, values)
    if secret >> 256:
        raise ProtocolViolation("the shares of a secret do not give 32 bytes: at least one site sent a false one")
    return secret.to_bytes(SECRET, "big")


def _product(coefficients: list[int], values: list[int]) -> int:
    """Over the shorter of the two: Lagrange coefficients stand for the first `threshold` shares only."""
    return sum(c * v for c, v in zip(coefficients, values, strict=False)) % PRIME


def _number(share: bytes) -> int:
    value = int.from_bytes(share, "big")
    if len(share) != SHARE or value >= PRIME:
        raise MessageMalformed("a share has 33 bytes and lies in the field")
    return value


def _value(coefficients: Sequence[int], x: int) -> int:
    """A polynomial at x, highest coefficient first (Horner)."""
    value = 0
    for c in coefficients:
        value = (value * x + c) % PRIME
    return value


def _at_zero(points: Sequence[int]) -> list[int]:
    """Lagrange coefficients at 0: sum of coefficient × share = secret."""
    product = 1
    for x in points:
        product = product * x % PRIME
    weights = _weights(points, list(points))
    return [product * w % PRIME if len(points) % 2 else -product * w % PRIME for w in weights]


def _parity(points: Sequence[int], threshold: int) -> list[int]:
    """A random word of the dual code: its product with the shares is 0 if they lie on one polynomial of degree below the
    threshold, and otherwise with probability 2^-256 only (the test of SCRAPE, Cascudo and David, ACNS 2017, section 2.1)."""
    check = [secrets.randbelow(PRIME) for _ in range(len(points) - threshold)]
    return [w * _value(check, x) % PRIME for x, w in zip(points, _weights(points), strict=True)]


def _weights(points: Sequence[int], factors: Sequence[int] | None = None) -> list[int]:
    """1 / (factor × product over the others of (x − x')) for each point x, with a single inversion (Montgomery's trick)."""
    denominators = []
    for i, x in enumerate(points):
        d = 1 if factors is None else factors[i]
        for other in points:
            if other != x:
                d = d * (x - other) % PRIME
        denominators.append(d)
    before = [1]
    for d in denominators:
        before.append(before[-1] * d % PRIME)
    inverse = pow(before[-1], -1, PRIME)
    out = [0] * len(points)
    for i in range(len(points) - 1, -1, -1):
        out[i] = before[i] * inverse % PRIME
        inverse = inverse * denominators[i] % PRIME
    return out
