"""Values to bytes and back, deterministically: RFC 8949 CBOR in its core deterministic form, arrays as tag 40000.

The same value gives the same bytes on every machine, so digests and signatures of them mean something. Decoding is for
hostile input: no code, no object types beyond those listed, sizes checked before memory is taken.
"""

from __future__ import annotations

import hashlib
import io
import math
from typing import Any

import cbor2
import numpy as np

from fivefold.errors import MessageMalformed

ARRAY_TAG = 40000
DTYPES = {"u1": np.uint8, "u4": np.uint32, "u8": np.uint64, "i8": np.int64, "f4": np.float32, "f8": np.float64, "b1": np.bool_}
MAX_BYTES = 1 << 31
PLAIN = frozenset({type(None), bool, int, float, str, bytes})
"""What goes as it is: nearly every value of a long list, so it is asked first."""


def encode(value: Any) -> bytes:
    """Bytes of a value: None, bool, int, float, str, bytes, list or tuple, str-keyed mapping, NumPy array or scalar."""
    return cbor2.dumps(_lower(value), canonical=True)


def decode(data: bytes | memoryview) -> Any:
    """The value of bytes made by `encode`: tuples for lists, read-only arrays. Raises `MessageMalformed`."""
    if len(data) > MAX_BYTES:
        raise MessageMalformed("a message is larger than 2 GiB")
    stream = io.BytesIO(data)
    try:
        lowered = cbor2.CBORDecoder(stream, tag_hook=_array).decode()
        value = _raise(lowered)
    except MessageMalformed:
        raise
    except Exception as error:  # any decoder failure on hostile bytes is one thing to us
        raise MessageMalformed("bytes are not a Fivefold message") from error
    if stream.read(1):
        raise MessageMalformed("bytes follow the end of a message")
    return value


def digest(value: Any) -> bytes:
    """SHA-256 (32 bytes) of `encode(value)`."""
    return hashlib.sha256(encode(value)).digest()


def _lower(value: Any) -> Any:
    if type(value) in PLAIN:
        return value
    if isinstance(value, np.ndarray):
        code = value.dtype.str.lstrip("<>|=")
        if code not in DTYPES:
            raise TypeError(f"arrays of {value.dtype} do not travel; use one of {sorted(DTYPES)}")
        flat = np.ascontiguousarray(value.astype(value.dtype.newbyteorder("<"), copy=False))
        return cbor2.CBORTag(ARRAY_TAG, [code, list(value.shape), flat.tobytes()])
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dict) or hasattr(value, "items"):
        if not all(isinstance(k, str) for k in value):
            raise TypeError("mappings travel with text keys only")
        return {k: _lower(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_lower(v) for v in value]
    if isinstance(value, bytearray):
        return bytes(value)
    if value is None or isinstance(value, (bool, int, float, str, bytes)):
        return value
    raise TypeError(f"{type(value).__name__} does not travel between institutions")


def _array(tag: Any, _immutable: bool = False) -> Any:
    if tag.tag != ARRAY_TAG:
        raise MessageMalformed(f"CBOR tag {tag.tag} is not part of the protocol")
    code, shape, data = tag.value
    if code not in DTYPES or not all(isinstance(n, int) and n >= 0 for n in shape):
        raise MessageMalformed("an array has an unknown type or shape")
    dtype = np.dtype(DTYPES[code]).newbyteorder("<")
    if math.prod(shape) * dtype.itemsize != len(data):
        raise MessageMalformed("an array's bytes do not fill its shape")
    return np.frombuffer(data, dtype).reshape(tuple(shape))


def _raise(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_raise(v) for v in value)
    if isinstance(value, dict):
        if not all(isinstance(k, str) for k in value):
            raise MessageMalformed("a mapping has a key that is not text")
        return {k: _raise(v) for k, v in value.items()}
    if value is None or isinstance(value, (bool, int, float, str, bytes, np.ndarray)):
        return value
    raise MessageMalformed(f"a {type(value).__name__} is not part of the protocol")
