"""One entry and one head of an audit log: their form on disk, and the comparisons that show an alteration.

An entry is one line of JSON in canonical form (RFC 8785): its number, time (RFC 3339, UTC), owner, event, facts, the hash of
the entry before it, its own SHA-256, and an Ed25519 signature of that hash. A line that is not byte for byte the canonical
form of its values is an alteration too, so that no byte of a log can change unseen.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import rfc8785

from fivefold.auth import keys
from fivefold.errors import AuditBroken, KeyProblem, RunError, SignatureWrong

FORMAT = "fivefold-audit/1"
ZERO = "0" * 64
MAX_LINE = 1 << 20
OPENED, REPAIRED, KEY_CHANGED, CLOSED = "opened", "repaired", "key_changed", "closed"


@dataclass(frozen=True)
class Entry:
    """One line of the log. `hash` and `previous` are 64 hex digits; `signature` is 128, or empty in an unsigned log."""

    seq: int
    time: str
    owner: str
    event: str
    facts: Mapping[str, Any]
    previous: str
    hash: str
    signature: str


@dataclass(frozen=True)
class Head:
    """The end of a log as its owner last signed it: entry `seq` has `hash` and ends at byte `size` of the file."""

    owner: str
    key: str
    seq: int
    hash: str
    size: int
    signature: str = ""


def new_entry(before: Head, owner: str, event: str, facts: Mapping[str, Any], private: bytes | None) -> Entry:
    """The entry that follows a head, now."""
    time = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    entry = Entry(before.seq + 1, time, owner, event, dict(facts), before.hash, "", "")
    digest = hashlib.sha256(_hashed(asdict(entry))).digest()
    signature = keys.sign(private, digest, "audit-entry").hex() if private else ""
    return Entry(entry.seq, time, owner, event, entry.facts, before.hash, digest.hex(), signature)


def new_head(entry: Entry, size: int, private: bytes | None) -> Head:
    """The head at an entry that ends at byte `size`, signed if there is a key."""
    if private is None:
        return Head(entry.owner, "", entry.seq, entry.hash, size)
    return signed_head(Head(entry.owner, keys.public_of(private).hex(), entry.seq, entry.hash, size), private)


def signed_head(head: Head, private: bytes) -> Head:
    """The head with the signature of the key that it names."""
    return replace(head, signature=keys.sign(private, _claim(head), "audit-head").hex())


def line_of(value: Entry | Head) -> bytes:
    """The line on disk. Raises `ValueError` for an entry above 1 MiB."""
    line = rfc8785.dumps(asdict(value)) + b"\n"
    if len(line) > MAX_LINE:
        raise ValueError(f"an audit entry of {len(line)} bytes is too long: log a digest instead")
    return line


def entry_of(line: bytes, name: str, number: int) -> Entry:
    """The entry of line `number` of the log called `name`. Raises `AuditBroken` unless hash and form are right."""
    try:
        value = json.loads(line, parse_int=_integer)
        entry = Entry(**value)
        whole = rfc8785.dumps(value) + b"\n" == line and hashlib.sha256(_hashed(value)).hexdigest() == entry.hash
    except (ValueError, TypeError, RecursionError) as error:
        raise AuditBroken(f"line {number} of {name} is not an audit entry: it was altered or cut") from error
    if not whole or not isinstance(entry.facts, dict):
        raise AuditBroken(f"line {number} of {name} was altered: it does not have the hash it claims")
    return entry


def opening_key(entry: Entry, name: str) -> str:
    """The public key (hex) with which a log begins, empty for an unsigned one."""
    key = entry.facts.get("key")
    if entry.event != OPENED or entry.facts.get("format") != FORMAT or not isinstance(key, str):
        raise AuditBroken(f"line 1 of {name} is not the opening of an audit log: the beginning was removed")
    return key


def check_follows(entry: Entry, seq: int, previous: str, owner: str, name: str) -> None:
    """Raise `AuditBroken` unless the entry is number `seq` + 1 of this owner's log, after the one with hash `previous`."""
    if entry.seq != seq + 1 or entry.previous != previous or entry.owner != owner:
        raise AuditBroken(f"line {seq + 1} of {name} does not follow the one before it: an entry was removed, added or moved")


def check_signed(entry: Entry, key: str, name: str) -> None:
    """Raise `AuditBroken` unless the key (hex) signed the entry; with no key, unless it has no signature."""
    if (key or entry.signature) and not _right(key, bytes.fromhex(entry.hash), entry.signature, "audit-entry"):
        raise AuditBroken(f"line {entry.seq} of {name} was not signed by the log's key")


def check_head(head: Head, name: str) -> None:
    """Raise `AuditBroken` unless the head is signed by the key it names; with no key, unless it has no signature."""
    if (head.key or head.signature) and not _right(head.key, _claim(head), head.signature, "audit-head"):
        raise AuditBroken(f"the head of {name} was altered: its signature does not fit")


def head_path(path: Path, suffix: str = ".head") -> Path:
    return path.with_name(path.name + suffix)


def read_head(path: Path, suffix: str = ".head") -> Head | None:
    """The head beside the log at `path`, or None if there is none. Raises `AuditBroken` if it is malformed."""
    place = head_path(path, suffix)
    try:
        raw = place.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RunError(f"{place.name} cannot be read: {error.strerror}", help="Correct the file's rights.") from error
    try:
        head = Head(**json.loads(raw))
        if line_of(head) != raw or type(head.seq) is not int or type(head.size) is not int:
            raise ValueError("not in canonical form")
    except (ValueError, TypeError, RecursionError) as error:
        raise AuditBroken(f"{place.name} was altered") from error
    return head


def json_facts(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Facts as JSON values, tuples as lists. Raises `TypeError` for anything else (bytes, arrays, NaN, vast integers)."""
    return {name: _json(value, name) for name, value in facts.items()}


def _json(value: Any, where: str) -> Any:
    if value is None or isinstance(value, bool) or (type(value) is int and abs(value) < 1 << 53):
        return value
    if isinstance(value, str):
        return _text(str(value), where)
    if type(value) is float and math.isfinite(value):
        return value
    if isinstance(value, (list, tuple)):
        return [_json(v, where) for v in value]
    if isinstance(value, Mapping) and all(isinstance(k, str) for k in value):
        return {_text(k, where): _json(v, where) for k, v in value.items()}
    raise TypeError(f"the fact {where!r} is not a JSON value: {type(value).__name__}")


def _integer(text: str) -> int | float:
    """A whole number beyond 2^53 was a float when it was written (ECMAScript writes 1e20 as digits)."""
    return int(text) if len(text) < 16 or abs(int(text)) < 1 << 53 else float(text)


def _text(value: str, where: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise TypeError(f"the fact {where!r} is not Unicode text") from error
    return value


def _right(key: str, message: bytes, signature: str, purpose: str) -> bool:
    try:
        raw = bytes.fromhex(signature)
        keys.verify(bytes.fromhex(key), message, raw, purpose)
    except (ValueError, TypeError, SignatureWrong, KeyProblem):
        return False
    return raw.hex() == signature


def _hashed(value: Mapping[str, Any]) -> bytes:
    return rfc8785.dumps({k: v for k, v in value.items() if k not in ("hash", "signature")})


def _claim(head: Head) -> bytes:
    return rfc8785.dumps({k: v for k, v in asdict(head).items() if k != "signature"})
