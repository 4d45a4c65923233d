"""The audit log: append-only, hash-chained, signed, so that a changed, removed, reordered or cut-off entry is found.

Beside the log lies its *head* (`NAME.head`: number and hash of the last entry and size of the file, signed). It is what a
cut-off end is found by, and what others may keep as witnesses.

Writing an entry comes before the act. `AuditLog.write` returns only when entry and head are durable; if it raises, the entry is
not in the log and the act must not happen. Facts are for people and auditors: never put a secret or a person's value there.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fivefold.auth import keys
from fivefold.errors import AuditBroken, KeyProblem, RunError, StorageFull
from fivefold.records.audit_entries import (
    CLOSED,
    FORMAT,
    KEY_CHANGED,
    MAX_LINE,
    OPENED,
    REPAIRED,
    ZERO,
    Entry,
    Head,
    check_follows,
    check_head,
    check_signed,
    entry_of,
    head_path,
    json_facts,
    line_of,
    new_entry,
    new_head,
    opening_key,
    read_head,
    signed_head,
)
from fivefold.records.files import sync_folder

__all__ = ["AuditLog", "Entry", "Head", "Report", "entries", "read_head", "verify"]


class AuditLog:
    """A log open for writing; any number of threads and processes may hold the same file.

    With `private_key` (32 bytes) every entry and head is signed. Opening takes constant time: the end is compared with the
    signed head, a line torn by a crash is cut off and the repair is itself an entry. Raises `AuditBroken` if the end is
    missing or altered, `KeyProblem` if the log was signed with another key, `StorageFull` if the first entry cannot be written.
    """

    def __init__(self, path: str | Path, private_key: bytes | None, owner: str) -> None:
        self.path = Path(path)
        self.owner = owner
        self._private = private_key
        self._mutex = threading.Lock()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _trouble(self.path, error) from error
        try:
            with self._exclusively():
                self._head = self._recover()
                self._catch_up()
                if self._head.seq == 0:
                    self._add(OPENED, {"format": FORMAT, "key": self._key, "log": secrets.token_hex(16)})
        except BaseException:
            self.close()
            raise

    def write(self, event: str, **facts: Any) -> Entry:
        """Append an entry, durable when this returns. Facts: text, finite numbers, booleans, None, lists, mappings.

        Raises `StorageFull` (the log is as it was before), `AuditBroken`, and `TypeError` for a fact that is not JSON.
        """
        if event in ("", OPENED, KEY_CHANGED):
            raise ValueError(f"{event!r} is not an event that may be written")
        plain = json_facts(facts)
        with self._exclusively():
            self._catch_up()
            return self._add(event, plain)

    def closed(self, **facts: Any) -> Entry:
        """Write the last entry of a log that ends, such as a run's; `verify` tells whether a log has one."""
        return self.write(CLOSED, **facts)

    def rotate(self, private_key: bytes) -> Entry:
        """Sign with another key from now on. The change is an entry that the old key signs."""
        if self._private is None:
            raise KeyProblem(f"{self.path.name} is not signed, so there is no key to change")
        public = keys.public_of(private_key).hex()
        with self._exclusively():
            self._catch_up()
            return self._add(KEY_CHANGED, {"key": public}, successor=private_key)

    @property
    def head(self) -> Head:
        """The end of the log as this process last saw it, signed: what a witness is given."""
        return self._head if self._private is None or self._head.signature else signed_head(self._head, self._private)

    def close(self) -> None:
        """Let go of the file. (The `closed` entry is another thing: `closed()`.)"""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __enter__(self) -> AuditLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def _key(self) -> str:
        return keys.public_of(self._private).hex() if self._private else ""

    @contextmanager
    def _exclusively(self) -> Iterator[None]:
        with self._mutex:
            if self._file < 0:
                raise RunError(f"the audit log {self.path.name} is not open", help="Open the log again.")
            fcntl.flock(self._file, fcntl.LOCK_EX)
            try:
                yield
            finally:
                if self._file >= 0:  # a Ctrl-C in the middle: closed by then, and the lock went with the file
                    fcntl.flock(self._file, fcntl.LOCK_UN)

    def _recover(self) -> Head:
        """The head on disk, or that of an empty log where a crash came before the first head was in place."""
        size = os.fstat(self._file).st_size
        head = read_head(self.path)
        if head is None:
            if size == 0 or _first_entry_was_torn(self.path, size):
                return Head(self.owner, self._key, 0, ZERO, 0)
            raise AuditBroken(f"{head_path(self.path).name} is missing: the end of {self.path.name} may have been cut off")
        check_head(head, self.path.name)
        if size < head.size:
            raise _cut_off(self.path, head)
        last = entry_of(_line_before(self._file, head.size), self.path.name, head.seq)
        if last.hash != head.hash or last.owner != self.owner:
            raise AuditBroken(f"line {head.seq} of {self.path.name} is not the entry that its owner signed as the last")
        return head

    def _catch_up(self) -> None:
        """Take in what another process wrote, or what a crash left between a line and its head; cut off a torn line."""
        if _replaced(self.path, self._file):
            raise AuditBroken(f"{self.path.name} was removed or replaced while it was open")
        size = os.fstat(self._file).st_size
        if size < self._head.size:
            raise _cut_off(self.path, self._head)
        head, torn = self._head, b""
        if size > head.size:
            *lines, torn = os.pread(self._file, size - head.size, head.size).split(b"\n")
            for line in lines:
                entry = entry_of(line + b"\n", self.path.name, head.seq + 1)
                check_follows(entry, head.seq, head.hash, self.owner, self.path.name)
                check_signed(entry, head.key, self.path.name)
                key = str(entry.facts.get("key")) if entry.event == KEY_CHANGED else head.key
                head = Head(self.owner, key, entry.seq, entry.hash, head.size + len(line) + 1)
        if head.key != self._key:
            raise KeyProblem(
                f"{self.path.name} is signed with another key", help="Open the log with the key that signs it now."
            )
        self._head = head
        if torn:
            os.ftruncate(self._file, head.size)
            if head.seq:
                self._add(REPAIRED, {"torn_bytes": len(torn)})

    def _add(self, event: str, facts: Mapping[str, Any], successor: bytes | None = None) -> Entry:
        entry = new_entry(self._head, self.owner, event, facts, self._private)
        line = line_of(entry)
        self._store(line, new_head(entry, self._head.size + len(line), successor or self._private))
        if successor is not None:
            self._private = successor
        return entry

    def _store(self, line: bytes, head: Head) -> None:
        """The new head is written aside first, so that a full disk shows before the log grows; then the line; then its name."""
        aside = head_path(self.path, ".head.new")
        try:
            with open(aside, "wb") as file:
                file.write(line_of(head))
                file.flush()
                os.fsync(file.fileno())
            view = memoryview(line)
            while view:
                view = view[os.write(self._file, view) :]
            os.fsync(self._file)
            os.replace(aside, head_path(self.path))
            if head.seq == 1:
                sync_folder(self.path.parent)
        except OSError as error:
            os.ftruncate(self._file, self._head.size)
            with suppress(OSError):
                aside.unlink(missing_ok=True)
            raise _trouble(self.path, error) from error
        self._head = head


