"""What a study's envelope has been charged at this site: each variation once, on disk before its first answer leaves.

The same signed variation asked again (a run that is resumed, or repeated) is not charged again: the rows are frozen, so its
exact sums tell nothing new. The same analysis under another name is another variation.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from fivefold.errors import NotApproved, ProtocolViolation
from fivefold.protocol.encoding import encode
from fivefold.records.audit import AuditLog
from fivefold.records.files import write_file
from fivefold.records.journal import Journal, read
from fivefold.replay.plan import Plan
from fivefold.study.definition import Study
from fivefold.study.envelope import Variation


class Charged(NamedTuple):
    """A variation that was answered here: the digest of its signed statement (hex), its name and the analysis it varies."""

    statement: str
    name: str
    varies: str


def book(state: Path, study_digest: str) -> Path:
    """Where the variations of a study (its digest, hex) are kept at a site."""
    return state / "envelope" / f"{study_digest}.journal"


def charged(path: Path) -> tuple[Charged, ...]:
    """Every variation charged so far, in order. Raises `JournalProblem` for a damaged file: then nothing is answered."""
    return tuple(Charged(str(r["statement"]), str(r["name"]), str(r["varies"])) for r in read(path))


def room(path: Path, asked: Sequence[Variation], fits: int) -> None:
    """Nothing if all of these may still be answered. Raises `NotApproved`, rule `envelope_fits`."""
    known = {one.statement for one in charged(path)}
    new = {one.statement_digest for one in asked} - known
    if len(known) + len(new) > fits:
        raise NotApproved(
            f"the study's envelope allows {fits} variations, and {len(known)} are charged here already",
            rule="envelope_fits",
            help="Sign a new study, and have every custodian approve it.",
        )


def charge(path: Path, variation: Variation, fits: int) -> bool:
    """Write the variation into the book, durably; False where it stands there already.

    Raises `NotApproved` (rule `envelope_fits`) where the envelope is used up, `StorageFull`: then nothing may be answered.
    """
    if variation.statement_digest in {one.statement for one in charged(path)}:
        return False
    room(path, (variation,), fits)
    journal = Journal(path)
    try:
        journal.append({"statement": variation.statement_digest, "name": variation.analysis.name, "varies": variation.varies})
    finally:
        journal.close()
    return True


def charge_answer(state: Path, study: Study, digest: str, run: str, variation: Variation, log: AuditLog) -> None:
    """A variation is logged and charged to the study's envelope before its first answer leaves. Raises what `room` raises."""
    place, fits = book(state, digest), study.envelope.fits
    room(place, (variation,), fits)
    if variation.statement_digest not in {one.statement for one in charged(place)}:
        facts = {"analysis": variation.analysis.name, "varies": variation.varies, "statement": variation.statement_digest}
        log.write("variation charged", study=digest, run=run, **facts)
        charge(place, variation, fits)


def bind(place: Path, plan: Plan) -> None:
    """A run's aggregates are those of one plan, here and after a restart. `place`: the run's folder."""
    digest = encode([one.statement_digest for one in plan.variations])
    if (place / "plan").exists():
        if (place / "plan").read_bytes() != digest:
            raise ProtocolViolation("the run was opened with other variations", rule="run_plan")
    elif (place / "aggregates.journal").exists():
        raise ProtocolViolation("the run was opened before, and its plan is gone", rule="run_plan")
    else:
        write_file(place / "plan", digest)
