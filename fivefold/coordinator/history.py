"""The run's journal at the coordinator: what was opened, what is being opened, and which attempts were lost.

    lost       an attempt that came to nothing: its number is not used again
    masked     the masked sum and its survivors, on disk before any site is asked to open it
    aggregate  a round's outcome, with what each site needs to follow it

Only the last aggregate is held in memory; a site that missed more is told from the file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fivefold.protocol.encoding import encode
from fivefold.protocol.messages import Told
from fivefold.records.journal import Journal, read
from fivefold.replay.cursor import Outcome

Filled = Mapping[str, tuple[int, float]]
"""Site → version and weight of its update in a buffer."""


class History:
    """`attempts`: round → the highest attempt used. `masked`: the record of the opening that was begun last, if no aggregate
    came of it yet. `key` seals the file. Every `note_…` raises `StorageFull`, and then nothing was noted."""

    def __init__(self, path: Path, key: bytes | None = None) -> None:
        self.path, self._key = path, key
        self.attempts: dict[int, int] = {}
        self.masked: bytes = b""
        self.versions: Mapping[str, int] = {}
        """Of a buffer that was masked: site → the version of the weights that its update was computed from."""
        self.rounds = 0
        """Aggregates so far."""
        self._last: bytes = b""
        self._journal: Journal | None = None

    def replayed(self) -> Iterator[Mapping[str, Any]]:
        """The aggregates of an earlier process of this run, in order; then the journal is open for more."""
        for record in read(self.path, self._key):
            number = record["round"]
            self.attempts[number] = max(record["attempt"], self.attempts.get(number, 0))
            if record["event"] == "masked":
                self.masked, self.versions = record["record"], record.get("versions", {})
            if record["event"] == "aggregate":
                self._counted(record["told"])
                yield record
        self._journal = Journal(self.path, key=self._key)

    def note_lost(self, round: int, attempt: int) -> None:
        self._note({"event": "lost", "round": round, "attempt": attempt})

    def note_masked(self, round: int, attempt: int, record: bytes, versions: Mapping[str, int] | None = None) -> None:
        buffer = {} if versions is None else {"versions": dict(versions)}
        self._note({"event": "masked", "round": round, "attempt": attempt, "record": record} | buffer)
        self.masked, self.versions = record, versions or {}

    def note_aggregate(
        self,
        round: int,
        attempt: int,
        digest: bytes,
        outcome: Outcome,
        question: bytes,
        transcript: bytes,
        buffer: Filled | None = None,
        *,
        steps: Sequence[str] = (),
    ) -> None:
        """`question` and `transcript` are empty where the aggregate is taken on trust. `buffer`: its members, and from which
        version of the weights each one's update was computed, and what it weighed. `steps`: what the round asked."""
        totals = encode(tuple(dict(t) for t in outcome.totals))
        told = Told(round, totals, outcome.sites, outcome.dropped, outcome.ended, question, transcript).encode()
        filled = {} if buffer is None else {"buffer": {s: {"version": v, "weight": w} for s, (v, w) in buffer.items()}}
        record = {"event": "aggregate", "round": round, "attempt": attempt, "question": digest, "told": told}
        self._note(record | {"steps": tuple(steps)} | filled)
        self._counted(told)

    def since(self, known: int) -> tuple[bytes, ...]:
        """What a site is told that has followed the run up to the round `known`: encoded `Told`."""
        if known >= self.rounds:
            return ()
        if known == self.rounds - 1:
            return (self._last,)
        later = (r for r in read(self.path, self._key) if r["event"] == "aggregate" and r["round"] > known)
        return tuple(record["told"] for record in later)

    def close(self) -> None:
        if self._journal is not None:
            self._journal.close()

    def _counted(self, told: bytes) -> None:
        self.rounds, self._last, self.masked, self.versions = self.rounds + 1, told, b"", {}

    def _note(self, record: Mapping[str, Any]) -> None:
        assert self._journal is not None
        self._journal.append(record)
