"""A site's node: `answer(request) -> reply` is the whole story of what a coordinator can get from this site.

verify study → custodian's approval → replay and derive the question → own policy → table → compute → gate → reply
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from fivefold.auth.keys import public_of
from fivefold.auth.messages import signed, verified
from fivefold.disclosure.rules import screen
from fivefold.errors import (
    AggregateFalse,
    FivefoldError,
    MessageMalformed,
    NotApproved,
    ProtocolViolation,
    QuestionNotApproved,
    RunError,
    TooFewPersons,
    TooFewSites,
)
from fivefold.governance.policy import Policy, decide, needed, recognised
from fivefold.privacy.fixed_point import ring_for, unpack, width
from fivefold.protocol.encoding import decode, digest, encode
from fivefold.protocol.envelope import Message, content_of
from fivefold.protocol.questions import Sum
from fivefold.records.journal import Journal, read
from fivefold.replay.compare import described, same
from fivefold.replay.cursor import Cursor, Outcome
from fivefold.replay.opening import key_list_digest, opened, summed
from fivefold.site.folder import SiteFolder
from fivefold.site.gate import GATE, Departure, leave
from fivefold.site.membership import Memberships, check
from fivefold.site.participant import Participant, Terms
from fivefold.site.preparation import prepare
from fivefold.study.consistency import thresholds
from fivefold.study.definition import Study
from fivefold.study.digest import load_signed
from fivefold.study.table import Table


@dataclass
class Session:
    """One run at this site. `known` is the last round whose aggregate this site has checked and fed to its own replay."""

    study: Study
    digest: str
    run: str
    policy: Policy
    table: Table
    cursor: Cursor
    participant: Participant
    journal: Path
    known: int = 0
    persons: int | None = None


class Node:
    """The site's process. `folder` is all it has: policy, keys, approvals, rows."""

    def __init__(self, folder: SiteFolder, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self.folder = folder
        self.now = now
        self.me = folder.policy(now()).site
        self._key = folder.node_key()
        self._sessions: dict[str, Session] = {}

    def answer(self, request: bytes) -> bytes:
        """A signed reply to any bytes at all: an answer, or a refusal: its code, rule and variable and nothing else."""
        asked = Message("unknown", "", "", 0, 0, "")
        try:
            asked, _, _ = content_of(request)
            with self.folder.audit() as log:
                session = self._open(asked) if asked.kind == "enrol" else self._session(asked)
                stored = session.participant.stored(request)
                if stored is not None:
                    return stored
                trip = TRIPS.get(asked.kind)
                if trip is None:
                    raise MessageMalformed(f"there is no trip called {asked.kind!r}"[:80])
                body = trip(self, session, asked)
                message = Message(asked.kind, session.digest, session.run, asked.round, asked.attempt, self.me, body)
                released = message if asked.kind == "unmask" else None
                log.write(asked.kind, **self._facts(session, message))  # durable before anything is signed or sent
                reply = signed(message, self._key)
                if asked.kind == "keys":
                    session.participant.advertised(reply)
                session.participant.store(request, reply, released=released)
                return reply
        except FivefoldError as error:
            return self._refusal(asked, error)
        except Exception as error:  # nothing that a library says may leave; the site's own log has the kind
            return self._refusal(asked, RunError("a fault of the site's own software", rule=f"internal_{type(error).__name__}"))

    # ---- trips ------------------------------------------------------------------------------------------------------
    def _open(self, asked: Message) -> Session:
        """Before a row is read: the study's signature and digest, the custodian's approval, this site's policy."""
        found = load_signed(bytes(asked.body["study"]))
        study, when = found.study, self.now()
        if found.digest != asked.study:
            raise MessageMalformed("the study sent is not the one that the message names", rule="study_digest")
        policy = self.folder.policy(when)
        self.folder.approval(found.digest, when, study=study)
        decide(policy, study, today=when.date()).enforce()
        if policy.minimum_sites > len(study.sites):
            raise TooFewSites("the study has fewer sites than this site needs", rule="minimum_sites")
        if {s.name: s.public_key for s in study.sites}.get(self.me) != _public(self._key):
            raise ProtocolViolation("the study names another key for this site", rule="own_key")
        table = prepare(self.folder, study, found.digest, when=when).table
        if asked.run in self._sessions:
            return self._sessions[asked.run]
        if not asked.run.isalnum() or len(asked.run) > 40:
            raise MessageMalformed("a run's name is letters and digits, 40 at most")
        place = self.folder.state / "runs" / asked.run
        session = Session(
            study,
            found.digest,
            asked.run,
            policy,
            table,
            Cursor(study),
            Participant(self._terms(study, found.digest, asked.run, policy, when), place / "sums.journal"),
            place / "aggregates.journal",
        )
        for record in read(session.journal):
            self._feed(session, outcome_of(record))
        self._sessions[asked.run] = session
        return session

    def _enrol(self, session: Session, asked: Message) -> dict[str, Any]:
        return {"known": session.known}

    def _keys(self, session: Session, asked: Message) -> dict[str, Any]:
        return session.participant.keys(asked.round, asked.attempt)

    def _share(self, session: Session, asked: Message) -> dict[str, Any]:
        return session.participant.share(asked.round, asked.attempt, asked.body["keys"])

    def _ask(self, session: Session, asked: Message) -> dict[str, Any]:
        """Check and feed the aggregates since, derive the question, compare, judge, compute, pass the gate, mask."""
        for record in asked.body["history"]:
            if record["round"] == session.known + 1:
                outcome = self._verified(session, record)
                journal = Journal(session.journal)
                try:
                    journal.append({"round": record["round"], **vars(outcome)})
                finally:
                    journal.close()
                self._feed(session, outcome)
        question = session.cursor.open
        if question is None or question.round != asked.round:
            raise QuestionNotApproved("the approved study asks nothing in this round", rule="replayed_question")
        sent = asked.body["question"]
        if not same(_plain(described(question.question)), sent):
            raise QuestionNotApproved("the question does not follow from the approved study", rule="replayed_question")
        when = self.now()
        approval = self.folder.approval(session.digest, when, study=session.study)
        approval.allow(question.analysis.name, question.question)
        policy = self.folder.policy(when)
        decide(
            policy,
            session.study,
            analysis=question.analysis,
            question=question.question,
            round=question.round,
            today=when.date(),
        ).enforce()
        parts = sent if isinstance(question.question, tuple) else (sent,)
        answers = [one.step(session.table, **part["arguments"]) for one, part in zip(question.sums, parts, strict=True)]
        leaving = Departure(
            session.study,
            session.digest,
            policy,
            question,
            session.table,
            question.join(answers),
            self.folder.state,
            session.persons,
        )
        passed = leave(leaving, GATE)
        assert passed.vector is not None
        return session.participant.mask(
            asked.round, asked.attempt, passed.vector, ring_for(question.fields), digest(sent), asked.body["parcels"]
        )

    def _survivors(self, session: Session, asked: Message) -> dict[str, Any]:
        return session.participant.agree(asked.round, asked.attempt, asked.body["survivors"])

    def _unmask(self, session: Session, asked: Message) -> dict[str, Any]:
        """The moment of release: approval is asked once more, and the survivor set is kept before a share leaves."""
        self.folder.approval(session.digest, self.now(), study=session.study)
        shares = session.participant.unmask(
            asked.round, asked.attempt, asked.body["survivors"], asked.body.get("agreements", {})
        )
        self._memberships(session.policy).add(frozenset(shares["survivors"]))
        return shares

    def _close(self, session: Session, asked: Message) -> dict[str, Any]:
        session.participant.erase()
        self._sessions.pop(session.run, None)
        return {}

    # ---- what the trips lean on -------------------------------------------------------------------------------------
    def _session(self, asked: Message) -> Session:
        session = self._sessions.get(asked.run)
        if session is None or session.digest != asked.study:
            raise NotApproved("this site has no such run open", rule="run", help="Enrol first.")
        return session

    def _terms(self, study: Study, study_digest: str, run: str, policy: Policy, when: datetime) -> Terms:
        private = study.privacy
        history = self._memberships(policy)
        approval = self.folder.approval(study_digest, when, study=study)
        least = max(private.minimum_difference, policy.minimum_difference) + max(private.colluders, policy.colluders)

        def class_rule(survivors: frozenset[str], permitted: frozenset[str]) -> None:
            check(history.sets(), survivors, least=max(2, least), permitted=permitted)

        return Terms(
            me=self.me,
            study=study_digest,
            run=run,
            roster=tuple(s.name for s in study.sites),
            public_keys={s.name: bytes.fromhex(s.public_key) for s in study.sites},
            threshold=thresholds(study).t,
            needed=needed(policy, study),
            recognised=frozenset(recognised(policy, study)),
            active=private.adversary == "active",
            totals=approval.permits("site_totals") and policy.site_totals == "permitted",
            class_rule=class_rule,
        )

    def _memberships(self, policy: Policy) -> Memberships:
        asset = hashlib.sha256(policy.asset.encode()).hexdigest()[:16]
        return Memberships(self.folder.state / "memberships" / f"{asset}.journal")

    def _verified(self, session: Session, record: Mapping[str, Any]) -> Outcome:
        """Add up the signed updates of all sites and open the sum: the aggregate that was sent must be that, and this site
        goes on with its own."""
        question, terms = session.cursor.open, session.participant.terms
        if question is None:
            raise QuestionNotApproved(
                "an aggregate was sent for a round that the study does not have", rule="replayed_question"
            )
        heard = record["transcript"]
        survivors, members = tuple(heard["survivors"]), tuple(heard["members"])
        rounds = {
            part: {n: self._heard(session, data, kind, record["round"], heard["attempt"], n) for n, data in heard[part].items()}
            for part, kind in (("keys", "keys"), ("masked", "ask"), ("shares", "unmask"))
        }
        masked = rounds["masked"].values()
        if frozenset(rounds["masked"]) != frozenset(survivors) or tuple(record["sites"]) != survivors:
            raise AggregateFalse("the transcript does not hold the updates of the sites in the sum", rule="transcript")
        if tuple(record["dropped"]) != tuple(name for name in terms.roster if name not in survivors):
            raise AggregateFalse("the sites that dropped are not those that are not in the sum", rule="transcript")
        view = key_list_digest(rounds["keys"])
        if any(bytes(m.body["view"]) != view or tuple(m.body["members"]) != members for m in masked):
            raise AggregateFalse("the sites of the sum did not see the same keys and peers", rule="transcript")
        if len({bytes(m.body["question"]) for m in masked}) != 1:
            raise AggregateFalse("the sites of the sum were asked different questions", rule="transcript")
        if any(tuple(m.body["survivors"]) != tuple(sorted(survivors)) for m in rounds["shares"].values()):
            raise AggregateFalse("the shares open another sum", rule="transcript")
        ring = ring_for(question.fields)
        total = summed(rounds["masked"], survivors, width(question.fields), ring)
        opened(total, ring, terms.roster, terms.threshold, rounds["keys"], members, survivors, rounds["shares"])
        dropped = tuple(record["dropped"])
        try:
            totals = screen(
                unpack(total, question.fields, len(terms.roster), len(survivors)),
                question.fields,
                session.study.privacy.minimum_persons,
            )
        except TooFewPersons as error:
            if record["ended"] != error.code or record["totals"]:
                raise AggregateFalse("the total lies under the minimum of persons", rule="transcript") from None
            return Outcome((), survivors, dropped, error.code)
        claimed = question.join(record["totals"]) if record["totals"] else {}
        if (
            record["ended"]
            or set(claimed) != set(totals)
            or not all(
                np.array_equal(np.asarray(claimed[name]), value, equal_nan=value.dtype.kind == "f")
                for name, value in totals.items()
            )
        ):
            raise AggregateFalse("the coordinator's total is not the sum of the sites' updates", rule="transcript")
        return Outcome(question.split(totals), survivors, dropped)

    def _heard(self, session: Session, data: bytes, kind: str, round: int, attempt: int, name: str) -> Message:
        message = verified(bytes(data), session.participant.terms.public_keys)
        place = (kind, session.digest, session.run, round, attempt, name)
        if (message.kind, message.study, message.run, message.round, message.attempt, message.sender) != place:
            raise AggregateFalse("a message of the transcript belongs to another place", rule="transcript")
        return message

    def _feed(self, session: Session, outcome: Outcome) -> None:
        question = session.cursor.open
        if question is not None and not outcome.ended:
            for one, totals in zip(question.sums, outcome.totals, strict=True):
                known = [int(totals[f.name]) for f in one.fields if f.kind == "persons" and f.shape == ()]
                session.persons = known[0] if known else session.persons
        session.cursor.feed(outcome)
        session.known += 1

    def _facts(self, session: Session, message: Message) -> dict[str, Any]:
        """What the site's log says of a trip: never a value."""
        facts: dict[str, Any] = {
            "study": session.digest,
            "run": session.run,
            "round": message.round,
            "attempt": message.attempt,
        }
        question = session.cursor.open
        if message.kind == "ask" and question is not None:
            facts["analysis"] = question.analysis.name
            facts["steps"] = [one.step.identity for one in question.sums if isinstance(one, Sum)]
        if message.kind in ("survivors", "unmask"):
            facts["survivors"] = list(message.body["survivors"])
        return facts

    def _refusal(self, asked: Message, error: FivefoldError) -> bytes:
        with self.folder.audit() as log:
            log.write("refused", trip=asked.kind[:20], run=asked.run[:40], round=asked.round, **error.public())
        return signed(
            Message("refusal", asked.study, asked.run, asked.round, asked.attempt, self.me, error.public()), self._key
        )


TRIPS: dict[str, Callable[[Node, Session, Message], dict[str, Any]]] = {
    "enrol": Node._enrol,
    "keys": Node._keys,
    "share": Node._share,
    "ask": Node._ask,
    "survivors": Node._survivors,
    "unmask": Node._unmask,
    "close": Node._close,
}
"""The trips of a run, in order."""


def outcome_of(record: Mapping[str, Any]) -> Outcome:
    """An aggregate's record, from the journal or the wire."""
    return Outcome(tuple(record["totals"]), tuple(record["sites"]), tuple(record["dropped"]), record["ended"])


def _plain(value: Any) -> Any:
    """A question as it is after its trip: the form in which the sent one arrives."""
    return decode(encode(value))


def _public(private: bytes) -> str:
    return public_of(private).hex()
