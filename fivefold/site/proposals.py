"""A site's part in what is said of a release: it judges a proposal beside its own rows, and its noughts and ones go into a
secure sum over all sites of the study. Nothing else of the verdict leaves. What is released it enters in its own ledger.

A proposal counts for something only where three have signed: the study's lead what is asked for, an output checker which
counts exactly, and this site's custodian the study. It is of a run that this site took part in.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np

from fivefold.auth.keys import fingerprint, public_of
from fivefold.auth.signatures import opened, signed
from fivefold.disclosure.tables import Count
from fivefold.errors import MessageMalformed, NotApproved, ProtocolViolation, QuestionNotApproved, TooFewSites
from fivefold.governance.output_counts import population
from fivefold.governance.policy import needed, recognised
from fivefold.governance.safe_outputs import REQUEST, Checker, checkers_of, may_check
from fivefold.governance.statements import read_statement
from fivefold.privacy.fixed_point import pack, ring_for
from fivefold.privacy.secagg.ring import Ring
from fivefold.protocol import messages as m
from fivefold.protocol.encoding import decode
from fivefold.protocol.messages import Envelope, Place, Roster
from fivefold.protocol.objections import (
    FIELDS,
    REMARKS,
    RULES,
    STATEMENT,
    Considered,
    Enter,
    Entered,
    Propose,
    Recalled,
    Shown,
    question_of,
)
from fivefold.protocol.questions import Array
from fivefold.replay.roster import roster_of
from fivefold.site.folder import SiteFolder
from fivefold.site.release_ledger import Proposed, recall, record, verdict
from fivefold.site.round_book import RoundBook
from fivefold.site.secure_sum import Participant
from fivefold.site.standing import Standing
from fivefold.study.consistency import thresholds
from fivefold.study.digest import SignedStudy, load_signed

AT_ONCE = 8
"""Proposals that may be before a site at one time; with one more the oldest is forgotten."""


@dataclass
class _Asked:
    """One proposal while it is summed."""

    found: SignedStudy
    question: bytes
    answer: Array
    ring: Ring
    book: RoundBook
    participant: Participant


@dataclass(frozen=True)
class _Read:
    """A proposal without its models: what is shown, the digest of the checker's statement, the name of the release that would
    come of it, and the digest of the models."""

    proposed: Proposed
    statement: str
    release: str
    models: str


class Proposals:
    """The proposals that are before one site. `now` is the node's clock."""

    def __init__(self, folder: SiteFolder, key: bytes, now: Callable[[], datetime]) -> None:
        self._folder, self._key, self._now = folder, key, now
        self._open: dict[str, _Asked] = {}

    def concern(self, request: Envelope) -> bool:
        """Whether a request is about a proposal, and not about a run of the study."""
        return request.kind in (Propose.kind, Enter.kind, Recalled.kind) or request.place.run in self._open

    def answer(self, request: Envelope) -> bytes:
        """The reply to one trip. Raises what `verdict` and the secure sum raise; `NotApproved`, `ProtocolViolation`,
        `StatementInvalid`, `SignatureWrong` for a proposal that is not what was signed."""
        if request.sender != m.COORDINATOR:
            raise MessageMalformed("there is no such trip")
        if request.kind == Propose.kind:
            return self._propose(request)
        if request.kind == Enter.kind:
            return self._enter(request)
        if request.kind == Recalled.kind:
            return self._recalled(request)
        asked = self._open[request.place.run]
        if request.kind == m.Close.kind:
            reply = asked.participant.close(request)
            self._forget(request.place.run)
            return reply
        self._folder.approval(asked.found.digest, self._now(), study=asked.found.study)
        trips: dict[str, Callable[[Envelope], bytes]] = {
            m.Enrol.kind: asked.participant.advertise,
            m.Share.kind: asked.participant.share,
            m.Ask.kind: lambda one: self._ask(asked, one),
            m.Survivors.kind: asked.participant.agree,
            m.Unmask.kind: asked.participant.unmask,
        }
        if request.kind not in trips:
            raise MessageMalformed("there is no such trip")
        return trips[request.kind](request)

    def close(self) -> None:
        """Forget every proposal's secrets."""
        for run in tuple(self._open):
            self._forget(run)

    def _propose(self, request: Envelope) -> bytes:
        body, place = Propose.decode(request.body), request.place
        if not place.run.isalnum() or len(place.run) > 40 or (self._folder.state / "runs" / place.run).exists():
            raise MessageMalformed("a proposal's name is letters and digits, 40 at most, and that of no run")
        found = _study(body.study, place)
        standing = self._standing(found)
        it = _read(self._folder, found, standing.roster, body)
        models = decode(body.models)
        if hashlib.sha256(body.models).hexdigest() != it.models or not models.keys() <= it.proposed.counts.keys():
            raise ProtocolViolation("the models are not those that were signed", rule="proposal_altered")
        rules, statement = verdict(self._folder, found, replace(it.proposed, models=models), now=self._now()), it.statement
        if place.run not in self._open:
            while len(self._open) >= AT_ONCE:
                self._forget(next(iter(self._open)))
            objects = any(rule in RULES for rule in rules)
            said = [int(objects), *(int(one in rules) for one in (*RULES, *REMARKS))]
            sites = len(standing.roster.names)
            book = RoundBook(self._folder.state / "objections" / place.run, place.run)
            self._open[place.run] = _Asked(
                found,
                question_of(statement),
                pack({FIELDS[0].name: np.array(said, dtype=np.int64)}, FIELDS, sites),
                ring_for(FIELDS),
                book,
                Participant(standing, place.run, book),
            )
        elif self._open[place.run].question != question_of(statement):
            raise ProtocolViolation("another proposal was made under this name", rule="proposal")
        return m.reply(signed(self._key, place, standing.site, Considered()).encode())

    def _enter(self, request: Envelope) -> bytes:
        """A release goes into the ledger also where the study is no longer approved here: what is out is known."""
        body = Enter.decode(request.body)
        found = _study(body.study, request.place)
        it = _read(self._folder, found, roster_of(found.study), body)
        record(self._folder, found, it.proposed, release=it.release, now=self._now())
        return m.reply(signed(self._key, request.place, self._folder.name(), Entered()).encode())

    def _recalled(self, request: Envelope) -> bytes:
        body = Recalled.decode(request.body)
        recall(self._folder, _study(body.study, request.place), body.notice, now=self._now())
        return m.reply(signed(self._key, request.place, self._folder.name(), Entered()).encode())

    def _ask(self, asked: _Asked, request: Envelope) -> bytes:
        task = m.Task.decode(m.Ask.decode(request.body).task)
        if task.question != asked.question or task.history:
            raise QuestionNotApproved("the question is not about the proposal that was judged", rule="proposal")
        return asked.participant.mask(request, asked.answer, asked.ring, task.digest)

    def _standing(self, found: SignedStudy) -> Standing:
        """All sites of the study have to be in the sum, and enough of them are known to this site."""
        policy, study, roster = self._folder.policy(self._now()), found.study, roster_of(found.study)
        if policy.site not in roster or roster.key(policy.site) != public_of(self._key):
            raise ProtocolViolation("the study names another key for this site", rule="own_key")
        prints = {name: fingerprint(roster.key(name)) for name in roster.names}
        known = {fingerprint(roster.key(name)) for name in recognised(policy, study)} | {prints[policy.site]}
        limits = thresholds(study)
        if sum(p in known for p in prints.values()) < max(limits.survivors_needed, needed(policy, study)):
            raise TooFewSites("too few of the study's sites are known to this site", rule="too_few_sites")
        everybody = frozenset(prints.values())
        return Standing(found.digest, roster, policy.site, self._key, limits, everybody, needed=len(roster.names))

    def _forget(self, run: str) -> None:
        asked = self._open.pop(run)
        asked.participant.erase()
        asked.book.close()
        shutil.rmtree(self._folder.state / "objections" / run, ignore_errors=True)


