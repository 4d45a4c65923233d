"""The one way into a study at a site, whatever carries it: `admitted` when a run is opened (and by the doctor before the day),
`permitted` for each of its questions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from fivefold.auth.keys import public_of
from fivefold.errors import NotApproved, ProtocolViolation, TooFewSites
from fivefold.governance import five_safes
from fivefold.governance.approvals import Approval
from fivefold.governance.policy import Policy, decide
from fivefold.governance.safe_settings import LOCAL, Surroundings, judge
from fivefold.models.lora import bring
from fivefold.plugins import method
from fivefold.protocol.messages import Roster
from fivefold.replay.cursor import Asked, setting_of
from fivefold.replay.plan import Plan, plan_of
from fivefold.replay.roster import roster_of
from fivefold.site.envelope_book import book, room
from fivefold.site.folder import SiteFolder
from fivefold.study.definition import Study
from fivefold.study.digest import SignedStudy
from fivefold.study.model_code import bases


def admitted(
    folder: SiteFolder,
    found: SignedStudy,
    key: bytes,
    variations: Sequence[bytes],
    when: datetime,
    around: Surroundings | None = LOCAL,
) -> tuple[Policy, Approval, Roster, Plan]:
    """Policy, approval, keys, plan and methods, before a row is read. `key`: the node's private key; `around`: what the engine
    says of itself, None where none is known yet. Approval and the other Safes are judged together (`check_approval`).

    Raises `Refused` (which rule stands in `rule`), `ProtocolViolation` where the study names another key for this site,
    `SourceNotFound` where a base model is not here.
    """
    study = found.study
    policy = folder.policy(when)
    approval = folder.approval(found.digest, when, study=study)
    decide(policy, study, today=when.date()).enforce()
    five_safes.enforce({"settings": judge(policy, study, around)})
    if policy.minimum_sites > len(study.sites):
        raise TooFewSites("the study has fewer sites than this site needs", rule="minimum_sites")
    roster = roster_of(study)
    if policy.site not in roster or roster.key(policy.site) != public_of(key):
        raise ProtocolViolation("the study names another key for this site", rule="own_key")
    plan = plan_of(study, variations)  # the lead's signature, and the envelope that the custodian approved
    for one in plan.variations:
        approval.allow(one.varies)
    room(book(folder.state, found.digest), plan.variations, study.envelope.fits)
    for analysis in plan.analyses or study.analyses:
        about = method(analysis.method)
        if about.admit is not None:
            about.admit(about.parse(analysis, setting_of(study)), frozenset(policy.steps))
    if wanted := bases(plan.analyses or study.analyses):
        bring(folder.path / "models", wanted)
    return policy, approval, roster, plan


def refuse_others(study: Study, asked: Asked | None, round: int, survivors: Iterable[str]) -> None:
    """Nothing unless a sum holds a site that its analysis leaves out. Raises `ProtocolViolation`, rule `analysis_sites`."""
    if not any(a.sites for a in study.analyses) and not (asked is not None and asked.analysis.sites):
        return
    if asked is None or asked.round != round:
        raise ProtocolViolation("this sum is of a round that is not open here", rule="analysis_sites")
    if asked.analysis.sites and not set(survivors) <= set(asked.analysis.sites):
        raise ProtocolViolation("the sum holds a site that takes no part in the analysis", rule="analysis_sites")


def permitted(folder: SiteFolder, study: Study, digest: str, plan: Plan, asked: Asked, when: datetime) -> Policy:
    """Approval and policy, as they are on disk now, for this very question. Raises `Refused`."""
    approval = folder.approval(digest, when, study=study)
    approval.allow(plan.approved_as(asked.analysis.name), asked.question)
    approval.allow_code(asked.analysis)
    policy = folder.policy(when)
    if asked.analysis.sites and policy.site not in asked.analysis.sites:
        raise NotApproved("this site takes no part in the analysis", rule="analysis_sites", help="The study names who does.")
    question, round, today = asked.question, asked.round, when.date()
    decide(policy, study, analysis=asked.analysis, question=question, round=round, today=today).enforce()
    return policy
