"""A study's frozen rows at a site, sealed on disk: all rounds of a study read the same snapshot.

Each snapshot has a data key of its own, wrapped by a key that is derived from the site's secret; destroying the wrapped key
destroys the rows, whatever a disk or a back-up still holds. Every column is sealed by itself (AES-256-GCM), bound to its
snapshot, place and name. Digests of data, mapping and cohort are keyed (HMAC-SHA256), so that nobody can try guesses against
them. The sealed set of the persons outlives the rows: later snapshots are compared with it.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from fivefold.errors import MessageMalformed, SnapshotProblem
from fivefold.governance.statements import storage, store
from fivefold.protocol.encoding import decode, encode
from fivefold.records.files import sync_folder
from fivefold.study.table import Table

MAGIC = b"fivefold snapshot 1\n"
NONCE = 12
PERSON_BYTES = 16


@dataclass(frozen=True)
class Tags:
    """Keyed digests (hex) of what was frozen: equal where the content is equal, and telling nothing else."""

    data: str
    mapping: str
    cohort: str


@dataclass(frozen=True)
class Persons:
    """Whom a snapshot holds: for each person a keyed hash of the identifier and one of the person's rows, (persons, 16) bytes
    each. `layout` is equal where two snapshots hold the same variables, so that their rows can be compared."""

    study: str
    asset: str
    layout: str
    who: npt.NDArray[np.uint8]
    rows: npt.NDArray[np.uint8]


def derived_key(secret: bytes, purpose: str) -> bytes:
    """A key (32 bytes) for one purpose from the site's secret."""
    return hmac.digest(secret, b"fivefold site secret 1\0" + purpose.encode(), "sha256")


def tag(secret: bytes, purpose: str, content: Any) -> str:
    """The keyed digest (hex) of any value that `protocol/encoding.py` carries."""
    return hmac.new(derived_key(secret, f"tag {purpose}"), encode(content), hashlib.sha256).hexdigest()


def persons_of(secret: bytes, study: str, asset: str, layout: str, table: Table, identifiers: Sequence[str]) -> Persons:
    """The keyed hashes of a table's persons, in the order of the hash (which tells nothing of the identifiers' order)."""
    key = derived_key(secret, f"persons {asset}")
    order = np.argsort(table.person, kind="stable")
    matrix = np.stack([*(c[order] for c in table.columns.values()), np.zeros(len(table))], axis=1) + 0.0  # -0 is 0
    matrix[np.isnan(matrix)] = np.nan
    ends = np.searchsorted(table.person[order], np.arange(len(identifiers)), side="right")
    who = [bytes(w) for w in identities(secret, asset, identifiers)]
    rows = [_hash(key, b"rows", matrix[a:b].tobytes()) for a, b in zip([0, *ends[:-1]], ends, strict=True)]
    pairs = sorted(zip(who, rows, strict=True))
    both = np.frombuffer(b"".join(a + b for a, b in pairs), np.uint8).reshape(len(pairs), 2, PERSON_BYTES)
    return Persons(study, asset, layout, both[:, 0].copy(), both[:, 1].copy())


def identities(secret: bytes, asset: str, identifiers: Sequence[str]) -> npt.NDArray[np.uint8]:
    """A keyed hash of each person's identifier, (persons, 16) bytes: equal in all studies of an asset, and telling nothing."""
    key = derived_key(secret, f"persons {asset}")
    hashes = b"".join(_hash(key, b"id", name.encode()) for name in identifiers)
    return np.frombuffer(hashes, np.uint8).reshape(len(identifiers), PERSON_BYTES)


def difference(a: Persons, b: Persons) -> int:
    """How many persons differ between two snapshots: those in one alone, and, where both hold the same variables, those in
    both whose rows changed."""
    left = {x.tobytes(): y.tobytes() for x, y in zip(a.who, a.rows, strict=True)}
    right = {x.tobytes(): y.tobytes() for x, y in zip(b.who, b.rows, strict=True)}
    alone = len(left.keys() ^ right.keys())
    return alone + (sum(left[k] != right[k] for k in left.keys() & right.keys()) if a.layout == b.layout else 0)


def write(path: Path, secret: bytes, table: Table, facts: Mapping[str, Any]) -> None:
    """Seal a table (and facts, any value that travels) under a fresh data key at `path` and `path.key`. Raises
    `StorageFull`."""
    key = secrets.token_bytes(32)
    name = path.name.encode()
    meta = encode({"site": table.site, "columns": list(table.columns), "rows": len(table), "facts": dict(facts)})
    parts = [meta, table.person.astype("<i8").tobytes(), *(c.astype("<f8").tobytes() for c in table.columns.values())]
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        partial = path.with_name(f".{path.name}.partial")
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(MAGIC)
            for place, part in enumerate(parts):
                sealed = _seal(key, part, name + b"/%d" % place)
                file.write(len(sealed).to_bytes(8, "big") + sealed)
            file.flush()
            os.fsync(file.fileno())
        store(_key_file(path), _seal(derived_key(secret, "wrap"), key, name))
        os.replace(partial, path)
        sync_folder(path.parent)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise storage(error, path) from error