@dataclass(frozen=True)
class Report:
    """What `verify` found in a log that is whole. `keys` are the public keys (hex) that signed, oldest first; none: unsigned.

    `closed`: an entry says that the run ended, and none after it that it went on; the airlock writes on.
    `beyond_head`: entries after the head, as a crash between the two leaves.
    """

    owner: str
    entries: int
    first: str
    last: str
    keys: tuple[str, ...]
    head: str
    closed: bool
    beyond_head: int
    events: Mapping[str, int]


def verify(path: str | Path, public_key: bytes | None = None, head: Head | None = None) -> Report:
    """Read a whole log and its head; raise `AuditBroken` with the first line that is not as its owner wrote it.

    `public_key` (32 bytes): the log must be signed by this key. `head`: one that a witness kept; the log must still contain it.
    Without them a log is compared with itself: its owner could have written all of it anew.
    """
    path = Path(path)
    kept, lines = _at_rest(path)
    if kept is None:
        raise AuditBroken(f"{head_path(path).name} is missing: entries may have been cut off the end of {path.name}")
    witnesses = {kept.seq: [kept]}
    if head is not None:
        witnesses.setdefault(head.seq, []).append(head)
    entry, size, key, first = None, 0, "", ""
    signers: list[str] = []
    events: dict[str, int] = {}
    closed = False
    for number, line in enumerate(lines, 1):
        before = entry
        entry = entry_of(line, path.name, number)
        if before is None:
            first, key = entry.time, opening_key(entry, path.name)
            signers = [key] if key else []
        check_follows(entry, number - 1, before.hash if before else ZERO, before.owner if before else entry.owner, path.name)
        check_signed(entry, key, path.name)
        if entry.event == KEY_CHANGED:
            key = str(entry.facts.get("key"))
            signers.append(key)
        size += len(line)
        closed = entry.event == CLOSED or (closed and not entry.event.startswith("run "))
        events[entry.event] = events.get(entry.event, 0) + 1
        for witness in witnesses.pop(number, ()):
            if (witness.hash, witness.size, witness.owner, witness.key) != (entry.hash, size, entry.owner, key):
                raise AuditBroken(
                    f"line {number} of {path.name} is not the entry that its head names: the log was written anew"
                )
    for missing in sorted(witnesses):
        raise _cut_off(path, witnesses[missing][0])
    if entry is None:
        raise _cut_off(path, kept)
    if public_key is not None and public_key.hex() not in signers:
        raise AuditBroken(f"{path.name} is not signed by the key {keys.fingerprint(public_key)}")
    check_head(kept, path.name)
    return Report(
        entry.owner,
        entry.seq,
        first,
        entry.time,
        tuple(signers),
        entry.hash,
        closed,
        entry.seq - kept.seq,
        events,
    )


