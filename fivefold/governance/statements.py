"""Signed statements on disk: an approval, a withdrawal, a new key, a revocation, a version of the policy.

A statement is a small JSON file that people can read: its kind, its facts, and one signature (Ed25519) or more over the
canonical form (RFC 8785) of both. Statements of one matter form a numbered chain: each holds the digest of the one before.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from fivefold.auth import keys
from fivefold.errors import FivefoldError, KeyProblem, RunError, SignatureWrong, StatementInvalid, StorageFull
from fivefold.records.files import sync_folder

MAX_BYTES = 1 << 20


@dataclass(frozen=True)
class Statement:
    """What was said, and the public keys (hex) whose signatures were found right."""

    kind: str
    facts: Mapping[str, Any]
    signers: tuple[str, ...]
    digest: str
    """SHA-256 (hex) of the file's bytes."""


def write(chain: Path, kind: str, facts: Mapping[str, Any], *privates: bytes) -> Statement:
    """Append a statement, signed by each private key, to the chain in a folder. Durable when it returns.

    Raises `StorageFull`, and `StatementInvalid` if the chain behind it is broken.
    """
    before = read_chain(chain)
    placed = dict(facts) | {"number": len(before) + 1, "previous": before[-1].digest if before else ""}
    raw = signed(kind, placed, *privates)
    store(chain / f"{len(before) + 1:04d}-{kind}.json", raw)
    return _parse(raw, kind)


def signed(kind: str, facts: Mapping[str, Any], *privates: bytes) -> bytes:
    """A statement as the bytes of its file, signed by each private key; it belongs to no chain yet."""
    body = {"kind": kind, "facts": dict(facts)}
    message = _canonical(body)
    signatures = [{"key": keys.public_of(p).hex(), "signature": keys.sign(p, message, _purpose(kind)).hex()} for p in privates]
    return json.dumps(body | {"signatures": signatures}, indent=2, ensure_ascii=False).encode() + b"\n"


def read_statement(raw: bytes, name: str) -> Statement:
    """The statement in a file's bytes, every signature verified. Raises `StatementInvalid`."""
    return _parse(raw, name, "Ask whoever made it to send it again, and compare what it says with them.")


def read_chain(chain: Path) -> tuple[Statement, ...]:
    """The statements of a folder in order, every signature verified.

    Raises `StatementInvalid` for one that is altered, missing in the middle, or out of its place.
    """
    found: list[Statement] = []
    for path in sorted(chain.glob("*.json")) if chain.is_dir() else ():
        try:
            with path.open("rb") as file:
                raw = file.read(MAX_BYTES + 1)
        except OSError as error:
            raise StatementInvalid(f"the statement {path.name} cannot be read") from error
        statement = _parse(raw, path.name)
        previous = found[-1].digest if found else ""
        if statement.facts.get("number") != len(found) + 1 or statement.facts.get("previous") != previous:
            raise StatementInvalid(f"the statement {path.name} does not follow the one before it: one is missing or altered")
        found.append(statement)
    return tuple(found)


def _parse(raw: bytes, name: str, instead: str | None = None) -> Statement:
    try:
        kind, signers, own = _verified(raw)
        facts = json.loads(raw)["facts"]  # fresh: whoever gets it may change it
    except (SignatureWrong, KeyProblem) as error:
        raise StatementInvalid(f"the statement {name} was altered: its signature does not fit", help=instead) from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise StatementInvalid(f"{name} is not a signed statement", help=instead) from error
    return Statement(kind, facts, signers, own)


@lru_cache(maxsize=1024)
def _verified(raw: bytes) -> tuple[str, tuple[str, ...], str]:
    """Kind, signers and digest of a statement whose every signature is right. It follows from the bytes alone, and a run reads
    the same few statements at every trip; what is wrong raises, and is never remembered."""
    value = json.loads(raw)
    kind, facts, signatures = value["kind"], value["facts"], value["signatures"]
    message = _canonical({"kind": kind, "facts": facts})
    if set(value) != {"kind", "facts", "signatures"} or not signatures or len(raw) > MAX_BYTES:
        raise ValueError("shape")
    signers = []
    for one in signatures:
        keys.verify(bytes.fromhex(one["key"]), message, bytes.fromhex(one["signature"]), _purpose(kind))
        signers.append(str(one["key"]))
    return str(kind), tuple(signers), hashlib.sha256(raw).hexdigest()


def store(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Write a whole file or nothing, durable when it returns. Raises `StorageFull`, or `RunError` for what is not the disk."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise storage(error, path) from error


def storage(error: OSError, path: Path) -> FivefoldError:
    """What a failed write means to the user."""
    if error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
        return StorageFull(f"the disk is full: {path.name} could not be written")
    return RunError(f"{path} cannot be written: {error.strerror}", help="Look at the folder's rights.")


def _canonical(value: Any) -> bytes:
    import rfc8785

    try:
        return rfc8785.dumps(value)
    except rfc8785.CanonicalizationError as error:
        raise ValueError("not canonical") from error


def _purpose(kind: Any) -> str:
    if not isinstance(kind, str) or not kind.isidentifier():
        raise ValueError("kind")
    return f"site statement: {kind}"
