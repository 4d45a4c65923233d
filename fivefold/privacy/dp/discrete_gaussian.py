"""The discrete Gaussian, sampled exactly, fast, and by integers alone, from a keyed stream.

N_Z(0, σ²) gives the integer x with probability proportional to exp(-x²/(2σ²)) (Canonne, Kamath & Steinke, 2020, "The discrete
Gaussian for differential privacy", Definition 1). For a given key and scale the same numbers come out on every machine.

Why it is exact. Let L = 2^s be the largest power of two with 16·L ≤ σ (L = 1 below). A magnitude is y = k·L + j:

1. k ≥ 0 is drawn with probability proportional to exp(-(kL)²/(2σ²)), by inverting its distribution function at a uniform real
   number U of which at first 63 bits are known. The function's steps are computed as integers with certified lower and upper
   bounds. Where no step lies within [u, u+1)·2^-63, whatever the further bits of U are, k is the same; where one does, further
   bits are drawn and the steps computed more closely until it is decided. The tail is in the last of these cells, so it is
   never cut off.
2. j is uniform on 0..L-1: s bits of the stream.
3. The pair is kept with probability exp(-t), t = j(2kL + j)/(2σ²), so that y comes with exp(-(kL)²/(2σ²))·exp(-t) =
   exp(-y²/(2σ²)). Again a uniform number, known at first to 32 bits, is compared with an interval of integers that is certain
   to hold exp(-t)·2^32; between its ends (one time in a million) further bits are drawn and compared with a closer interval.
4. A sign bit; a zero with a minus is drawn again. (For L = 1, zero has half the weight in the table instead.)

Each decision is the one that an infinitely long uniform number would give, so there is no error, not even a small one. Pairs
that were not kept are drawn again, so the time taken tells a little about the numbers, as in any rejection sampler: a site's
replies should not be timed more finely than a round.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

Integers = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]

KEY = 32
LARGEST = Fraction(2) ** 112
"""The largest variance: magnitudes stay far within an int64."""
CHUNK = 1 << 14
"""Pairs drawn at a time, so that every intermediate stays in the cache."""
BITS = 63
"""Bits of the first uniform number that are looked at before any exact work."""
FINE = 24
"""Bits of j/L that the quick test of step 3 looks at."""
SLACK = 1 << 11
"""By how much, in 2^-32, the quick test's t may lie below the true one: j's lower bits (at most 550), the constant's (2^10)
and one rounding. Holds for k < 512 and c·2^32 ≤ 2^23, which σ/L ≥ 16 and the table's end give."""
STEEP = 512
GUIDE = 14


