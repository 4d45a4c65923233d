"""A site's own ledger of releases: everything that was released from its data, by whichever coordinator.

Two questions are asked before a release, and both are answered here, beside the rows. Do its counts, with those of every
earlier release of the same persons, tell a few apart (`disclosure/differencing.py`)? And do its persons differ from those of
an earlier release by fewer than the minimum? For the second the ledger keeps a keyed hash of each person in each release.
What leaves is a bit a rule, in a sum over all sites, and not often: who may ask again and again could learn who is in it.

The ledger is sealed on disk. A release that cannot be entered is a release that the site was not told of: it says so in its
log.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from fivefold.algorithms.cohort import in_subgroup
from fivefold.disclosure.differencing import judge
from fivefold.disclosure.tables import Count
from fivefold.errors import DifferencingRefused, ModelNotExported
from fivefold.governance.output_counts import levels_of
from fivefold.governance.recalls import Recall, read_recall, recallers
from fivefold.protocol.encoding import decode, encode
from fivefold.protocol.objections import REMARKS, RULES
from fivefold.records.journal import Journal, read
from fivefold.site import snapshot
from fivefold.site.folder import SiteFolder
from fivefold.site.memorisation import attack
from fivefold.site.objections import objections, own_count
from fivefold.site.preparation import open_prepared, snapshot_path
from fivefold.study.definition import Study
from fivefold.study.digest import SignedStudy

PER_DAY = 20
"""Verdicts on different proposals that a site gives of one data asset within a day."""
Rows = frozenset[bytes]


@dataclass(frozen=True)
class Proposed:
    """What a site is shown: the counts of each analysis, the digest of the population that they are of, and each trained model
    as a file (safetensors)."""

    counts: Mapping[str, Sequence[Count]]
    population: str
    models: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def identity(self) -> str:
        plain = {name: [c.plain() for c in counts] for name, counts in self.counts.items()}
        models = {name: hashlib.sha256(model).hexdigest() for name, model in self.models.items()}
        return hashlib.sha256(encode({"counts": plain, "population": self.population, "models": models})).hexdigest()


def verdict(site: SiteFolder, found: SignedStudy, proposed: Proposed, *, now: datetime | None = None) -> tuple[str, ...]:
    """By which rules this site objects to a release, and what it remarks of the models (`protocol/objections.py`).

    Raises `NotApproved` (the study is not approved, or no longer), `SnapshotProblem`, `ModelNotExported` for a model that is
    none of the study, `DifferencingRefused` where more was asked than a day allows.
    """
    now = now or datetime.now(UTC)
    approval = site.approval(found.digest, now, study=found.study)
    ledger = _Ledger(site, now)
    known = ledger.answered(proposed.identity)
    if known is not None:
        return known
    ledger.enough()
    reasons = _reasons(site, found, proposed, ledger, now, dominance=not approval.permits("site_totals"))
    objects = not set(RULES).isdisjoint(reasons)
    with site.act("release verdict", study=found.digest, proposal=proposed.identity, objects=objects, reasons=reasons):
        ledger.write({"kind": "verdict", "proposal": proposed.identity, "rules": reasons, "at": now.timestamp()})
    return tuple(reasons)


def record(site: SiteFolder, found: SignedStudy, proposed: Proposed, *, release: str, now: datetime | None = None) -> None:
    """Enter a release, once: its counts, and who was in it. Every later proposal from this data asset is compared with it."""
    now = now or datetime.now(UTC)
    rows = rows_of(site, found.study, found.digest, proposed.counts)
    sets = [b"".join(sorted(r)) for r in dict.fromkeys(rows.values())]
    entry = {
        "kind": "release",
        "release": release,
        "study": found.digest,
        "population": proposed.population,
        "counts": encode([c.plain() for counts in proposed.counts.values() for c in counts]),
        "rows": sets,
        "at": now.timestamp(),
    }
    ledger = _Ledger(site, now)
    if any(e["kind"] == "release" and (e["release"], e["counts"]) == (release, entry["counts"]) for e in ledger.entries()):
        return
    with site.act("release entered", study=found.digest, release=release):
        ledger.write(entry)


def recall(site: SiteFolder, found: SignedStudy, notice: bytes, *, now: datetime | None = None) -> Recall:
    """Enter the recall of a release: an incident in this site's log. What was released stays in the ledger, for it is known.

    Raises `StatementInvalid` for a notice that is not signed by the study's lead or one of its checkers.
    """
    now = now or datetime.now(UTC)
    said = read_recall(notice, found.digest, recallers(found.study))
    release = f"{said.run}/{said.number}"
    with site.act("incident", kind="recall", study=found.digest, release=release, by=said.by, reason=said.reason) as log:
        if not any(e["kind"] == "release" and e["release"] == release for e in _Ledger(site, now).entries()):
            log.write("incident", kind="recall of a release that this ledger has not", study=found.digest, release=release)
        _Ledger(site, now).write({"kind": "recall", "release": release, "statement": said.identity, "at": now.timestamp()})
        facts = {"by": said.by, "key": said.key, "reason": said.reason, "statement": said.identity}
        log.write("release recalled", study=found.digest, release=release, **facts)
    return said


def rows_of(site: SiteFolder, study: Study, digest: str, analyses: Mapping[str, Any]) -> dict[str, Rows]:
    """Who is in each analysis at this site: the keyed hashes of the persons of its cohort or subgroup."""
    table = open_prepared(site, study, digest).table
    _, facts = snapshot.read(snapshot_path(site, digest), site.secret(), study.phenotypes)
    who = np.asarray(facts["who"], dtype=np.uint8)
    out = {}
    for analysis in study.analyses:
        if analysis.name in analyses:
            part, _ = in_subgroup(table, analysis.subgroup)
            out[analysis.name] = frozenset(who[p].tobytes() for p in np.unique(part.person))
    return out


def _reasons(
    site: SiteFolder, found: SignedStudy, proposed: Proposed, ledger: _Ledger, now: datetime, *, dominance: bool
) -> list[str]:
    study = found.study
    minimum = max(study.privacy.minimum_persons, site.policy().minimum_persons)
    table = open_prepared(site, study, found.digest).table
    counts = [c for some in proposed.counts.values() for c in some]
    reasons: list[str] = list(objections(counts, [own_count(table, c) for c in counts], minimum, dominance=dominance))
    alone = not judge([*ledger.counts(proposed.population), *counts], levels_of(study), minimum).permitted
    earlier = ledger.row_sets()
    sets = rows_of(site, study, found.digest, proposed.counts).values()
    if alone or any(0 < len(rows ^ before) < minimum for rows in sets for before in earlier):
        reasons.append("differencing")  # one verdict for both: which of them it is would tell more
    said = {rule for name, model in proposed.models.items() for rule in _tried(site, found, name, model, now)}
    return [*reasons, *(rule for rule in (*RULES, *REMARKS) if rule in said)]


def _tried(site: SiteFolder, found: SignedStudy, analysis: str, model: bytes, now: datetime) -> tuple[str, ...]:
    done = attack(site, found, model, now=now)
    if done.analysis != analysis:
        raise ModelNotExported("the file's model is of another analysis than the one that it is proposed for")
    return done.rules


class _Ledger:
    """The file: verdicts and releases of one data asset, in order, sealed under the site's own secret."""

    def __init__(self, site: SiteFolder, now: datetime) -> None:
        asset = site.policy(now).asset
        name = hashlib.sha256(asset.encode()).hexdigest()[:16]
        self._path: Path = site.state / "releases" / f"{name}.journal"
        self._key = snapshot.derived_key(site.secret(), f"release ledger {asset}")
        self._now = now
        self._entries = list(read(self._path, self._key))

    def entries(self) -> Iterator[Mapping[str, Any]]:
        return iter(self._entries)

    def answered(self, proposal: str) -> tuple[str, ...] | None:
        """What was said of this very proposal, if nothing was released since."""
        said = None
        for entry in self._entries:
            if entry["kind"] == "release":
                said = None
            elif entry["kind"] == "verdict" and entry["proposal"] == proposal:
                said = tuple(entry["rules"])
        return said

    def enough(self) -> None:
        since = (self._now - timedelta(days=1)).timestamp()
        if sum(e["kind"] == "verdict" and e["at"] > since for e in self._entries) >= PER_DAY:
            raise DifferencingRefused(
                f"this site has judged {PER_DAY} proposals within a day", rule="verdict_rate", help="Ask again tomorrow."
            )

    def counts(self, population: str) -> list[Count]:
        """The counts of every release of the same persons by the same words."""
        own = [e for e in self._entries if e["kind"] == "release" and e["population"] == population]
        return [Count.from_plain(c) for e in own for c in decode(e["counts"])]

    def row_sets(self) -> list[Rows]:
        """Who was in each release."""
        sets = [s for e in self._entries if e["kind"] == "release" for s in e["rows"]]
        size = snapshot.PERSON_BYTES
        return [frozenset(bytes(s[i : i + size]) for i in range(0, len(s), size)) for s in sets]

    def write(self, entry: Mapping[str, Any]) -> None:
        journal = Journal(self._path, key=self._key)
        try:
            journal.append(entry)
        finally:
            journal.close()
