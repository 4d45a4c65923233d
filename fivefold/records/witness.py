"""Heads of audit logs that others keep, so that no owner can rewrite its log alone.

In each round every site is shown the head of every other site's log and of the coordinator's, each signed by its owner, and
the coordinator is shown the sites'; all of them write what they saw into their own logs (entries `heads`). A log that was
rewritten, cut or put back then lacks what others hold; an owner who tells two stories has signed both.

After a run's last trip nobody is shown anything. What the airlock writes then is witnessed by whoever keeps a copy of the log,
as in a research package, which also holds the head that each site signed with its evidence; or a lodged head (`lodged.py`).

On the wire a head has 144 bytes: key 32 · number 8 · size 8 · hash 32 · signature 64 (big-endian).
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fivefold.errors import AuditBroken, ProtocolViolation, RunError
from fivefold.records.audit import Report, entries, verify
from fivefold.records.audit_entries import KEY_CHANGED, MAX_LINE, Entry, Head, check_head, line_of, opening_key, read_head
from fivefold.records.bag import payload_of
from fivefold.records.lodged import FORMAT, read_lodged

COORDINATOR = "coordinator"
"""The owner of a run's log; each run's has a key of its own."""
HEADS = "heads"
"""The event by which a log says what it was shown."""
BEGINNINGS = ("run begun", "run resumed")
FORM = struct.Struct(">32sQQ32s64s")


@dataclass(frozen=True)
class Seen:
    """A head of somebody's log, and who holds it: `by`, in `where` (a file, and a line in it). `run`: during which run."""

    head: Head
    by: str
    where: str
    run: str = ""


@dataclass(frozen=True)
class Compared:
    """A log that is whole and holds all that others witnessed: `heads` by witness, up to the entry `last`."""

    report: Report
    heads: Mapping[str, int]
    last: int


def packed(head: Head) -> bytes:
    """A signed head as it travels; empty for an unsigned one."""
    if not head.signature:
        return b""
    return FORM.pack(bytes.fromhex(head.key), head.seq, head.size, bytes.fromhex(head.hash), bytes.fromhex(head.signature))


def unpacked(data: bytes, owner: str, key: bytes | None = None) -> Head:
    """The head of an owner's log, signed by this key (32 bytes), or by the one that it names. Raises `ProtocolViolation`, rule
    `log_head`."""
    if len(data) != FORM.size:
        raise _false(owner)
    signer, seq, size, digest, signature = FORM.unpack(data)
    head = Head(owner, signer.hex(), seq, digest.hex(), size, signature.hex())
    try:
        check_head(head, owner)
    except AuditBroken:
        raise _false(owner) from None
    if key is not None and signer != key:
        raise _false(owner)
    return head


def told(head: Head) -> list[Any]:
    """A head as a fact of an entry."""
    return [head.seq, head.size, head.hash, head.key, head.signature]


def seen_in(entry: Entry, name: str) -> Iterator[Seen]:
    """What an entry of a log (called `name`) says that its owner was shown. Raises `AuditBroken` for a head that is none."""
    if entry.event != HEADS:
        return
    said = dict(entry.facts.get("sites", {}))
    if COORDINATOR in entry.facts:
        said[COORDINATOR] = entry.facts[COORDINATOR]
    for owner, value in said.items():
        where = f"{name}, line {entry.seq}"
        try:
            seq, size, digest, key, signature = value
            head = Head(owner, key, seq, digest, size, signature)
            check_head(head, owner)
        except (ValueError, TypeError, AuditBroken) as error:
            raise AuditBroken(f"{where}: {owner} never signed the head that {entry.owner} says it was shown") from error
        if not head.signature:
            raise AuditBroken(f"{where}: {owner} never signed the head that {entry.owner} says it was shown")
        yield Seen(head, entry.owner, where, str(entry.facts.get("run", "")))


def against(path: Path, others: Sequence[Path], public_key: bytes | None = None) -> Compared:
    """Verify a log, and compare it with what others hold: logs (verified first), kept copies of this one, packages, heads,
    lodged heads.

    Raises `AuditBroken` where the log lacks an entry that somebody witnessed, naming the first line that was rewritten or cut
    as closely as the witnesses permit; where an owner signed two stories; and where nobody witnessed this log at all.
    """
    report = verify(path, public_key)
    seen = [one for other in others if not (other.exists() and other.samefile(path)) for one in _held_by(other)]
    runs = _runs(path)
    theirs = [one for one in seen if one.head.owner == report.owner]
    mine = [one for one in theirs if report.owner != COORDINATOR or not one.run or one.run in runs]
    for one in mine:
        if one.head.key not in report.keys:
            raise AuditBroken(
                f"{one.by} witnessed a head of {report.owner} ({one.where}) under a key that never signed {path.name}: "
                "the log was begun anew, or is another's"
            )
    _one_story([*seen, *(s for e in entries(path) for s in seen_in(e, path.name))])
    if not mine:
        raise AuditBroken(
            f"none of the witnesses holds a head of {report.owner}: they prove nothing about {path.name}",
            help="Name the logs of sites or of the coordinator that took part in a run with it, or a head that was lodged.",
        )
    last = _contained(path, report, mine)
    by = {name: sum(one.by == name for one in mine) for name in dict.fromkeys(one.by for one in mine)}
    return Compared(report, by, last)