def read(path: Path, secret: bytes, dictionary: Any) -> tuple[Table, Mapping[str, Any]]:
    """The table and facts of a snapshot. Raises `SnapshotProblem` where it is missing, altered, or of another site's secret."""
    name = path.name.encode()
    try:
        key = _open(derived_key(secret, "wrap"), _key_file(path).read_bytes(), name)
        data = path.read_bytes()
    except (OSError, InvalidTag) as error:
        raise _gone(path, error) from error
    try:
        parts = [_open(key, part, name + b"/%d" % place) for place, part in enumerate(_parts(data))]
        meta = decode(parts[0])
        person = np.frombuffer(parts[1], "<i8").astype(np.int64)
        columns = {n: np.frombuffer(p, "<f8").astype(np.float64) for n, p in zip(meta["columns"], parts[2:], strict=True)}
        if any(len(c) != meta["rows"] for c in (person, *columns.values())):
            raise ValueError("rows")
    except (InvalidTag, MessageMalformed, ValueError, KeyError, IndexError, TypeError) as error:
        raise SnapshotProblem("the snapshot of this study was altered or is damaged", help=PREPARE_AGAIN) from error
    return Table(meta["site"], dictionary, columns, person), meta["facts"]


def destroy(path: Path) -> None:
    """Destroy a snapshot for good: its data key is overwritten and removed first, then its bytes. Raises `StorageFull`."""
    key = _key_file(path)
    try:
        if key.exists():
            with key.open("r+b") as file:
                file.write(b"\0" * key.stat().st_size)
                file.flush()
                os.fsync(file.fileno())
            key.unlink()
        path.unlink(missing_ok=True)
        if path.parent.is_dir():
            sync_folder(path.parent)
    except OSError as error:
        raise storage(error, path) from error


def keep_persons(folder: Path, secret: bytes, persons: Persons) -> None:
    """Seal a set of persons beside the earlier ones. Raises `StorageFull`."""
    name = f"{len(list(folder.glob('*.sealed'))) + 1:06d}.sealed"
    body = encode({f: getattr(persons, f) for f in ("study", "asset", "layout", "who", "rows")})
    store(folder / name, _seal(derived_key(secret, "person sets"), body, name.encode()))


def kept_persons(folder: Path, secret: bytes, asset: str) -> tuple[Persons, ...]:
    """The sets of an asset's earlier snapshots. Raises `SnapshotProblem` where one is missing or altered: then nobody can say
    whether a new snapshot differs enough."""
    found = []
    for place, path in enumerate(sorted(folder.glob("*.sealed")), start=1):
        try:
            if path.name != f"{place:06d}.sealed":
                raise ValueError("order")
            value = decode(_open(derived_key(secret, "person sets"), path.read_bytes(), path.name.encode()))
            found.append(Persons(**value))
        except (OSError, InvalidTag, MessageMalformed, ValueError, TypeError) as error:
            raise SnapshotProblem(
                "the record of earlier snapshots was altered or is damaged",
                help="Restore state/snapshots/persons from a back-up.",
            ) from error
    return tuple(p for p in found if p.asset == asset)


PREPARE_AGAIN = "Prepare it again with `fivefold site prepare STUDY --again`."


def _gone(path: Path, error: Exception) -> SnapshotProblem:
    if isinstance(error, FileNotFoundError):
        return SnapshotProblem("this study has no snapshot here", help="Prepare one with `fivefold site prepare STUDY`.")
    return SnapshotProblem("the snapshot's key does not open with this site's secret", help=PREPARE_AGAIN)


def _key_file(path: Path) -> Path:
    return path.with_name(path.name + ".key")


def _seal(key: bytes, plain: bytes, context: bytes) -> bytes:
    nonce = os.urandom(NONCE)
    return nonce + AESGCM(key).encrypt(nonce, plain, MAGIC + context)


def _open(key: bytes, sealed: bytes, context: bytes) -> bytes:
    return AESGCM(key).decrypt(sealed[:NONCE], sealed[NONCE:], MAGIC + context)


def _parts(data: bytes) -> list[bytes]:
    if not data.startswith(MAGIC):
        raise ValueError("magic")
    at, parts = len(MAGIC), []
    while at < len(data):
        size = int.from_bytes(data[at : at + 8], "big")
        if size < NONCE or at + 8 + size > len(data):
            raise ValueError("cut off")
        parts.append(data[at + 8 : at + 8 + size])
        at += 8 + size
    return parts


def _hash(key: bytes, purpose: bytes, content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=PERSON_BYTES, key=key, person=purpose).digest()
