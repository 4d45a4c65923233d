"""The aggregates of a run for its research package: what a replay needs, sealed, and nothing else.

Aggregates are more than what was released, so they travel sealed (AES-256-GCM). The key follows from the coordinator's private
key and the run (HKDF-SHA256): whoever ran the study can open it, and can hand the one key to an auditor. Masked sums,
transcripts and attempts stay behind. A rehearsal on public records may leave its journal open.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from fivefold.errors import CrateInvalid, JournalProblem, MessageMalformed
from fivefold.protocol.encoding import decode, encode
from fivefold.records.journal import read

SEALED = "journal/aggregates.sealed"
OPEN = "journal/aggregates.cbor"
MAGIC = b"fivefold sealed journal 1\n"
NONCE = 12
MAX_BYTES = 1 << 31
KEPT = ("round", "question", "totals", "sites", "dropped", "ended")

Aggregates = tuple[Mapping[str, Any], ...]


def aggregates_of(folder: Path) -> Aggregates:
    """The aggregates in a run folder's journal, round by round. Raises `JournalProblem` where there are none."""
    path = folder / "journal" / "rounds.journal"
    found = tuple({name: r[name] for name in KEPT if name in r} for r in read(path) if r["event"] == "aggregate")
    if not found:
        raise JournalProblem(f"{folder} holds no journal of aggregates", help="Pack the run where it was run.")
    return found


def journal_key(private: bytes, run: str) -> bytes:
    """The key (32 bytes) of a run's sealed journal, from the coordinator's private key."""
    return HKDF(SHA256(), 32, salt=b"fivefold sealed journal 1", info=run.encode()).derive(private)


def packed(records: Sequence[Mapping[str, Any]]) -> bytes:
    """Aggregates as bytes, without a seal."""
    return zlib.compress(encode([dict(r) for r in records]), 9)


def sealed(records: Sequence[Mapping[str, Any]], key: bytes) -> bytes:
    """Aggregates as sealed bytes."""
    nonce = os.urandom(NONCE)
    return MAGIC + nonce + AESGCM(key).encrypt(nonce, packed(records), MAGIC)


def read_aggregates(crate: Path, key: bytes | None) -> Aggregates:
    """The aggregates of a research package: of its open journal, or of the sealed one with its key.

    Raises `CrateInvalid` where there is none, the key is missing or wrong, or the bytes are not a journal.
    """
    if (crate / OPEN).is_file():
        return _unpacked((crate / OPEN).read_bytes())
    if not (crate / SEALED).is_file():
        raise CrateInvalid("the package holds no journal of aggregates", help="It was packed with `--journal none`.")
    if key is None:
        raise CrateInvalid("the journal of aggregates is sealed", help="Give the coordinator's key, or the journal's (--key).")
    data = (crate / SEALED).read_bytes()
    try:
        if not data.startswith(MAGIC):
            raise CrateInvalid("the sealed journal is damaged")
        at = len(MAGIC)
        return _unpacked(AESGCM(key).decrypt(data[at : at + NONCE], data[at + NONCE :], MAGIC))
    except (InvalidTag, ValueError) as error:
        raise CrateInvalid("this key does not open the sealed journal", help="Give that of this run's coordinator.") from error


def _unpacked(data: bytes) -> Aggregates:
    opener = zlib.decompressobj()
    try:
        plain = opener.decompress(data, MAX_BYTES)
        records = decode(plain)
        if opener.unconsumed_tail or not all(set(KEPT) <= set(r) for r in records):
            raise ValueError("not a journal")
    except (zlib.error, MessageMalformed, ValueError, TypeError) as error:
        raise CrateInvalid("the journal of aggregates is damaged") from error
    return tuple(records)
