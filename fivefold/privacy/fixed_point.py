"""Numbers to ring elements and back: fixed point with scales that are powers of two, taken from public bounds alone.

A field's scale 2^k is the largest with which `sites` values at their bound stay within the ring's signed half, so that the
total cannot wrap, whatever the sites answer. In Z_2^128 the error of a total is at most sites × 2^-90 of the bound (before
the total itself is rounded to the nearest double); counts are exact. In Z_2^32 (model updates) a value keeps 31 bits less
those of `sites`.

A value beyond its bound is an error at its site, never a silent wrap; errors name the field and never the value.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from fivefold.errors import AnswerMalformed, OutOfBounds, ProtocolViolation, StudyInvalid, ValueInvalid, ValueNotFinite
from fivefold.privacy.secagg.ring import RING32, RING128, Ring, require, zeros
from fivefold.protocol.questions import Array, Field

Floats = npt.NDArray[np.float64]
CHUNK = 1 << 14
"""Elements encoded at a time, so that every intermediate stays in the cache."""
LARGEST_COUNT = 2**63 - 1
COUNTS = ("count", "cell", "persons")


def ring_for(fields: Sequence[Field]) -> Ring:
    """Z_2^32 where all fields are model updates, Z_2^128 otherwise."""
    return RING32 if fields and all(f.kind == "update" for f in fields) else RING128


def width(fields: Sequence[Field]) -> int:
    """Ring elements of an answer."""
    return sum(f.size for f in fields)


def pack(answer: Mapping[str, Array], fields: Sequence[Field], sites: int) -> Array:
    """One site's answer as ring elements, field after field, each in C order. `sites` is the number in the signed study.

    Raises `AnswerMalformed` (a field is missing, surplus, of another shape or type), `ValueNotFinite`, `OutOfBounds`,
    `ValueInvalid` (a count that is not whole), `StudyInvalid` (a bound that no ring can hold).
    """
    if extra := sorted(set(answer) ^ {f.name for f in fields}):
        raise AnswerMalformed(f"an answer and its question differ in {extra[0]!r}", variable=extra[0])
    ring = ring_for(fields)
    vector = zeros(width(fields), ring)
    start = 0
    for f in fields:
        values, part = _numbers(answer[f.name], f), vector[start : start + f.size]
        exponent, limit = scale_exponent(f, ring, sites), _limit(f, ring, sites)
        for piece in _pieces(f.size):
            if f.kind in COUNTS and f.noise is None:
                _write_counts(part[piece], values[piece], limit, f)
            else:
                _write_reals(part[piece], _bounded(values[piece], f), exponent, ring)
        start += f.size
    return vector


def unpack(vector: Array, fields: Sequence[Field], sites: int, contributing: int | None = None) -> dict[str, Array]:
    """The total as numbers by field: float64 for `real` and `update`, int64 for counts; in each field's shape.

    `contributing` is the number of sites in the total (all, where None). Raises `ProtocolViolation` where a total lies
    beyond what that many sites can give: then masks are left in it. A field with noise is read on its noise's grid: counts
    are rounded and may be negative.
    """
    ring = ring_for(fields)
    require(vector, ring, width(fields))
    out: dict[str, Array] = {}
    start = 0
    for f in fields:
        part = vector[start : start + f.size]
        exponent, largest = (
            scale_exponent(f, ring, sites),
            _limit(f, ring, sites) * (sites if contributing is None else contributing) + (f.noise.allowance if f.noise else 0),
        )
        count = f.kind in COUNTS
        values = np.empty(f.size, dtype=np.int64 if count else np.float64)
        for piece in _pieces(f.size):
            if count and f.noise is None:
                values[piece] = _read_counts(part[piece], largest, f)
            else:
                number = _read_reals(part[piece], exponent, largest, ring, f)
                values[piece] = np.rint(number) if count else number
        out[f.name] = values.reshape(f.shape)
        start += f.size
    return out


def scale_exponent(f: Field, ring: Ring, sites: int) -> int:
    """k of a field's scale 2^k: its values are multiples of 2^-k in the ring; 0 for counts. Raises `StudyInvalid`."""
    if sites < 1:
        raise ValueError("a sum is over one site or more")
    if f.noise is not None:
        return f.noise.exponent
    room = ((1 << (ring.bits - 1)) - 1) // sites
    if f.kind in COUNTS:
        if int(f.bound) * sites > LARGEST_COUNT:
            raise StudyInvalid(
                f"the counts of {f.name!r} could add up beyond 2^63 over {sites} sites",
                help="Lower max_rows_per_site.",
                variable=f.name,
            )
        return 0
    if not math.isfinite(f.bound * sites):
        raise StudyInvalid(
            f"the total of {f.name!r} could be too large for a number in double precision",
            help="Narrow the range of its variables in the dictionary, or lower max_rows_per_site.",
            variable=f.name,
        )
    k = room.bit_length() - math.frexp(f.bound)[1]
    return k if Fraction(f.bound) * Fraction(2) ** k <= room else k - 1


def _limit(f: Field, ring: Ring, sites: int) -> int:
    """The largest absolute ring value that one site may give: of values within the bound none rounds beyond it."""
    if f.noise is not None:
        return f.noise.limit
    scaled = Fraction(f.bound) * Fraction(2) ** scale_exponent(f, ring, sites)
    return math.floor(scaled) if f.kind in COUNTS else math.ceil(scaled)


