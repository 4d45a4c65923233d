"""The asynchronous driver: sites compute at their own pace, and whoever is done goes into the next buffer.

Every site that has nothing to do is asked to compute from the weights of now, and nobody waits for it. As soon as K sites have
an update, these K and no others make keys, mask and open one secure sum: a buffer. It moves the weights on, and its members
compute anew, while those that are slow still compute from the weights that they were given (FedBuff: Nguyen et al., AISTATS
2022, algorithm 1).

What a buffer holds hangs on who is fast. It is in the journal: members, the version that each update was computed from, and its
weight; the weights are a function of that.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from fivefold.auth.signatures import opened
from fivefold.coordinator.aggregation import Total
from fivefold.coordinator.attendance import Attendance
from fivefold.coordinator.history import Filled, History
from fivefold.coordinator.secure_rounds import Among, SecureRounds
from fivefold.errors import TooManyDropouts
from fivefold.privacy.fixed_point import ring_for, width
from fivefold.protocol import messages as m
from fivefold.protocol.encoding import decode
from fivefold.protocol.messages import Names, Place
from fivefold.records.audit import AuditLog
from fivefold.replay.buffered import staleness_weight
from fivefold.replay.cursor import Asked
from fivefold.study.consistency import thresholds
from fivefold.study.definition import Study

if TYPE_CHECKING:
    from fivefold.coordinator.rounds import Engine

ATTEMPTS = 3


@runtime_checkable
class Posting(Protocol):
    """An engine that lets a site compute while others are asked."""

    def post(self, requests: Mapping[str, bytes]) -> None:
        """Ask these sites, and go on."""
        ...

    def arrived(self) -> Iterable[tuple[str, bytes]]:
        """Replies to what was posted, each once. Waits for the first; none where nothing is out. A site that is lost is there
        with an empty reply."""
        ...


class InTurn:
    """What `Posting` promises, over an engine that cannot: all are asked when the first reply is wanted, and waited for."""

    def __init__(self, there: Attendance) -> None:
        self._there, self._out = there, dict[str, bytes]()

    def post(self, requests: Mapping[str, bytes]) -> None:
        self._out |= requests

    def arrived(self) -> Iterable[tuple[str, bytes]]:
        out, self._out = self._out, {}
        heard = dict(self._there.exchange(out)) if out else {}
        return [(site, heard.get(site, b"")) for site in out]


class Buffers:
    """One run's buffers. `sums` opens them, `there` says who has the run open."""

    def __init__(
        self, engine: Engine, study: Study, there: Attendance, sums: SecureRounds, history: History, log: AuditLog
    ) -> None:
        self._study, self._there, self._sums, self._history, self._log = study, there, sums, history, log
        self._engine: Posting = engine if isinstance(engine, Posting) else InTurn(there)
        self._analysis = ""
        self._answered = set[str]()
        self._out: dict[str, tuple[str, int]] = {}
        """Sites that compute, for which analysis, and the round that they were asked in."""
        self._ready: dict[str, int] = {}
        """Sites with an update, in the order in which they were done, and the version that it was computed from."""

    def total(self, asked: Asked, question: bytes, opening: m.Open) -> tuple[Total, Filled]:
        """The sum of a buffer, and what is in it. Raises `SiteRefused`, `TooManyDropouts` (the run can be resumed)."""
        assert asked.buffer is not None
        lost = TooManyDropouts("no buffer could be filled")
        needed, size = thresholds(self._study, asked.buffer.size), asked.buffer.size
        if asked.analysis.name != self._analysis:
            self._analysis = asked.analysis.name
            self._ready.clear()
        for trial in range(ATTEMPTS):
            self._there.anew()
            self._there.open(self._sums, asked.round, opening)
            try:
                only: Names | None = None
                if self._history.masked:
                    # Some sites may have released their shares: they serve no other buffer of this round.
                    only = tuple(decode(self._history.masked)["survivors"])
                    self._log.write("open", round=asked.round, survivors=list(only))
                    versions = dict(self._history.versions)
                    try:
                        total = self._sums.recover(self._history.masked, Among(only, needed))
                        return total, self._taken(asked, total.survivors, versions)
                    except TooManyDropouts:
                        self._there.anew()
                members = self._filled(asked, question, size if only is None else len(only), only)
                versions = {site: self._ready[site] for site in members}
                total = self._summed(asked, question, Among(self._sums.roster.in_order(members), needed), versions)
                return total, self._taken(asked, total.survivors, versions)
            except TooManyDropouts as error:
                lost = error
                if asked.round in self._sums.attempts:
                    self._history.note_lost(asked.round, self._sums.attempts[asked.round])
                self._ready.clear()  # whoever still has an update says so when it is asked again
                self._there.stop(error, last=trial == ATTEMPTS - 1)
        raise lost

    def _filled(self, asked: Asked, question: bytes, size: int, only: Names | None) -> Names:
        """The first sites that have an update, as many as the buffer takes."""
        failed = set[str]()
        while len(ready := [s for s in self._ready if only is None or s in only]) < size:
            idle = [s for s in self._there.known if not (s in self._ready or s in self._out or s in failed)]
            self._post(asked, question, idle)
            heard = list(self._engine.arrived())
            if not heard:
                many = f"{len(ready)} of the {size} sites of a buffer have an update"
                raise TooManyDropouts(f"{many}, and no other site computes one")
            self._answered.clear()
            self._sums.hear([(s, r) for s, r in heard if r], self._computed)
            failed |= {site for site, _ in heard} - self._answered
            for site, _ in heard:
                self._out.pop(site, None)
        return tuple(ready[:size])

    def _post(self, asked: Asked, question: bytes, sites: Iterable[str]) -> None:
        place = Place(self._sums.study, self._sums.run, asked.round, 1)
        for site in sites:
            task = m.Task(question, self._history.since(self._there.known[site])).encode()
            self._out[site] = (asked.analysis.name, asked.round)
            self._engine.post({site: m.request(place, m.Compute(task))})

    def _computed(self, site: str, envelope: bytes) -> None:
        """A site has an update. It has followed the run up to the round in which it was asked."""
        analysis, round = self._out[site]
        place = Place(self._sums.study, self._sums.run, round, 1)
        said = opened(envelope, m.Computed, self._sums.roster, place, site)[1]
        self._there.known[site] = round - 1
        self._answered.add(site)
        if analysis == self._analysis:
            self._ready[site] = said.version

    def _summed(self, asked: Asked, question: bytes, among: Among, versions: Mapping[str, int]) -> Total:
        steps = [one.step.identity for one in asked.sums]
        self._log.write("ask", round=asked.round, analysis=asked.analysis.name, steps=steps, buffer=dict(versions))
        history, known, sums = self._history, self._there.known, self._sums
        return sums.sum(
            asked.round,
            hashlib.sha256(question).digest(),
            ring_for(asked.fields),
            width(asked.fields),
            lambda site: m.Task(question, history.since(known[site])).encode(),
            before_unmask=lambda record: history.note_masked(asked.round, sums.attempts[asked.round], record, versions),
            among=among,
        )

    def _taken(self, asked: Asked, survivors: Names, versions: Mapping[str, int]) -> Filled:
        """The updates that are in: their sites have nothing to do now, and know the run up to the round before. A member whose
        update is not in has it still, and says so when it is asked to compute."""
        for site in versions:
            self._ready.pop(site, None)
            if site in survivors and site in self._there.known:
                self._there.known[site] = asked.round - 1
        return {s: (versions[s], staleness_weight(asked.version - versions[s])) for s in survivors}
