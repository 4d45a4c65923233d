"""A consortium in memory, for the tests of the secure sum: sites that may be silenced, an honest coordinator."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fivefold.auth import keys
from fivefold.coordinator.aggregation import Collector, KeyRound, Total
from fivefold.coordinator.secure_rounds import SecureRounds
from fivefold.errors import FivefoldError
from fivefold.privacy.secagg.ring import RING128, Ring
from fivefold.privacy.secagg.thresholds import Thresholds
from fivefold.protocol import messages as m
from fivefold.protocol.messages import Envelope, Place, Roster
from fivefold.site.round_book import RoundBook
from fivefold.site.secure_sum import Judge, Participant
from fivefold.site.standing import Standing

STUDY, RUN = "ab" * 32, "run-1"
QUESTION = bytes(range(32))


def nothing(_: Any) -> None:
    return


class Bench:
    """`sites` are the participants by name, `vectors` what each answers, `wire` all requests and replies in order."""

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
        self.vectors = {name: _random(rng, ring, length) for name in self.names}
        self.known = frozenset(keys.fingerprint(k) for k in self.roster.keys)
        self.release, self.consider = release, consider
        self.standings = {name: self.standing(name) for name in self.names}
        self.wire: list[tuple[str, bytes, bytes]] = []
        self.silent: Callable[[str, Envelope], bool] = lambda site, request: False
        self.refusals: list[tuple[str, str, str]] = []
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
        """What the node does with a request, without its rows; a refusal raises."""
        request, site = Envelope.decode(data), self.sites[name]
        trips: dict[str, Callable[[], bytes]] = {
            "enrol": lambda: site.advertise(request),
            "share": lambda: site.share(request),
            "ask": lambda: site.mask(request, self.vectors[name], self.ring, question),
            "survivors": lambda: site.agree(request),
            "unmask": lambda: site.unmask(request),
            "close": lambda: site.close(request),
        }
        reply = trips[request.kind]()
        self.wire.append((name, data, reply))
        return reply

    def reply(self, name: str, data: bytes) -> bytes:
        """`answer`, with a refusal as the signed reply that a coordinator sees."""
        try:
            return self.answer(name, data)
        except FivefoldError as error:
            return self.sites[name].refuse(Envelope.decode(data), error)

    def total(self, names: Iterable[str]) -> list[int]:
        """The plain sum over these sites, as integers of the ring."""
        return [sum(v) % (1 << self.ring.bits) for v in zip(*(integers(self.vectors[n]) for n in names), strict=True)]

    # ---- a coordinator as it is, over a way on which `silent` loses replies -------------------------------------
    def rounds(self, **more: Any) -> SecureRounds:
        def exchange(requests: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
            for name in requests:
                data = requests[name]
                if not self.silent(name, Envelope.decode(data)):
                    yield name, self.reply(name, data)

        def refused(site: str, code: str, rule: str) -> None:
            self.refusals.append((site, code, rule))

        return SecureRounds(self.roster, self.thresholds, STUDY, RUN, exchange, refused=refused, **more)

    def ask(self, rounds: SecureRounds, round: int, before: Callable[[bytes], None] = nothing, **more: Any) -> Total:
        return rounds.sum(round, QUESTION, self.ring, self.length, lambda site: b"task", before_unmask=before, **more)

    # ---- single steps, for attacks ------------------------------------------------------------------------------
    def open_keys(self, round: int = 1, attempt: int = 1, silent: Iterable[str] = ()) -> KeyRound:
        """Enrol and share, without the `silent` sites."""
        key_round = KeyRound(self.roster, self.thresholds, self.place(round, attempt))
        for name in self.names:
            if name not in silent:
                key_round.add_advert(name, m.envelopes_of(self.answer(name, key_round.enrol()))[0])
        for name in key_round.advertised:
            key_round.add_shares(name, m.envelopes_of(self.answer(name, key_round.share()))[0])
        return key_round

    def collector(self, key_round: KeyRound, before: Callable[[bytes], None] = nothing, **more: Any) -> Collector:
        instance = key_round.instance(QUESTION, self.ring, self.length)
        return Collector(instance, key_round.list, self.thresholds, before_unmask=before, **({"transcript": False} | more))

    def masked(self, key_round: KeyRound, silent: Iterable[str] = (), **more: Any) -> Collector:
        """The first trip; the `silent` sites are asked, and their replies are lost."""
        collector = self.collector(key_round, **more)
        for name in key_round.sharers:
            reply = self.answer(name, collector.ask(key_round, name, b"task"))
            if name not in silent:
                collector.add_masked(name, reply)
        collector.close()
        return collector

    def agreed(self, collector: Collector) -> Collector:
        """The second trip."""
        for name in collector.close():
            collector.add_agreed(name, self.answer(name, collector.survivors_request()))
        return collector


def integers(vector: Any) -> list[int]:
    """Ring elements as Python integers."""
    if vector.ndim == 1:
        return [int(v) for v in vector]
    return [int(low) + (int(high) << 64) for low, high in vector]


def _random(rng: np.random.Generator, ring: Ring, length: int) -> Any:
    raw = rng.bytes(length * ring.element_bytes)
    return np.frombuffer(raw, ring.limb).reshape(ring.shape(length)).copy()
