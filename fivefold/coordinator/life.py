"""A study's life as a run's own signed log and the signed statements in its folder tell it: one life for each site.

What a site's custodian said comes under the node's signature, in the reply that opened the run or in a refusal. The coordinator
notes it; it cannot say it. What it does itself (begin, hold, release, recall) moves only lives that an approval has opened.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fivefold.auth.keys import public_of
from fivefold.auth.signatures import opened
from fivefold.errors import FivefoldError, NotApproved, StatementInvalid, StudyNotFound
from fivefold.governance.answers import is_refusal, read_refusal
from fivefold.governance.life import Act, Life, Parties, Role, lives
from fivefold.governance.proposals import assumed, read_proposal
from fivefold.governance.statements import Statement, read_chain, read_statement, write
from fivefold.governance.withdrawals import told
from fivefold.protocol.messages import Envelope, Opened
from fivefold.records.audit import AuditLog, Entry, entries, verify
from fivefold.records.files import write_file
from fivefold.replay.roster import roster_of
from fivefold.study.digest import SignedStudy, load_signed

STUDY_FILE = "study.signed.json"
PROPOSAL = "proposal.json"


def keeper(folder: Path, log: AuditLog, found: SignedStudy) -> Callable[[str, bytes], None]:
    """What a run does with a site's signed reply when it opens: keep it, and note the custodian's approval in it, once."""
    noted: dict[str, str] = {}

    def keep(site: str, reply: bytes) -> None:
        write_file(folder / "enrolled" / f"{site}.message", reply)
        try:
            said = approval_in(reply, found)
        except FivefoldError as error:
            log.write("approval unreadable", site=site, **error.public())
            return
        if noted.get(site) != said.digest:
            noted[site] = said.digest
            write_file(folder / "approvals" / f"{site}-{said.digest[:16]}.message", reply)
            f = said.facts
            log.write(
                "approval", site=site, study=f["study"], by=f["custodian"], key=said.signers[0], at=f["at"],
                until=f["expires"], analyses=list(f["analyses"]), statement=said.digest,
            )  # fmt: skip

    return keep


def refusals(folder: Path, log: AuditLog, found: SignedStudy) -> Callable[[str, bytes], bool]:
    """What a run does with the notice that came with a site's refusal: whether it is one of a custodian who refused the study;
    such a one is kept and noted, once. Nobody else has to be told."""
    roster, noted = roster_of(found.study), set[str]()

    def heard(site: str, notice: bytes) -> bool:
        try:
            if not is_refusal(notice):
                return False
            said = read_refusal(notice, found.digest, roster, site)
        except FivefoldError as error:
            log.write("notice refused", site=site, **error.public())
            return True
        if said.statement not in noted:
            noted.add(said.statement)
            write_file(folder / "refused" / f"{site}-{said.statement[:16]}.json", notice)
            log.write(
                "study refused", site=site, study=said.study, by=said.custodian, key=said.key, at=said.at, reason=said.reason,
                statement=said.statement,
            )  # fmt: skip
        return True

    return heard


def approval_in(reply: bytes, found: SignedStudy) -> Statement:
    """The custodian's approval in a site's signed reply. Raises `StatementInvalid`: it is of another study or site, or signed
    by somebody whom the study names for something else."""
    site, told = opened(reply, Opened, roster_of(found.study), Envelope.decode(reply).place)
    said = read_statement(told.approval, "the approval")
    others = {found.study.lead.public_key, *(s.public_key for s in found.study.sites)}
    if (said.kind, said.facts.get("study"), said.facts.get("site")) != ("approval", found.digest, site):
        raise StatementInvalid(f"{site} sent an approval of something else", rule="approval")
    if set(said.signers) & others:
        raise StatementInvalid(f"the approval of {site} is signed by a lead or a node", rule="node_key_cannot_approve")
    return said


def study_of(run: Path) -> SignedStudy:
    """The signed study of a run's folder. Raises `StudyNotFound` where the folder holds no run."""
    if not (run / "run.id").is_file() or not (run / STUDY_FILE).is_file():
        raise StudyNotFound(f"{run} is no run's folder", help="Name the folder that `fivefold run` wrote.")
    return load_signed(run / STUDY_FILE)


