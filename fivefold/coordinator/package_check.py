"""Is a package what it says? Bag, signature, profile, sign-offs, nested run and log, each with a sentence."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from fivefold.auth.keys import fingerprint
from fivefold.coordinator.package import signers
from fivefold.coordinator.recall import why_not
from fivefold.coordinator.release_crate import journal_of, plan_in
from fivefold.coordinator.run_record import STUDY_FILE
from fivefold.errors import CrateInvalid, FivefoldError, StatementInvalid
from fivefold.governance.evidence import read_evidence
from fivefold.governance.output_checks import propose
from fivefold.governance.statements import read_statement
from fivefold.protocol.results import Result
from fivefold.records import audit
from fivefold.records.bag import payload_of, require_whole, signed_by
from fivefold.records.crate_graph import Crate
from fivefold.records.five_safes_record import SiteEvidence
from fivefold.records.five_safes_rules import RULES, Level, broken
from fivefold.records.sealed_journal import read_aggregates
from fivefold.records.validation import changed_files, profile_faults, read_crate, validator
from fivefold.results.noise_agreement import Agreement, agreement
from fivefold.results.reproduce import Reproduction, differing_rounds, reproduce
from fivefold.results.write import read_json
from fivefold.study.digest import SignedStudy, load_signed

METADATA = "ro-crate-metadata.json"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: what was found in a sentence, and the faults (none: it holds)."""

    words: str
    faults: tuple[str, ...] = ()
    checked: bool = True


def is_package(path: Path) -> bool:
    """Whether a folder is a packed crate, and not a run folder."""
    return (path / "bagit.txt").is_file()


def check(path: Path, *, recommended: bool = False) -> list[Finding]:
    """Every check of a packed crate in order. Raises `CrateInvalid` only where nothing can be read."""
    crate = outer(path)
    level: Level | None = None if recommended else "MUST"
    rules = [r for r in RULES if level is None or r.level == level]
    found = [
        Finding(
            f"Five Safes RO-Crate 0.4: {len(rules)} rules hold, every checksum among them",
            tuple(broken(crate, level)),
        )
    ]
    run = payload_of(path) / "run"
    found.append(_signature(path, run))
    found.append(Finding("every file of the nested run is as its own crate describes it", tuple(changed_files(run))))
    found.append(_profiles(path, run))
    found.append(_log(run))
    found += _sign_offs(path)
    recalled = why_not(path)
    if recalled:
        found.append(Finding("recall", (recalled,)))
    return found


def outer(path: Path) -> Crate:
    """The outer crate of a package. Raises `CrateInvalid` if it is damaged."""
    place = payload_of(path) / METADATA
    read_crate(place.parent)
    return Crate.of(json.loads(place.read_bytes()), path if is_package(path) else None)


def study_of(path: Path) -> SignedStudy:
    """The signed study in a package, digest and signature verified. Raises `CrateInvalid` where there is none."""
    if not (payload_of(path) / "run" / STUDY_FILE).is_file():
        raise CrateInvalid(f"{path} is not a packed crate", help="Name the folder that `fivefold crate build` wrote.")
    return load_signed(payload_of(path) / "run" / STUDY_FILE)


def evidence_in(path: Path) -> list[SiteEvidence]:
    """What each site signed, verified against the study. Raises `StatementInvalid`, `CrateInvalid`."""
    found = study_of(path)
    places = sorted((payload_of(path) / "sign-offs").glob("*.json"))
    said = [read_evidence(place.read_bytes(), found.study, found.digest) for place in places]
    order = {s.name: i for i, s in enumerate(found.study.sites)}
    return sorted(said, key=lambda s: order[s.site])


def reproduction(path: Path, private: bytes | None, against: Path | None = None) -> tuple[Reproduction, str, Agreement | None]:
    """Replay a package; and, where a later run of the study is named, the first thing that differs between both: exactly, or
    beyond the noise of a study with differential privacy, whose agreement is then told.

    Raises `CrateInvalid` where the journal is missing, sealed for others, or the package was changed.
    """
    if is_package(path):
        require_whole(path)
    crate = payload_of(path)
    found = study_of(path)
    aggregates = read_aggregates(crate, private)
    analyses = plan_in(crate, found).analyses
    done = reproduce(found.study, aggregates, read_json(crate / "run"), analyses=analyses, shaped=_shaped(crate, found))
    if against is None:
        return done, "", None
    other = load_signed(against / STUDY_FILE)
    if other.digest != found.digest:
        return done, f"{against.name} ran another study", None
    later = journal_of(against)
    if found.study.privacy.differential_privacy is None:
        return done, differing_rounds(aggregates, later), None
    noisy = agreement(found.study, aggregates, later, analyses)
    return done, noisy.difference, noisy


def _shaped(crate: Path, found: SignedStudy) -> Callable[[dict[str, Result]], Mapping[str, Result]]:
    """What the release of a package made of the results: the same suppression or rounding, made again."""
    note = next(iter(sorted((crate / "disclosure").glob("*-output_release.json"))), None)
    if note is None:
        return lambda results: results
    form = read_statement(note.read_bytes(), note.name).facts["form"]
    return lambda results: propose(found.study, results, form).results


def _signature(path: Path, run: Path) -> Finding:
    try:
        by = signed_by(path)
        role = signers(run, load_signed(run / STUDY_FILE)).get(by.key.hex())
    except FivefoldError as error:
        return Finding("signature", (error.message,))
    if role is None:
        return Finding("signature", (f"the key {fingerprint(by.key)} that signed is neither the lead's nor the coordinator's",))
    return Finding(f"signed by the {role}, key {fingerprint(by.key)}")


def _profiles(path: Path, run: Path) -> Finding:
    command = validator()
    if command is None:
        return Finding("rocrate-validator is not installed: base profile and nested run crate were not judged", checked=False)
    try:
        faults = profile_faults(payload_of(path), command, profile="ro-crate-1.2")
        faults += [f"run/: {said}" for said in profile_faults(run, command)]
    except CrateInvalid as error:
        faults = [error.message]
    return Finding("rocrate-validator accepts the crate (RO-Crate 1.2) and the nested Provenance Run Crate 0.5", tuple(faults))


def _log(run: Path) -> Finding:
    try:
        report = audit.verify(run / "audit.jsonl")
    except FivefoldError as error:
        return Finding("audit log", (error.message,))
    return Finding(f"the coordinator's log is whole: {report.entries} entries")


def _sign_offs(path: Path) -> list[Finding]:
    try:
        said = evidence_in(path)
        if not said:
            raise StatementInvalid("the package holds no sign-off")
    except FivefoldError as error:
        return [Finding("sign-offs", (error.message,))]
    lines = []
    for one in said:
        end = f", withdrawn on {one.withdrawn[:10]}" if one.withdrawn else ""
        lines.append(Finding(f"{one.site}: approved by {one.custodian} on {one.approved[:10]}, until {one.expires}{end}"))
    return lines
