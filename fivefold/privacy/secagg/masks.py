"""Masks: the keystream of a seed, added to a vector or taken from it.

A mask is AES-128 in counter mode (NIST SP 800-38A) under a key and a nonce that SHA-256 makes of all 32 bytes of the seed. The
stream is written straight into a small buffer that is used again and again, and the vector is walked once: for each chunk all
masks in turn, their cipher contexts kept open, so that the chunk stays in the cache. OpenSSL and NumPy both release the
interpreter's lock, so threads share the vector by halves.

AES-128, not AES-256: the cost of a search is 2^128 either way one counts today's attacks, the nonce (96 bits that depend on the
seed as well) spoils tables made for many masks at once, and AES-256 is a fifth slower in this inner loop. The counter starts at
nonce || 2, where AES-128-GCM's keystream starts too, so that a machine whose GCM is faster may use that for the same bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, islice, pairwise
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from fivefold.privacy.secagg.ring import Ring, require
from fivefold.protocol.questions import Array

CHUNK = 1 << 18
"""Bytes of keystream at a time, in Z_2^32, a multiple of AES's 16. Half as much is 3 % slower on one thread, and 10 to 20 %
on two, which then wait for the interpreter more often."""
WIDE = 1 << 12
"""Elements of Z_2^128 at a time. The stream gives their low limbs, then their high limbs: part of the mask's definition."""
OPEN = 256
"""Cipher contexts open at a time: bounds the memory of a coordinator that takes away thousands of masks."""
FLUSH = 100
"""Masks after which carries, counted in 8 bits, are moved into the high limbs."""
SEED = 32
LIMIT = (1 << 32) - 2
"""AES blocks before the 32-bit counter would wrap: 64 GiB of vector."""
LABEL = b"fivefold/mask/1"
NOTHING = memoryview(bytes(CHUNK))
"""What is encrypted for the keystream. Made once: a fresh quarter of a megabyte a call would cost 150 µs of page faults."""

SignedSeed = tuple[bytes, int]


