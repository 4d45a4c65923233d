"""Is this site ready? Each question that a run would ask, asked before the day; nothing is kept, and nothing leaves."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from importlib.metadata import version
from typing import Literal

from fivefold.errors import FivefoldError
from fivefold.site.folder import SiteFolder
from fivefold.study.definition import Study
from fivefold.study.digest import SignedStudy

SOON_DAYS = 30
"""What expires within so many days is worth a warning."""
DISK_FAULT, DISK_WARNING = 100 << 20, 1 << 30
"""Free bytes."""
ENOUGH_ROWS = 50
"""Synthetic persons below which a rehearsal says nothing about the site."""


@dataclass(frozen=True)
class Check:
    """One line of the doctor's table: what was looked at, how it is, one sentence, and what to do next."""

    name: str
    state: Literal["ok", "warning", "fault"]
    said: str
    next: str = ""


def examined(site: SiteFolder, found: SignedStudy | Study | None, when: datetime) -> Iterator[Check]:
    """Everything that can be checked without a network. A check that fails does not stop those after it."""
    today = when.astimezone(UTC).date()
    yield Check("versions", "ok", f"fivefold {version('fivefold')}, Python {sys.version.split()[0]}")
    yield from _attempt("policy", lambda: _policy(site, when, today))
    yield from _attempt("node key", lambda: _node_key(site))
    yield from modes(site)
    yield from _attempt("audit log", lambda: _audit(site))
    yield from _attempt("disk", lambda: _disk(site))
    yield from _attempt("mapping", lambda: _mapping(site))
    if found is None:
        yield Check("study", "warning", "no study was named: data and rehearsal were not checked", "Name one with --study.")
        return
    study = found.study if isinstance(found, SignedStudy) else found
    yield from _attempt("study", lambda: _study(site, found, when))
    yield from _attempt("data", lambda: _data(site, study, when))
    yield from _attempt("rehearsal", lambda: rehearsed(site, found))


def dated(name: str, until: date, today: date, what: str, then: str) -> Check:
    """A line about something that expires."""
    left = (until - today).days
    if left < 0:
        return Check(name, "fault", f"{what} expired on {until}", then)
    return Check(name, "warning" if left <= SOON_DAYS else "ok", f"{what} until {until}", then if left <= SOON_DAYS else "")


def modes(site: SiteFolder) -> Iterator[Check]:
    """Private keys that others can read, and the custodian's key beside the node's."""
    private = [p for p in sorted(site.keys.glob("*.key")) if p.is_file()]
    open_ = [p.name for p in private if os.name == "posix" and p.stat().st_mode & 0o077]
    if open_:
        names = " ".join(str(site.keys / n) for n in open_)
        yield Check("key files", "fault", f"others can read {', '.join(open_)}", f"chmod 600 {names}")
    else:
        yield Check("key files", "ok", f"{len(private)} private keys, readable by their owner alone")
    if (site.keys / "custodian.key").exists():
        then = "Move it to a place that the node cannot read; name it with --key."
        yield Check("custodian's key", "warning", "it lies beside the node's own", then)


def rehearsed(site: SiteFolder, found: SignedStudy | Study) -> Iterator[Check]:
    """The study, played on synthetic rows through this site's own policy and the gate's checks."""
    from fivefold.data.synthetic import synthetic
    from fivefold.site.rehearsal import rehearse
    from fivefold.study.digest import digest

    study = found.study if isinstance(found, SignedStudy) else found
    table = synthetic(study, site.policy().site)
    if table.persons < ENOUGH_ROWS:
        then = "Rehearse on the site's own rows: `fivefold site rehearse STUDY`."
        yield Check("rehearsal", "warning", f"only {table.persons} of 2000 synthetic persons fit the cohort", then)
        return
    rounds = 0
    for at in rehearse(site, study, digest(study), table):
        rounds += 1
        if at.refusal is not None:
            said = f"{at.asked.analysis.name}, round {at.asked.round}: {at.refusal.message}"
            yield Check("rehearsal", "fault", said, at.refusal.hint)
            return
    yield Check("rehearsal", "ok", f"{rounds} rounds over {table.persons} synthetic persons; the gate would let each pass")


