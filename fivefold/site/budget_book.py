"""The budget's ledger on disk: for each data asset one append-only, hash-chained file that survives `kill -9` and old copies.

A record is one of `records/journal.py` (length, SHA-256, deterministic CBOR) and names the hash of the record before it. One
process at a time reads and writes, under a lock. `written` returns when entry and audit log are on disk, in this order: a crash
between the two leaves the ledger ahead of the log, which charges too much and never too little. A ledger that does not contain
the head that the audit log names was put back from an older copy, and nothing is released on it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fivefold.errors import FivefoldError, JournalProblem, LedgerBroken, RunError
from fivefold.privacy.dp.events import Event, from_plain, to_plain
from fivefold.protocol.encoding import digest
from fivefold.records.audit import AuditLog
from fivefold.records.audit_entries import Entry as AuditEntry
from fivefold.records.audit_entries import entry_of
from fivefold.records.journal import HEAD, Journal, read_after

FORMAT = "fivefold-budget/1"
EVENT = "budget"
"""The event of the audit log under which the ledger's head stands."""
BLOCK = 1 << 16


@dataclass(frozen=True)
class Entry:
    """One charge. `key` (hex) tells a retry from a new release; `study` is the study's digest, `title` for people."""

    key: str
    study: str
    title: str
    run: str
    round: int
    events: tuple[Event, ...]
    time: str


@dataclass(frozen=True)
class Book:
    """A ledger as it was read: its entries in order, and the hash (hex) of each record; `heads[0]` is the opening's."""

    path: Path
    asset: str
    entries: tuple[Entry, ...] = ()
    heads: tuple[str, ...] = ()
    size: int = 0
    """Where the last record ends in the file, in bytes; it begins at `last`."""
    last: int = 0

    @property
    def head(self) -> str:
        """The hash of the last record; empty where nothing was ever written."""
        return self.heads[-1] if self.heads else ""


def place(state: Path, asset: str) -> Path:
    """Where an asset's ledger lies if the policy does not say otherwise."""
    return state / "budget" / f"{hashlib.sha256(asset.encode()).hexdigest()[:16]}.ledger"


def load(path: Path, asset: str = "", known: Book | None = None) -> Book:
    """The ledger at a path, every link of its chain compared; an empty one where there is no file. With `asset`, it must be
    that asset's. `known`: the same ledger as it was read before; only what came since is read. Raises `LedgerBroken`."""
    known = known if known is not None and _begins_with(path, known) else Book(path, asset)
    entries, heads, found = list(known.entries), list(known.heads), known.asset
    size, last = known.size, known.last
    try:
        for end, hashed, record in read_after(path, size):
            if record["previous"] != (heads[-1] if heads else ""):
                raise LedgerBroken(f"record {len(heads) + 1} of {path.name} does not follow the one before it")
            if heads:
                entries.append(_entry_of(record))
            elif record["format"] != FORMAT:
                raise LedgerBroken(f"{path.name} is not the ledger of a budget")
            else:
                found = str(record["asset"])
            heads.append(hashed.hex())
            last, size = size, end
    except LedgerBroken:
        raise
    except (FivefoldError, KeyError, TypeError, ValueError) as error:
        what = error.message if isinstance(error, JournalProblem) else f"{path.name} is damaged"
        raise LedgerBroken(what) from error
    except OSError as error:
        raise RunError(f"{path.name} cannot be read: {error.strerror}", help="Correct the file's rights.") from error
    if asset and found != asset:
        raise LedgerBroken(
            f"{path.name} is the ledger of the asset {found}, not of {asset}",
            help="Give each asset a ledger of its own, and copies of one asset the same name.",
        )
    return Book(path, found, tuple(entries), tuple(heads), size, last)


def others(state: Path, asset: str) -> tuple[Book, ...]:
    """The ledgers of this site's other assets: a budget that was begun under another name does not end with it."""
    found = (load(path) for path in sorted((state / "budget").glob("*.ledger")))
    return tuple(book for book in found if book.entries and book.asset != asset)