def _contained(path: Path, report: Report, mine: Iterable[Seen]) -> int:
    """Every head is an entry of the log, at its place; the number of the last. Raises `AuditBroken` at the first not."""
    waiting = sorted(mine, key=lambda one: one.head.seq)
    at = size = stands = 0
    key = ""
    for entry, length in _sized(path):
        size += length
        key = opening_key(entry, path.name) if entry.seq == 1 else key
        key = str(entry.facts.get("key")) if entry.event == KEY_CHANGED else key
        while at < len(waiting) and waiting[at].head.seq == entry.seq:
            head = waiting[at].head
            if (head.hash, head.size, head.key) != (entry.hash, size, key):
                raise AuditBroken(
                    f"line {entry.seq} of {path.name} is not the entry that {waiting[at].by} witnessed ({waiting[at].where}): "
                    f"the first line that was rewritten is {_between(stands + 1, entry.seq)}"
                )
            stands, at = entry.seq, at + 1
    if at < len(waiting):
        one = waiting[at]
        raise AuditBroken(
            f"{path.name} ends with line {report.entries}, and {one.by} witnessed line {one.head.seq} of it ({one.where}): "
            f"the first line that was cut off or rewritten is {_between(stands + 1, report.entries + 1)}"
        )
    return stands


def _one_story(seen: Iterable[Seen]) -> None:
    """No owner signed two entries of one number, and no run has two coordinators' keys. Raises `AuditBroken`."""
    first: dict[tuple[str, str, int], Seen] = {}
    keys: dict[str, Seen] = {}
    for one in seen:
        head = one.head
        other = first.setdefault((head.owner, head.key, head.seq), one)
        if (other.head.hash, other.head.size) != (head.hash, head.size):
            raise AuditBroken(
                f"{head.owner} signed two different entries {head.seq} of its log, so it told two stories or wrote it anew: "
                f"one was shown to {other.by} ({other.where}), another to {one.by} ({one.where})"
            )
        if head.owner == COORDINATOR and one.run:
            other = keys.setdefault(one.run, one)
            if other.head.key != head.key:
                raise AuditBroken(
                    f"the coordinator of run {one.run} had two logs: one was shown to {other.by} ({other.where}), another to "
                    f"{one.by} ({one.where})"
                )


def _held_by(path: Path) -> Iterator[Seen]:
    """What a witness's file holds: a log with its entries `heads` and its own end, a head by itself, or a package."""
    if path.is_dir():
        yield from _in_package(path)
        return
    try:
        with path.open("rb") as file:
            line = file.readline(MAX_LINE + 1)
        value = json.loads(line)
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}", help="Name a log, or a head that somebody kept.") from error
    except (ValueError, RecursionError):
        value = None
    if isinstance(value, dict) and value.get("format") == FORMAT:
        lodged = read_lodged(path)
        yield Seen(lodged.head, lodged.witness, f"{path.name}, {lodged.at}")
    elif isinstance(value, dict) and "event" not in value and (head := read_head(path, "")) is not None:
        check_head(head, path.name)
        yield Seen(head, "a witness", path.name)
    else:
        yield from _in_log(path, path.name, "a kept copy")


def _in_log(path: Path, name: str, keeper: str) -> Iterator[Seen]:
    """What a log was shown; and its own last entry, for whoever kept this copy."""
    verify(path)
    for entry in entries(path):
        yield from seen_in(entry, name)
    end, runs = read_head(path), sorted(_runs(path))
    if end is not None and end.signature:
        yield Seen(end, keeper, name, runs[0] if runs else "")


def _in_package(path: Path) -> Iterator[Seen]:
    """The coordinator's log as it was packed, and the head of each site's as the site signed it with its evidence."""
    keeper, inside = f"the package {path.resolve().name}", payload_of(path)
    if not (inside / "run" / "audit.jsonl").is_file():
        raise RunError(f"{path} is a folder, and no research package", help="Name a log, a package, or a head that was kept.")
    yield from _in_log(inside / "run" / "audit.jsonl", f"{path.name}, run/audit.jsonl", keeper)
    for place in sorted((inside / "sign-offs").glob("*.json")):
        where = f"{path.name}, sign-offs/{place.name}"
        try:
            facts = json.loads(place.read_bytes())["facts"]
            log = {"key": "", "size": 0, "signature": ""} | facts["log"]  # an unsigned head is nobody's word
            head = Head(facts["site"], log["key"], log["entries"], log["head"], log["size"], log["signature"])
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            raise AuditBroken(f"{where} was altered: it is not what a site hands over") from error
        check_head(head, where)
        if head.signature:
            yield Seen(head, keeper, where)


def _runs(path: Path) -> set[str]:
    return {str(e.facts["run"]) for e in entries(path) if e.event in BEGINNINGS}


def _sized(path: Path) -> Iterator[tuple[Entry, int]]:
    for entry in entries(path):
        yield entry, len(line_of(entry))


def _between(low: int, high: int) -> str:
    return f"line {low}" if low == high else f"one of {low} to {high}"


def _false(owner: str) -> ProtocolViolation:
    return ProtocolViolation(f"the head of the log of {owner} is not signed by its owner", rule="log_head")
