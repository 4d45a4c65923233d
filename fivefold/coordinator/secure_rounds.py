"""The secure sums of one run, one after the other: the last trip of a round prepares the keys of the next.

    open · enrol · share · [ ask · survivors · unmask ] · [ ask · survivors · unmask ] · …

A site that answers late, falsely or not at all is a drop-out of its round. A site that is lost in the first trip has sent no
keys; it is asked for new ones while the others go on, and is back as soon as they are in a key list.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from fivefold.auth.signatures import opened
from fivefold.coordinator.aggregation import Collector, KeyRound, Total, recovered
from fivefold.coordinator.witnessing import UNWITNESSED, Heads
from fivefold.errors import FivefoldError
from fivefold.privacy.secagg.ring import Ring
from fivefold.privacy.secagg.thresholds import Thresholds
from fivefold.protocol import messages as m
from fivefold.protocol.messages import Names, Place, Roster
from fivefold.records.witness import unpacked

Exchange = Callable[[Mapping[str, bytes]], Iterable[tuple[str, bytes]]]
"""Sends each site its request, which it looks up once, and gives (site, reply) as they come, so that none has to be kept;
silent sites are left out."""
Refused = Callable[[str, str, str], None]
"""Told of whatever went wrong at a site: site, code, rule."""
Handler = Callable[[str, bytes], None]
About = Callable[[Iterable[str], bool, bool], None]
"""Told before a trip: the sites that it needs, whether it asks a question, and whether a quorum has to answer."""
USED = frozenset({"attempt_over", "second_key_list"})
"""Rules by which a site says that an attempt was begun before: by a coordinator that crashed since and does not remember."""
TRIES = 8
"""Attempts skipped at most for that reason; the crashed one prepared one round ahead of its journal."""


def _nothing(wanted: Iterable[str], asking: bool, counts: bool) -> None:
    return


@dataclass(frozen=True)
class Among:
    """The members of a buffer, in the study's order, and what its sum withstands."""

    members: Names
    thresholds: Thresholds


