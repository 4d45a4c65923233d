"""A site's own reply to a `Gather`, and what it believes of the others' replies: what they signed."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from fivefold.auth.signatures import opened, signed
from fivefold.errors import AggregateFalse, FivefoldError, QuestionNotApproved
from fivefold.privacy.fixed_point import ring_for
from fivefold.privacy.secagg.ring import to_bytes
from fivefold.protocol import messages as m
from fivefold.protocol.messages import Envelope, Place
from fivefold.replay.cursor import Asked
from fivefold.replay.gathered import elements
from fivefold.site.admission import permitted
from fivefold.site.envelope_book import charge_answer
from fivefold.site.gate import GATE, leave
from fivefold.site.kept_state import computed
from fivefold.site.standing import Standing
from fivefold.site.transcript import Verified

if TYPE_CHECKING:
    from fivefold.site.node import Node, Session


def own_reply(node: Node, session: Session, asked: Envelope) -> bytes:
    """The checks and the gate of every answer; then the numbers leave signed and unmasked. Raises `Refused` unless the policy
    names the step and the custodian permits this site's own totals."""
    task = m.Task.decode(m.Gather.decode(asked.body).task)
    question, parts = node._derived(session, task, asked.place)
    if not question.gathered:
        raise QuestionNotApproved("the study asks for a sum here, not for this site's own reply", rule="gather")
    policy = permitted(node.folder, session.study, session.digest, session.plan, question, node.now())
    answer, states = computed(question, parts, session.table, session.kept.committed)
    passed = leave(replace(node._departure(session, policy, question), answer=answer), GATE)
    assert passed.vector is not None
    variation = session.plan.variation(question.analysis.name)
    if variation is not None:
        charge_answer(node.folder.state, session.study, session.digest, session.run, variation, session.log)
    steps = [one.step.identity for one in question.sums]
    node._note(session, asked.kind, asked.place, analysis=question.analysis.name, steps=steps, line=policy.line("steps"))
    session.kept.stage(question.round, states)
    reply = m.Gathered(task.digest, to_bytes(passed.vector, ring_for(question.fields)))
    return m.reply(signed(node._key, asked.place, node.me, reply).encode())


def verify_replies(transcript: m.Transcript, asked: Asked, standing: Standing, run: str, question: bytes) -> Verified:
    """The replies of a round, each signed by its site. Raises `AggregateFalse` (rule `transcript`)."""
    place = Place(standing.study, run, asked.round, 1)
    names, vectors = list[str](), []
    try:
        for data in transcript.masked:
            site = m.Envelope.decode(data).sender
            reply = opened(data, m.Gathered, standing.roster, place, site)[1]
            if reply.question != hashlib.sha256(question).digest():
                raise _false("a reply is to another question")
            names.append(site)
            vectors.append(elements(asked, reply.vector))
    except AggregateFalse:
        raise
    except FivefoldError as error:
        raise _false(error.message) from error
    if tuple(names) != standing.roster.in_order(set(names)) or standing.counted(tuple(names)) < standing.wanted:
        raise _false("they are of too few sites, or one counts twice")
    return Verified(np.concatenate(vectors), tuple(names), place.attempt)


def _false(why: str) -> AggregateFalse:
    return AggregateFalse(f"the gathered replies do not hold: {why}", rule="transcript")
