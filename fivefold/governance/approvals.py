"""A custodian's approval of one signed study: denied by default, bound to everything it was given for, void at any change.

An approval binds the study's digest, its dictionary, the files of its methods, the version of the site's policy, the analyses
it allows, whether this site's totals and totals at single event times may show, and its last day. A release of Fivefold that
leaves those files as they were keeps it. A withdrawal is a signed statement too and stops at once, since the approval is read
from disk before every answer.
"""

from __future__ import annotations

import hashlib
import re
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path

import fivefold
from fivefold.auth.keys import public_from_hex, public_of
from fivefold.errors import FivefoldError, NotApproved, StatementInvalid
from fivefold.governance import five_safes
from fivefold.governance.custody import Custody, custody_of
from fivefold.governance.life import State, What, after
from fivefold.governance.method_code import changed_files, files_of_study
from fivefold.governance.policy import Choice, Decision, decide, expiry
from fivefold.governance.statements import Statement, read_chain, write
from fivefold.governance.withdrawals import drop_notice
from fivefold.protocol.encoding import digest as digest_of
from fivefold.protocol.questions import Gather, Relay, Sum
from fivefold.study.definition import Analysis, Study
from fivefold.study.dictionary import Dictionary
from fivefold.study.model_code import code_of, codes

KINDS: Mapping[str, What] = {
    "approval": "approve", "refusal": "refuse", "counter": "counter", "withdrawal": "withdraw", "closing": "close",
}  # fmt: skip
"""A custodian's statements of a study, and which act of its life each is."""
NOT_NOW = {
    "proposed": ("no_approval", "the custodian has not approved this study"),
    "refused": ("study_refused", "the custodian refused this study"),
    "withdrawn": ("approval_withdrawn", "the custodian has withdrawn the approval of this study"),
    "closed": ("study_closed", "this study was closed here"),
}


@dataclass(frozen=True)
class Approval:
    """What a custodian allowed. `study` is the study's digest and `identity` that of the signed
    statement."""

    study: str
    title: str
    dictionary: bytes
    policy_version: int
    policy_digest: str
    analyses: tuple[str, ...]
    site_totals: Choice
    event_totals: Choice
    expires: date
    custodian: str
    key: str
    at: str
    identity: str
    checkers: tuple[tuple[str, str], ...] = ()
    """The site's own output checkers (name, public key): nothing is released against their word."""
    code: tuple[str, ...] = ()
    """SHA-256 digests of the model code in the approved analyses: no other code runs."""
    files: Mapping[str, str] = field(default_factory=dict)
    """The files of the study's methods as they were approved: path → SHA-256 (hex)."""
    release: str = ""
    """The Fivefold release in which they were."""

    def permits(self, need: str) -> bool:
        """Whether this site's own choice admits what a question needs (`site_totals`, `event_totals`)."""
        return getattr(self, need, "refused") == "permitted"

    def allow_code(self, analysis: Analysis) -> None:
        """Nothing where an analysis brings no code of its own, or one that was shown and approved. Raises `NotApproved`."""
        own = code_of(analysis)
        if own is not None and own[0] not in self.code:
            raise NotApproved("the custodian did not approve this model's code", rule="code_not_approved")

    def allow(self, analysis: str, question: Sum | Gather | Relay | tuple[Sum, ...] | None = None) -> None:
        """Nothing where the approval covers an analysis and its question. Raises `NotApproved` with the rule."""
        if analysis not in self.analyses:
            raise NotApproved(f"the custodian did not approve the analysis {analysis}", rule="analysis_not_approved")
        for one in question if isinstance(question, tuple) else () if question is None else (question,):
            needs = one.needs if isinstance(one, Sum) else ("site_totals",) if isinstance(one, Gather) else ()
            for need in needs:
                if not self.permits(need):
                    raise NotApproved(f"the custodian did not permit {need} in this study", rule=f"{need}_not_approved")


