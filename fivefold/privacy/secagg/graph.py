"""Who masks with whom: everybody up to 128 sites, and above that a graph whose edges the sites draw themselves.

Bell et al. (CCS 2020, section 4): the Merkle root over all signed keys is fixed first, so that nobody can add keys once
neighbours are known; then each site draws `degree` neighbours with its own randomness and signs them. A site masks with
those that it drew and those that drew it, and shares its secrets among those that it drew.

Degree and threshold come from hypergeometric tails, in exact integers. Here the colluders are a *fraction of all sites, fixed
before the draw*: a coordinator that can corrupt a site after seeing the graph is not covered, unlike in the complete graph.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from secrets import randbelow

from fivefold.errors import MessageMalformed, ProtocolViolation, StudyInvalid

COMPLETE = 128
"""The largest study whose sites all mask with each other."""
FAILURE = 80
"""Bits: each promise of the sparse graph fails with probability 2^-80 at most, over all sites and rounds together."""


@dataclass(frozen=True)
class Neighbourhood:
    """What each site of a large study draws: `degree` neighbours, of which `threshold` rebuild its secrets."""

    degree: int
    threshold: int


def is_complete(n: int) -> bool:
    """Whether the sites of a study all mask with each other."""
    return n <= COMPLETE


def neighbourhood(
    n: int, *, colluding: float, dropping: float, rounds: int, active: bool = True, failure: int = FAILURE
) -> Neighbourhood:
    """A small degree (found by bisection), with its threshold, for n sites of which fixed fractions collude and drop out.

    Over all n sites and all rounds together, each of these fails with probability 2^-failure at most:

    - colluders among a site's neighbours rebuild nothing: fewer than t; against an active coordinator, which asks half of the
      others for one kind of share and half for the other, fewer than 2t - degree;
    - so many neighbours of each site are left that its secrets can be rebuilt: t;
    - the honest sites that are left hang together, so that no part of them can be summed alone.

    Raises `StudyInvalid` where no degree will do.
    """
    colluders, dropouts = _share(n, colluding), _share(n, dropping)
    if n <= COMPLETE or rounds < 1 or colluders < 0 or dropouts < 0 or colluders + dropouts >= n - 1:
        raise StudyInvalid(
            f"no sparse graph fits {n} sites with these fractions of colluders and drop-outs",
            help=f"Up to {COMPLETE} sites use the complete graph; the two fractions together stay below 1.",
        )

    def fits(degree: int) -> int | None:
        return _threshold(n, degree, colluders, dropouts, active, Fraction(1, (n * rounds) << failure))

    def connected(degree: int) -> bool:
        return _log2_disconnected(n, degree, n - colluders - dropouts) + math.log2(rounds) <= -failure

    low, high = 1, 2
    while not (fits(high) and connected(high)):
        low, high = high, high * 2
        if high >= n:
            raise StudyInvalid(
                f"among {n} sites no degree withstands these fractions of colluders and drop-outs",
                help="Plan for fewer: against an active coordinator, colluding + 2 × dropping has to stay well below 1.",
            )
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(middle) and connected(middle) else (middle, high)
    return Neighbourhood(high, fits(high) or high)


def draw_neighbours(me: int, n: int, degree: int, below: Callable[[int], int] = randbelow) -> tuple[int, ...]:
    """`degree` distinct sites other than `me`, in order; `below(m)` draws from 0..m-1 (a test may pass its own)."""
    if not 0 <= degree < n or not 0 <= me < n:
        raise ValueError("a site draws fewer neighbours than there are sites")
    drawn: set[int] = set()
    # Floyd's algorithm (Bentley, CACM 1987): every subset of the n - 1 others is equally likely.
    for top in range(n - 1 - degree, n - 1):
        pick = below(top + 1)
        drawn.add(top if pick in drawn else pick)
    return tuple(sorted(i if i < me else i + 1 for i in drawn))


def merkle_root(leaves: Sequence[bytes]) -> bytes:
    """SHA-256 tree hash of the leaves (RFC 6962, section 2.1): leaves and nodes hash apart, so neither passes for the other."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    return _root([_leaf(x) for x in leaves])


