"""The coordinator's log of its own door: whom it let in, and who knocked with a key that nobody let in.

DIR/audit.jsonl  audit.key     the log, and the key that signs it

Flower's SuperLink turns a strange key away and tells it in a line of its own log, alike in both flwr that are admitted
(`dialect.py`). That line is read here; another that turns a caller away (a right key's wrong signature) it does not write.
"""

from __future__ import annotations

import ast
import hashlib
import os
import re
from collections import Counter
from collections.abc import Collection
from pathlib import Path

from fivefold.auth.keys import new_key, read_key, write_key
from fivefold.errors import KeyProblem, StorageFull
from fivefold.records.audit import AuditLog, entries

LOG, KEY, SUPERLINK_LOG = "audit.jsonl", "audit.key", "superlink.log"
OWNER = "coordinator-door"
REFUSED = "connection refused"
LINE = re.compile(rb"""SuperNode with public key: (b'(?:[^'\\]|\\.){1,4096}'|b"(?:[^"\\]|\\.){1,4096}")""")
MOST_READ, MOST_NAMED = 1 << 20, 10
"""Bytes of the SuperLink's log that are read at once; keys that one entry names: knocking fast fills no disk with entries."""


def print_of(key: bytes) -> str:
    """A connection key's SHA-256 (hex), which `sha256sum connection.pub` gives too."""
    return hashlib.sha256(key).hexdigest()


def door_log(folder: Path) -> AuditLog:
    """The log, open for writing. Raises `AuditBroken`, `KeyProblem`, `StorageFull`."""
    if not (folder / KEY).exists():
        if (folder / LOG).exists():
            raise KeyProblem(f"{folder / KEY} is gone, which signs {LOG}", help="Restore it from a copy, or move the log away.")
        write_key(folder / KEY, new_key())
    return AuditLog(folder / LOG, read_key(folder / KEY), OWNER)


class Door:
    """The SuperLink's log, followed from where it was read last. Raises as `door_log` does."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        door_log(folder).close()
        told = (int(e.facts["read_to"]) for e in entries(folder / LOG) if e.event == REFUSED)
        self._read_to = max(told, default=0)

    def look(self, admitted: Collection[bytes]) -> int:
        """Log the attempts that the SuperLink has told of since, all in one entry; how many there were. A key that is in
        `admitted` is no stranger's: its site only came before it was registered anew. On a full disk they are logged later."""
        text = self._lines()
        found = Counter(key for key in map(_key, LINE.findall(text)) if key not in admitted)
        if found:
            named = [print_of(key) for key, _ in found.most_common(MOST_NAMED)]
            try:
                with door_log(self.folder) as log:
                    log.write(REFUSED, attempts=found.total(), keys=named, read_to=self._read_to + len(text))
            except StorageFull:
                return 0
        self._read_to += len(text)
        return found.total()

    def _lines(self) -> bytes:
        """Whole lines; of one that is longer than what is read at once, a part."""
        try:
            with (self.folder / SUPERLINK_LOG).open("rb") as file:
                if file.seek(0, os.SEEK_END) < self._read_to:  # begun anew
                    self._read_to = 0
                file.seek(self._read_to)
                text = file.read(MOST_READ)
        except FileNotFoundError:
            return b""
        end = text.rfind(b"\n") + 1
        return text if len(text) == MOST_READ and not end else text[:end]


def _key(text: bytes) -> bytes:
    try:
        return bytes(ast.literal_eval(text.decode("ascii")))
    except (ValueError, SyntaxError, TypeError):
        return text