def approve(
    folder: Path,
    study: Study,
    study_digest: str,
    private: bytes,
    *,
    analyses: Sequence[str] = (),
    site_totals: Choice | None = None,
    event_totals: Choice | None = None,
    expires: date | None = None,
    checkers: Sequence[tuple[str, str]] = (),
    now: datetime | None = None,
) -> Approval:
    """Approve a study (its signature verified before) with a custodian's own key: all analyses, the policy's own choices and
    the study's last day unless said otherwise. The two choices and the day can only be narrower than policy and study.

    Raises `KeyProblem` (not a custodian's key), `PolicyRefuses` (the policy refuses this study), `NotApproved` (wider than
    allowed).
    """
    now = now or datetime.now(UTC)
    after(state_of(read_chain(chain_of(folder, study_digest))), "approve")
    custody = custody_of(folder, now.date())
    policy, key = custody.policy, public_of(private).hex()
    who = custody.may_sign(key, now.date())
    if key in {s.public_key for s in study.sites}:
        raise NotApproved("the key of a node cannot approve", rule="node_key_cannot_approve")
    known = {a.name for a in study.analyses}
    chosen = tuple(analyses) or tuple(a.name for a in study.analyses)
    if not set(chosen) <= known:
        unknown = sorted(set(chosen) - known)[0]
        raise NotApproved(
            f"the study has no analysis {unknown!r}",
            rule="analysis_not_approved",
            help=f"Choose among {', '.join(sorted(known))}.",
        )
    decide(policy, study, today=now.date()).enforce()
    own = next(s.public_key for s in study.sites if s.name == policy.site)
    if own != custody.node:
        raise NotApproved(
            "the study gives this site another key than its node's",
            rule="own_key",
            help="Send the lead the key in keys/node.pub; the study has to be signed again.",
        )
    last = min(policy.expires, expiry(study), expires or date.max)
    if last < now.date():
        raise NotApproved(f"the approval would have ended on {last}, before today", rule="expires", help="Give a later day.")
    choices: dict[str, Choice] = {}
    for need, choice in (("site_totals", site_totals), ("event_totals", event_totals)):
        admitted: Choice = getattr(policy, need)
        if choice == "permitted" and admitted == "refused":
            raise NotApproved(
                f"site.yaml, line {policy.line(need)}: {need} is refused",
                rule=need,
                help="Change the policy first, and sign it.",
            )
        choices[need] = choice or admitted
    for name, checker in checkers:
        public_from_hex(checker)
        if checker in {study.lead.public_key, custody.node, *(s.public_key for s in study.sites)}:
            raise NotApproved(
                f"{name} cannot check outputs: the key is the lead's or a node's", rule="operator_cannot_check",
                help="Name another person, with a key of their own.",
            )  # fmt: skip
    five_safes.enforce(
        five_safes.judge(folder, custody, study, study_digest, now.astimezone(UTC).date(), custodian=key, checkers=checkers)
    )
    facts = {
        "site": policy.site,
        "asset": policy.asset,
        "study": study_digest,
        "title": study.title,
        "dictionary": dictionary_digest(study.dictionary).hex(),
        "policy": {"version": policy.version, "digest": policy.digest},
        "analyses": list(chosen),
        **choices,
        "expires": last.isoformat(),
        "custodian": who.name,
        "checkers": [list(c) for c in checkers],
        "code": sorted(codes(a for a in study.analyses if a.name in chosen)),
        "release": fivefold.__version__,
        "files": dict(files_of_study(study)),
        "at": now.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
    }
    given = _approval(write(chain_of(folder, study_digest), "approval", facts, private))
    drop_notice(folder / "state", study_digest, policy.site)
    return given


def approve_again(folder: Path, study: Study, study_digest: str, private: bytes, *, now: datetime | None = None) -> Approval:
    """One step where only the code or the policy changed: the choices of the last approval under what is there now.
    Raises as `approve` does, and `NotApproved` where there is no approval to renew (none,
    or a withdrawal)."""
    said = read_chain(chain_of(folder, study_digest))
    if state_of(said) != "approved":
        raise NotApproved(
            "there is no approval to give again", rule="no_approval", help="Look at the study, and approve it in full."
        )
    last = _approval(next(s for s in reversed(said) if s.kind == "approval"))
    return approve(
        folder,
        study,
        study_digest,
        private,
        analyses=last.analyses,
        site_totals="refused" if last.site_totals == "refused" else None,
        event_totals="refused" if last.event_totals == "refused" else None,
        expires=last.expires,
        checkers=last.checkers,
        now=now,
    )