def apply_masks(vector: Array, ring: Ring, seeds: Iterable[SignedSeed], threads: int = 1) -> None:
    """Add (+1) or subtract (-1) the mask of each 32-byte seed, in place.

    `vector` is contiguous and writable, of the ring's type. `seeds` may be a generator: at most 256 are held at a time.
    `threads` share the vector by parts. Raises `ValueError` for a seed of another length or a sign that is not +1 or -1.
    """
    require(vector, ring)
    if not (vector.flags.c_contiguous and vector.flags.writeable):
        raise ValueError("masks go into a contiguous, writable vector")
    if vector.nbytes > 16 * LIMIT:
        raise ValueError("a mask is at most 64 GiB long")
    kernel, step = (_narrow, CHUNK // 4) if ring.limbs == 1 else (_wide, WIDE)
    parts = _parts(len(vector), step, threads)
    rest = iter(seeds)
    while batch := [(_material(seed), _checked(sign)) for seed, sign in islice(rest, OPEN)]:
        if len(parts) == 1:
            kernel(vector, 0, len(vector), batch)
            continue
        with ThreadPoolExecutor(len(parts)) as pool:
            list(pool.map(lambda part: kernel(vector, part[0], part[1], batch), parts))


def unmask(
    total: Array, ring: Ring, self_seeds: Iterable[bytes], pair_seeds: Iterable[SignedSeed] = (), threads: int = 1
) -> None:
    """Take the masks out of a sum of masked vectors, in place: the same kernel, streaming.

    `self_seeds` are the survivors' own; they were added and are subtracted here. `pair_seeds` are those that survivors share
    with sites that dropped out: (seed, sign with which the *survivor* applied it); the opposite is applied here.
    """
    undone = chain(((seed, -1) for seed in self_seeds), ((seed, -sign) for seed, sign in pair_seeds))
    apply_masks(total, ring, undone, threads)


def pair_sign(me: int, peer: int) -> int:
    """+1 for the site that stands later in the roster, -1 for the earlier: the two masks of a pair cancel."""
    if me == peer:
        raise ValueError("a site shares no mask with itself")
    return 1 if me > peer else -1


def _material(seed: bytes) -> tuple[bytes, bytes]:
    """AES key (16 bytes) and nonce (12) of a seed: every bit of the seed goes into both."""
    if len(seed) != SEED:
        raise ValueError(f"a mask's seed has {SEED} bytes")
    derived = hashlib.sha256(LABEL + seed).digest()
    return derived[:16], derived[16:28]


def _checked(sign: int) -> int:
    if sign not in (1, -1):
        raise ValueError("a mask's sign is +1 or -1")
    return sign


def _stream(material: tuple[bytes, bytes], offset: int) -> Any:
    """The keystream from a byte offset (a multiple of 16) on, as an open context."""
    key, nonce = material
    return Cipher(algorithms.AES(key), modes.CTR(nonce + (2 + offset // 16).to_bytes(4, "big"))).encryptor()


def _parts(n: int, step: int, threads: int) -> list[tuple[int, int]]:
    """Ranges of whole chunks, one a thread; a small vector is one range."""
    chunks = -(-n // step)
    count = max(1, min(threads, chunks))
    edges = [min(n, (i * chunks // count) * step) for i in range(count)] + [n]
    return list(pairwise(edges))


def _opened(batch: Sequence[tuple[tuple[bytes, bytes], int]], offset: int) -> list[tuple[Any, int]]:
    return [(_stream(material, offset).update_into, sign) for material, sign in batch]


def _narrow(vector: Array, start: int, stop: int, batch: Sequence[tuple[tuple[bytes, bytes], int]]) -> None:
    """Z_2^32: the stream is the mask, four bytes an element."""
    step = CHUNK // 4
    buffer = np.empty(CHUNK + 16, dtype=np.uint8)  # OpenSSL wants a block of room beyond what it writes
    words, into = buffer[:CHUNK].view("<u4"), buffer.data
    streams = [(update, np.add if sign > 0 else np.subtract) for update, sign in _opened(batch, 4 * start)]
    for a in range(start, stop, step):
        v = vector[a : min(a + step, stop)]
        mask, source = words[: len(v)], NOTHING[: v.nbytes]
        for update, apply in streams:
            update(source, into)
            apply(v, mask, v)


def _wide(vector: Array, start: int, stop: int, batch: Sequence[tuple[tuple[bytes, bytes], int]]) -> None:
    """Z_2^128: for each chunk the low limbs of the mask, then the high limbs, so that both are added as plain vectors; carries
    are counted in 8 bits and moved up now and then."""
    size = 16 * WIDE
    buffer, wrapped = np.empty(size + 16, dtype=np.uint8), np.empty(WIDE, dtype=np.bool_)
    words, into = buffer[:size].view("<u8"), buffer.data
    limbs, carries = np.empty((2, WIDE), dtype="<u8"), np.zeros(WIDE, dtype=np.int8)
    streams = _opened(batch, 16 * start)
    for a in range(start, stop, WIDE):
        v = vector[a : min(a + WIDE, stop)]
        m = len(v)
        low, high, mask_low, mask_high = limbs[0, :m], limbs[1, :m], words[:m], words[m : 2 * m]
        over, carry, source = wrapped[:m], carries[:m], NOTHING[: 16 * m]
        unit = over.view(np.int8)
        low[:], high[:] = v[:, 0], v[:, 1]
        for group in _groups(streams):
            for update, sign in group:
                update(source, into)
                if sign > 0:
                    np.add(low, mask_low, out=low)
                    np.less(low, mask_low, out=over)
                    np.add(high, mask_high, out=high)
                    np.add(carry, unit, out=carry)
                else:
                    np.less(low, mask_low, out=over)
                    np.subtract(low, mask_low, out=low)
                    np.subtract(high, mask_high, out=high)
                    np.subtract(carry, unit, out=carry)
            np.add(high, carry.astype(np.int64).view(np.uint64), out=high)
            carry[:] = 0
        v[:, 0], v[:, 1] = low, high


def _groups(streams: list[tuple[Any, int]]) -> Iterator[list[tuple[Any, int]]]:
    for i in range(0, len(streams), FLUSH):
        yield streams[i : i + FLUSH]
