"""The driver: question after question, until the study is answered. It owns time, roster, attempts and the journal."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from fivefold.coordinator.aggregation import Total
from fivefold.coordinator.attendance import Attendance
from fivefold.coordinator.buffers import Buffers
from fivefold.coordinator.gathering import gather
from fivefold.coordinator.history import Filled, History
from fivefold.coordinator.life import keeper, refusals
from fivefold.coordinator.secure_rounds import SecureRounds
from fivefold.coordinator.stragglers import Clock, Patience, Patient
from fivefold.coordinator.witnessing import LogHeads
from fivefold.errors import JournalProblem, TooManyDropouts
from fivefold.governance.withdrawals import Withdrawal, read_notice
from fivefold.privacy.fixed_point import ring_for, width
from fivefold.protocol.encoding import decode, digest, encode
from fivefold.protocol.messages import Open, Task, Told
from fivefold.records.audit import AuditLog
from fivefold.records.checkpoints import Checkpoints
from fivefold.records.files import write_file
from fivefold.replay.buffered import buffers_of
from fivefold.replay.compare import described
from fivefold.replay.cursor import Asked, Cursor, Outcome
from fivefold.replay.plan import OWN, Plan
from fivefold.replay.roster import roster_of
from fivefold.replay.totals import on_trust, outcome, taking_part
from fivefold.study.consistency import thresholds
from fivefold.study.digest import SignedStudy

ATTEMPTS = 3
"""How often a round is asked before the run stops and waits to be resumed."""


class Engine(Protocol):
    """Carries messages: sends each site its request and gives (site, reply) as replies come; a silent site is left out.

    Each request is looked up once, when it is sent; neither it nor a reply is kept: memory must not grow with the sites.
    """

    def exchange(self, requests: Mapping[str, bytes]) -> Iterable[tuple[str, bytes]]: ...


@dataclass(frozen=True)
class Progress:
    """What may be shown while a run goes on."""

    round: int
    analysis: str
    step: str
    answered: int
    sites: int
    attempt: int


def drive(
    found: SignedStudy,
    run: str,
    engine: Engine,
    folder: Path,
    log: AuditLog,
    tell: Callable[[Progress], None],
    journal_key: bytes | None = None,
    plan: Plan = OWN,
    clock: Clock = time.monotonic,
) -> tuple[Cursor, list[dict[str, Any]]]:
    """Run every analysis of the plan to its end; resumes from the journal in `folder`, which `journal_key` seals. Returns the
    finished cursor and a record a round.

    Raises `TooManyDropouts` (the run can be resumed), `SiteRefused`, `JournalProblem`, `StorageFull`.
    """
    study = found.study
    roster = roster_of(study)
    history = History(folder / "journal" / "rounds.journal", journal_key)
    snapshots = Checkpoints(folder / "journal" / "snapshots", journal_key)
    cursor, done = Cursor(study, plan.analyses, checkpoints=snapshots.load()), list[dict[str, Any]]()
    for one in cursor.checkpoints.values():
        log.write("resumed from snapshot", analysis=one.analysis, round=one.round)
    for record in history.replayed():
        told = Told.decode(record["told"])
        if cursor.open is not None and cursor.passed(told.round):
            done.append(_round(cursor.open, record["steps"], told.sites, () if "buffer" in record else told.dropped))
            continue
        asked = _replayed(cursor, record)
        cursor.feed(Outcome(decode(told.totals), told.sites, told.dropped, told.ended))
        done.append(_round(asked, _steps(asked), told.sites, told.dropped if asked.buffer is None else ()))
    if cursor.open is not None and cursor.open.round != history.rounds + 1:
        raise JournalProblem("the journal ends before the run's snapshot", help="Restore the run folder from a copy.")

    def withdrawn(site: str, notice: bytes) -> Withdrawal:
        said = read_notice(notice, found.digest, roster, site)
        write_file(folder / "withdrawn" / f"{site}.json", notice)
        return said

    patience = None
    if (study.stragglers.policy != "wait" or buffers_of(study, plan.analyses)) and isinstance(engine, Patient):
        patience = Patience(study.stragglers, thresholds(study).survivors_needed, engine, clock)
    kept = keeper(folder, log, found)
    there = Attendance(engine, roster, log, kept, withdrawn, patience, refusals(folder, log, found))
    opening = Open(found.to_bytes(), plan.statements)
    sums = SecureRounds(
        roster,
        thresholds(study),
        found.digest,
        run,
        there.exchange,
        refused=there.refused,
        noticed=there.noticed,
        attempts=history.attempts,
        about=there.about,
        heads=LogHeads(log),
    )
    buffers = Buffers(engine, study, there, sums, history, log)
    try:
        while cursor.open is not None:
            asked = cursor.open
            question = encode(described(asked.question))
            filled: Filled | None = None
            if asked.gathered:
                total = gather(asked, question, sums, there, history, opening, log)
            elif asked.buffer is None:
                total = _total(asked, question, sums, there, history, opening, log)
            else:
                total, filled = buffers.total(asked, question, opening)
            attempt = sums.attempts.get(asked.round, history.attempts.get(asked.round, 1))
            out = outcome(asked, total.vector, roster.names, total.survivors, study.privacy.minimum_persons)
            dropped = out.dropped if filled is None else ()
            log.write("aggregate", round=asked.round, sites=list(out.sites), dropped=list(dropped))
            proof = (question, total.transcript.encode()) if total.transcript is not None else (b"", b"")
            said = hashlib.sha256(question).digest()
            history.note_aggregate(asked.round, attempt, said, out, *proof, filled, steps=_steps(asked))
            if filled is None:
                there.followed(out.sites, asked.round - 1, aside=set(roster.names) - set(taking_part(asked, roster.names)))
            done.append(_round(asked, _steps(asked), out.sites, dropped))
            of = len(roster.names) if asked.buffer is None else asked.buffer.size
            tell(Progress(asked.round, asked.analysis.name, _steps(asked)[0], len(out.sites), of, attempt))
            cursor.feed(out)
            if cursor.taken is not None:
                snapshots.keep(cursor.taken)
                log.write("snapshot", analysis=cursor.taken.analysis, round=cursor.taken.round)
        sums.close(history.rounds + 1)
    finally:
        history.close()
    return cursor, done


def _total(
    asked: Asked, question: bytes, sums: SecureRounds, there: Attendance, history: History, opening: Open, log: AuditLog
) -> Total:
    """The round's sum: opened from the record of an opening that was begun, or asked.

    Once an opening was begun, some sites may have released their shares, and serve no other survivors. So the round is then
    asked again of those alone. Raises `SiteRefused`, `TooManyDropouts`.
    """
    name, steps, lost = asked.analysis.name, _steps(asked), TooManyDropouts("no site answered")
    for trial in range(ATTEMPTS):
        there.anew()
        there.open(sums, asked.round, opening)
        try:
            there.enough(sums.thresholds.survivors_needed)
            if history.masked:
                there.alone = frozenset(decode(history.masked)["survivors"])
                log.write("open", round=asked.round, survivors=sorted(there.alone))
                try:
                    return sums.recover(history.masked)
                except TooManyDropouts:
                    there.anew()
            log.write("ask", round=asked.round, analysis=name, steps=steps)
            return sums.sum(
                asked.round,
                hashlib.sha256(question).digest(),
                ring_for(asked.fields),
                width(asked.fields),
                lambda site: Task(question, history.since(there.known[site])).encode(),
                before_unmask=lambda record: history.note_masked(asked.round, sums.attempts[asked.round], record),
                transcript=not on_trust(asked, len(sums.roster.names)),
                members=asked.analysis.sites,
            )
        except TooManyDropouts as error:
            lost = error
            if asked.round in sums.attempts:
                history.note_lost(asked.round, sums.attempts[asked.round])
            there.stop(error, last=trial == ATTEMPTS - 1)
        finally:
            there.alone = None
    raise lost


def _replayed(cursor: Cursor, record: Mapping[str, Any]) -> Asked:
    asked = cursor.open
    if asked is None or digest(described(asked.question)) != record["question"]:
        raise JournalProblem(
            f"round {record['round']} of the journal is not what this version of Fivefold asks",
            help="Resume with the version that began the run, or start a new one with --out.",
        )
    return asked


def _steps(asked: Asked) -> list[str]:
    return [one.step.identity for one in asked.sums]


def _round(asked: Asked, steps: Iterable[str], sites: tuple[str, ...], dropped: tuple[str, ...]) -> dict[str, Any]:
    return {"analysis": asked.analysis.name, "questions": tuple(steps), "answered": sites, "dropped": dropped}
