"""A study's life as this site's own signed statements and log tell it, and the acts by which a custodian moves it.

The order is the log's: a statement stands where the entry with its digest stands, one without such an entry by its time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fivefold.governance import answers, approvals
from fivefold.governance.life import Act, Life, Parties, Role, What, lives
from fivefold.governance.proposals import assumed, read_proposal
from fivefold.governance.statements import Statement, read_chain, read_statement, store
from fivefold.governance.withdrawals import own_notice, told
from fivefold.records.audit import Entry, entries
from fivefold.site.folder import SiteFolder
from fivefold.site.preparation import close as destroy_rows
from fivefold.study.definition import Study
from fivefold.study.digest import SignedStudy

EVENTS: Mapping[str, tuple[What, str]] = {
    "review": ("review", "the study was looked at"),
    "open": ("begin", "a run was opened"),
    "close": ("hold", "the run ended"),
    "release entered": ("release", "a release was entered in the ledger"),
}
"""Entries of a site's log that are acts of a study's life."""
STATED = ("statement", "withdrawal notice")
"""Entries that name a custodian's statement by its digest, once it is signed."""


def life_of(site: SiteFolder, found: SignedStudy, now: datetime | None = None) -> Life:
    """Where a study stands at this site, with every act that led there. Raises `StatementInvalid` for altered statements."""
    now = now or datetime.now(UTC)
    custody = site.custody(now)
    study, name = found.study, custody.policy.site
    custodians = frozenset(custody.custodians)
    checkers = frozenset(c.public_key for c in study.outputs.checkers)
    parties = Parties(study.lead.public_key, {name: custody.node}, {name: custodians}, checkers=checkers)
    kept = site.state / "proposals" / f"{found.digest}.json"
    proposed = read_proposal(kept.read_bytes(), study, found.digest).act() if kept.is_file() else assumed(study, found.digest)
    acts = [proposed, *_acts(site, found.digest, name, custody.node, study.lead.public_key)]
    return lives(
        found.digest, [name], acts, parties, last=study.agreements.expires, today=now.astimezone(UTC).date().isoformat()
    )[name]


def reviewed(site: SiteFolder, found: SignedStudy, proposal: bytes) -> None:
    """Note that a custodian looks at a study, and keep the lead's proposal that came with it. Once for each proposal."""
    place = site.state / "proposals" / f"{found.digest}.json"
    said = read_proposal(proposal, found.study, found.digest) if proposal else None
    facts = {"study": found.digest, "title": found.study.title, "lead": found.study.lead.public_key}
    seen = {e.facts.get("proposal") for e in _entries(site) if e.event == "review" and e.facts.get("study") == found.digest}
    identity = "" if said is None else said.identity
    if identity in seen:
        return
    with site.act("review", **facts, proposal=identity):
        if proposal:
            store(place, proposal)


def superseded(site: SiteFolder, found: SignedStudy, custodian: bytes) -> str:
    """Withdraw the approval of the version that this one takes the place of, by the word of the same lead; its digest, or
    nothing. No study is run in two versions at one site."""
    kept = site.state / "proposals"
    said = kept / f"{found.digest}.json"
    if not said.is_file():
        return ""
    before = read_proposal(said.read_bytes(), found.study, found.digest).supersedes
    old = kept / f"{before}.json"
    if not old.is_file() or read_statement(old.read_bytes(), old.name).signers != (found.study.lead.public_key,):
        return ""
    chain = approvals.chain_of(site.path, before)
    if approvals.state_of(read_chain(chain)) != "approved":
        return ""
    reason = f"the version {found.digest[:16]} takes its place"
    with site.act("withdrawal", study=before, reason=reason) as log:
        approvals.withdraw(site.path, before, custodian, reason=reason)
        stated(log, read_chain(chain)[-1])
    return before


def refuse(site: SiteFolder, study: str, custodian: bytes, *, why: str, now: datetime | None = None) -> None:
    """The custodian's no, logged and signed; whoever asks for this study is given the notice of it."""
    with site.act("refusal", study=study, reason=why) as log:
        said = answers.refuse(site.path, study, custodian, why=why, now=now)
        stated(log, said)
        store(_refusal(site, study), answers.refusal_notice(said, site.node_key(), custodian))


