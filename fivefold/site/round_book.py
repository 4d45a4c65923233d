"""What a site must remember of a run's rounds though it restart: never a secret, only what it has said.

A site that lost its memory must not say something else in the same place. So each fact is on disk (`records/journal.py`, fsync)
before the reply leaves that it is about.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from pathlib import Path
from typing import Any

from fivefold.errors import RunFolderTaken
from fivefold.protocol.messages import Names, Place
from fivefold.records.journal import Journal, read


class RoundBook:
    """The facts of one run, in a file of its own under `folder`. One process at a time holds it open.

    Raises `RunFolderTaken` where another holds it; every `note_…` raises `StorageFull`, and then nothing was noted.
    """

    def __init__(self, folder: Path, run: str) -> None:
        path = folder / f"{hashlib.sha256(run.encode()).hexdigest()[:32]}.journal"
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.advertised: dict[int, int] = {}
        """Round → the highest attempt for which keys were advertised."""
        self.answered: dict[int, tuple[int, bytes]] = {}
        """Round → the last attempt in which a masked update left, and the digest of the question."""
        self.signed: dict[tuple[int, int], Names] = {}
        """(round, attempt) → the survivor list that was agreed to."""
        self.released: dict[int, Names] = {}
        """Round → the only survivor list for which unmask shares have left or ever will."""
        self._lock = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for record in read(path):
                self._apply(record)
            self._journal = Journal(path)
        except BlockingIOError as error:
            os.close(self._lock)
            raise RunFolderTaken("another process of this site takes part in this run", help="Stop one of the two.") from error
        except BaseException:
            os.close(self._lock)
            raise

    @property
    def round(self) -> int:
        """The last round in which a masked update left; 0 before the first."""
        return max(self.answered, default=0)

    def note_advertised(self, place: Place) -> None:
        self._note({"advertised": (place.round, place.attempt)})

    def note_answered(self, place: Place, question: bytes, following: Place | None) -> None:
        """A masked update leaves, and with it the keys for the next round (unless `following` is None)."""
        fact: dict[str, Any] = {"answered": (place.round, place.attempt, question)}
        self._note(fact | ({"advertised": (following.round, following.attempt)} if following else {}))

    def note_signed(self, place: Place, survivors: Names) -> None:
        self._note({"signed": (place.round, place.attempt, survivors)})

    def note_released(self, place: Place, survivors: Names) -> None:
        self._note({"released": (place.round, place.attempt, survivors)})

    def close(self) -> None:
        if self._lock >= 0:
            self._journal.close()
            os.close(self._lock)
            self._lock = -1

    def _note(self, fact: dict[str, Any]) -> None:
        self._journal.append(fact)
        self._apply(fact)

    def _apply(self, fact: dict[str, Any]) -> None:
        if "advertised" in fact:
            round, attempt = fact["advertised"]
            self.advertised[round] = max(attempt, self.advertised.get(round, 0))
        if "answered" in fact:
            round, attempt, question = fact["answered"]
            self.answered[round] = (attempt, question)
        for name, lists in (("signed", self.signed), ("released", None)):
            if name in fact:
                round, attempt, survivors = fact[name]
                self.signed[round, attempt] = survivors
                if lists is None:
                    self.released[round] = survivors