def lives_of(run: Path, now: datetime | None = None) -> dict[str, Life]:
    """Each site's life in the study of a run. Raises `AuditBroken` where the log is not whole, `StatementInvalid`."""
    found = study_of(run)
    study = found.study
    keys = verify(run / "audit.jsonl").keys
    said = list(entries(run / "audit.jsonl"))
    custodians: dict[str, set[str]] = {}
    for path in sorted((run / "approvals").glob("*.message")):  # what the coordinator's log alone says is no custodian's word
        statement = approval_in(path.read_bytes(), found)
        custodians.setdefault(str(statement.facts["site"]), set()).add(statement.signers[0])
    for notice in sorted((run / "withdrawn").glob("*.json")):  # the node's key stands beside the custodian's
        custodians.setdefault(notice.stem, set()).add(read_statement(notice.read_bytes(), notice.name).signers[-1])
    for path in sorted((run / "refused").glob("*.json")):
        raw = path.read_bytes()
        site = str(read_statement(raw, path.name).facts.get("site", ""))
        custodians.setdefault(site, set()).add(read_refusal(raw, found.digest, roster_of(study), site).key)
    parties = Parties(
        study.lead.public_key, {s.name: s.public_key for s in study.sites}, {s: frozenset(k) for s, k in custodians.items()},
        frozenset(keys), frozenset(c.public_key for c in study.outputs.checkers),
    )  # fmt: skip
    kept = run / PROPOSAL
    first = read_proposal(kept.read_bytes(), study, found.digest).act() if kept.is_file() else None
    acts = [first or assumed(study, found.digest, said[0].time), *_acts(run, said, found, keys[-1] if keys else "")]
    today = (now or datetime.now(UTC)).astimezone(UTC).date().isoformat()
    made = lives(found.digest, [s.name for s in study.sites], acts, parties, last=study.agreements.expires, today=today)
    for e in (e for e in said if e.event == "refusal" and e.facts["site"] in made):
        site, rule = str(e.facts["site"]), str(e.facts["rule"] or e.facts["code"])
        act = Act("begin", "node", "", f"node of {site}", e.time, "the site refused to answer", found.digest, site, "", e.hash)
        made[site] = replace(made[site], void=(*made[site].void, (act, rule)))
    return made


def allow(run: Path, what: str) -> None:
    """Nothing unless the study of a run was closed. Raises `NotApproved`, rule `study_closed`."""
    if read_chain(run / "closing"):
        raise NotApproved(f"the study was closed, so nothing more is {what}", rule="study_closed", help="Sign a new study.")


def close(run: Path, private: bytes, coordinator: bytes | None, *, why: str, now: datetime | None = None) -> Statement:
    """The lead ends the study of a run: signed, logged where the coordinator's key is at hand. Raises `NotApproved`."""
    found = study_of(run)
    if public_of(private).hex() != found.study.lead.public_key:
        raise NotApproved(
            f"only the lead, {found.study.lead.name}, closes this study", rule="life_key", help="Sign with the lead's key."
        )
    allow(run, "closed")
    at = (now or datetime.now(UTC)).astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    if coordinator is not None:
        with AuditLog(run / "audit.jsonl", coordinator, "coordinator") as log:
            log.write("study closed", study=found.digest, by=found.study.lead.name, reason=why)
    return write(
        run / "closing", "closing", {"study": found.digest, "lead": found.study.lead.name, "reason": why, "at": at}, private
    )


def _acts(run: Path, said: list[Entry], found: SignedStudy, key: str) -> Iterator[Act]:
    """Entries of the run's log as acts. Those of custodians carry the digest of what they signed."""
    releases = {int(s.facts["request"]): s for s in read_chain(run / "airlock") if s.kind == "output_release"}
    approved: dict[str, str] = {}

    def own(what: Any, entry: Entry, why: str, site: str = "") -> Act:
        return Act(what, "coordinator", key, "coordinator", entry.time, why, found.digest, site, proof=entry.hash)

    for e in said:
        f, site = e.facts, str(e.facts.get("site", ""))
        if e.event == "approval":
            if approved.get(site) != f["statement"]:
                approved[site] = str(f["statement"])
                why = f"analyses {', '.join(f['analyses'])}"
                yield Act(
                    "approve", "custodian", str(f["key"]), str(f["by"]), str(f["at"]), why, str(f["study"]), site,
                    str(f["until"]), str(f["statement"]),
                )  # fmt: skip
            yield own("begin", e, "the site opened the run", site)
        elif e.event == "study refused":
            yield Act(
                "refuse", "custodian", str(f["key"]), str(f["by"]), str(f["at"]), str(f["reason"]), str(f["study"]), site,
                proof=str(f["statement"]),
            )  # fmt: skip
        elif e.event == "withdrawal":
            notice = run / "withdrawn" / f"{site}.json"
            signers = read_statement(notice.read_bytes(), notice.name).signers if notice.is_file() else ("",)
            yield Act(
                "withdraw", "custodian", signers[-1], str(f["by"]), str(f["at"]), told(str(f["reason"]), f["wishes"]),
                found.digest, site, proof=str(f["statement"]),
            )  # fmt: skip
        elif e.event == "run stopped":
            yield own("stop", e, f"the run stopped: {f.get('code', '')} {f.get('rule', '')}".strip())
        elif e.event == "results":
            yield own("hold", e, "results wait for the output checkers")
        elif e.event == "output release" and f.get("request") in releases:
            yield own("release", e, f"request {f['request']}, as the checkers agreed")
        elif e.event == "release recalled":
            role: Role = "lead" if f["key"] == found.study.lead.public_key else "checker"
            who, why = str(f["by"]), f"request {f['request']}: {f['reason']}"
            yield Act("recall", role, str(f["key"]), who, e.time, why, found.digest, proof=str(f["statement"]))
        elif e.event == "study closed":
            yield Act(
                "close", "lead", found.study.lead.public_key, str(f["by"]), e.time, str(f["reason"]), found.digest, proof=e.hash
            )