def sample(variance: Fraction | float | int, size: int, key: bytes) -> Integers:
    """`size` independent draws of N_Z(0, variance), shape (size,). The same key, variance and size give the same numbers.

    `key` has 32 bytes and is used for one purpose only. A float counts as the binary fraction that it is. Raises `ValueError`
    for a variance that is not above 0 or beyond 2^112, or a key of another length.
    """
    exact = Fraction(variance)
    if not 0 < exact <= LARGEST:
        raise ValueError("the variance of a discrete Gaussian lies above 0 and at most at 2^112")
    stream, out = Stream(key), np.empty(size, dtype=np.int64)
    table, filled = _table(exact), 0
    while filled < size:
        # Enough pairs for what is missing, mostly; their number depends on `size` alone.
        drawn = _draw(table, stream, min(CHUNK, (size - filled) * 9 // 8 + 16))[: size - filled]
        out[filled : filled + len(drawn)] = drawn
        filled += len(drawn)
    return out


class Stream:
    """Two keystreams of a key (HKDF-SHA256, then AES-256-CTR): words in bulk, and the bits that are seldom needed."""

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY:
            raise ValueError(f"the key of a noise stream has {KEY} bytes")
        self._bulk, self._more = (_keystream(key, label) for label in (b"bulk", b"more"))

    def words(self, n: int) -> Words:
        """n uniform 64-bit words."""
        return np.frombuffer(self._bulk.update(bytes(8 * n)), dtype="<u8")

    def halves(self, n: int) -> npt.NDArray[np.uint32]:
        """n uniform 32-bit words."""
        return np.frombuffer(self._bulk.update(bytes(4 * n)), dtype="<u4")

    def more(self) -> int:
        """64 further bits of a number that is not decided yet."""
        return int.from_bytes(self._more.update(bytes(8)), "little")


def _keystream(key: bytes, label: bytes) -> Any:
    derived = HKDF(SHA256(), 48, None, b"fivefold/discrete-gaussian/1/" + label).derive(key)
    return Cipher(algorithms.AES(derived[:32]), modes.CTR(derived[32:])).encryptor()


# ---- step 1: the table ----------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Table:
    """Steps of k's distribution function: `floors[i]` is the whole part of P(k ≤ i)·2^bits, up to the first that is 2^bits -
    1."""

    variance: Fraction
    shift: int
    bits: int
    floors: Words
    guide: dict[str, Any] = field(default_factory=dict, compare=False)

    @property
    def c(self) -> Fraction:
        """L²/(2σ²)."""
        return Fraction(4) ** self.shift / (2 * self.variance)

    @property
    def constant(self) -> int:
        """c·2^32, rounded down."""
        return int(self.c * 2**32)

    def cells(self) -> npt.NDArray[np.int16]:
        """k by the leading bits of U where they decide it, else -1. Made when it is first needed."""
        if "cells" not in self.guide:
            width = np.uint64(1 << (BITS - GUIDE))
            low = np.arange(1 << GUIDE, dtype=np.uint64) * width
            high = low + (width - np.uint64(1))
            k = np.searchsorted(self.floors, low, side="left")
            sure = (k < len(self.floors)) & (self.floors[np.minimum(k, len(self.floors) - 1)] > high)
            self.guide["cells"] = np.where(sure, k, -1).astype(np.int16)
        cells: npt.NDArray[np.int16] = self.guide["cells"]
        return cells


@lru_cache(maxsize=512)
def _table(variance: Fraction, bits: int = BITS) -> Table:
    shift = max(0, (_root(variance) // 16).bit_length() - 1)
    precision = 256
    while True:
        floors = _floors(variance, shift, bits, precision)
        if floors is not None:
            return Table(variance, shift, bits, np.array(floors, dtype=np.uint64))
        precision *= 2


def _root(variance: Fraction) -> int:
    from math import isqrt

    return isqrt(variance.numerator // variance.denominator)


def _floors(variance: Fraction, shift: int, bits: int, precision: int) -> list[int] | None:
    """Whole parts of the steps, or None where the precision leaves one open."""
    out: list[int] = []
    for low, high in _steps(variance, shift, bits, precision):
        low, high = min(low, 2**bits - 1), min(high, 2**bits - 1)
        if low != high:
            return None
        out.append(low)
        if low == 2**bits - 1:
            return out
    return None


def _steps(variance: Fraction, shift: int, bits: int, precision: int) -> Iterator[tuple[int, int]]:
    """Bounds of the whole part of P(k ≤ i)·2^bits for i = 0, 1, …, as far as the precision reaches.

    The weights exp(-c·k²) follow from one exponential by products, each rounded down in one chain and up in the other; what
    lies beyond the last is bounded by a geometric series.
    """
    one = 1 << precision
    c = Fraction(4) ** shift / (2 * variance)
    low, high = exp_minus(c, precision)
    twice = 1 if shift == 0 else 0  # with L = 1 every magnitude but zero stands for two numbers
    square_low, square_high = low * low >> precision, (high * high >> precision) + 1
    ratio_low, ratio_high, weight_low, weight_high = low, high, one, one
    sums: list[tuple[int, int]] = [(one, one)]
    while weight_high > one >> (precision * 3 // 4):
        weight_low = weight_low * ratio_low >> precision
        weight_high = (weight_high * ratio_high >> precision) + 1
        ratio_low = ratio_low * square_low >> precision
        ratio_high = (ratio_high * square_high >> precision) + 1
        sums.append((sums[-1][0] + (weight_low << twice), sums[-1][1] + (weight_high << twice)))
    tail = ((weight_high << twice) * ratio_high) // (one - ratio_high) + 1
    total_low, total_high = sums[-1][0], sums[-1][1] + tail
    for sum_low, sum_high in sums:
        yield (sum_low << bits) // total_high, (sum_high << bits) // total_low


def exp_minus(x: Fraction, bits: int) -> tuple[int, int]:
    """(low, high) with low ≤ exp(-x)·2^bits ≤ high, for x ≥ 0, a few units apart: x is halved until it is small, the
    alternating series summed in integers, and the result squared as often."""
    halvings = max(0, x.numerator.bit_length() - x.denominator.bit_length() + 2)
    precision = bits + 2 * halvings + 32
    y = (x.numerator << precision) // (x.denominator << halvings)
    term = total = 1 << precision
    count = 0
    while term:
        count += 1
        term = term * y // count >> precision
        total += -term if count % 2 else term
    # y is at most one unit too small, every term at most two, and what follows is smaller than a unit.
    low, high = max(total - 2 * count - 3, 0), total + 2 * count + 3
    for _ in range(halvings):
        low, high = low * low >> precision, (high * high >> precision) + 1
    return low >> (precision - bits), (high >> (precision - bits)) + 1


def _decided(table: Table, u: int, stream: Stream) -> int:
    """k where the first bits left it open: further bits, and closer steps, until it is decided."""
    bits = table.bits
    while True:
        u, bits = u << 64 | stream.more(), bits + 64
        for k, (low, high) in enumerate(_steps(table.variance, table.shift, bits, 4 * bits)):
            if u < low:
                return k
            if u <= high:
                break


# ---- steps 2 to 4 ---------------------------------------------------------------------------------------------------
def _draw(table: Table, stream: Stream, n: int) -> Integers:
    """n pairs; the numbers of those that were kept."""
    word = stream.words(n)
    u = word >> np.uint64(64 - table.bits)
    k, open_ = _look_up(table, u, n)
    y, negative = k, (word & np.uint64(1)) == 1
    if table.shift == 0:
        for i in open_:
            y[i] = _decided(table, int(u[i]), stream)
    else:
        for i in open_:
            k[i] = _decided(table, int(u[i]), stream)
        j = (stream.words(n) & np.uint64((1 << table.shift) - 1)).view(np.int64)
        y = (k << np.int64(table.shift)) + j
        kept = _kept(table, stream, k, j)
        kept &= ~(negative & (y == 0))
        y, negative = y[kept], negative[kept]
    # Two's complement: ~y + 1 where the sign is minus.
    mask = -negative.astype(np.int64)
    out: Integers = (y ^ mask) - mask
    return out


def _look_up(table: Table, u: Words, n: int) -> tuple[Integers, Integers]:
    """k by the table, and the places at which a step lies within the cell of U."""
    floors = table.floors
    if table.bits != BITS or n < 2048:
        k = np.searchsorted(floors, u, side="left")
        return k.astype(np.int64), np.flatnonzero(floors[np.minimum(k, len(floors) - 1)] == u)
    k = table.cells()[(u >> np.uint64(BITS - GUIDE)).view(np.int64)].astype(np.int64)
    rest = np.flatnonzero(k < 0)
    k[rest] = np.searchsorted(floors, u[rest], side="left")
    return k, rest[floors[k[rest]] == u[rest]]


def _kept(table: Table, stream: Stream, k: Integers, j: Integers) -> npt.NDArray[np.bool_]:
    """Step 3 for each pair. exp(-t) ≥ 1 - t keeps nearly all; the rest is compared with the series, and what is still open
    exactly."""
    v = stream.halves(len(k)).astype(np.int64)
    fine = j >> np.int64(table.shift - FINE) if table.shift > FINE else j << np.int64(FINE - table.shift)
    t = (((fine * ((k << np.int64(FINE + 1)) + fine)) >> np.int64(20)) * np.int64(table.constant)) >> np.int64(28)
    kept = (v + t < np.int64(2**32 - 1 - SLACK)) & (k < STEEP)
    rest = np.flatnonzero(~kept)
    e, w, far = _series(np.clip(t[rest], 0, 2**32 - 1)), v[rest], k[rest] >= STEEP
    surely = w + 1 <= e - (SLACK + 16)
    kept[rest] = surely
    for i in rest[(~surely & (w < e + 16)) | far]:
        x, y = int(k[i]) << table.shift, int(j[i])
        kept[i] = below_exp(int(v[i]), 32, Fraction(y * (2 * x + y)) / (2 * table.variance), stream)
    return kept


def _series(t: Integers) -> Integers:
    """exp(-t·2^-32)·2^32 for t below 2^32, within 16: Horner's scheme, thirteen terms."""
    x, h = t.astype(np.uint64), np.full(len(t), 2**32, dtype=np.uint64)
    for i in range(13, 0, -1):
        h = np.uint64(2**32) - ((x * h) >> np.uint64(32)) // np.uint64(i)
    return h.view(np.int64)


def below_exp(v: int, bits: int, t: Fraction, stream: Stream) -> bool:
    """Whether a uniform number whose first bits are v lies below exp(-t); further bits are drawn until that is certain."""
    while True:
        low, high = exp_minus(t, bits)
        if v + 1 <= low:
            return True
        if v >= high:
            return False
        v, bits = v << 64 | stream.more(), bits + 64
