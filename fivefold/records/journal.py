"""An append-only file of values that survives `kill -9`: each record is durable before the next step is taken.

A record is its length (8 bytes), the SHA-256 of its bytes, and its bytes (`protocol/encoding.py`). A torn last record, as a
crash leaves it, is cut off when the journal is opened again; damage anywhere else is an error, never a silent loss.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from fivefold.errors import JournalProblem, SealBroken, StorageFull
from fivefold.protocol.encoding import decode, encode
from fivefold.records.files import write_file

HEAD = 8 + 32


class Journal:
    """`append` returns only when the record is on disk. One writer at a time (the run's lock sees to that).

    `start`: the end of a record up to which the caller has read already, so that a long journal opens at once. `key` (32
    bytes): each record's bytes are sealed (ChaCha20-Poly1305), bound to their place in the file.
    """

    def __init__(self, path: Path, start: int = 0, key: bytes | None = None) -> None:
        self.path, self._key = path, key
        path.parent.mkdir(parents=True, exist_ok=True)
        end = start + sum(HEAD + length for length, _ in _records(path, start)) if path.exists() else 0
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        os.ftruncate(self._file, end)
        self._end = end

    def append(self, record: Any) -> None:
        body = encode(record) if self._key is None else sealed(self._key, encode(record), self._end.to_bytes(8, "big"))
        data = _framed(body)
        try:
            view = memoryview(data)
            offset = self._end
            while view:
                written = os.pwrite(self._file, view, offset)
                view, offset = view[written:], offset + written
            os.fsync(self._file)
        except OSError as error:
            os.ftruncate(self._file, self._end)
            if error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
                raise StorageFull(f"the disk is full: {self.path.name} could not be written") from error
            raise
        self._end += len(data)

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def read(path: Path, key: bytes | None = None) -> Iterator[Any]:
    """The records in order. Raises `SealBroken` where the key does not open one."""
    at = 0
    for length, body in _records(path) if path.exists() else ():
        yield decode(body if key is None else unsealed(key, body, at.to_bytes(8, "big")))
        at += HEAD + length


def rewrite(path: Path, records: Iterable[Any]) -> None:
    """Put other records in a journal's place, all at once: a crash leaves the old ones or the new ones. Not for a journal that
    somebody has open. Raises `StorageFull`."""
    write_file(path, b"".join(_framed(encode(r)) for r in records))
    path.chmod(0o600)


def _framed(body: bytes) -> bytes:
    return len(body).to_bytes(8, "big") + hashlib.sha256(body).digest() + body


def sealed(key: bytes, body: bytes, place: bytes) -> bytes:
    """ChaCha20-Poly1305 under a random nonce, bound to `place`."""
    nonce = os.urandom(12)
    return nonce + ChaCha20Poly1305(key).encrypt(nonce, body, place)


def unsealed(key: bytes, body: bytes, place: bytes) -> bytes:
    """The inverse of `sealed`. Raises `SealBroken`."""
    try:
        return ChaCha20Poly1305(key).decrypt(body[:12], body[12:], place)
    except (InvalidTag, ValueError) as error:
        raise SealBroken(
            "a record of the sealed journal cannot be opened", help="Restore the run folder from a copy."
        ) from error


def read_after(path: Path, start: int = 0) -> Iterator[tuple[int, bytes, Any]]:
    """The records from `start` (the end of one) on: for each its end in the file, its SHA-256 and the record."""
    if path.exists():
        for length, body in _records(path, start):
            start += HEAD + length
            yield start, hashlib.sha256(body).digest(), decode(body)


def _records(path: Path, start: int = 0) -> Iterator[tuple[int, bytes]]:
    size = path.stat().st_size
    with path.open("rb") as file:
        at = file.seek(start)
        while at < size:
            head = file.read(HEAD)
            length = int.from_bytes(head[:8], "big")
            if len(head) < HEAD or at + HEAD + length > size:
                return  # torn by a crash while it was written: the step after it was never taken
            body = file.read(length)
            if hashlib.sha256(body).digest() != head[8:]:
                if at + HEAD + length == size:
                    return
                raise JournalProblem(
                    f"{path.name} is damaged at byte {at}",
                    help="Restore the run folder from a copy, or start a new run with --out.",
                )
            yield length, body
            at += HEAD + length
