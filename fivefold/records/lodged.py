"""A head lodged with a third party: a notary, an ethics office or a colleague signs that on this day it was shown this head.

A head says what its owner's log was; only a third party says *when* the owner could no longer change it. The file is canonical
JSON (RFC 8785): the head, who keeps it, when, and an Ed25519 signature of all that.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import rfc8785

from fivefold.auth import keys
from fivefold.errors import AuditBroken, FivefoldError, RunError
from fivefold.records.audit_entries import Head, check_head
from fivefold.records.files import write_named

FORMAT = "fivefold-lodged-head/1"
PURPOSE = "lodged-head"


@dataclass(frozen=True)
class Lodged:
    """`key`: the witness's public key (hex)."""

    head: Head
    witness: str
    key: str
    at: str


def lodge(head: Head, out: Path, private: bytes, witness: str, now: datetime | None = None) -> Lodged:
    """Sign, as a witness, that this head was shown now. Raises `AuditBroken` where its owner never signed it."""
    check_head(head, out.name)
    if not head.signature:
        raise AuditBroken(f"the head of {head.owner} is not signed, so it proves nothing")
    at = (now or datetime.now(UTC)).astimezone(UTC).isoformat(timespec="seconds")
    lodged = Lodged(head, witness, keys.public_of(private).hex(), at)
    signature = keys.sign(private, rfc8785.dumps(_claim(lodged)), PURPOSE).hex()
    write_named(out, rfc8785.dumps(_claim(lodged) | {"signature": signature}) + b"\n")
    return lodged


def read_lodged(path: Path) -> Lodged:
    """A lodged head, its witness's signature verified. Raises `AuditBroken`."""
    try:
        value = json.loads(path.read_bytes())
        signature = bytes.fromhex(value.pop("signature"))
        lodged = Lodged(Head(**value["head"]), value["witness"], value["key"], value["at"])
        if value != _claim(lodged) or not lodged.head.signature:
            raise ValueError("another form")
        keys.verify(bytes.fromhex(lodged.key), rfc8785.dumps(value), signature, PURPOSE)
        check_head(lodged.head, path.name)
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}", help="Name a head that a witness signed.") from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, FivefoldError) as error:
        raise AuditBroken(f"{path.name} was altered: it is not what its witness signed") from error
    return lodged


def _claim(lodged: Lodged) -> dict[str, Any]:
    return {"format": FORMAT} | asdict(lodged)
