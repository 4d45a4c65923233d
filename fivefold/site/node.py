"""A site's node: `answer(request) -> reply` is the whole story of what a coordinator can get from this site.

verify study → custodian's approval → replay and derive the question → own policy → table → compute → gate → reply
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fivefold.auth.keys import fingerprint
from fivefold.auth.signatures import signed
from fivefold.errors import (
    AggregateFalse,
    FivefoldError,
    MessageMalformed,
    NotApproved,
    ProtocolViolation,
    QuestionNotApproved,
    RunError,
)
from fivefold.governance.approvals import raw_approval
from fivefold.governance.policy import Policy, needed, recognised
from fivefold.governance.safe_settings import LOCAL, Surroundings
from fivefold.governance.withdrawals import keep_notice, read_notice, refuse_withdrawn
from fivefold.privacy.fixed_point import ring_for
from fivefold.protocol import messages as m
from fivefold.protocol.encoding import decode, encode
from fivefold.protocol.messages import Envelope, Place
from fivefold.records.audit import AuditLog
from fivefold.records.files import write_file
from fivefold.records.witness import HEADS, packed
from fivefold.replay.compare import described, same
from fivefold.replay.cursor import Asked, Cursor
from fivefold.replay.plan import Plan
from fivefold.site import followed
from fivefold.site.admission import admitted, permitted, refuse_others
from fivefold.site.class_rule import ClassRule
from fivefold.site.envelope_book import bind, charge_answer
from fivefold.site.folder import SiteFolder
from fivefold.site.gate import GATE, Departure, leave, own_steps
from fivefold.site.gathered import own_reply
from fivefold.site.held_update import Held, members, smallest, taken
from fivefold.site.kept_state import KeptState, State, computed
from fivefold.site.life import notice_of
from fivefold.site.preparation import prepare
from fivefold.site.proposals import Proposals
from fivefold.site.round_book import RoundBook
from fivefold.site.secure_sum import Participant, Sum
from fivefold.site.standing import Standing
from fivefold.site.told import plain, verified
from fivefold.site.usage import Meter, spent
from fivefold.site.witnessing import Witness
from fivefold.study.consistency import thresholds
from fivefold.study.definition import Study
from fivefold.study.digest import load_signed
from fivefold.study.table import Table

NOWHERE = Envelope(Place("", "", 1, 1), "unknown", "", b"")


@dataclass
class Session:
    """One run at this site. `known` is the last round whose aggregate this site has checked and fed to its own replay."""

    study: Study
    digest: str
    run: str
    table: Table
    data: str
    """The keyed digest of its rows."""
    standing: Standing
    book: RoundBook
    class_rule: ClassRule
    kept: KeptState
    place: Path
    """The run's folder at this site."""
    plan: Plan
    cursor: Cursor
    witness: Witness
    participant: Participant = field(init=False)
    log: AuditLog = field(init=False)
    """Open while a request is answered."""
    known: int = 0
    held: Held | None = None
    """What was computed for a buffer, and is in none yet."""

    def close(self) -> None:
        self.participant.erase()
        self.book.close()


