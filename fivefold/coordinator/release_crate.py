"""What of a run may be packed: the release that output checkers let go, described as a run crate of its own.

A rehearsal, which lies open anyway, can be packed as it is; its disclosure check then stands as pending, and nobody publishes
it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fivefold.coordinator import airlock, sealing
from fivefold.coordinator.run_record import STUDY_FILE, VARIATIONS, record_of
from fivefold.errors import OutputHeld
from fivefold.governance.recalls import NOTICE
from fivefold.governance.statements import read_chain
from fivefold.records.audit import entries
from fivefold.records.crate import write_crate
from fivefold.records.five_safes_record import NOT_CHECKED, Disclosure
from fivefold.records.sealed_journal import Aggregate, aggregates_of
from fivefold.replay.cursor import Cursor, Outcome
from fivefold.replay.plan import Plan, plan_of
from fivefold.results.write import read_json
from fivefold.study.digest import SignedStudy


@dataclass(frozen=True)
class Source:
    """What is packed: the folder of the nested crate, its disclosure check, and the files that prove it (by path in the
    package, with a sentence each)."""

    folder: Path
    disclosure: Disclosure = NOT_CHECKED
    files: Mapping[str, tuple[bytes, str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Times:
    """When and over what a run went, as its audit log says."""

    engine: str
    started: str
    ended: str


def times_of(run: Path) -> Times:
    """Raises `OutputHeld` where the run has not ended."""
    begun, ended = None, ""
    for entry in entries(run / "audit.jsonl"):
        if entry.event == "run begun" and begun is None:
            begun = entry
        if entry.event == "results":
            ended = entry.time
    if begun is None or not ended:
        raise OutputHeld(f"the run in {run} has not ended", help="Continue it with `fivefold run STUDY --resume DIR`.")
    return Times(str(begun.facts["engine"]), begun.time, ended)


def source_of(run: Path, found: SignedStudy, number: int, staging: Path) -> Source:
    """The release `number` (0: the newest), made into a crate in `staging`; the run itself where nothing was released and it
    lies open. Raises `OutputHeld` where there is nothing that may be packed."""
    places = {int(p.name): p for p in sorted((run / "released").glob("[0-9]*")) if (p / "release.json").is_file()}
    if number not in {0, *places}:
        raise OutputHeld(f"there is no release {number} of {run}", help="`fivefold outputs list RUN` shows them.")
    good = {n: p for n, p in places.items() if not (p / NOTICE).is_file()}
    if number not in {0, *good} or (places and not good):
        raise OutputHeld(
            f"release {number or max(places)} of {run} was recalled, and is not packed",
            help="Ask for a new release: `fivefold outputs request RUN`.",
        )
    places = good
    if places:
        return _released(run, found, number or max(places), places[number or max(places)], staging)
    if sealing.is_sealed(run):
        raise OutputHeld("nothing of this sealed run was released", help="Ask for it: `fivefold outputs request RUN`.")
    return Source(run)


def journal_of(run: Path) -> tuple[Aggregate, ...]:
    """The aggregates of a run, sealed or not. Raises `OutputHeld` where this user has not the coordinator's key."""
    if not sealing.is_sealed(run):
        return aggregates_of(run)
    private = airlock.coordinator_key(run, (run / "run.id").read_text("ascii").strip())
    if private is None:
        raise OutputHeld("the journal of this run is sealed", help=f"Name the coordinator's key with {sealing.KEY_PLACE}.")
    return aggregates_of(run, sealing.journal_key(run, private))


def plan_in(folder: Path, found: SignedStudy) -> Plan:
    """The variations that lie in a run folder or in a package."""
    return plan_of(found.study, [p.read_bytes() for p in sorted((folder / VARIATIONS).glob("*.variation.json"))])


def rounds_of(found: SignedStudy, plan: Plan, aggregates: Sequence[Aggregate]) -> list[dict[str, Any]]:
    """What each round asked, and who answered: the study is replayed."""
    cursor, rounds = Cursor(found.study, plan.analyses), []
    for one in aggregates:
        if cursor.open is None:
            break
        asked = cursor.open
        steps = tuple(s.step.identity for s in asked.sums)
        rounds.append({"analysis": asked.analysis.name, "questions": steps, "answered": one.sites, "dropped": one.dropped})
        cursor.feed(Outcome(one.totals, one.sites, one.dropped, one.ended))
    cursor.close()
    return rounds


def _released(run: Path, found: SignedStudy, number: int, place: Path, staging: Path) -> Source:
    written = [p.relative_to(place).as_posix() for p in sorted(place.rglob("*")) if p.is_file()]
    for path in written:
        if path not in ("release.json", "report.json"):
            (staging / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(place / path, staging / path)
    for name in (STUDY_FILE, "audit.jsonl", "audit.jsonl.head"):
        shutil.copyfile(run / name, staging / name)
    plan, times = plan_in(run, found), times_of(run)
    shown = {a["name"] for a in read_json(staging)["analyses"]}
    done = [a for a in plan.analyses or found.study.analyses if a.name in shown]
    rounds = [r for r in rounds_of(found, plan, journal_of(run)) if r["analysis"] in shown]
    identity = (run / "run.id").read_text("ascii").strip()
    record = record_of(
        found,
        identity,
        times.engine,
        times.started,
        times.ended,
        rounds,
        written,
        done,
        rehearsal=not sealing.is_sealed(run),
    )
    write_crate(staging, record)
    files = {
        f"disclosure/{name}": ((place / name).read_bytes(), words)
        for name, words in (("release.json", "What was released"), ("report.json", "Every check, in ACRO's shape"))
    }
    for at, statement in enumerate(read_chain(run / "airlock"), 1):
        if statement.facts.get("request") == number:
            raw = next((run / "airlock").glob(f"{at:04d}-*.json")).read_bytes()
            files[f"disclosure/{at:04d}-{statement.kind}.json"] = (raw, f"Signed: {statement.kind.replace('_', ' ')}")
    return Source(staging, disclosure_of(place, tuple(files)), files)


def disclosure_of(place: Path, files: tuple[str, ...] = ()) -> Disclosure:
    """The disclosure check that `release.json` and `report.json` in a folder tell of."""
    note = json.loads((place / "release.json").read_bytes())
    report = json.loads((place / "report.json").read_bytes())
    words = f"Disclosure check of request {note['request']}: {note['what']}"
    by = tuple(dict.fromkeys(str(c["name"]) for c in note["checkers"]))
    ended = max(str(c["at"]) for c in note["checkers"])
    checked = [(str(one["command"]), one["outcome"]) for one in report["results"].values()]
    checked.append(("everything released so far, together", report["together"]))
    return Disclosure("completed", words, by, ended, files, tuple(_line(what, outcome) for what, outcome in checked))


def _line(what: str, outcome: Sequence[Mapping[str, Any]]) -> tuple[str, str, str]:
    """One line of the evidence page: what was looked at, each rule's words once, and what came of all of them."""
    words = dict.fromkeys(str(one["words"]) if "=" in str(one["words"]) else str(one["rule"]) for one in outcome)
    states = {str(one["status"]) for one in outcome}
    return what, "; ".join(words), next((s for s in ("fail", "review") if s in states), "pass")