def code_changes(folder: Path, study: Study, study_digest: str) -> tuple[str, ...]:
    """The files of the study's methods that differ from what was approved last; none where nothing was."""
    given = [s for s in read_chain(chain_of(folder, study_digest)) if s.kind == "approval"]
    return changed_files(_approval(given[-1]).files, files_of_study(study)) if given else ()


def withdraw(
    folder: Path,
    study_digest: str,
    private: bytes,
    *,
    reason: str = "",
    wishes: Mapping[str, str] | None = None,
    now: datetime | None = None,
) -> None:
    """Withdraw the approval of a study: the site answers nothing more for it. Any custodian may. `wishes`: what is to become of
    what is out already. Raises `NotApproved` where nothing was approved."""
    now = now or datetime.now(UTC)
    custody = custody_of(folder, now.date())
    who = custody.may_sign(public_of(private).hex(), now.date())
    chain = chain_of(folder, study_digest)
    said = read_chain(chain)
    if not any(s.kind == "approval" for s in said):
        raise NotApproved("this study was never approved here", rule="no_approval", help="Nothing needs to be withdrawn.")
    after(state_of(said), "withdraw")
    at = now.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    facts = {"study": study_digest, "custodian": who.name, "reason": reason, "wishes": dict(wishes or {}), "at": at}
    write(chain, "withdrawal", facts, private)


def check_approval(
    folder: Path, study_digest: str, when: datetime, *, study: Study | None = None, custody: Custody | None = None
) -> Approval:
    """The approval in force for a study at a site folder; read from disk at each call. Deny by default.

    Raises `NotApproved`, whose `rule` is one of: `no_approval`, `study_refused`, `study_closed`, `approval_withdrawn`,
    `approval_altered`, `approval_expired`,
    `approval_policy_changed`, `approval_dictionary_changed`, `approval_code_changed`, `custodian_key_unlisted`,
    `custodian_key_revoked`,
    `custodian_key_replaced`, `custodian_key_expired`, `node_key_cannot_approve`, `node_key_revoked`; `PolicyRefuses` where
    the policy is not signed, or, with `study`, where one of the Five Safes objects.
    """
    today = when.astimezone(UTC).date()
    custody = custody or custody_of(folder, today)
    if custody.node in custody.revoked:
        raise NotApproved(
            "the node's own key was revoked", rule="node_key_revoked", help="Rotate it: `fivefold site keys rotate`."
        )
    try:
        said = read_chain(chain_of(folder, study_digest))
    except StatementInvalid as error:
        raise NotApproved(error.message, rule="approval_altered") from error
    state = state_of(said)
    if state != "approved":
        rule, why = NOT_NOW.get(state, NOT_NOW["proposed"])
        raise NotApproved(why, rule=rule)
    approval = _approval(next(s for s in reversed(said) if s.kind == "approval"))
    objection = _objection(approval, study_digest, today, study, custody)
    if objection is not None:
        raise NotApproved(objection[1], rule=objection[0])
    if study is not None:  # a training that lapsed or a review that was taken back stops at once, too
        key, checkers = approval.key, approval.checkers
        five_safes.enforce(five_safes.judge(folder, custody, study, study_digest, today, custodian=key, checkers=checkers))
    return approval


def _objection(approval: Approval, study: str, today: date, full: Study | None, custody: Custody) -> tuple[str, str] | None:
    policy = custody.policy
    why = custody.standing(approval.key, today, statement=approval.identity)
    if why is not None:
        return why
    if full is not None and approval.key in {s.public_key for s in full.sites}:
        return "node_key_cannot_approve", "the key of a node cannot approve"
    if approval.study != study:
        return "approval_altered", "the approval was given for another study"
    if full is not None and approval.dictionary != dictionary_digest(full.dictionary):
        return "approval_dictionary_changed", "the dictionary changed after the approval"
    if (approval.policy_version, approval.policy_digest) != (policy.version, policy.digest):
        return (
            "approval_policy_changed",
            f"the site's policy is now version {policy.version}, and the approval was given under another",
        )
    changed = changed_files(approval.files, files_of_study(full)) if full is not None else ()
    if changed:
        return "approval_code_changed", f"the code of the study's methods changed after the approval: {', '.join(changed)}"
    if today > approval.expires:
        return "approval_expired", f"the approval ended on {approval.expires}"
    return None