class SecureRounds:
    """`exchange` carries one trip. `noticed` is given the notice of a site that withdrew, and says whether the others are to be
    told. `attempts` says for each round the highest attempt that was used before, as far as the
    journal knows. `heads` notes the heads of the sites' logs, and gives the coordinator's."""

    def __init__(
        self,
        roster: Roster,
        thresholds: Thresholds,
        study: str,
        run: str,
        exchange: Exchange,
        *,
        refused: Refused = lambda site, code, rule: None,
        noticed: Callable[[str, bytes], bool] = lambda site, notice: False,
        attempts: Mapping[int, int] | None = None,
        about: About = _nothing,
        heads: Heads = UNWITNESSED,
        threads: int = 1,
    ) -> None:
        self.roster, self.thresholds, self.study, self.run = roster, thresholds, study, run
        self._exchange, self._refused, self._threads = exchange, refused, threads
        self._noticed, self._about, self._heads = noticed, about, heads
        self.attempts = dict(attempts or {})
        self._prepared: KeyRound | None = None
        self._listed = 0
        """The last round with whose opening a key list for the next one was sent: a site takes no second one."""

    def open(
        self, round: int, opening: m.Open, sites: Iterable[str], keep: Callable[[str, bytes], None] | None = None
    ) -> dict[str, int]:
        """Open the run at these sites: site → the last round that it has followed. `keep` is given each signed reply: in it a
        site names its own output checkers."""
        place, known = Place(self.study, self.run, round, 1), dict[str, int]()

        def heard(site: str, envelope: bytes) -> None:
            known[site] = opened(envelope, m.Opened, self.roster, place, site)[1].known
            if keep is not None:
                keep(site, envelope)

        self._trip(dict.fromkeys(sites, m.request(place, opening)), _first(heard), None, counts=False)
        return known

    def sum(
        self,
        round: int,
        question: bytes,
        ring: Ring,
        length: int,
        task: Callable[[str], bytes],
        *,
        before_unmask: Callable[[bytes], None],
        transcript: bool = False,
        more: bool = True,
        among: Among | None = None,
        members: Collection[str] = (),
    ) -> Total:
        """Ask one question, `task(site)` beside it, and open the sum of the answers.

        `question` is its digest. `before_unmask` gets the record for `recover` and returns once it is on disk. `more`: another
        round may follow. `among`: these sites alone, with fresh keys; nothing is prepared for another round. `members`: where
        named, only these are asked; the others keep their place for the next round, as who drops out does. Raises
        `TooManyDropouts`: call again for a new attempt with fresh keys among all sites.
        """
        thresholds = self.thresholds if among is None else among.thresholds
        keys = self._keys_of(round, among)
        ahead = more and among is None and round != self._listed
        following = KeyRound(self.roster, thresholds, keys.place.following(), self._heads.seen) if ahead else None
        collector = Collector(
            keys.instance(question, ring, length),
            keys.list,
            thresholds,
            keys.head,
            transcript=transcript,
            before_unmask=before_unmask,
            following=following,
            threads=self._threads,
        )
        asks = Made(
            tuple(s for s in keys.sharers if not members or s in members), lambda site: collector.ask(keys, site, task(site))
        )
        self._trip(asks, collector.add_masked, following, asking=True)
        survivors = collector.close()
        if self.thresholds.adversary == "active":
            self._trip(dict.fromkeys(survivors, collector.survivors_request()), collector.add_agreed, following)
        # A survivor without keys for the next round advertised them before, to a coordinator that crashed since, and has lost
        # them. It must not fall out of a round for that: all begin the next one with fresh keys.
        if following is not None and not (following.ready and set(survivors) <= set(following.advertised)):
            collector.following = following = None
        self._open(collector)
        self._prepared = following
        return collector.total()

    def recover(self, record: bytes, among: Among | None = None) -> Total:
        """Open the sum of a `before_unmask` record after a crash. Raises `TooManyDropouts` where too few sites still hold
        their shares: `sum` then asks for the round anew, which the sites serve for the same survivors alone."""
        thresholds = self.thresholds if among is None else among.thresholds
        collector = recovered(record, self.roster, thresholds, threads=self._threads)
        self._open(collector)
        return collector.total()

    def close(self, round: int) -> None:
        """Tell every site to forget the run's secrets; the heads of the logs are exchanged once more."""
        place, last = Place(self.study, self.run, round, 1), dict[str, m.Closed]()

        def heard(site: str, envelope: bytes) -> None:
            said = opened(envelope, m.Closed, self.roster, place, site)[1]
            if said.head:
                unpacked(said.head, site, self.roster.key(site))
            last[site] = said

        request = m.request(place, m.Close(self._heads.head()))
        self._trip(dict.fromkeys(self.roster.names, request), _first(heard), None, counts=False)
        self._heads.seen(place, last)

    def hear(self, replies: Iterable[tuple[str, bytes]], handler: Handler) -> None:
        """Replies that came outside of a trip: refusals are told, the others are handled (the first envelope of each)."""
        heard = tuple(replies)
        self._take(heard, dict.fromkeys((site for site, _ in heard), _first(handler)), self._refused)

    def _keys_of(self, round: int, among: Among | None = None) -> KeyRound:
        """The keys that the round before prepared, or fresh ones of all sites (or of these) under a new attempt."""
        names, thresholds = (self.roster.names, self.thresholds) if among is None else (among.members, among.thresholds)
        prepared, self._prepared = self._prepared, None
        if prepared is not None and prepared.place.round == round:
            self.attempts[round] = max(prepared.place.attempt, self.attempts.get(round, 0))
            if among is None and len(prepared.sharers) >= self.thresholds.survivors_needed:
                return prepared
        for _ in range(TRIES):
            attempt = self.attempts[round] = self.attempts.get(round, 0) + 1
            keys = KeyRound(self.roster, thresholds, Place(self.study, self.run, round, attempt), self._heads.seen)
            if not self._shared(keys, names) & USED:
                break
        return keys

    def _shared(self, keys: KeyRound, names: Names) -> set[str]:
        """Enrol these sites and let them share. Returns the rules by which some refused. Raises `TooManyDropouts`."""
        rules = set[str]()

        def refused(site: str, code: str, rule: str) -> None:
            rules.add(rule)
            self._refused(site, code, rule)

        self._trip(dict.fromkeys(names, keys.enrol()), _first(keys.add_advert), None, refused)
        if rules & USED:
            return rules
        self._trip(dict.fromkeys(keys.advertised, keys.share()), _first(keys.add_shares), None, refused)
        return rules

    def _open(self, collector: Collector) -> None:
        """The last trip: the survivors unmask, and sites that came back share for the next round with them."""
        requests = dict.fromkeys(collector.survivors, collector.unmask_request())
        handlers: dict[str, Handler] = dict.fromkeys(requests, collector.add_unmasked)
        following = collector.following
        if following is not None:
            self._listed = following.place.round - 1
        for site in following.advertised if following is not None else ():
            if following is not None and site not in requests:
                requests[site], handlers[site] = following.share(), _first(following.add_shares)
        self._about(collector.survivors, False, True)
        self._heard(requests, handlers, self._refused)

    def _trip(
        self,
        requests: Mapping[str, bytes],
        handler: Handler,
        following: KeyRound | None,
        refused: Refused | None = None,
        *,
        asking: bool = False,
        counts: bool = True,
    ) -> None:
        """One trip. Sites without a request in it that have sent no keys for the next round are asked for them."""
        handlers, back = dict.fromkeys(requests, handler), dict[str, bytes]()
        if following is not None:
            for site in self.roster.names:
                if site not in requests and site not in following.advertised:
                    back[site], handlers[site] = following.enrol(), _first(following.add_advert)
        asked = Made((*requests, *back), lambda site: back[site] if site in back else requests[site])
        self._about(tuple(requests), asking, counts)
        self._heard(asked, handlers, refused or self._refused)

    def _heard(self, requests: Mapping[str, bytes], handlers: Mapping[str, Handler], refused: Refused) -> None:
        self._take(self._exchange(requests), handlers, refused)

    def _take(self, replies: Iterable[tuple[str, bytes]], handlers: Mapping[str, Handler], refused: Refused) -> None:
        notices: list[tuple[str, bytes]] = []
        for site, reply in replies:
            try:
                refusal = self._refusal(site, reply)
                if refusal is not None:
                    refused(site, refusal.code, refusal.rule)
                    if refusal.notice:
                        notices.append((site, refusal.notice))
                elif site in handlers:
                    handlers[site](site, reply)
            except FivefoldError as error:
                refused(site, error.code, error.rule)
        for site, notice in notices:
            if self._noticed(site, notice):
                self._pass_on(site, notice)

    def _pass_on(self, site: str, notice: bytes) -> None:
        """Tell all others at once that a site withdrew, so that none of them opens a sum with it in."""
        place = Place(self.study, self.run, 1, 1)
        request = m.request(place, m.Notice(notice))
        self._about((), False, False)
        for other, reply in self._exchange({name: request for name in self.roster.names if name != site}):
            refusal = self._refusal(other, reply)
            if refusal is not None:
                self._refused(other, refusal.code, refusal.rule)

    def _refusal(self, site: str, reply: bytes) -> m.Refusal | None:
        first = m.envelopes_of(reply)[0]
        envelope = m.Envelope.decode(first)
        if envelope.kind != m.Refusal.kind:
            return None
        _, refusal = opened(first, m.Refusal, self.roster, envelope.place, site)
        return refusal


class Made(Mapping[str, bytes]):
    """Requests that are made when they are looked at, one by one: a large task need not lie there once for each site."""

    def __init__(self, sites: Iterable[str], make: Callable[[str], bytes]) -> None:
        self._sites, self._make = tuple(sites), make

    def __getitem__(self, site: str) -> bytes:
        if site not in self._sites:
            raise KeyError(site)
        return self._make(site)

    def __iter__(self) -> Iterator[str]:
        return iter(self._sites)

    def __len__(self) -> int:
        return len(self._sites)


def _first(add: Handler) -> Handler:
    """A handler for a reply of one envelope."""
    return lambda site, reply: add(site, m.envelopes_of(reply)[0])
