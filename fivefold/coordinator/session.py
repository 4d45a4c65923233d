"""A run from its first byte to its research package: lock the folder, drive the rounds, write what came out."""

from __future__ import annotations

import fcntl
import os
import platform
import re
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import fivefold
from fivefold.auth.keys import new_key, public_of, write_key
from fivefold.coordinator import sealing
from fivefold.coordinator.airlock import site_checkers
from fivefold.coordinator.rounds import Engine, Progress, drive
from fivefold.coordinator.run_log import KEY, note_second_run, run_key, run_log
from fivefold.errors import RunFolderTaken
from fivefold.governance.safe_outputs import checkers_of
from fivefold.plugins import method
from fivefold.protocol.encoding import digest
from fivefold.protocol.results import Result
from fivefold.records.files import write_file
from fivefold.records.provenance import AnalysisRecord, LeadRecord, RoundRecord, RunRecord, SiteRecord
from fivefold.replay.cursor import Ended
from fivefold.replay.plan import Plan, plan_of
from fivefold.results.guarantee import promise_of, stated
from fivefold.results.write import json_of, write_result
from fivefold.study.definition import Analysis, Study
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
) -> Run:
    """Run a signed study over an engine into a folder: its own analyses, or variations of them (signed files). `sealed`:
    journal and results are for the output checkers' eyes alone, and neither tables nor figures nor a crate are written before
    a release.

    A run that is resumed goes on with the variations that it began with. Raises `RunFolderTaken` for a folder in use, and
    whatever `drive` raises; then the folder can be resumed.
    """
    study = found.study
    started = _now()
    with _taken(folder, resume):
        if not (folder / "run.id").exists():  # a new run, or one that died before it was begun: its name is written last
            if (folder / "audit.jsonl").exists() or (folder / "journal").exists():
                raise RunFolderTaken(
                    f"{folder} holds a run whose run.id is gone", help="Restore run.id, or take another folder."
                )
            write_file(folder / STUDY_FILE, found.to_bytes())
            _keep(folder, plan_of(study, variations))
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
            cursor, rounds = drive(found, identity, engine, folder, log, tell, journal_key, plan)
            told = stated(cursor.results, study.privacy.differential_privacy, len(rounds))
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
                sealing.put(folder, json_of(results, meta), [public_of(key), *(bytes.fromhex(c.key) for c in named)])
                spent = promise_of(study.privacy.differential_privacy, len(rounds)) or "exact sums: no budget is charged"
                sealing.tell(folder, identity, rounds, {name: name in results for name in cursor.results}, spent)
                log.closed(run=identity)
                return Run(folder, cursor.results, len(rounds), sealed=True)
            written = write_result(folder, results, meta)
            done = tuple(a for a in cursor.analyses if a.name in cursor.results)
            _crate(found, folder, identity, engine_name, started, rounds, written, done)
            log.closed(run=identity)
    return Run(folder, told, len(rounds))


def _crate(
    found: SignedStudy,
    folder: Path,
    identity: str,
    engine_name: str,
    started: str,
    rounds: list[dict[str, Any]],
    written: tuple[str, ...],
    done: tuple[Analysis, ...],
) -> None:
    from fivefold.records.crate import write_crate

    study = found.study
    analyses = []
    for one in done:
        about = method(one.method)
        own = [r for r in rounds if r["analysis"] == one.name]
        numbered = tuple(RoundRecord(i, r["questions"], r["answered"], r["dropped"]) for i, r in enumerate(own, 1))
        stem = re.sub(r"[^A-Za-z0-9_-]", "_", one.name)
        files = tuple(path for path in written if Path(path).name.startswith((f"{one.name}.", f"{stem}.")))
        analyses.append(AnalysisRecord(one.name, one.method, numbered, about.title, about.paper, one.formula, files))
    private = study.privacy
    write_crate(
        folder,
        RunRecord(
            run=identity,
            title=study.title,
            question=study.question,
            lead=LeadRecord(study.lead.name, study.lead.organisation, study.lead.orcid),
            study_file=STUDY_FILE,
            study_digest=found.digest,
            dictionary=study.dictionary.name,
            dictionary_version=study.dictionary.version,
            dictionary_digest=digest(asdict(study.dictionary)).hex(),
            sites=tuple(SiteRecord(s.name, s.organisation, s.public_key) for s in study.sites),
            analyses=tuple(analyses),
            engine=engine_name,
            software={
                "fivefold": fivefold.__version__,
                "python": platform.python_version(),
                "numpy": version("numpy"),
                "cryptography": version("cryptography"),
            },
            started=started,
            ended=_now(),
            licence=study.outputs.licence,
            privacy={
                "mode": private.mode,
                "adversary": private.adversary,
                "minimum_sites": private.minimum_sites,
                "minimum_persons": private.minimum_persons,
                "differential_privacy": promise_of(private.differential_privacy, len(rounds)) or "none: sums are exact",
            },
            ethics=study.agreements.ethics,
            purpose=study.agreements.purpose,
            seed=study.seed,
            rehearsal=True,
        ),
    )


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
