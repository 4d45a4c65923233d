"""Participants of the secure sum in memory, each behind the same order of steps as `Node.answer`, and an engine around them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from fivefold.auth import keys
from fivefold.auth.messages import signed
from fivefold.coordinator.collector import Ground, Opened, secure_sum
from fivefold.errors import FivefoldError, ProtocolViolation
from fivefold.privacy.secagg.ring import Ring, add_into, zeros
from fivefold.protocol.envelope import Message, content_of, wrapped
from fivefold.protocol.questions import Array
from fivefold.site.participant import Participant, Terms

STUDY, RUN = "ab" * 32, "run1"
QUESTION = bytes(range(32))
TRIPS = ("keys", "share", "ask", "survivors", "unmask")


@cache
def private_keys(n: int) -> dict[str, bytes]:
    return {f"site{i:02d}": keys.new_key() for i in range(n)}


@cache
def public_keys(n: int) -> dict[str, bytes]:
    return {name: keys.public_of(key) for name, key in private_keys(n).items()}


def terms(n: int, me: str, needed: int, *, active: bool = True, **changes: Any) -> Terms:
    roster = tuple(public_keys(n))
    given: dict[str, Any] = {
        "roster": roster,
        "public_keys": public_keys(n),
        "threshold": needed,
        "needed": needed,
        "recognised": frozenset(roster),
        "active": active,
        "totals": False,
        "class_rule": lambda survivors, permitted: None,
    }
    return Terms(me=me, study=STUDY, run=RUN, **given | changes)


def random_vector(rng: np.random.Generator, ring: Ring, width: int) -> Array:
    return rng.integers(0, np.iinfo(ring.limb).max, ring.shape(width), dtype=ring.limb, endpoint=True)


def request(kind: str, body: Mapping[str, Any], round: int = 1, attempt: int = 1) -> bytes:
    return wrapped(Message(kind, STUDY, RUN, round, attempt, "coordinator", body).content())


class Site:
    """One participant on disk. `vector(round)` is what it answers; a restart leaves it only its store."""

    def __init__(self, terms: Terms, private: bytes, store: Path, ring: Ring, vector: Callable[[int], Array]) -> None:
        self.terms, self.private, self.store, self.ring, self.vector = terms, private, store, ring, vector
        self.restart()

    def restart(self) -> None:
        self.participant = Participant(self.terms, self.store)

    def answer(self, data: bytes) -> bytes:
        """`Node.answer` without study, policy and gate. Raises what the participant raises."""
        asked, _, _ = content_of(data)
        kept = self.participant.stored(data)
        if kept is not None:
            return kept
        place, body = (asked.round, asked.attempt), asked.body
        given: dict[str, Any]
        if asked.kind == "keys":
            given = self.participant.keys(*place)
        elif asked.kind == "share":
            given = self.participant.share(*place, body["keys"])
        elif asked.kind == "ask":
            own = self.vector(asked.round).copy()
            given = self.participant.mask(*place, own, self.ring, body["question"], body["parcels"])
        elif asked.kind == "survivors":
            given = self.participant.agree(*place, body["survivors"])
        elif asked.kind == "unmask":
            given = self.participant.unmask(*place, body["survivors"], body["agreements"])
        else:
            raise ProtocolViolation("no such trip")
        message = Message(asked.kind, STUDY, RUN, asked.round, asked.attempt, self.terms.me, given)
        reply = signed(message, self.private)
        if asked.kind == "keys":
            self.participant.advertised(reply)
        self.participant.store(data, reply, released=message if asked.kind == "unmask" else None)
        return reply


@dataclass
class Consortium:
    """The engine. `silent[kind]` are the sites that drop out in that trip, for good."""

    sites: dict[str, Site]
    silent: Mapping[str, frozenset[str]] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)
    wire: list[tuple[str, bytes, bytes]] = field(default_factory=list)
    refusals: list[tuple[str, str, str]] = field(default_factory=list)
    alter: Callable[[str, Message, bytes], bytes] = lambda name, asked, reply: reply

    def exchange(self, requests: Mapping[str, bytes]) -> dict[str, bytes]:
        replies = {}
        for name, data in requests.items():
            asked, _, _ = content_of(data)
            self.gone |= self.silent.get(asked.kind, frozenset())
            if name in self.gone:
                continue
            try:
                reply = self.sites[name].answer(data)
            except FivefoldError as error:
                refusal = Message("refusal", STUDY, RUN, asked.round, asked.attempt, name, error.public())
                reply = signed(refusal, self.sites[name].private)
            self.wire.append((name, data, reply))
            replies[name] = self.alter(name, asked, reply)
        return replies

    def sum(self, needed: int, width: int, ring: Ring, *, active: bool = True, round: int = 1, attempt: int = 1) -> Opened:
        roster = public_keys(len(self.sites))
        ground = Ground(STUDY, RUN, roster, needed, needed, active)
        ask = {name: {"question": QUESTION} for name in roster}
        heard = lambda *refusal: self.refusals.append(refusal)  # noqa: E731
        return secure_sum(self, ground, round, attempt, ask, width, ring, heard, lambda total, survivors: None)

    def plain(self, survivors: tuple[str, ...], width: int, ring: Ring, round: int = 1) -> Array:
        total = zeros(width, ring)
        for name in survivors:
            add_into(total, self.sites[name].vector(round), ring)
        return total


def consortium(
    folder: Path, n: int, needed: int, ring: Ring, *, active: bool = True, width: int = 5, **changes: Any
) -> Consortium:
    rng = np.random.default_rng(n)
    sites = {}
    for name, private in private_keys(n).items():
        own = random_vector(rng, ring, width)
        term = terms(n, name, needed, active=active, **changes)
        sites[name] = Site(term, private, folder / name / "sums.journal", ring, lambda round, own=own: own)  # type: ignore[misc]
    return Consortium(sites)
