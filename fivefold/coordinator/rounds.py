"""The driver: question after question, until the study is answered. It owns time, roster, attempts and the journal."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fivefold.coordinator.collector import Engine, Ground, exchange, secure_sum
from fivefold.disclosure.rules import screen
from fivefold.errors import FivefoldError, JournalProblem, SiteRefused, TooFewPersons, TooManyDropouts
from fivefold.privacy.fixed_point import ring_for, unpack, width
from fivefold.protocol.encoding import digest
from fivefold.records.audit import AuditLog
from fivefold.records.journal import Journal, read
from fivefold.replay.compare import described
from fivefold.replay.cursor import Asked, Cursor, Outcome
from fivefold.study.definition import Study

ATTEMPTS = 3
"""How often a round is asked before the run stops and waits to be resumed."""


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
    study: Study,
    signed_study: bytes,
    ground: Ground,
    engine: Engine,
    folder: Path,
    log: AuditLog,
    tell: Callable[[Progress], None],
) -> tuple[Cursor, list[dict[str, Any]]]:
    """Run every analysis to its end; resumes from the journal in `folder`. Returns the finished cursor and a record a round.

    Raises `TooManyDropouts` (the run can be resumed), `SiteRefused`, `JournalProblem`, `StorageFull`.
    """
    cursor = Cursor(study)
    history: list[dict[str, Any]] = []
    rounds: list[dict[str, Any]] = []
    attempts: dict[int, int] = {}
    path = folder / "journal" / "rounds.journal"
    for record in read(path):
        attempts[record["round"]] = max(record["attempt"], attempts.get(record["round"], 0))
        if record["event"] == "aggregate":
            _replayed(cursor, record)
            history.append(record)
            rounds.append(_round(cursor.open, record))
            cursor.feed(Outcome(tuple(record["totals"]), tuple(record["sites"]), tuple(record["dropped"]), record["ended"]))
    journal = Journal(path)
    refusals: dict[str, tuple[str, str]] = {}

    def refused(site: str, code: str, rule: str) -> None:
        refusals[site] = (code, rule)
        log.write("refusal", site=site, code=code, rule=rule)

    try:
        known = _enrol(engine, ground, signed_study, refused)
        if len(known) < ground.needed:
            raise _stopped(
                refusals, TooManyDropouts(f"{len(known)} of {len(ground.roster)} sites enrolled, {ground.needed} are needed")
            )
        while cursor.open is not None:
            asked = cursor.open
            for _ in range(ATTEMPTS):
                attempt = attempts[asked.round] = attempts.get(asked.round, 0) + 1
                journal.append({"event": "begun", "round": asked.round, "attempt": attempt})
                refusals.clear()
                if len(known) < len(ground.roster):
                    known |= _enrol(engine, ground, signed_study, refused, known)
                log.write("ask", round=asked.round, attempt=attempt, analysis=asked.analysis.name, steps=_steps(asked))
                try:
                    outcome, transcript = _attempt(study, ground, engine, asked, attempt, known, history, journal, refused)
                    break
                except TooManyDropouts as error:
                    lost = error
                    if refusals:
                        raise _stopped(refusals, error) from error
                    known = _enrol(engine, ground, signed_study, refused)
            else:
                raise lost
            record = {
                "event": "aggregate",
                "round": asked.round,
                "attempt": attempt,
                "question": digest(described(asked.question)),
                "totals": tuple(dict(t) for t in outcome.totals),
                "sites": outcome.sites,
                "dropped": outcome.dropped,
                "ended": outcome.ended,
                "transcript": transcript,
            }
            log.write("aggregate", round=asked.round, sites=list(outcome.sites), dropped=list(outcome.dropped))
            journal.append(record)
            history.append(record)
            rounds.append(_round(asked, record))
            tell(Progress(asked.round, asked.analysis.name, _steps(asked)[0], len(outcome.sites), len(ground.roster), attempt))
            cursor.feed(outcome)
            for name in outcome.dropped:
                known.pop(name, None)  # it may have restarted: it enrols again
        exchange(engine, ground, "close", 0, 0, {name: {} for name in known}, refused)
    finally:
        journal.close()
    return cursor, rounds


def _attempt(
    study: Study,
    ground: Ground,
    engine: Engine,
    asked: Asked,
    attempt: int,
    known: dict[str, int],
    history: list[dict[str, Any]],
    journal: Journal,
    refused: Callable[[str, str, str], None],
) -> tuple[Outcome, Mapping[str, Any]]:
    """Ask once, open the sum, screen it: small totals are gone before anything is written or shown."""
    question = described(asked.question)
    parts = ("round", "totals", "sites", "dropped", "ended", "transcript")
    bodies = {
        name: {"question": question, "history": tuple({k: r[k] for k in parts} for r in history[at:])}
        for name, at in known.items()
    }

    def before_opening(total: Any, survivors: Any) -> None:
        journal.append({"event": "masked", "round": asked.round, "attempt": attempt, "sum": total, "survivors": survivors})

    ring = ring_for(asked.fields)
    found = secure_sum(engine, ground, asked.round, attempt, bodies, width(asked.fields), ring, refused, before_opening)
    for name in found.survivors:
        known[name] = len(history)
    dropped = tuple(name for name in ground.roster if name not in found.survivors)
    try:
        totals = screen(
            unpack(found.total, asked.fields, len(ground.roster), len(found.survivors)),
            asked.fields,
            study.privacy.minimum_persons,
        )
    except TooFewPersons:
        return Outcome((), found.survivors, dropped, "TooFewPersons"), found.transcript
    return Outcome(asked.split(totals), found.survivors, dropped), found.transcript


def _enrol(
    engine: Engine,
    ground: Ground,
    signed_study: bytes,
    refused: Callable[[str, str, str], None],
    enrolled: Mapping[str, int] | None = None,
) -> dict[str, int]:
    """Open the run at every site that is not enrolled → the last round each of them knows."""
    bodies = {name: {"study": signed_study} for name in ground.roster if name not in (enrolled or {})}
    heard = exchange(engine, ground, "enrol", 0, 0, bodies, refused)
    return {name: int(message.body["known"]) for name, (message, _) in heard.items()}


def _replayed(cursor: Cursor, record: Mapping[str, Any]) -> None:
    asked = cursor.open
    if asked is None or digest(described(asked.question)) != record["question"]:
        raise JournalProblem(
            f"round {record['round']} of the journal is not what this version of Fivefold asks",
            help="Resume with the version that began the run, or start a new one with --out.",
        )


def _steps(asked: Asked) -> list[str]:
    return [one.step.identity for one in asked.sums]


def _round(asked: Asked | None, record: Mapping[str, Any]) -> dict[str, Any]:
    assert asked is not None
    return {
        "analysis": asked.analysis.name,
        "questions": tuple(_steps(asked)),
        "answered": tuple(record["sites"]),
        "dropped": tuple(record["dropped"]),
    }


def _stopped(refusals: Mapping[str, tuple[str, str]], otherwise: FivefoldError) -> FivefoldError:
    """The sentence for a run that sites stopped: who refused, and by which rule of theirs."""
    if not refusals:
        return otherwise
    said = "; ".join(f"{site}: {code} ({rule})" if rule else f"{site}: {code}" for site, (code, rule) in refusals.items())
    return SiteRefused(f"{otherwise.message}; refused by {said}", rule=next(iter(refusals.values()))[1])