class Node:
    """The site's process. `folder` is all it has: policy, keys, approvals, rows."""

    def __init__(
        self, folder: SiteFolder, *, now: Callable[[], datetime] = lambda: datetime.now(UTC), around: Surroundings = LOCAL
    ) -> None:
        self.folder = folder
        self.now = now
        self.around = around
        self.me = folder.policy(now()).site
        self._key = folder.node_key()
        self._sessions: dict[str, Session] = {}
        self._meter = Meter(folder.state / "runs")
        self._proposals = Proposals(folder, self._key, now)

    def answer(self, request: bytes) -> bytes:
        """A signed reply to any bytes at all: an answer, or a refusal: its code, rule and variable and nothing else."""
        begun = spent()
        run, reply = self._answer(request)
        self._meter.count(run, len(request), len(reply), spent() - begun)
        return reply

    def _answer(self, request: bytes) -> tuple[str, bytes]:
        """The run that a request names, and the reply."""
        asked = NOWHERE
        try:
            asked = Envelope.decode(request)
            if self._proposals.concern(asked):
                return asked.place.run, self._proposals.answer(asked)
            trip = TRIPS.get(asked.kind)
            if trip is None or asked.sender != m.COORDINATOR:
                raise MessageMalformed("there is no such trip")
            with self.folder.audit() as log:
                session = self._open(asked) if asked.kind == m.Open.kind else self._session(asked)
                session.log = log
                if asked.kind not in ALWAYS:  # a withdrawal stops every trip, a repeated one too
                    self.folder.approval(session.digest, self.now(), study=session.study)
                return asked.place.run, trip(self, session, asked)
        except FivefoldError as error:
            return asked.place.run, self._refusal(asked, error)
        except Exception as error:  # nothing that a library says may leave; the site's own log has the kind
            fault = RunError("a fault of the site's own software", rule=f"internal_{type(error).__name__}")
            return asked.place.run, self._refusal(asked, fault)

    def close(self) -> None:
        """Forget every run's secrets and let go of its files; what is on disk stays."""
        self._proposals.close()
        while self._sessions:
            self._sessions.popitem()[1].close()

    # ---- trips: an audit entry is durable before anything is signed or sent --------------------------------------------
    def _opened(self, session: Session, asked: Envelope) -> bytes:
        self._note(session, asked.kind, asked.place)
        approval = self.folder.approval(session.digest, self.now(), study=session.study)
        checkers = tuple({"name": name, "organisation": self.me, "key": key} for name, key in approval.checkers)
        opened = m.Opened(session.known, encode(checkers), raw_approval(self.folder.path, approval))
        return m.reply(signed(self._key, asked.place, self.me, opened).encode())

    def _enrol(self, session: Session, asked: Envelope) -> bytes:
        self._note(session, asked.kind, asked.place)
        return session.participant.advertise(asked)

    def _share(self, session: Session, asked: Envelope) -> bytes:
        self._note(session, asked.kind, asked.place)
        return session.participant.share(asked)

    def _ask(self, session: Session, asked: Envelope) -> bytes:
        """Check and feed the aggregates since, derive the question, compare, judge, compute, pass the gate, mask."""
        if (stored := session.participant.stored(asked)) is not None:
            return stored
        task = m.Task.decode(m.Ask.decode(asked.body).task)
        question, parts = self._derived(session, task, asked.place)
        policy = permitted(self.folder, session.study, session.digest, session.plan, question, self.now())
        if question.gathered:
            raise QuestionNotApproved("the study asks for single replies here, not for a sum", rule="gather")
        departure = self._departure(session, policy, question)
        version, states, noise = None, dict[str, State](), own_steps(departure)
        if question.buffer is None:
            answer, states = computed(question, parts, session.table, session.kept.committed, noise)
        else:
            answer, version = taken(session.held, question, question.buffer)
        done = noise is not None and noise.finished
        passed = leave(replace(departure, answer=answer, version=version, finished=done), GATE)
        assert passed.vector is not None
        variation = session.plan.variation(question.analysis.name)
        if variation is not None:
            charge_answer(self.folder.state, session.study, session.digest, session.run, variation, session.log)
        steps = [one.step.identity for one in question.sums]
        age = {} if version is None else {"version": question.version, "computed_from": version}
        self._note(session, asked.kind, asked.place, analysis=question.analysis.name, steps=steps, **age)
        session.kept.stage(question.round, states)
        among = members(session.study, policy, question)
        return session.participant.mask(asked, passed.vector, ring_for(question.fields), task.digest, among)

    def _departure(self, session: Session, policy: Policy, question: Asked) -> Departure:
        """What asks to leave, without its answer."""
        return Departure(
            session.study, session.digest, policy, question, session.table, {}, self.folder.state, session.cursor.persons,
            run=session.run, data=session.data, secret=self.folder.secret(), log=session.log,
        )  # fmt: skip

    def _compute(self, session: Session, asked: Envelope) -> bytes:
        """The same checks as before an answer; what is computed stays here until a buffer takes it."""
        question, parts = self._derived(session, m.Task.decode(m.Compute.decode(asked.body).task), asked.place)
        permitted(self.folder, session.study, session.digest, session.plan, question, self.now())
        if question.buffer is None or (self._exact(session) and not session.standing.site_totals):
            raise QuestionNotApproved("this site is in no buffer of exact sums: they are arbitrary subsets", rule="buffer")
        steps = [one.step.identity for one in question.sums]
        self._note(session, asked.kind, asked.place, analysis=question.analysis.name, steps=steps)
        if session.held is None or not session.held.serves(question):
            answer, _ = computed(question, parts, session.table, lambda _: None)
            session.held = Held(question.analysis.name, question.version, answer)
        return m.reply(signed(self._key, asked.place, self.me, m.Computed(session.held.version)).encode())

    def _survivors(self, session: Session, asked: Envelope) -> bytes:
        return session.participant.agree(asked)  # asks `_consider`

    def _unmask(self, session: Session, asked: Envelope) -> bytes:
        return session.participant.unmask(asked)  # asks `_release`

    def _notice(self, session: Session, asked: Envelope) -> bytes:
        """Another site withdrew: from now on no survivor list with it is served."""
        notice = m.Notice.decode(asked.body).notice
        said = read_notice(notice, session.digest, session.standing.roster)
        self._note(session, asked.kind, asked.place, site=said.site, statement=said.statement)
        keep_notice(self.folder.state, said)
        return m.reply(signed(self._key, asked.place, self.me, m.Noticed()).encode())

    def _close(self, session: Session, asked: Envelope) -> bytes:
        self._note(session, HEADS, asked.place, **session.witness.shown({}, m.Close.decode(asked.body).head))
        self._note(session, asked.kind, asked.place, used=self._meter.of(session.run).facts())
        write_file(self._place(session.run) / "closed", b"")
        reply = session.participant.close(asked)
        session.kept.close()
        followed.forget(session.place)
        self._sessions.pop(session.run).close()
        return reply

    # ---- what the secure sum asks before a survivor list is signed, and before the first share leaves ------------------
    def _consider(self, session: Session, total: Sum) -> None:
        refuse_others(session.study, session.cursor.open, total.place.round, total.survivors)
        refuse_withdrawn(self.folder.state, session.digest, session.standing.roster, total.survivors)
        if self._exact(session):
            session.class_rule.consider(self._keys(session, total.survivors), self._keys(session, total.permitted))
        self._note(session, "survivors", total.place, survivors=list(total.survivors))

    def _release(self, session: Session, total: Sum) -> None:
        """The moment of release: approval is asked once more, and the survivor set is on disk before a share leaves."""
        self.folder.approval(session.digest, self.now(), study=session.study)
        refuse_withdrawn(self.folder.state, session.digest, session.standing.roster, total.survivors)
        self._note(session, "unmask", total.place, survivors=list(total.survivors))
        if self._exact(session):
            sites, permitted = self._keys(session, total.survivors), self._keys(session, total.permitted)
            session.class_rule.admit(sites, permitted, study=session.digest, run=session.run, round=total.place.round)

    # ---- what the trips lean on -------------------------------------------------------------------------------------
    def _open(self, asked: Envelope) -> Session:
        """Before a row is read: the study's signature and digest, the custodian's approval, this site's policy."""
        opening = m.Open.decode(asked.body)
        found = load_signed(opening.study)
        study, when, run = found.study, self.now(), asked.place.run
        if found.digest != asked.place.study:
            raise MessageMalformed("the study sent is not the one that the message names", rule="study_digest")
        policy, approval, roster, plan = admitted(self.folder, found, self._key, opening.variations, when, self.around)
        prepared = prepare(self.folder, study, found.digest, when=when)
        if run in self._sessions:
            if self._sessions[run].plan != plan:
                raise ProtocolViolation("the run was opened with other variations", rule="run_plan")
            return self._session(asked)
        if not run.isalnum() or len(run) > 40:
            raise MessageMalformed("a run's name is letters and digits, 40 at most")
        if (self._place(run) / "closed").exists():
            raise ProtocolViolation("this run was closed, and is not opened again", rule="run_closed")
        standing = Standing(
            study=found.digest,
            roster=roster,
            site=self.me,
            private=self._key,
            thresholds=thresholds(study),
            recognised=frozenset(fingerprint(roster.key(name)) for name in recognised(policy, study)),
            needed=needed(policy, study),
            smallest=smallest(study, policy, plan),
            site_totals=approval.permits("site_totals") and policy.site_totals == "permitted",
        )
        place = self._place(run)
        bind(place, plan)
        write_file(place / "study", found.digest.encode())
        asset = hashlib.sha256(policy.asset.encode()).hexdigest()[:16]
        session = Session(
            study=study,
            digest=found.digest,
            run=run,
            table=prepared.table,
            data=prepared.tags.data,
            standing=standing,
            book=RoundBook(place, run),
            class_rule=ClassRule(
                self.folder.state / "classes" / f"{asset}.journal",
                minimum_difference=max(study.privacy.minimum_difference, policy.minimum_difference),
                colluders=max(study.privacy.colluders, policy.colluders),
            ),
            kept=KeptState(place / "kept"),
            place=place,
            plan=plan,
            cursor=followed.cursor_at(place, lambda kept: Cursor(study, plan.analyses, checkpoints=kept)),
            witness=Witness(self.me, roster),
        )
        session.participant = Participant(
            standing,
            run,
            session.book,
            consider=lambda total: self._consider(session, total),
            release=lambda total: self._release(session, total),
            witness=lambda place, adverts, head: self._note(session, HEADS, place, **session.witness.shown(adverts, head)),
            head=lambda: packed(session.log.head),
        )
        session.known = followed.retold(place, session.cursor, lambda n, sites: session.kept.settle(n, self.me in sites))
        self._sessions[run] = session
        return session

    def _session(self, asked: Envelope) -> Session:
        session = self._sessions.get(asked.place.run)
        if session is None or session.digest != asked.place.study:
            raise NotApproved("this site has no such run open", rule="run", help="Open it first.")
        return session

    def _derived(self, session: Session, task: m.Task, place: Place) -> tuple[Asked, list[Mapping[str, Any]]]:
        """The question that follows from the study, which is the one that was sent, and the arguments of each of its sums: the
        sent numbers, not the derived ones, so that all sites compute with the same."""
        self._follow(session, task)
        question, sent = session.cursor.open, decode(task.question)
        if question is None or question.round != place.round or not same(plain(described(question.question)), sent):
            raise QuestionNotApproved("the question does not follow from the approved study", rule="replayed_question")
        parts = sent if isinstance(question.question, tuple) else (sent,)
        return question, [part["arguments"] for part in parts]

    def _follow(self, session: Session, task: m.Task) -> None:
        """Check the aggregates that this site does not know yet, and feed them to its own replay; each is on disk first."""
        for told in map(m.Told.decode, task.history):
            if told.round != session.known + 1:
                continue
            question = session.cursor.open
            if question is None:
                raise AggregateFalse("an aggregate was sent for a round that the study does not have", rule="transcript")
            least, among = session.study.privacy.minimum_persons, None
            if question.buffer is not None:
                among = members(session.study, self.folder.policy(self.now()), question)
            outcome = verified(told, question, session.standing, session.run, session.book, least, among)
            followed.note(session.place, told.round, outcome)
            if question.buffer is not None and self.me in outcome.sites:
                session.held = None  # it is in; the next one is computed anew
            session.cursor.feed(outcome)
            session.known = told.round
            session.kept.settle(session.known, self.me in outcome.sites)
            followed.keep(session.place, session.cursor)

    def _exact(self, session: Session) -> bool:
        """Whether the class rule binds: noise hides a site in a difference of sums, exact sums do not."""
        return session.study.privacy.differential_privacy is None

    def _keys(self, session: Session, names: Iterable[str]) -> frozenset[str]:
        return frozenset(session.standing.roster.key(name).hex() for name in names)

    def _place(self, run: str) -> Path:
        return self.folder.state / "runs" / run

    def _note(self, session: Session, event: str, place: Place, **facts: Any) -> None:
        """What the site's log says of a trip: never a value. Others see the head: a salt keeps them from guessing."""
        where = {"study": session.digest, "run": session.run, "round": place.round, "attempt": place.attempt}
        session.log.write(event, **where, **facts, salt=secrets.token_hex(16))

    def _refusal(self, asked: Envelope, error: FivefoldError) -> bytes:
        with self.folder.audit() as log:
            log.write("refused", trip=asked.kind[:20], run=asked.place.run[:40], round=asked.place.round, **error.public())
        notice = notice_of(self.folder, asked.place.study, self.me, error.rule)
        return m.reply(
            signed(self._key, asked.place, self.me, m.Refusal(error.code, error.rule, error.variable, notice)).encode()
        )


TRIPS: dict[str, Callable[[Node, Session, Envelope], bytes]] = {
    m.Open.kind: Node._opened,
    m.Enrol.kind: Node._enrol,
    m.Share.kind: Node._share,
    m.Compute.kind: Node._compute,
    m.Gather.kind: own_reply,
    m.Ask.kind: Node._ask,
    m.Survivors.kind: Node._survivors,
    m.Unmask.kind: Node._unmask,
    m.Close.kind: Node._close,
    m.Notice.kind: Node._notice,
}
"""The trips of a run, in order."""
ALWAYS = frozenset({m.Open.kind, m.Close.kind, m.Notice.kind})
"""Trips that let nothing out: opening judges the approval itself, and the others are taken after a withdrawal as well."""
