"""Recalling a release: the notice, the mark on what was released and on every package made of it, the entries in the logs."""

from __future__ import annotations

import json
from pathlib import Path

from fivefold.auth.keys import public_of
from fivefold.coordinator.airlock import Airlock, coordinator_key
from fivefold.errors import CrateInvalid, FivefoldError
from fivefold.governance.recalls import NOTICE, Recall, may_recall, read_recall, recallers, write_recall
from fivefold.records.audit import AuditLog
from fivefold.records.bag import payload_of
from fivefold.records.files import write_file
from fivefold.study.digest import load_signed


def recall(it: Airlock, private: bytes, number: int, *, why: str) -> Recall:
    """Recall what was released on request `number`. The log has it before the notice is signed; the release's folder is marked.

    Raises `NotApproved`, `OutputRequestInvalid`.
    """
    key = public_of(private).hex()
    by = may_recall(it.study.study, key)
    own = coordinator_key(it.folder, it.run)
    if own is not None:
        with AuditLog(it.folder / "audit.jsonl", own, "coordinator") as log:
            log.write("incident", kind="recall asked", request=number, by=by, key=key, reason=why)
    said = write_recall(it.chain, it.study.digest, it.run, private, number=number, by=by, reason=why)
    if own is not None:
        with AuditLog(it.folder / "audit.jsonl", own, "coordinator") as log:
            log.write("release recalled", request=number, by=by, key=key, reason=said.reason, statement=said.identity)
    write_file(it.folder / "released" / f"{number:03d}" / NOTICE, said.raw)
    return said


def packed(package: Path) -> None:
    """Raises `CrateInvalid` where a folder holds no package."""
    if not (package / "bagit.txt").is_file():
        raise CrateInvalid(f"{package} is not a packed crate", help="Name the folder that `fivefold crate build` wrote.")


def mark(package: Path, said: Recall) -> bool:
    """Mark a package that was made of the release; False where it was made of another. The bag's own files stay as they are:
    the mark is a signed tag file beside them. Raises `CrateInvalid`."""
    packed(package)
    notes = [json.loads(p.read_bytes()) for p in (payload_of(package) / "disclosure").glob("*-output_release.json")]
    if said.proposal not in {note["facts"]["proposal"] for note in notes}:
        return False
    write_file(package / NOTICE, said.raw)
    return True


def recall_of(package: Path) -> Recall | None:
    """The recall with which a package is marked. Raises `StatementInvalid` for a mark that nobody of the study signed."""
    if not (package / NOTICE).is_file():
        return None
    found = load_signed(payload_of(package) / "run" / "study.signed.json")
    return read_recall((package / NOTICE).read_bytes(), found.digest, recallers(found.study))


def record_note(package: Path) -> str:
    """What to do about a record of the package at a repository; empty where it was never uploaded."""
    state = package.with_name(f"{package.name}.zenodo.json")
    try:
        value = json.loads(state.read_bytes())
    except (OSError, ValueError):
        return ""
    number, server = value.get("number", 0), value.get("server", "")
    return (
        f"The package was uploaded: record {number} at {server}. A DOI is never taken back. Edit that record's description to "
        f"say that it was recalled, publish a new version that holds {NOTICE} (`--new-version-of {number}` once there is a new "
        "release), and ask the repository to restrict the old files."
    )


def why_not(package: Path) -> str:
    """Why a package may no longer be used; empty where nothing is against it."""
    try:
        said = recall_of(package)
    except FivefoldError as error:
        return error.message
    return "" if said is None else said.words