def _pieces(n: int) -> Iterator[slice]:
    for start in range(0, n, CHUNK):
        yield slice(start, min(n, start + CHUNK))


def _numbers(value: Array, f: Field) -> Array:
    """The field's values, flat; still of the answer's own type."""
    array = np.asarray(value)
    if array.shape != f.shape:
        raise AnswerMalformed(f"the answer to {f.name!r} has another shape than its question", variable=f.name)
    if array.dtype.kind not in "buif":
        raise AnswerMalformed(f"the answer to {f.name!r} does not hold numbers", variable=f.name)
    return array.reshape(-1)


def _bounded(values: Array, f: Field) -> Floats:
    """float64, all finite and within the bound."""
    x = values.astype(np.float64, copy=False)
    largest = float(np.abs(x).max(initial=0.0))
    if not largest <= f.bound:  # NaN compares false with everything
        if math.isfinite(largest):
            raise OutOfBounds(f"a value of {f.name!r} lies beyond its public bound", rule="bound", variable=f.name)
        raise ValueNotFinite(f"a value of {f.name!r} is not a finite number", rule="finite", variable=f.name)
    return x


def _scaled(x: Floats, exponent: int) -> Floats:
    """x · 2^exponent: exact, but for values that leave the range of doubles. A product is many times faster than ldexp."""
    return x * math.ldexp(1.0, exponent) if abs(exponent) <= 1000 else np.ldexp(x, exponent)


def _write_counts(out: Array, values: Array, limit: int, f: Field) -> None:
    if values.dtype.kind == "f":
        whole = _bounded(values, f)
        if not np.array_equal(whole, np.rint(whole)):
            raise ValueInvalid(f"a count of {f.name!r} is not a whole number", rule="whole", variable=f.name)
    # Compared as Python's integers: a bound may lie beyond an int64, a uint64 beyond a double.
    if len(values) and (int(values.min()) < 0 or int(values.max()) > limit):
        raise OutOfBounds(f"a count of {f.name!r} lies beyond its public bound", rule="bound", variable=f.name)
    out[:, 0] = values.astype(np.uint64)
    out[:, 1] = 0


def _write_reals(out: Array, x: Floats, exponent: int, ring: Ring) -> None:
    y = np.rint(_scaled(x, exponent))
    if ring.limbs == 1:
        out[:] = y.astype(np.int32).view(np.uint32)
        return
    size = np.abs(y)
    high = np.floor(size * 2.0**-64)
    # Exact: the low limb is the tail of one 53-bit significand.
    low = size - high * 2.0**64
    out[:, 0], out[:, 1] = low.astype(np.uint64), high.astype(np.uint64)
    _negate(out, y < 0)


def _negate(limbs: Array, where: npt.NDArray[np.bool_]) -> None:
    """Two's complement of the chosen rows, in place."""
    low, high = limbs[where, 0], limbs[where, 1]
    limbs[where, 0] = ~low + np.uint64(1)
    limbs[where, 1] = ~high + (low == 0)


def _read_counts(part: Array, largest: int, f: Field) -> npt.NDArray[np.int64]:
    low, high = part[:, 0], part[:, 1]
    if len(low) and (high.any() or int(low.max()) > largest):
        raise _left_over(f)
    return low.astype(np.int64)


def _read_reals(part: Array, exponent: int, largest: int, ring: Ring, f: Field) -> Floats:
    if ring.limbs == 1:
        signed = part.view(np.int32)
        if len(signed) and max(int(signed.max()), -int(signed.min())) > largest:
            raise _left_over(f)
        return _scaled(signed.astype(np.float64), -exponent)
    negative = (part[:, 1] >> np.uint64(63)).astype(np.bool_)
    limbs = part.copy()
    _negate(limbs, negative)
    low, high = limbs[:, 0], limbs[:, 1]
    top = int(high.max(initial=0))
    if top > largest >> 64 or (top == largest >> 64 and int(low[high == top].max(initial=0)) > largest & (2**64 - 1)):
        raise _left_over(f)
    size = _rounded(low, high, -exponent)
    return np.where(negative, -size, size)


def _rounded(low: Array, high: Array, exponent: int) -> Floats:
    """(high · 2^64 + low) · 2^exponent, rounded once: the top 64 bits, with everything below them gathered in the last."""
    one = np.uint64(1)
    shift = _bit_length(high)
    left = np.uint64(64) - shift
    # A shift by 64 is undefined; two shifts are not.
    top = (high << (left - (left > 0)) << (left > 0).astype(np.uint64)) | (low >> shift)
    lost = (low & ((one << shift) - one)) != 0
    size: Floats = np.ldexp((top | lost).astype(np.float64), shift.astype(np.int32) + np.int32(exponent))
    return size


def _bit_length(x: Array) -> Array:
    """Bits of each uint64 below 2^63; 32 at a time, since a double holds no more than 53."""
    upper = (x >> np.uint64(32)).astype(np.float64)
    lower = (x & np.uint64(2**32 - 1)).astype(np.float64)
    return np.where(upper > 0, np.frexp(upper)[1] + 32, np.frexp(lower)[1]).astype(np.uint64)


def _left_over(f: Field) -> ProtocolViolation:
    return ProtocolViolation(
        f"the total of {f.name!r} lies beyond what its sites can give: masks are left in it", rule="total", variable=f.name
    )
