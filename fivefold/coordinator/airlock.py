"""The airlock of a run folder: request → checks → words → released files. What is released is all that anybody else ever sees.

    RUN/sealed/        results (and the journal's key), for the coordinator and the output checkers alone; not in an open run
    RUN/airlock/       requests, words and releases, as signed statements in one chain
    RUN/released/NNN/  tables, figures and report of a release, made from the released result alone

Every act is logged in the run's audit log before it is done. A checker at another desk, who has not the coordinator's key,
signs the statement alone; a release logs what was said in between first, and stops where a statement that was logged is gone.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fivefold.auth.keys import public_of, read_key
from fivefold.auth.signatures import opened as opened_envelope
from fivefold.coordinator.life import allow
from fivefold.coordinator.sealing import KEY_PLACE, PURPOSE, SEALED, key_place
from fivefold.disclosure.report import acro
from fivefold.disclosure.tables import Count
from fivefold.errors import ModelNotExported, NotApproved, OutputHeld, OutputRequestInvalid, StatementInvalid
from fivefold.governance.output_checks import Proposal, propose
from fivefold.governance.output_counts import population
from fivefold.governance.output_forms import Form
from fivefold.governance.safe_outputs import (
    Checker,
    Choice,
    Request,
    Standing,
    Word,
    ask,
    checkers_of,
    decide,
    may_check,
    record_release,
    standing_of,
    standings,
)
from fivefold.governance.statements import read_chain
from fivefold.privacy.sealed_box import open_box
from fivefold.protocol.encoding import decode
from fivefold.protocol.messages import Envelope, Opened
from fivefold.protocol.objections import Objections
from fivefold.protocol.results import Result
from fivefold.records.audit import AuditLog, entries
from fivefold.records.files import write_file
from fivefold.replay.roster import roster_of
from fivefold.results.tables import plain_of
from fivefold.results.write import file_names, read_results, results_of, write_result
from fivefold.study.digest import SignedStudy, load_signed

EVENTS = {
    "output_request": "output request", "output_decision": "output decision", "output_release": "output release",
    "output_recall": "output recall",
}  # fmt: skip


@dataclass(frozen=True)
class Airlock:
    """A run folder as the airlock sees it; nothing of the results is read before `opened`."""

    folder: Path
    study: SignedStudy
    run: str

    @property
    def chain(self) -> Path:
        return self.folder / "airlock"

    @property
    def sealed(self) -> bool:
        return (self.folder / SEALED).exists()

    def checkers(self) -> tuple[Checker, ...]:
        """Those whom the study names, and those whom sites named when they enrolled, under their node's signature."""
        return checkers_of(self.study.study, site_checkers(self.folder, self.study))

    def operators(self) -> tuple[str, ...]:
        key = coordinator_key(self.folder, self.run)
        return () if key is None else (public_of(key).hex(),)


@dataclass(frozen=True)
class Held:
    """What a key opens: the results, the secret that keeps digests of proposals from being guessed, and the key of a sealed
    run's journal."""

    results: Mapping[str, Result]
    secret: bytes
    journal: bytes | None = None


def airlock(folder: Path) -> Airlock:
    """The airlock of a run that has ended. Raises `OutputHeld` where there is none."""
    try:
        run = (folder / "run.id").read_text("ascii").strip()
    except OSError as error:
        raise OutputHeld(f"{folder} is not a run's folder", help="Name the folder that `fivefold run` printed.") from error
    found = Airlock(folder, load_signed(folder / "study.signed.json"), run)
    if not found.sealed and not (folder / "result.json").exists():
        raise OutputHeld(f"the run in {folder} has not ended", help="Continue it with `fivefold run STUDY --resume DIR`.")
    return found


def coordinator_key(folder: Path, run: str) -> bytes | None:
    """The coordinator's key of a run: in an open run's folder, else where the environment or this user's state says; None where
    this user cannot read it."""
    for place in (folder / "coordinator.key", key_place(run)):
        if place.exists() and os.access(place, os.R_OK):
            return read_key(place)
    return None


def site_checkers(folder: Path, found: SignedStudy) -> dict[str, list[Checker]]:
    """Each site's own checkers, from its signed reply when it opened the run. Raises `SignatureWrong` for an altered one."""
    roster = roster_of(found.study)
    out: dict[str, list[Checker]] = {}
    for path in sorted((folder / "enrolled").glob("*.message")):
        data = path.read_bytes()
        place = Envelope.decode(data).place
        if place.study != found.digest:
            raise StatementInvalid(f"{path.name} belongs to another study", help="Take the folder from a copy.")
        site, reply = opened_envelope(data, Opened, roster, place)
        out[site] = [Checker(c["name"], c["organisation"], c["key"], site) for c in decode(reply.checkers)]
    return out


