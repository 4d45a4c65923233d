"""A consortium in memory, for the tests of the secure sum: sites that may be silenced, and a coordinator that follows the protocol."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fivefold.auth import keys
from fivefold.coordinator.aggregation import Collector, KeyRound, Total
from fivefold.privacy.secagg.ring import RING32, RING128, Ring
from fivefold.privacy.secagg.thresholds import Thresholds
from fivefold.protocol import messages as m
from fivefold.protocol.messages import Envelope, Place, Roster
from fivefold.site.round_book import RoundBook
from fivefold.site.secure_sum import Judge, Participant, Standing

STUDY, RUN = "ab" * 32, "run-1"
QUESTION = bytes(range(32))


def nothing(_: Any) -> None:
    return


class Bench:
    """`sites` are the participants by name; `vectors` what each would answer."""

    def __init__(
        self,
        folder: Path,
        n: int,
        *,
        adversary: Literal["active", "curious"] = "active",
        ring: Ring = RING128,
        length: int = 5,
        seed: int = 0,
        release: Judge = nothing,
        consider: Judge = nothing,
        **thresholds: Any,
    ) -> None:
        self.folder, self.ring, self.length = folder, ring, length
        self.thresholds = Thresholds(n, adversary=adversary, **thresholds)
        self.names = tuple(f"site{i}" for i in range(n))
        self.private = {name: keys.new_key() for name in self.names}
        self.roster = Roster(self.names, tuple(keys.public_of(self.private[name]) for name in self.names))
        rng = np.random.default_rng(seed)
        self.vectors = {
            name: rng.integers(0, 1 << 32, ring.shape(length), dtype=np.uint64).astype(ring.limb)
            << (0 if ring is RING32 else 31)
            for name in self.names
        }
        self.known = frozenset(keys.fingerprint(k) for k in self.roster.keys)
        self.release, self.consider = release, consider
        self.standings = {name: self.standing(name) for name in self.names}
        self.sites: dict[str, Participant] = {}
        for name in self.names:
            self.start(name)

    def standing(self, name: str, **changes: Any) -> Standing:
        given: dict[str, Any] = {"recognised": self.known} | changes
        return Standing(STUDY, self.roster, name, self.private[name], self.thresholds, **given)

    def start(self, name: str) -> None:
        """Start or restart a node: what is on disk is all that it knows."""
        if name in self.sites:
            self.sites[name].book.close()
        book = RoundBook(self.folder / name, RUN)
        self.sites[name] = Participant(self.standings[name], RUN, book, release=self.release, consider=self.consider)

    def stop(self) -> None:
        for site in self.sites.values():
            site.book.close()

    def place(self, round: int = 1, attempt: int = 1) -> Place:
        return Place(STUDY, RUN, round, attempt)

    def answer(self, name: str, data: bytes, question: bytes = QUESTION) -> bytes:
        """What the node does with a request, without its rows."""
        request, site = Envelope.decode(data), self.sites[name]
        message = request.message()
        if isinstance(message, m.Enrol):
            return site.advertise(request)
        if isinstance(message, m.Share):
            return site.share(request)
        if isinstance(message, m.Ask):
            return site.mask(request, self.vectors[name], self.ring, question)
        if isinstance(message, m.Survivors):
            return site.agree(request)
        if isinstance(message, m.Unmask):
            return site.unmask(request)
        return site.close(request)

    def total(self, names: Iterable[str]) -> list[int]:
        """The plain sum over these sites, as integers of the ring."""
        return [sum(v) % (1 << self.ring.bits) for v in zip(*(integers(self.vectors[n]) for n in names), strict=True)]

    # ---- a coordinator that follows the protocol ----------------------------------------------------------------
    def open_keys(self, round: int = 1, attempt: int = 1, silent: Iterable[str] = (), late: Iterable[str] = ()) -> KeyRound:
        """Enrol and share; `silent` sites never answer, `late` ones answer the first of the two only."""
        keys_ = KeyRound(self.roster, self.thresholds, self.place(round, attempt))
        for name in self.names:
            if name not in silent:
                keys_.add_advert(name, m.envelopes_of(self.answer(name, keys_.enrol()))[0])
        share = keys_.share()
        for name in keys_.advertised:
            if name not in late:
                keys_.add_shares(name, m.envelopes_of(self.answer(name, share))[0])
        return keys_

    def collector(
        self, keys_: KeyRound, *, transcript: bool = False, more: bool = False, before: Callable[[bytes], None] = nothing
    ) -> Collector:
        following = KeyRound(self.roster, self.thresholds, keys_.place.following()) if more else None
        instance = keys_.instance(QUESTION, self.ring, self.length)
        return Collector(
            instance, keys_.list, self.thresholds, transcript=transcript, before_unmask=before, following=following
        )

    def round(
        self,
        keys_: KeyRound,
        *,
        ask: Iterable[str] = (),
        agree: Iterable[str] = (),
        unmask: Iterable[str] = (),
        transcript: bool = False,
        more: bool = False,
        before: Callable[[bytes], None] = nothing,
    ) -> tuple[Total, KeyRound | None]:
        """A whole round; the sites named for a trip are lost in it and after it."""
        gone = set(ask)
        collector = self.collector(keys_, transcript=transcript, more=more, before=before)
        for name in keys_.sharers:
            if name not in gone:
                collector.add_masked(name, self.answer(name, collector.ask(keys_, name, b"task")))
        survivors = collector.close()
        gone |= set(agree)
        if self.thresholds.adversary == "active":
            for name in survivors:
                if name not in gone:
                    collector.add_agreed(name, self.answer(name, collector.survivors_request()))
        gone |= set(unmask)
        for name in survivors:
            if name not in gone:
                collector.add_unmasked(name, self.answer(name, collector.unmask_request()))
        return collector.total(), collector.following


def integers(vector: Any) -> list[int]:
    """Ring elements as Python integers."""
    if vector.ndim == 1:
        return [int(v) for v in vector]
    return [int(low) + (int(high) << 64) for low, high in vector]