def _study(data: bytes, place: Place) -> SignedStudy:
    found = load_signed(data)
    if found.digest != place.study:
        raise MessageMalformed("the study sent is not the one that the message names", rule="study_digest")
    return found


def _read(folder: SiteFolder, found: SignedStudy, roster: Roster, body: Shown) -> _Read:
    """What is proposed, once every signature over it is right."""
    request, said = read_statement(body.request, "request"), read_statement(body.proposal, "proposal")
    if request.kind != REQUEST or request.signers != (found.study.lead.public_key,):
        raise NotApproved("the study's lead has not signed this request", rule="proposal_request")
    facts = (STATEMENT, found.digest, request.digest, hashlib.sha256(body.counts).hexdigest())
    if (said.kind, *(said.facts.get(name) for name in ("study", "request", "counts"))) != facts:
        raise ProtocolViolation("the counts or the request are not those that were signed", rule="proposal_altered")
    run = said.facts.get("run")
    if not isinstance(run, str) or not run.isalnum() or _study_of(folder, run) != found.digest:
        raise NotApproved("this site took no part in the run that the proposal is of", rule="proposal_run")
    own: dict[str, list[Checker]] = {}
    if body.appointed:
        place = Envelope.decode(body.appointed).place
        if (place.study, place.run) != (found.digest, run):
            raise ProtocolViolation("a checker was named in another run", rule="proposal_signer")
        site, reply = opened(body.appointed, m.Opened, roster, place)
        own[site] = [Checker(c["name"], c["organisation"], c["key"], site) for c in decode(reply.checkers)]
    if len(said.signers) != 1:
        raise NotApproved("one output checker signs a proposal", rule="proposal_signer")
    may_check(found.study, checkers_of(found.study, own), (), said.signers[0])
    try:
        counts = {str(n): tuple(Count.from_plain(c) for c in some) for n, some in decode(body.counts)["counts"].items()}
        release = f"{run}/{int(request.facts['request'])}"
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise MessageMalformed("what is proposed is no list of counts") from error
    if not counts.keys() <= set(request.facts["analyses"]):
        raise ProtocolViolation("the proposal holds an analysis that was not asked for", rule="proposal_altered")
    return _Read(Proposed(counts, population(found)), said.digest, release, str(said.facts.get("models")))


def _study_of(folder: SiteFolder, run: str) -> str:
    """The digest of the study of a run that this site took part in; empty where it did not."""
    part = folder.state / "runs" / run / "study"
    return part.read_text("ascii") if part.exists() else ""