def _attempt(name: str, check: Callable[[], Iterator[Check]]) -> Iterator[Check]:
    try:
        yield from check()
    except FivefoldError as error:
        yield Check(name, "fault", error.message, error.hint)
    except OSError as error:
        yield Check(name, "fault", str(error), "Check the path and your rights to it.")


def _policy(site: SiteFolder, when: datetime, today: date) -> Iterator[Check]:
    custody = site.custody(when)
    policy = custody.policy
    until = date.fromisoformat(str(policy.expires))
    what = f"site.yaml, version {policy.version}, is signed and in force"
    yield dated("policy", until, today, what, "Write a later `expires:`, raise the version, and sign it.")
    for key, who in custody.custodians.items():
        why = custody.standing(key, today)
        if why is not None:
            yield Check("custodian", "warning", why[1], "Take the key out of site.yaml, or replace it: `fivefold site keys`.")
        else:
            then = "Replace it in time: `fivefold site keys rotate custodian`."
            yield dated("custodian", date.fromisoformat(str(who.until)), today, f"the key of {who.name} is valid", then)


def _node_key(site: SiteFolder) -> Iterator[Check]:
    site.node_key()
    site.secret()
    yield Check("node key", "ok", "node.key belongs to node.pub, snapshot.key is there")


def _audit(site: SiteFolder) -> Iterator[Check]:
    from fivefold.records.audit import verify

    verify(site.state / "audit.jsonl")
    yield Check("audit log", "ok", "every entry follows from the one before it")


def _disk(site: SiteFolder) -> Iterator[Check]:
    free = shutil.disk_usage(site.path).free
    said, then = f"{free / 1e9:.1f} GB free", "Free space: a full disk stops every answer (nothing is lost)."
    state: Literal["ok", "warning", "fault"] = "fault" if free < DISK_FAULT else "warning" if free < DISK_WARNING else "ok"
    yield Check("disk", state, said, "" if state == "ok" else then)
    if not os.access(site.state, os.W_OK):
        yield Check("disk", "fault", f"{site.state} cannot be written", "Give the node's user the right to write there.")


def _mapping(site: SiteFolder) -> Iterator[Check]:
    mapping = site.mapping()
    if not mapping.variables:
        then = "Write in mapping.yaml what the dictionary's variables are called here, then look: `fivefold site check STUDY`."
        yield Check("mapping", "warning", "mapping.yaml maps no variable yet", then)
        return
    yield Check("mapping", "ok", f"mapping.yaml maps {len(mapping.variables)} variables")


def _study(site: SiteFolder, found: SignedStudy | Study, when: datetime) -> Iterator[Check]:
    from fivefold.governance.policy import decide
    from fivefold.site.admission import admitted

    if not isinstance(found, SignedStudy):
        decide(site.policy(when), found, today=when.astimezone(UTC).date()).enforce()
        then = "Check again with the signed study: keys and approval belong to it."
        yield Check("study", "warning", "the policy permits it, but it is not signed yet", then)
        return
    approval = admitted(site, found, site.node_key(), (), when, None)[1]
    until = min(date.fromisoformat(str(approval.expires)), date.fromisoformat(str(found.study.agreements.expires)))
    yield dated("study", until, when.astimezone(UTC).date(), "approved, and permitted by the policy,", "Approve it anew.")


def _data(site: SiteFolder, study: Study, when: datetime) -> Iterator[Check]:
    from fivefold.site.preparation import inspect

    with site.act("doctor"):
        report = inspect(site, study, when).report
    least = max(site.policy(when).minimum_persons, study.privacy.minimum_persons)
    if report.persons < least:
        then = "Look at `fivefold site check STUDY`: which rows are lost, and why."
        yield Check("data", "fault", f"the cohort has {report.persons} persons; {least} are needed", then)
        return
    yield Check("data", "ok", f"{report.rows_read} rows read, {report.persons} persons in the cohort")
    for line in report.surplus:
        yield Check("mapping", "warning", line)
