"""The aggregates of a run for its research package: what a replay needs, sealed, and nothing else.

Aggregates are more than what was released, so they travel in a sealed box (`privacy/sealed_box.py`) for the coordinator, the
study's output checkers and whoever else is named, such as an auditor. Masked sums, transcripts and attempts stay behind. A
rehearsal on public records may leave its journal open.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fivefold.auth.keys import public_of
from fivefold.errors import CrateInvalid, JournalProblem, KeyProblem, MessageMalformed, SealBroken
from fivefold.privacy.sealed_box import open_box, seal
from fivefold.protocol.encoding import decode, encode
from fivefold.protocol.messages import Told
from fivefold.protocol.questions import Array
from fivefold.records.journal import read

SEALED = "journal/aggregates.sealed"
OPEN = "journal/aggregates.cbor"
PURPOSE = "journal of a research package"
MAX_BYTES = 1 << 31


@dataclass(frozen=True)
class Aggregate:
    """What came of one round: the digest of its question, the totals of each sum, who answered, how it ended the analysis."""

    round: int
    question: bytes
    totals: tuple[Mapping[str, Array], ...]
    sites: tuple[str, ...]
    dropped: tuple[str, ...]
    ended: str


def aggregates_of(folder: Path, key: bytes | None = None) -> tuple[Aggregate, ...]:
    """The aggregates in a run folder's journal, round by round; `key` opens the journal of a sealed run. Raises
    `JournalProblem` where there are none, `SealBroken` for a wrong key."""
    found = []
    for record in read(folder / "journal" / "rounds.journal", key):
        if record["event"] == "aggregate":
            told = Told.decode(record["told"])
            found.append(Aggregate(told.round, record["question"], decode(told.totals), told.sites, told.dropped, told.ended))
    if not found:
        raise JournalProblem(
            f"{folder} holds no journal of aggregates", help="Pack the run where it was run, or with `--journal none`."
        )
    return tuple(found)


def packed(found: Sequence[Aggregate]) -> bytes:
    """Aggregates as bytes, without a seal."""
    return zlib.compress(encode([[a.round, a.question, a.totals, a.sites, a.dropped, a.ended] for a in found]), 9)


def sealed(found: Sequence[Aggregate], recipients: Sequence[bytes]) -> bytes:
    """Aggregates as a box for the holders of Ed25519 public keys (32 bytes each)."""
    return seal(packed(found), recipients, PURPOSE)


def read_aggregates(crate: Path, private: bytes | None) -> tuple[Aggregate, ...]:
    """The aggregates of a research package: of its open journal, or of the sealed one for a recipient's private key.

    Raises `CrateInvalid` where there is none, the key is missing or not a recipient's, or the bytes are not a journal.
    """
    if (crate / OPEN).is_file():
        return _unpacked((crate / OPEN).read_bytes())
    if not (crate / SEALED).is_file():
        raise CrateInvalid("the package holds no journal of aggregates", help="It was packed with `--journal none`.")
    if private is None:
        raise CrateInvalid(
            "the journal of aggregates is sealed", help="Give the key of the coordinator, a checker or an auditor with --key."
        )
    try:
        return _unpacked(open_box((crate / SEALED).read_bytes(), private, public_of(private), PURPOSE))
    except KeyProblem as error:
        raise CrateInvalid("the journal was not sealed for this key", help="Give that of this run's coordinator.") from error
    except (SealBroken, MessageMalformed) as error:
        raise CrateInvalid("the sealed journal is damaged") from error


def _unpacked(data: bytes) -> tuple[Aggregate, ...]:
    opener = zlib.decompressobj()
    try:
        plain = opener.decompress(data, MAX_BYTES)
        if opener.unconsumed_tail:
            raise ValueError("too large")
        return tuple(_aggregate(*record) for record in decode(plain))
    except (zlib.error, MessageMalformed, ValueError, TypeError) as error:
        raise CrateInvalid("the journal of aggregates is damaged") from error


def _aggregate(round: Any, question: Any, totals: Any, sites: Any, dropped: Any, ended: Any) -> Aggregate:
    if not (isinstance(round, int) and isinstance(question, bytes) and isinstance(ended, str)):
        raise ValueError("not a journal")
    return Aggregate(round, question, tuple(dict(t) for t in totals), tuple(sites), tuple(dropped), ended)