def opened(it: Airlock, private: bytes) -> Held:
    """The results, for a checker or the coordinator. In a sealed run no other key opens them; in an open run (a rehearsal)
    they lie open anyway, and only a checker's view is asked for. Raises `NotApproved`, `KeyProblem`."""
    public = public_of(private)
    if not it.sealed:
        may_check(it.study.study, it.checkers(), it.operators(), public.hex())
        return Held(read_results(it.folder), hashlib.sha256(f"open run {it.run}".encode()).digest())
    if public.hex() not in it.operators():
        may_check(it.study.study, it.checkers(), it.operators(), public.hex())
    held = decode(open_box((it.folder / SEALED).read_bytes(), private, public, PURPOSE))
    return Held(results_of(json.loads(bytes(held["result"]))), bytes(held["secret"]), bytes(held["journal"]))


def is_checker(it: Airlock, private: bytes) -> bool:
    """Whether a key may decide here."""
    try:
        may_check(it.study.study, it.checkers(), it.operators(), public_of(private).hex())
    except NotApproved:
        return False
    return True


# ---- the acts -------------------------------------------------------------------------------------------------------
def request(it: Airlock, private: bytes, **asked: Any) -> Request:
    """The lead asks for a release; see `safe_outputs.ask`."""
    allow(it.folder, "asked for")
    _log(it, "output_request", analyses=list(asked.get("analyses", ())))
    return ask(it.chain, it.study.study, private, **asked)


def proposal(
    it: Airlock, held: Held, number: int, form: Form, *, beside: Sequence[Path] = (), objections: Objections | None = None
) -> tuple[Proposal, str]:
    """What request `number` would release in a form, checked, and its digest. Two checkers get the same one; without the
    results' secret nobody can guess a table by its digest."""
    asked = standing_of(it.chain, it.study.study, it.checkers(), number).request
    missing = [n for n in asked.analyses if n not in held.results]
    if missing:
        raise OutputRequestInvalid(f"the analysis {missing[0]} ended without a result", help="Ask for the others.")
    results = {n: held.results[n] for n in asked.analyses}
    files = {
        n: tuple(f"tables/{stem}.{t}.csv" for t in file_names(results[n].tables))
        for n, stem in zip(results, file_names(results), strict=True)
    }
    before = released_counts(it, beside)
    models = _models(it, results, held.journal)
    made = propose(it.study.study, results, form, before=before, objections=objections, files=files, models=models)
    plain = {"of": asked.identity, "form": form, "results": {n: plain_of(r) for n, r in made.results.items()}}
    return made, hmac.new(held.secret, json.dumps(plain, sort_keys=True).encode(), hashlib.sha256).hexdigest()


def _models(it: Airlock, results: Mapping[str, Result], journal: bytes | None) -> dict[str, bytes]:
    """The trained models among results as files for the sites to attack; none of those that no site could."""
    from fivefold.coordinator.model_export import trained_file

    found = {}
    for name, result in results.items():
        if "weights" in result.tables:
            with suppress(ModelNotExported):
                found[name] = trained_file(it.folder, it.study, name, result, journal)
    return found


def word(
    it: Airlock, private: bytes, number: int, choice: Choice, form: Form, reason: str, *, beside: Sequence[Path] = (),
    objections: Objections | None = None, now: datetime | None = None,
) -> Word:  # fmt: skip
    """A checker decides, on exactly what would be released. Raises `NotApproved` with the rule."""
    try:
        who = may_check(it.study.study, it.checkers(), it.operators(), public_of(private).hex())
    except NotApproved as error:
        _log(it, "output_decision", request=number, refused=error.rule, signer=public_of(private).hex())
        raise
    made, digest = proposal(it, opened(it, private), number, form, beside=beside, objections=objections)
    _log(it, "output_decision", request=number, choice=choice, form=form, checker=who.name, proposal=digest)
    try:
        return _decided(it, private, made, digest, number, choice, form, reason, now)
    except NotApproved as error:
        _log(it, "output_decision", request=number, refused=error.rule)
        raise


def _decided(
    it: Airlock, private: bytes, made: Proposal, digest: str, number: int, choice: Choice, form: Form, reason: str,
    now: datetime | None,
) -> Word:  # fmt: skip
    return decide(
        it.chain, it.study.study, it.checkers(), it.operators(), private, request=number, choice=choice, form=form,
        reason=reason, proposal=digest, report=made.report, now=now,
    )  # fmt: skip


