"""Vectors over Z_2^32 and Z_2^128: what sites mask and the coordinator adds up.

Z_2^32 is uint32 of shape (n,). Z_2^128 is uint64 of shape (n, 2): low limb, high limb. Addition is in place and in chunks, with
carries, so that a coordinator's memory stays at one vector however many sites there are. Every function is exact modulo 2^bits.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fivefold.errors import MessageMalformed
from fivefold.protocol.questions import Array

CHUNK = 4096
"""Elements of Z_2^128 added at a time: 64 KiB of each operand, which stays in the processor's second-level cache."""


@dataclass(frozen=True)
class Ring:
    """Integers modulo 2^bits as `limbs` little-endian limbs of type `limb` (a NumPy type string)."""

    bits: int
    limb: str
    limbs: int

    @property
    def element_bytes(self) -> int:
        return self.bits // 8

    def shape(self, n: int) -> tuple[int, ...]:
        """The array's shape for n elements."""
        return (n,) if self.limbs == 1 else (n, self.limbs)


RING32 = Ring(32, "<u4", 1)
RING128 = Ring(128, "<u8", 2)


def zeros(n: int, ring: Ring) -> Array:
    """n elements, all zero."""
    return np.zeros(ring.shape(n), dtype=ring.limb)


def require(vector: Array, ring: Ring, n: int | None = None) -> Array:
    """The vector itself, if it is n elements of the ring (any number, where n is None). Raises `MessageMalformed`."""
    wanted = ring.shape(len(vector) if n is None and vector.ndim else n or 0)
    if vector.dtype != np.dtype(ring.limb) or vector.shape != wanted:
        raise MessageMalformed(f"a vector of Z_2^{ring.bits} has another type or length than the question asks for")
    return vector


def add_into(acc: Array, v: Array, ring: Ring) -> None:
    """acc += v, in place. Both have the ring's type and one shape; raises `MessageMalformed` otherwise."""
    require(v, ring, len(require(acc, ring)))
    if ring.limbs == 1:
        np.add(acc, v, out=acc)
        return
    v = v.copy() if np.may_share_memory(acc, v) else v  # the carry is read off v after acc has changed
    carry = np.empty(min(CHUNK, len(acc)), dtype=np.bool_)
    for start in range(0, len(acc), CHUNK):
        a, b = acc[start : start + CHUNK], v[start : start + CHUNK]
        over = carry[: len(a)]
        np.add(a, b, out=a)  # both limbs at once; the low limb wrapped exactly where it is now below what was added
        np.less(a[:, 0], b[:, 0], out=over)
        np.add(a[:, 1], over, out=a[:, 1])


def to_bytes(vector: Array, ring: Ring) -> bytes:
    """Little-endian bytes, `ring.element_bytes` an element."""
    return np.ascontiguousarray(require(vector, ring)).tobytes()


def from_bytes(data: bytes | memoryview, n: int, ring: Ring) -> Array:
    """n elements as a read-only view of the bytes. Raises `MessageMalformed` where the length is another."""
    if n < 0 or len(data) != n * ring.element_bytes:
        raise MessageMalformed(f"a vector of Z_2^{ring.bits} has another length than the question asks for")
    vector = np.frombuffer(data, dtype=ring.limb).reshape(ring.shape(n))
    vector.setflags(write=False)
    return vector
