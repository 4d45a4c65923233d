"""The ends of a site's chains of statements, as its own audit log names them.

A chain shows a statement that was altered, or taken out of its middle; that its last ones were cut off, it cannot show itself:
a withdrawal or a dismissal would be gone without a trace. So each act at the site writes where every chain ends (entries
`chain`), and whatever reads a chain compares it first. The log's own end is signed, and its head lies with every peer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from fivefold.errors import StatementInvalid
from fivefold.records.audit import AuditLog
from fivefold.records.audit_entries import entry_of

EVENT = "chain"
RULE = "statement_cut_off"
ALONE = ("keys", "people", "policy")
BY_STUDY = ("approvals", "reviews")
"""Folders of `state/` with a chain in each, and with a chain for each study."""

Ends = dict[str, tuple[int, str]]
"""Chain → how many statements it has, and the digest (SHA-256, hex) of the last one's file."""

_READ: dict[tuple[Path, int], tuple[int, Ends]] = {}
"""How far this process has read a log (bytes), and the ends that it found there, so that a long one is not read again."""


def compare(state: Path, chains: Iterable[str] | None = None) -> None:
    """Nothing where each of these chains (all, if left out) still holds the end that the log names. Raises `StatementInvalid`,
    rule `statement_cut_off`."""
    named = witnessed(state / "audit.jsonl")
    for chain in named if chains is None else chains:
        number, digest = named.get(chain, (0, ""))
        found = _files(state / chain)
        if number > len(found):
            raise StatementInvalid(
                f"the end of state/{chain} was cut off: the audit log names {number} statements, and {len(found)} are there",
                rule=RULE,
            )
        if number and _digest(found[number - 1]) != digest:
            raise StatementInvalid(f"statement {number} of state/{chain} is not the one that the audit log names", rule=RULE)


def note(state: Path, log: AuditLog) -> None:
    """Write the ends of the chains that have grown since the log last named them."""
    named = witnessed(log.path)
    for chain in _chains(state):
        files = _files(state / chain)
        if files and len(files) > named.get(chain, (0, ""))[0]:
            log.write(EVENT, chain=chain, statements=len(files), head=_digest(files[-1]))


def witnessed(log: Path) -> Ends:
    """The newest end of each chain that a log names; what this process has read before is not read again."""
    try:
        with log.open("rb") as file:
            status = log.stat()
            at, found = _READ.get((log, status.st_ino), (0, {}))
            if status.st_size < at:
                at, found = 0, {}
            found = dict(found)
            file.seek(at)
            for line in file:
                if not line.endswith(b"\n"):
                    break  # another process is writing it
                at += len(line)
                if b'"event":"%s"' % EVENT.encode() in line:
                    entry = entry_of(line, log.name, 0)
                    if entry.event == EVENT:
                        facts = entry.facts
                        found[str(facts["chain"])] = (int(facts["statements"]), str(facts["head"]))
            _READ[log, status.st_ino] = (at, found)
            return found
    except FileNotFoundError:
        return {}


def _chains(state: Path) -> list[str]:
    studies = [f"{kind}/{p.name}" for kind in BY_STUDY for p in sorted((state / kind).glob("*")) if p.is_dir()]
    return [*ALONE, *studies]


def _files(chain: Path) -> list[Path]:
    return sorted(chain.glob("*.json"))


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise StatementInvalid(f"the statement {path.name} cannot be read") from error
