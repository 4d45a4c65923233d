"""Searching bytes for a site's plain numbers, in whatever form."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from fivefold.errors import FivefoldError
from fivefold.protocol.encoding import decode

WINDOW, DISTINCT = 16, 6
CHUNK = 1 << 18


def windows(data: bytes, step: int = 8) -> set[bytes]:
    """The 16-byte windows of an encoded vector that are telling: no zeros, no few bytes again and again."""
    found = (data[at : at + WINDOW] for at in range(0, len(data) - WINDOW + 1, step))
    return {w for w in found if len(set(w)) >= DISTINCT}


def found_in(data: bytes, needles: set[bytes]) -> set[bytes]:
    """The needles that stand anywhere in the bytes, at any offset. A table of hashes sorts out nearly all of the data; what is
    left is compared."""
    if len(data) < WINDOW or not needles:
        return set()
    table = np.zeros(1 << 20, dtype=np.bool_)
    table[_hashes(np.frombuffer(b"".join(sorted(needles)), dtype="<u8"))[::2]] = True
    hits: set[bytes] = set()
    for shift in range(8):
        words = np.frombuffer(data, dtype="<u8", offset=shift, count=(len(data) - shift) // 8)
        for first in range(0, len(words) - 1, CHUNK):
            for at in np.flatnonzero(table[_hashes(words[first : first + CHUNK + 1])]):
                start = shift + 8 * (first + int(at))
                if (piece := data[start : start + WINDOW]) in needles:
                    hits.add(piece)
    return hits


def _hashes(words: Any) -> Any:
    """20 bits of each two neighbouring words of 8 bytes."""
    mixed = words[:-1] * np.uint64(0x9E3779B97F4A7C15) ^ words[1:] * np.uint64(0xC2B2AE3D27D4EB4F)
    return (mixed ^ (mixed >> np.uint64(29))) >> np.uint64(44)


def leaves(value: Any) -> Iterator[bytes]:
    """All texts, bytes and arrays of a value of the journal, messages within bytes opened too."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield key.encode()
            yield from leaves(inner)
    elif isinstance(value, (list, tuple)):
        numbers = [v for v in value if isinstance(v, (int, float))]
        yield np.array(numbers, dtype=np.float64).tobytes()
        for inner in value:
            yield from leaves(inner)
    elif isinstance(value, np.ndarray):
        yield value.tobytes()
        yield value.astype(np.float64).tobytes()
    elif isinstance(value, str):
        yield value.encode()
    elif isinstance(value, bytes):
        yield value
        with contextlib.suppress(FivefoldError):  # a message within a message
            yield from leaves(decode(value))
