"""The secure sum among the clients of a roster, every party of it in this process: real keys, real masks, real messages.

It costs what the protocol costs all its parties together. Each place of the roster keeps its keys for the whole simulation,
whoever stands there: a client that is drawn once has nothing to protect from itself.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from fivefold.auth.keys import fingerprint, new_key, public_of
from fivefold.coordinator.secure_rounds import SecureRounds
from fivefold.engines.simulated_answers import Kept, Request, Totals, total_of
from fivefold.engines.simulated_clients import Clients, Ids
from fivefold.errors import SimulationInvalid
from fivefold.privacy.fixed_point import pack, ring_for, unpack, width
from fivefold.privacy.secagg.graph import COMPLETE
from fivefold.privacy.secagg.ring import Ring
from fivefold.protocol.messages import Envelope, Roster
from fivefold.protocol.questions import Array
from fivefold.replay.cursor import Asked
from fivefold.site.round_book import RoundBook
from fivefold.site.secure_sum import Participant
from fivefold.site.standing import Standing
from fivefold.study.consistency import thresholds
from fivefold.study.definition import Study

STUDY, RUN = hashlib.sha256(b"a simulation").hexdigest(), "simulation"


class SecureRoster:
    """Gives the sum over a roster by way of the secure sum. `sent` counts the bytes of all messages, both ways."""

    def __init__(self, study: Study, clients: Clients) -> None:
        names = tuple(s.name for s in study.sites)
        if len(names) > COMPLETE:
            raise SimulationInvalid(
                f"the secure sum is among {COMPLETE} parties at most, and the roster has {len(names):,}",
                help=f"Write --roster {COMPLETE} or less, or leave --secure out.",
            )
        if study.privacy.differential_privacy is not None:
            raise SimulationInvalid(
                "noise and the secure sum are not simulated together", help="Leave --secure out; noise is added to plain sums."
            )
        self.clients, self.sent, self._kept = clients, 0, Kept()
        private = {name: new_key() for name in names}
        roster = Roster(names, tuple(public_of(private[name]) for name in names))
        self._folder = tempfile.TemporaryDirectory(prefix="fivefold-simulation-")
        promise, known = thresholds(study), frozenset(map(fingerprint, roster.keys))
        self._places = {
            name: Participant(
                Standing(STUDY, roster, name, private[name], promise, known),
                RUN,
                RoundBook(Path(self._folder.name) / name, RUN),
            )
            for name in names
        }
        self._sums = SecureRounds(roster, promise, STUDY, RUN, self._exchange, refused=_raise)
        self._answer: dict[str, Array] = {}
        self._now: tuple[Request, Ids, Asked, Ring, bytes]

    def total(self, asked: Asked, request: Request, ids: Ids) -> Totals:
        """Raises what the secure sum raises, among it `OutOfBounds` of a client whose answer breaks its bound."""
        ring, question = ring_for(asked.fields), hashlib.sha256(repr(asked.round).encode()).digest()
        self._now = (request, ids, asked, ring, question)
        total = self._sums.sum(asked.round, question, ring, width(asked.fields), lambda _: b"", before_unmask=lambda _: None)
        return dict(unpack(total.vector, asked.fields, len(self._places), len(total.survivors)))

    def close(self) -> None:
        for place in self._places.values():
            place.erase()
            place.book.close()
        self._folder.cleanup()

    def _exchange(self, requests: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
        for name in requests:
            data = requests[name]
            reply = self._reply(name, Envelope.decode(data))
            self.sent += len(data) + len(reply)
            yield name, reply

    def _reply(self, name: str, request: Envelope) -> bytes:
        place = self._places[name]
        if request.kind == "enrol":
            return place.advertise(request)
        if request.kind == "share":
            return place.share(request)
        if request.kind == "ask":
            return place.mask(request, self._vector(name), self._now[3], self._now[4])
        return place.agree(request) if request.kind == "survivors" else place.unmask(request)

    def _vector(self, name: str) -> Array:
        """A client's answer as ring elements."""
        request, ids, asked, _, _ = self._now
        at = list(self._places).index(name)
        answer = total_of(request, self.clients, ids[at : at + 1], self._kept, at)
        shaped = {f.name: answer[f.name].reshape(f.shape) for f in asked.fields}
        return pack(shaped, tuple(replace(f, noise=None) for f in asked.fields), len(self._places))


def _raise(site: str, code: str, rule: str) -> None:
    raise SimulationInvalid(f"{site} refused the secure sum: {code}, rule {rule}")
