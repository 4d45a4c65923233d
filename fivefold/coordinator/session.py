"""A run from its first byte to its research package: lock the folder, drive the rounds, write what came out."""

from __future__ import annotations

import fcntl
import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fivefold.auth.keys import new_key, public_of, write_key
from fivefold.coordinator import sealing
from fivefold.coordinator.airlock import site_checkers
from fivefold.coordinator.life import PROPOSAL, allow
from fivefold.coordinator.rounds import Engine, Progress, drive
from fivefold.coordinator.run_log import KEY, note_second_run, run_key, run_log
from fivefold.coordinator.run_record import record_of
from fivefold.coordinator.stragglers import Clock
from fivefold.errors import RunFolderTaken
from fivefold.governance.safe_outputs import checkers_of
from fivefold.protocol.results import Result
from fivefold.records.crate import write_crate
from fivefold.records.files import write_file
from fivefold.replay.cursor import Ended
from fivefold.replay.plan import Plan, plan_of
from fivefold.results.guarantee import bounds, promise_of, stated
from fivefold.results.write import json_of, write_result
from fivefold.study.definition import Study
from fivefold.study.digest import SignedStudy

STUDY_FILE = "study.signed.json"
VARIATIONS = "variations"


@dataclass(frozen=True)
class Run:
    """A finished run: its folder, and for each analysis a result or the sentence in which it ended."""

    folder: Path
    results: Mapping[str, Result | Ended]
    rounds: int
    sealed: bool = False


def run(
    found: SignedStudy,
    engine: Engine,
    folder: Path,
    *,
    tell: Callable[[Progress], None],
    engine_name: str,
    resume: bool,
    sealed: bool = False,
    variations: Sequence[bytes] = (),
    proposal: bytes = b"",
    clock: Clock = time.monotonic,
) -> Run:
    """Run a signed study over an engine into a folder: its own analyses, or variations of them (signed files). `sealed`:
    journal and results are for the output checkers' eyes alone, and neither tables nor figures nor a crate are written before
    a release. `proposal`: the lead's own word that the study is proposed, kept with the run.

    A run that is resumed goes on with the variations that it began with. Raises `RunFolderTaken` for a folder in use, and
    whatever `drive` raises; then the folder can be resumed.
    """
    study = found.study
    started = _now()
    with _taken(folder, resume):
        allow(folder, "run")
        if not (folder / "run.id").exists():  # a new run, or one that died before it was begun: its name is written last
            if (folder / "audit.jsonl").exists() or (folder / "journal").exists():
                raise RunFolderTaken(
                    f"{folder} holds a run whose run.id is gone", help="Restore run.id, or take another folder."
                )
            write_file(folder / STUDY_FILE, found.to_bytes())
            _keep(folder, plan_of(study, variations))
            if proposal:
                write_file(folder / PROPOSAL, proposal)
            (folder / KEY).unlink(missing_ok=True)
            identity = secrets.token_hex(8)
            if sealed:
                sealing.begin(folder, identity, study)
            else:
                write_key(folder / KEY, new_key())
            write_file(folder / "run.id", identity.encode())
        elif (folder / STUDY_FILE).read_bytes() != found.to_bytes():
            raise RunFolderTaken(f"{folder} holds the run of another study")
        plan = _kept(folder, study)
        if variations and plan != plan_of(study, variations):
            raise RunFolderTaken(f"{folder} holds a run of other variations", help="Resume it without --vary.")
        identity = (folder / "run.id").read_text("ascii").strip()
        sealed = sealing.is_sealed(folder)
        key = run_key(sealing.key_place(identity) if sealed else folder / KEY)
        journal_key = sealing.journal_key(folder, key) if sealed else None
        with run_log(folder, key, resume=resume) as log:
            log.write("run resumed" if resume else "run begun", run=identity, study=found.digest, engine=engine_name)
            for one in plan.variations:
                log.write("variation", name=one.analysis.name, varies=one.varies, statement=one.statement_digest)
            cursor, rounds = drive(found, identity, engine, folder, log, tell, journal_key, plan, clock)
            costs = bounds(study, plan.analyses)
            told = stated(cursor.results, study.privacy.differential_privacy, len(rounds), costs)
            results = {name: r for name, r in told.items() if isinstance(r, Result)}
            ended = {name: asdict(r) for name, r in cursor.results.items() if isinstance(r, Ended)}
            how = sorted(ended) if sealed else {name: e["code"] for name, e in ended.items()}
            log.write("results", analyses=list(results), ended=how)
            meta: dict[str, Any] = {
                "title": study.title,
                "digest": found.digest,
                "seed": study.seed,
                "ended": ended,
                "rounds": len(rounds),
                "run": {"id": identity, "engine": engine_name, "started": started, "ended": _now()},
            }
            if plan.variations:
                meta["variations"] = [
                    {"name": v.analysis.name, "varies": v.varies, "statement": v.statement_digest} for v in plan.variations
                ]
            if sealed:
                named = checkers_of(study, site_checkers(folder, found))
                assert journal_key is not None
                holders = [public_of(key), *(bytes.fromhex(c.key) for c in named)]
                sealing.put(folder, json_of(results, meta), holders, journal_key)
                spent = promise_of(study.privacy.differential_privacy, len(rounds), costs) or "exact sums: no budget is charged"
                sealing.tell(folder, identity, rounds, {name: name in results for name in cursor.results}, spent)
                log.closed(run=identity)
                return Run(folder, cursor.results, len(rounds), sealed=True)
            written = write_result(folder, results, meta)
            done = tuple(a for a in cursor.analyses if a.name in cursor.results)
            record = record_of(found, identity, engine_name, started, _now(), rounds, written, done)
            write_crate(folder, record)
            log.closed(run=identity)
    return Run(folder, told, len(rounds))


def _keep(folder: Path, plan: Plan) -> None:
    """The run's variations, in order, beside its study; what an unborn run left there is gone first."""
    for old in (folder / VARIATIONS).glob("*.variation.json"):
        old.unlink()
    for number, one in enumerate(plan.variations, 1):
        write_file(folder / VARIATIONS / f"{number:03}.{one.analysis.name}.variation.json", one.to_bytes())


def _kept(folder: Path, study: Study) -> Plan:
    return plan_of(study, [path.read_bytes() for path in sorted((folder / VARIATIONS).glob("*.variation.json"))])


@contextmanager
def _taken(folder: Path, resume: bool) -> Iterator[None]:
    """One run at a time in a folder; a new run needs an empty one."""
    if resume and not (folder / ".lock").exists():
        raise RunFolderTaken(f"there is no run to resume in {folder}", help="Name the folder of the run that was interrupted.")
    if not resume and folder.exists() and any(folder.iterdir()):
        raise RunFolderTaken(f"{folder} already holds a run or other files")
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder / ".lock", os.O_CREAT | os.O_RDWR, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            note_second_run(folder)
            raise RunFolderTaken(f"another process is running in {folder}") from error
        yield
    finally:
        os.close(lock)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