@contextmanager
def exclusively(path: Path, asset: str, audit: AuditLog) -> Iterator[Book]:
    """The ledger, held by this process alone, compared with the head that the audit log names.

    When the block begins, what was read is on disk and in the audit log, also a record that a killed process left behind: a
    retry may rely on it. Raises `LedgerBroken`, `RunError`, `StorageFull`.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise RunError(f"{path.name} cannot be written: {error.strerror}", help="Correct the folder's rights.") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        book = _KNOWN[path] = load(path, asset, _KNOWN.get(path))
        witnessed = last_witnessed(audit.path, asset)
        compare(book, witnessed)
        if book.entries:
            _to_disk(path)
            if (witnessed or (0, ""))[0] < len(book.entries):
                _witness(book, audit)
        yield book
    finally:
        os.close(lock)


def written(book: Book, entry: Entry, audit: AuditLog, **facts: Any) -> Book:
    """The book with one more entry, on disk, its head in the audit log beside `facts`. Only within `exclusively`.

    Raises `StorageFull`, `RunError`, `AuditBroken`; then the caller releases nothing, be the entry in the ledger or not.
    """
    heads = list(book.heads)
    journal = Journal(book.path, book.size)
    try:
        if not heads:
            opening = {
                "format": FORMAT,
                "asset": book.asset,
                "made": entry.time,
                "nonce": secrets.token_hex(16),
                "previous": "",
            }
            journal.append(opening)
            heads.append(digest(opening).hex())
            _to_disk(book.path.parent)
        last, record = book.path.stat().st_size, _record(entry, heads[-1])
        journal.append(record)
        size = book.path.stat().st_size
    except OSError as error:
        raise RunError(f"{book.path.name} cannot be written: {error.strerror}", help="Correct the folder's rights.") from error
    finally:
        journal.close()
    heads.append(digest(record).hex())
    after = Book(book.path, book.asset, (*book.entries, entry), tuple(heads), size, last)
    _witness(after, audit, **facts)
    return after


_WITNESSED: dict[tuple[Path, str], tuple[int, tuple[int, str] | None]] = {}
"""How far this process has read an audit log for an asset's head, and the one it found there."""
_KNOWN: dict[Path, Book] = {}
"""Ledgers as this process last read them, so that a long one is not read again for each charge."""


def compare(book: Book, witnessed: tuple[int, str] | None) -> None:
    """Raise `LedgerBroken` unless the book contains the head (number of entries, hash) that a witness names."""
    if witnessed is None:
        return
    number, head = witnessed
    if number >= len(book.heads):
        raise LedgerBroken(
            f"the ledger of {book.asset} was put back to an older copy: it holds {len(book.entries)} charges, and the audit "
            f"log names charge {number}",
            rule="budget",
        )
    if book.heads[number] != head:
        raise LedgerBroken(
            f"the ledger of {book.asset} is not the one that the audit log names: charge {number} differs", rule="budget"
        )


def last_witnessed(log: Path, asset: str) -> tuple[int, str] | None:
    """The newest head of an asset's ledger in an audit log: (number of entries, hash), or None. Read from the log's end, and
    what this process has read before is not read again."""
    size = _end_of_lines(log)
    end, found = _WITNESSED.get((log, asset), (0, None))
    if size < end:
        end, found = 0, None
    for entry in _backwards(log, b'"event":"%s"' % EVENT.encode(), end, size):
        if entry.event == EVENT and entry.facts.get("asset") == asset:
            found = int(entry.facts["entries"]), str(entry.facts["head"])
            break
    _WITNESSED[log, asset] = (size, found)
    return found


def entry(key: str, study: str, title: str, run: str, round: int, events: tuple[Event, ...]) -> Entry:
    """A charge, now."""
    return Entry(key, study, title, run, round, events, datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"))


def _begins_with(path: Path, known: Book) -> bool:
    """Does the file still hold, where the known ledger ended, its last record?"""
    if not known.heads:
        return False
    try:
        with path.open("rb") as file:
            file.seek(known.last + HEAD)
            return hashlib.sha256(file.read(known.size - known.last - HEAD)).hexdigest() == known.head
    except OSError:
        return False


def _record(entry: Entry, previous: str) -> dict[str, Any]:
    return asdict(entry) | {"events": [to_plain(e) for e in entry.events], "previous": previous}


def _entry_of(record: Mapping[str, Any]) -> Entry:
    values = {name: record[name] for name in ("key", "study", "title", "run", "round", "time")}
    return Entry(events=tuple(from_plain(e) for e in record["events"]), **values)


def _end_of_lines(log: Path) -> int:
    """Where the last whole line ends, in bytes: another process may be writing the next one."""
    try:
        with log.open("rb") as file:
            at = file.seek(0, os.SEEK_END)
            while at:
                size = min(BLOCK, at)
                at -= size
                file.seek(at)
                last = file.read(size).rfind(b"\n")
                if last >= 0:
                    return at + last + 1
    except FileNotFoundError:
        pass
    return 0


def _backwards(log: Path, mark: bytes, start: int, end: int) -> Iterator[AuditEntry]:
    """The entries of a log, between two ends of lines, whose line holds the mark; newest first."""
    with log.open("rb") as file:
        at, rest = end, b""
        while at > start:
            size = min(BLOCK, at - start)
            at -= size
            file.seek(at)
            rest, *lines = (file.read(size) + rest).split(b"\n")
            if at == start:
                lines = [rest, *lines]
            for line in reversed(lines):
                if mark in line:
                    yield entry_of(line + b"\n", log.name, 0)


def _witness(book: Book, audit: AuditLog, **facts: Any) -> None:
    audit.write(EVENT, asset=book.asset, entries=len(book.entries), head=book.head, **facts)


def _to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        raise RunError(f"{path.name} could not be brought to the disk: {error.strerror}", help="Look at the disk.") from error
    finally:
        os.close(handle)