def merkle_proof(leaves: Sequence[bytes], index: int) -> tuple[bytes, ...]:
    """The hashes beside the path from a leaf to the root, from below."""
    if not 0 <= index < len(leaves):
        raise ValueError("there is no such leaf")
    hashes, path = [_leaf(x) for x in leaves], []
    while len(hashes) > 1:
        beside = index ^ 1
        if beside < len(hashes):
            path.append(hashes[beside])
        hashes, index = _level(hashes), index // 2
    return tuple(path)


def check_merkle(root: bytes, leaf: bytes, index: int, count: int, proof: Sequence[bytes]) -> None:
    """That `leaf` is number `index` of the `count` leaves under `root`. Raises `ProtocolViolation`, `MessageMalformed`."""
    if not 0 <= index < count or any(len(h) != 32 for h in proof):
        raise MessageMalformed("a Merkle proof names a leaf that cannot be, or has a hash of another length")
    value, rest, width = _leaf(leaf), list(proof), count
    while width > 1:
        if index ^ 1 < width:
            if not rest:
                raise ProtocolViolation("a Merkle proof is too short")
            beside = rest.pop(0)
            value = _node(beside, value) if index & 1 else _node(value, beside)
        index, width = index // 2, (width + 1) // 2
    if rest or value != root:
        raise ProtocolViolation("a site's keys are not those under the root that all sites agreed on")


def tail(population: int, marked: int, drawn: int, least: int) -> Fraction:
    """P(at least `least` of `drawn` are marked): the hypergeometric tail, exact."""
    least = max(least, 0, drawn + marked - population)
    most = min(drawn, marked)
    if least > most:
        return Fraction(0)
    term = math.comb(marked, least) * math.comb(population - marked, drawn - least)
    total = term
    for i in range(least, most):
        term = term * ((marked - i) * (drawn - i)) // ((i + 1) * (population - marked - drawn + i + 1))
        total += term
    return Fraction(total, math.comb(population, drawn))


def _share(n: int, fraction: float) -> int:
    """That fraction of n, rounded up; 0.3 means three tenths, not the nearest binary fraction."""
    return math.ceil(n * Fraction(fraction).limit_denominator(10**9))


def _threshold(n: int, degree: int, colluders: int, dropouts: int, active: bool, limit: Fraction) -> int | None:
    """The smallest threshold that keeps colluders out, if it also bears the drop-outs."""
    # The most colluders in a neighbourhood that chance may bring, and so the least threshold.
    low, high = 0, degree + 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if tail(n - 1, colluders, degree, middle) <= limit else (middle + 1, high)
    # `low` colluders or more do not happen: t >= low, and against an active coordinator 2t - degree >= low.
    t = max(low, (degree + low + 1) // 2, 2) if active else max(low, 2)
    if t > degree or tail(n - 1, dropouts, degree, degree - t + 1) > limit:
        return None
    return t


def _log2_disconnected(n: int, degree: int, left: int) -> float:
    """log2 of a bound on the chance that the `left` sites fall into parts: over every size of a part, the number
    of such parts times the chance that neither side drew a member of the other."""
    misses = [_log2_comb(n - 1 - m, degree) - _log2_comb(n - 1, degree) for m in range(left)]
    terms = [_log2_comb(left, m) + m * misses[left - m] + (left - m) * misses[m] for m in range(1, left // 2 + 1)]
    largest = max(terms, default=-math.inf)
    if largest == -math.inf:
        return largest
    return largest + math.log2(sum(2.0 ** max(x - largest, -1000.0) for x in terms))


def _log2_comb(n: int, k: int) -> float:
    if k > n:
        return -math.inf
    return (math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)) / math.log(2)


def _leaf(data: bytes) -> bytes:
    return hashlib.sha256(b"\x00" + data).digest()


def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


def _level(hashes: list[bytes]) -> list[bytes]:
    """The level above; a hash without a partner goes up as it is."""
    paired = [_node(a, b) for a, b in zip(hashes[::2], hashes[1::2], strict=False)]
    return paired + hashes[len(paired) * 2 :]


def _root(hashes: list[bytes]) -> bytes:
    while len(hashes) > 1:
        hashes = _level(hashes)
    return hashes[0]
