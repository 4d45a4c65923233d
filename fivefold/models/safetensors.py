"""Weights as safetensors bytes: how they rest in files and go to a confined child. Never pickle.

Written and read by the library `safetensors`; before it looks at foreign bytes, the header's size is bounded here, and after it
has, names, types and the number of arrays.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

MOST_HEADER = 1 << 20
MOST_BYTES = 1 << 31
MOST_ARRAYS = 10_000
TYPES = (np.float32, np.float64)


class Malformed(ValueError):
    """Bytes that are no safetensors file of weights; the message is one sentence."""


def dump(arrays: Mapping[str, Any], about: Mapping[str, str] | None = None) -> bytes:
    """The bytes of a file with these arrays (float32 or float64) and texts beside them. The same arrays give the same bytes."""
    from safetensors.numpy import save

    plain = {name: np.array(a, dtype=a.dtype, order="C") for name, a in arrays.items()}  # the library writes memory as it lies
    return _in_order(save(plain, metadata=dict(about))) if about else save(plain)


def _in_order(data: bytes) -> bytes:
    """The same file with its texts in order of their names: the library writes them in another order each time."""
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # arrays begin at a multiple of eight bytes
    return len(text).to_bytes(8, "little") + text + data[end:]


def load(data: bytes, shapes: Mapping[str, tuple[int, ...]] | None = None) -> dict[str, Any]:
    """The arrays by name, in the file's order, with just these shapes where they are given. Raises `Malformed`."""
    from safetensors import SafetensorError
    from safetensors.numpy import load as library

    header = _header(data)
    try:
        found = library(data)
    except (SafetensorError, ValueError, TypeError, KeyError, OverflowError, MemoryError) as error:
        raise Malformed(f"the file is not whole: {error}") from None
    arrays = {name: found[name] for name in header if name in found}
    if any(a.dtype.type not in TYPES for a in arrays.values()):
        raise Malformed("weights are float32 or float64")
    if shapes is not None and {n: a.shape for n, a in arrays.items()} != {n: tuple(s) for n, s in shapes.items()}:
        raise Malformed("the file holds arrays of other names or shapes than the model")
    return arrays


def about(data: bytes) -> dict[str, str]:
    """The texts beside the arrays. Raises `Malformed`."""
    found = _header(data).get("__metadata__", {})
    return {str(k): str(v) for k, v in found.items()} if isinstance(found, dict) else {}


def _header(data: bytes) -> dict[str, Any]:
    """The header, bounded before it is parsed."""
    if len(data) > MOST_BYTES:
        raise Malformed("the file is larger than 2 GiB")
    if len(data) < 8:
        raise Malformed("the file is shorter than its header's length")
    (size,) = struct.unpack("<Q", data[:8])
    if size > MOST_HEADER:
        raise Malformed("the header claims to be larger than 1 MiB")
    if size + 8 > len(data):
        raise Malformed("the file ends within its header")
    try:
        header = json.loads(data[8 : 8 + size].decode(), object_pairs_hook=_once)
    except (ValueError, RecursionError):
        raise Malformed("the header is not JSON, or names an array twice") from None
    if not isinstance(header, dict) or len(header) > MOST_ARRAYS:
        raise Malformed("the header is no mapping of arrays")
    return header


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) != len(pairs):
        raise ValueError("a name stands twice")
    return out
