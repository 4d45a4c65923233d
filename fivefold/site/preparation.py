"""Preparing freezes a site's cohort for one study: who may ask → which rows → opt-outs out → sealed snapshot → all rounds
read it.

A later snapshot of the same asset that differs from an earlier one by a few persons is refused: the difference of two sums
over them would be those persons' own numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fivefold.errors import DifferencingRefused, SnapshotProblem, TooFewPersons
from fivefold.governance import five_safes, safe_data
from fivefold.governance.approvals import dictionary_digest
from fivefold.governance.policy import decide
from fivefold.site import snapshot
from fivefold.site.folder import SiteFolder
from fivefold.site.snapshot import Tags
from fivefold.study.definition import Study
from fivefold.study.table import Table

if TYPE_CHECKING:
    from fivefold.data.harmonise import Harmonised
    from fivefold.data.mapping import Mapping as DataMapping


@dataclass(frozen=True)
class Prepared:
    """A frozen cohort. `report` is the quality report's plain values: for the custodian, never for the wire."""

    table: Table
    tags: Tags
    prepared_at: str
    report: Mapping[str, Any]


def inspect(site: SiteFolder, study: Study, when: datetime | None = None) -> Harmonised:
    """What the study's cohort would be, for the custodian's eyes: nothing is kept, and no approval is needed. Raises
    `DataError`."""
    from fivefold.data.harmonise import load

    policy = site.policy(when)
    return load(study, site.mapping(), site.path, site=policy.site, opt_outs=site.opt_outs(policy))


def prepare(
    site: SiteFolder, study: Study, study_digest: str, *, when: datetime | None = None, again: bool = False
) -> Prepared:
    """Freeze the cohort, or open the snapshot that there is (`again` makes a new one and destroys the old).

    Approval and policy are checked before a row is read. Raises `NotApproved`, `PolicyRefuses`, `DataError`, `TooFewPersons`,
    `DifferencingRefused`, `StorageFull`.
    """
    when = when or datetime.now(UTC)
    custody = site.custody(when)
    site.approval(study_digest, when, study=study)
    policy = custody.policy
    decide(policy, study, today=when.astimezone(UTC).date()).enforce()
    path = snapshot_path(site, study_digest)
    if path.exists() and not again:
        frozen = open_prepared(site, study, study_digest)
        five_safes.enforce({"data": safe_data.judge(policy, study, folder=site.path, report=frozen.report)})
        return frozen

    mapping, secret = site.mapping(), site.secret()
    found = inspect(site, study, when)
    five_safes.enforce({"data": safe_data.judge(policy, study, folder=site.path, report=found.report.value())})
    minimum = max(policy.minimum_persons, study.privacy.minimum_persons)
    if found.report.persons < policy.minimum_persons:
        raise TooFewPersons("this site's cohort has fewer persons than its policy's minimum", rule="minimum_persons")
    layout = snapshot.tag(secret, "layout", _layout(study))
    persons = snapshot.persons_of(secret, study_digest, policy.asset, layout, found.table, found.identifiers)
    sets = site.state / "snapshots" / "persons"
    earlier = snapshot.kept_persons(sets, secret, policy.asset)
    for before in earlier:
        if 0 < snapshot.difference(before, persons) < minimum:
            raise DifferencingRefused(
                f"this cohort differs from an earlier snapshot of {policy.asset} by fewer than {minimum} persons",
                rule="minimum_persons",
                help="Go on with the earlier snapshot, or wait until more persons differ.",
            )
    tags = _tags(secret, study, mapping, found)
    at = when.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    facts = {
        "study": study_digest,
        "asset": policy.asset,
        "policy": policy.digest,
        "at": at,
        "report": found.report.value(),
        "tags": {"data": tags.data, "mapping": tags.mapping, "cohort": tags.cohort},
        "who": snapshot.identities(secret, policy.asset, found.identifiers),
    }
    with site.act("snapshot", study=study_digest, asset=policy.asset, data=tags.data, mapping=tags.mapping, cohort=tags.cohort):
        if not any(snapshot.difference(before, persons) == 0 and before.layout == layout for before in earlier):
            snapshot.keep_persons(sets, secret, persons)
        snapshot.write(path, secret, found.table, facts)
    return Prepared(found.table, tags, at, found.report.value())


def open_prepared(site: SiteFolder, study: Study, study_digest: str) -> Prepared:
    """The study's snapshot at this site: what every round reads. Raises `SnapshotProblem`."""
    table, facts = snapshot.read(snapshot_path(site, study_digest), site.secret(), study.phenotypes)
    if facts["study"] != study_digest:
        raise SnapshotProblem("the snapshot belongs to another study", help=snapshot.PREPARE_AGAIN)
    return Prepared(table, Tags(**facts["tags"]), facts["at"], facts["report"])


def close(site: SiteFolder, study_digest: str, *, reason: str = "the study ended") -> bool:
    """Destroy the study's snapshot at its end; the log says so before and after. False where there is none."""
    path = snapshot_path(site, study_digest)
    if not path.exists():
        return False
    with site.act("snapshot deletion", study=study_digest, reason=reason) as log:
        snapshot.destroy(path)
        log.write("snapshot deleted", study=study_digest)
    return True


def snapshot_path(site: SiteFolder, study_digest: str) -> Path:
    return site.state / "snapshots" / f"{study_digest}.snapshot"


def _tags(secret: bytes, study: Study, mapping: DataMapping, found: Harmonised) -> Tags:
    table = found.table
    cohort = (study.cohort.include, study.cohort.exclude, [(d.variable.name, d.expression) for d in study.derived])
    return Tags(
        data=snapshot.tag(secret, "data", {"columns": dict(table.columns), "person": table.person, "who": found.identifiers}),
        mapping=snapshot.tag(secret, "mapping", mapping.digest),
        cohort=snapshot.tag(secret, "cohort", cohort),
    )


def _layout(study: Study) -> Any:
    derived = [(d.variable.name, d.expression) for d in study.derived]
    return (dictionary_digest(study.dictionary), list(study.variables), derived)