def release(
    it: Airlock, private: bytes, number: int, *, beside: Sequence[Path] = (), objections: Objections | None = None,
    enter: Callable[[], None] | None = None,
) -> Path:  # fmt: skip
    """Write what the checkers let go, and nothing else; the folder. `private` opens the results; the coordinator's own key
    signs. `enter` tells the sites, whose ledgers have a release before anybody else has it.

    Checks again, with what was released since. Raises `OutputHeld` where words are missing or something has changed.
    """
    allow(it.folder, "released")
    study, checkers = it.study.study, it.checkers()
    operator = coordinator_key(it.folder, it.run)
    if operator is None:
        raise OutputHeld("only the coordinator releases, and its key cannot be read here", help=f"Name it with {KEY_PLACE}.")
    _catch_up(it)
    standing = standing_of(it.chain, study, checkers, number)
    if standing.state != "may be released" or standing.agreed is None:
        why = "; ".join(standing.open) or standing.state
        raise OutputHeld(f"request {number} cannot be released: {why}")
    digest, form = standing.agreed
    made, now_digest = proposal(it, opened(it, private), number, form, beside=beside, objections=objections)
    if not hmac.compare_digest(digest, now_digest):
        raise OutputHeld(
            "what would be released is not what the checkers saw: something was released in between",
            help="The checkers look again, and decide anew.",
        )
    if made.report.binding:
        raise OutputHeld(f"request {number} cannot be released: {made.report.binding[0].words}")
    if made.report.status == "fail" and not any(w.choice == "exception" for w in standing.words):
        raise OutputHeld(
            f"request {number} cannot be released: a check fails that did not when the checkers decided",
            help="The checkers look again; an exception needs a written reason.",
        )
    aside, place = it.folder / "released" / f".{number:03d}.new", it.folder / "released" / f"{number:03d}"
    shutil.rmtree(aside, ignore_errors=True)
    files = _write(it, aside, standing, made, digest)
    _log(it, "output_release", request=number, form=form, proposal=digest, files=files)
    if enter is not None:
        enter()
    shutil.rmtree(place, ignore_errors=True)  # of a release that was cut off just here
    os.replace(aside, place)
    record_release(it.chain, operator, request=number, proposal=digest, form=form, files=files)
    return place


def queue(it: Airlock) -> tuple[Standing, ...]:
    """Every request, with its state."""
    return standings(it.chain, it.study.study, it.checkers())


def released_counts(it: Airlock, beside: Sequence[Path] = ()) -> tuple[Count, ...]:
    """The counts of every release of the same persons: of this run, of its neighbours in one folder, and of the release folders
    `beside`."""
    places = {p.resolve() for p in (*it.folder.parent.glob("*/released/*/release.json"), *(b / "release.json" for b in beside))}
    own = population(it.study)
    out: list[Count] = []
    for path in sorted(places):
        if path.parent.name.startswith("."):
            continue
        try:
            value = json.loads(path.read_bytes())
            if value["population"] == own:
                out += [Count.from_plain(c) for c in value["counts"]]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise OutputHeld(
                f"the earlier release at {path} cannot be read", help="Restore it; nothing is released without it."
            ) from error
    return tuple(dict.fromkeys(out))


# ---- files ----------------------------------------------------------------------------------------------------------
def _write(it: Airlock, aside: Path, standing: Standing, made: Proposal, digest: str) -> dict[str, str]:
    """The files of a release, all made from the released result; each with its SHA-256."""
    meta = {"title": it.study.study.title, "digest": it.study.digest, "run": {"id": it.run, "released": _time()}}
    written = write_result(aside, made.results, meta)
    exception = "; ".join(f"{w.checker.name}: {w.reason}" for w in standing.words if w.choice == "exception")
    comments = [f"{w.checker.name}: {w.reason}" for w in standing.words if w.choice == "release" and w.reason]
    report = acro(made.report, "fivefold 1", _time(), comments, exception)
    note = {
        "request": standing.request.number, "what": standing.request.what, "purpose": standing.request.purpose,
        "study": it.study.digest, "population": population(it.study), "proposal": digest,
        "counts": [c.plain() for c in made.counts],
        "checkers": [{"name": w.checker.name, "site": w.checker.site, "choice": w.choice, "at": w.at} for w in standing.words],
    }  # fmt: skip
    for name, value in (("report.json", report), ("release.json", note)):
        write_file(aside / name, json.dumps(value, indent=1, ensure_ascii=False, sort_keys=True).encode() + b"\n")
    names = (*written, "report.json", "release.json")
    return {name: hashlib.sha256((aside / name).read_bytes()).hexdigest() for name in names}


def _log(it: Airlock, kind: str, **facts: Any) -> None:
    """The entry before the act, where this user is the coordinator's."""
    key = coordinator_key(it.folder, it.run)
    if key is not None:
        number = len(read_chain(it.chain)) + 1
        with AuditLog(it.folder / "audit.jsonl", key, "coordinator") as log:
            log.write(EVENTS[kind], statement=number, **facts)


def _catch_up(it: Airlock) -> None:
    """Log the statements that were signed elsewhere; raise `StatementInvalid` where one that was logged is gone."""
    said = read_chain(it.chain)
    attempts = [e.facts for e in entries(it.folder / "audit.jsonl") if e.event in EVENTS.values()]
    known = {f["digest"]: f["statement"] for f in attempts if "digest" in f}
    for digest, number in known.items():
        if number > len(said) or said[number - 1].digest != digest:
            raise StatementInvalid(f"statement {number} of the airlock was taken away or replaced")
    key = coordinator_key(it.folder, it.run)
    assert key is not None
    with AuditLog(it.folder / "audit.jsonl", key, "coordinator") as log:
        for s in said:
            if s.digest not in known:
                log.write(
                    EVENTS.get(s.kind, "output request"), statement=s.facts["number"], digest=s.digest, signer=s.signers[0]
                )


def _time() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
