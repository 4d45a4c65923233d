"""The driver's `Gather`: each site's own signed reply, for a question that cannot be a sum.

Nothing is masked: coordinator and sites see who answered what. So a site answers only where its policy names the step and its
custodian permits `site_totals`. The replies are told to all sites as they were signed, and each puts them together itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np

from fivefold.auth.signatures import opened
from fivefold.coordinator.aggregation import Total
from fivefold.coordinator.attendance import Attendance
from fivefold.coordinator.history import History
from fivefold.coordinator.secure_rounds import SecureRounds
from fivefold.errors import MessageMalformed, TooManyDropouts
from fivefold.privacy.fixed_point import unpack
from fivefold.protocol import messages as m
from fivefold.protocol.messages import Place
from fivefold.protocol.questions import Array
from fivefold.records.audit import AuditLog
from fivefold.replay.cursor import Asked
from fivefold.replay.gathered import elements
from fivefold.replay.totals import taking_part

ATTEMPTS = 3


def gather(
    asked: Asked, question: bytes, sums: SecureRounds, there: Attendance, history: History, opening: m.Open, log: AuditLog
) -> Total:
    """The replies one after the other in the study's order, as ring elements; `transcript.masked` holds them as signed. Raises
    `SiteRefused`, `TooManyDropouts` (the run can be resumed)."""
    roster, steps, lost = sums.roster, [one.step.identity for one in asked.sums], TooManyDropouts("no site answered")
    place = Place(sums.study, sums.run, asked.round, 1)
    said = hashlib.sha256(question).digest()
    for trial in range(ATTEMPTS):
        there.anew()
        there.open(sums, asked.round, opening)
        try:
            there.enough(sums.thresholds.survivors_needed)
            log.write("gather", round=asked.round, analysis=asked.analysis.name, steps=steps)
            wanted = [s for s in taking_part(asked, roster.names) if s in there.known]
            tasks = {s: m.Task(question, history.since(there.known[s])).encode() for s in wanted}
            there.about(wanted, True, True)
            answers = there.exchange({s: m.request(place, m.Gather(t)) for s, t in tasks.items()})
            replies, vectors = _heard(sums, asked, place, said, answers)
            if len(replies) < sums.thresholds.survivors_needed:
                raise TooManyDropouts(f"{len(replies)} of {len(roster.names)} sites sent their own reply")
            names = roster.in_order(replies)
            dropped = tuple(n for n in roster.names if n not in replies)
            shown = m.Transcript((), tuple(replies[s] for s in names), ())
            return Total(np.concatenate([vectors[s] for s in names]), names, dropped, shown)
        except TooManyDropouts as error:
            lost = error
            there.stop(error, last=trial == ATTEMPTS - 1)
    raise lost


def _heard(
    sums: SecureRounds, asked: Asked, place: Place, said: bytes, answers: Iterable[tuple[str, bytes]]
) -> tuple[dict[str, bytes], dict[str, Array]]:
    """What each site replied, as it was signed and as ring elements."""
    replies, vectors = dict[str, bytes](), dict[str, Array]()

    def heard(site: str, envelope: bytes) -> None:
        reply = opened(envelope, m.Gathered, sums.roster, place, site)[1]
        if reply.question != said:
            raise MessageMalformed("a reply is to another question")
        vector = elements(asked, reply.vector)
        unpack(vector, asked.fields, len(sums.roster.names), 1)  # a number beyond its bound is no answer
        replies[site], vectors[site] = envelope, vector

    sums.hear(answers, heard)
    return replies, vectors