def notice_of(site: SiteFolder, study: str, name: str, rule: str) -> bytes:
    """The signed notice that goes with a node's refusal: why the custodian withdrew, or refused the study. Empty otherwise."""
    if rule == "approval_withdrawn":
        return own_notice(site.state, study, name)
    if rule != "study_refused":  # whatever else was asked need not even name a study
        return b""
    kept = _refusal(site, study)
    return kept.read_bytes() if kept.is_file() else b""


def counter(
    site: SiteFolder,
    study: Study,
    digest: str,
    custodian: bytes,
    wanted: answers.Wanted,
    *,
    why: str,
    now: datetime | None = None,
) -> bytes:
    """The custodian's counter-proposal, logged and signed; the file for the lead."""
    with site.act("counter-proposal", study=digest, reason=why, wanted=list(wanted.words())) as log:
        made = answers.counter(site.path, study, digest, custodian, site.node_key(), wanted, why=why, now=now)
        stated(log, read_chain(approvals.chain_of(site.path, digest))[-1])
    return made


def end(site: SiteFolder, study: str, *, why: str) -> bool:
    """End a study here for good: a signed statement, and the snapshot destroyed. False where there was no snapshot."""
    with site.act("closing", study=study, reason=why) as log:
        said = answers.close(site.path, study, site.node_key(), why=why)
        if said is not None:
            stated(log, said)
    return destroy_rows(site, study, reason=why)


def stated(log: Any, said: Statement) -> None:
    """The entry by which the log has a statement's place and digest."""
    log.write("statement", study=said.facts["study"], kind=said.kind, signer=said.signers[0], statement=said.digest)


def _acts(site: SiteFolder, study: str, name: str, node: str, lead: str) -> Iterator[Act]:
    """Statements and entries as acts, in the log's order; statements never out of the order of their chain."""
    waiting = list(read_chain(approvals.chain_of(site.path, study)))
    logged = {str(e.facts.get("statement")) for e in _entries(site) if e.event in STATED}
    before: tuple[str, str] = ("", "")
    for entry in _entries(site):
        if entry.facts.get("study") != study:
            continue
        named = entry.event in STATED and any(s.digest == entry.facts["statement"] for s in waiting)
        while waiting and (named or (waiting[0].digest not in logged and str(waiting[0].facts["at"])[:19] <= entry.time[:19])):
            named = named and waiting[0].digest != entry.facts["statement"]
            yield _said(waiting.pop(0), name)
        if entry.event == "release recalled":
            f = entry.facts
            key, why = str(f["key"]), f"{f['release']}: {f['reason']}"
            role: Role = "lead" if key == lead else "checker"
            yield Act("recall", role, key, str(f["by"]), entry.time, why, study, name, proof=str(f["statement"]))
            before = ("", "")
        if entry.event in EVENTS:
            what, words = EVENTS[entry.event]
            run = str(entry.facts.get("run") or entry.facts.get("release") or "")
            if (what, run) == before:  # a run that was opened again after a restart goes on
                continue
            before = (what, run)
            why = f"{words}{f': {run}' if run else ''}"
            whose = "" if what == "hold" else name  # the end of a run is nothing to a site that has left it
            yield Act(what, "node", node, f"node of {name}", entry.time, why, study, whose, proof=entry.hash)
    yield from (_said(said, name) for said in waiting)


def _refusal(site: SiteFolder, study: str) -> Path:
    approvals.chain_of(site.path, study)  # a digest, or nothing is read
    return site.state / "refusals" / f"{study}.json"


def _said(said: Statement, site: str) -> Act:
    what = approvals.KINDS[said.kind]
    facts = said.facts
    words = str(facts.get("reason", ""))
    if said.kind == "approval":
        words = f"analyses {', '.join(facts['analyses'])}"
    elif said.kind == "withdrawal":
        words = told(words, facts["wishes"])
    return Act(
        what, "node" if said.kind == "closing" else "custodian", said.signers[0],
        str(facts.get("custodian") or f"node of {site}"), str(facts["at"]), words,
        str(facts["study"]), site, str(facts.get("expires", "")), said.digest,
    )  # fmt: skip


def _entries(site: SiteFolder) -> Iterator[Entry]:
    path = site.state / "audit.jsonl"
    return entries(path) if path.exists() else iter(())