def entries(path: str | Path) -> Iterator[Entry]:
    """The entries in order, each compared with its own hash only; `verify` compares everything."""
    path = Path(path)
    for number, line in enumerate(_at_rest(path)[1], 1):
        yield entry_of(line, path.name, number)


def _at_rest(path: Path) -> tuple[Head | None, Iterator[bytes]]:
    """Head and lines as of one moment, also while another process writes."""
    hint = "Give the path of an audit log, such as RUN/audit.jsonl."
    if path.is_dir():
        raise RunError(f"{path} is a folder, not a log", help=hint)
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}", help=hint) from error
    try:
        with suppress(OSError):  # a file system without locks: then nobody may be writing
            fcntl.flock(file, fcntl.LOCK_SH)
        head, size = read_head(path), os.fstat(file).st_size
    except BaseException:
        os.close(file)
        raise
    fcntl.flock(file, fcntl.LOCK_UN)
    return head, _lines(file, size)


def _lines(file: int, size: int) -> Iterator[bytes]:
    with os.fdopen(file, "rb") as stream:
        while size > 0 and (line := stream.readline(min(size, MAX_LINE + 1))):
            size -= len(line)
            yield line


def _line_before(file: int, end: int) -> bytes:
    start = max(0, end - MAX_LINE - 1)
    text = os.pread(file, end - start, start)
    return text[text.rfind(b"\n", 0, len(text) - 1) + 1 :]


def _first_entry_was_torn(path: Path, size: int) -> bool:
    try:
        started = read_head(path, ".head.new")
    except AuditBroken:
        return False
    return started is not None and started.seq == 1 and size <= started.size


def _replaced(path: Path, file: int) -> bool:
    try:
        here, there = os.stat(path), os.fstat(file)
    except OSError:
        return True
    return (here.st_dev, here.st_ino) != (there.st_dev, there.st_ino)


def _cut_off(path: Path, head: Head) -> AuditBroken:
    return AuditBroken(f"the end of {path.name} was cut off: its head names entry {head.seq}, which is not there")


def _trouble(path: Path, error: OSError) -> RunError:
    if error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
        return StorageFull(f"the disk is full: nothing more could be written to {path.name}, so the act was not done")
    return RunError(f"{path.name} cannot be written: {error.strerror}", help="Correct the folder's rights, then run again.")
