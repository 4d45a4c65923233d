"""How far a site has followed a run: its own journal of aggregates, and its own snapshots, from which it goes on.

What the site was told and checked is on disk before it is fed to its replay. Once a training yields a snapshot, the totals of
the rounds before it are dropped: the site keeps that a round was, and with whom.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fivefold.errors import JournalProblem
from fivefold.records.checkpoints import Checkpoints
from fivefold.records.journal import Journal, read, rewrite
from fivefold.replay.cursor import Checkpoint, Cursor, Outcome

HELP = "Restore the site's state from a copy."
SNAPSHOTS, AGGREGATES = "snapshots", "aggregates.journal"


def cursor_at(place: Path, make: Callable[[dict[str, Checkpoint]], Cursor]) -> Cursor:
    """The cursor of a run whose folder at the site is `place`, which begins at its snapshots."""
    return make(Checkpoints(place / SNAPSHOTS).load())


def retold(place: Path, cursor: Cursor, settle: Callable[[int, tuple[str, ...]], None]) -> int:
    """Feed the cursor what its snapshots do not hold; the rounds that are known. `settle` is told each round and its sites,
    those before a snapshot too, since a crash may have come between.

    Raises `JournalProblem` where totals were dropped and their snapshot is gone.
    """
    known = 0
    for record in read(place / AGGREGATES):
        known = int(record["round"])
        if not cursor.passed(known):
            if "totals" not in record:
                raise JournalProblem("the run's snapshot at this site is gone", help=HELP)
            cursor.feed(Outcome(record["totals"], record["sites"], record["dropped"], record["ended"]))
        settle(known, tuple(record["sites"]))
    if cursor.open is not None and cursor.open.round != known + 1:
        raise JournalProblem("the run's journal at this site ends before its snapshot", help=HELP)
    return known


def note(place: Path, round: int, outcome: Outcome) -> None:
    """A round's outcome, on disk before it is fed. Raises `StorageFull`."""
    journal = Journal(place / AGGREGATES)
    try:
        journal.append({"round": round, **vars(outcome)})
    finally:
        journal.close()


def keep(place: Path, cursor: Cursor) -> None:
    """After a round was fed: if it brought a snapshot, keep that, and drop the totals that it makes needless."""
    if cursor.taken is None:
        return
    Checkpoints(place / SNAPSHOTS).keep(cursor.taken)
    rewrite(place / AGGREGATES, [_shorter(r, cursor.taken) for r in read(place / AGGREGATES)])


def forget(place: Path) -> None:
    """The run is over: its snapshots go."""
    for path in (place / SNAPSHOTS).glob("*"):
        path.unlink()


def _shorter(record: Mapping[str, Any], it: Checkpoint) -> Mapping[str, Any]:
    if it.begun < record["round"] <= it.round:
        return {name: value for name, value in record.items() if name != "totals"}
    return record