def raw_approval(folder: Path, approval: Approval) -> bytes:
    """The signed statement of an approval, as it lies at the site: what coordinator and auditors are shown."""
    for path in sorted(chain_of(folder, approval.study).glob("*-approval.json")):
        raw = path.read_bytes()
        if hashlib.sha256(raw).hexdigest() == approval.identity:
            return raw
    raise _altered()


def approvals(folder: Path) -> dict[str, tuple[Statement, ...]]:
    """All statements about studies at a site, by the study's digest (hex)."""
    root = folder / "state" / "approvals"
    return {p.name: read_chain(p) for p in sorted(root.iterdir()) if p.is_dir()} if root.is_dir() else {}


def statements_of(folder: Path, key: str) -> tuple[str, ...]:
    """The digests of the approvals in force that a key signed: what a rotation of this key keeps."""
    given = [[s for s in said if s.kind in ("approval", "withdrawal")] for said in approvals(folder).values()]
    return tuple(said[-1].digest for said in given if said and said[-1].kind == "approval" and key in said[-1].signers)


def dictionary_digest(dictionary: Dictionary) -> bytes:
    """SHA-256 (32 bytes) of a dictionary's whole content. Of one that is held by a run it is asked at every trip."""
    found = _digests.get(id(dictionary))
    if found is None or found[0]() is not dictionary:
        own = id(dictionary)
        found = weakref.ref(dictionary, lambda _: _digests.pop(own, None)), _dictionary_digest(dictionary)
        _digests[own] = found
    return found[1]


_digests: dict[int, tuple[weakref.ref[Dictionary], bytes]] = {}


def _dictionary_digest(dictionary: Dictionary) -> bytes:
    variables = [
        (v.name, v.label, v.type, v.unit, v.minimum, v.maximum, list(v.codes.items()), list(v.missing_codes), v.iri)
        for v in dictionary.variables.values()
    ]
    return digest_of((dictionary.name, dictionary.version, variables))


def state_of(said: Sequence[Statement]) -> State:
    """The state that a site's own statements come to through the table of a study's life (`life.py`); runs and days apart.
    Raises `NotApproved`, rule `approval_altered`, for statements that cannot follow one another."""
    state: State = "proposed"
    try:
        for statement in said:
            state = after(state, KINDS[statement.kind])
    except (KeyError, NotApproved) as error:
        raise NotApproved("what was said of this study cannot follow what came before", rule="approval_altered") from error
    return state


def decision(folder: Path, study: Study, when: datetime) -> Decision:
    """What the signed policy says to a study as a whole."""
    today = when.astimezone(UTC).date()
    return decide(custody_of(folder, today).policy, study, today=today)


def _approval(statement: Statement) -> Approval:
    facts = statement.facts
    try:
        return Approval(
            study=str(facts["study"]),
            title=str(facts["title"]),
            dictionary=bytes.fromhex(facts["dictionary"]),
            policy_version=int(facts["policy"]["version"]),
            policy_digest=str(facts["policy"]["digest"]),
            analyses=tuple(facts["analyses"]),
            site_totals=facts["site_totals"],
            event_totals=facts["event_totals"],
            expires=date.fromisoformat(facts["expires"]),
            custodian=str(facts["custodian"]),
            key=statement.signers[0],
            at=str(facts["at"]),
            identity=statement.digest,
            checkers=tuple((str(name), str(checker)) for name, checker in facts.get("checkers", ())),
            code=tuple(map(str, facts.get("code", ()))),
            files={str(path): str(digest) for path, digest in facts["files"].items()},
            release=str(facts["release"]),
        )
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise _altered() from error


def _altered() -> FivefoldError:
    return NotApproved("the approval on disk is not a whole one", rule="approval_altered")


def chain_of(folder: Path, study_digest: str) -> Path:
    """Where a site keeps what its custodians said of a study, in order. Raises `NotApproved` for what is no digest."""
    if not re.fullmatch("[0-9a-f]{64}", study_digest):
        raise NotApproved("a study's digest is 64 hex digits", rule="no_approval")
    return folder / "state" / "approvals" / study_digest
