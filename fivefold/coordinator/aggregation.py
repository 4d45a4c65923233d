"""The coordinator's part in a secure sum: keys are passed on, masked updates added up as they arrive, the total is opened.

    KeyRound   adverts → key list → sealed shares             of one round and attempt
    Collector  masked updates → survivors → shares → total    of the same

Memory is one accumulator, however many sites there are: an update is added and let go, unless the round's transcript is wanted.
Nobody here holds a secret. What a site sends is verified before it counts; what fails raises, and the site is a drop-out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from fivefold.auth.signatures import opened
from fivefold.errors import MessageMalformed, ProtocolViolation, TooManyDropouts
from fivefold.privacy.secagg.instance import RINGS, Instance
from fivefold.privacy.secagg.ring import Ring, add_into, from_bytes, to_bytes, zeros
from fivefold.privacy.secagg.thresholds import Thresholds
from fivefold.protocol import messages as m
from fivefold.protocol.encoding import decode, encode
from fivefold.protocol.messages import Advert, Blobs, Names, Place, Roster
from fivefold.protocol.questions import Array
from fivefold.records.witness import unpacked

Witness = Callable[[Place, Mapping[str, Advert]], bytes]
"""Notes the heads of the sites' logs that stand in a key list, and gives the coordinator's own, which is told beside it."""


def _unwitnessed(place: Place, adverts: Mapping[str, Advert]) -> bytes:
    return b""


class KeyRound:
    """The keys of one round and attempt: first the adverts, then, under the list of those, the sealed shares."""

    def __init__(self, roster: Roster, thresholds: Thresholds, place: Place, witness: Witness = _unwitnessed) -> None:
        self.roster, self.thresholds, self.place, self._witness = roster, thresholds, place, witness
        self._adverts: dict[str, bytes] = {}
        self._read: dict[str, Advert] = {}
        self._sealed: dict[str, m.Parcels] = {}
        self.list: Blobs = ()
        """The key list, once `fix` has closed it."""
        self.head = b""
        """Of the coordinator's log, as it is told beside the list."""
        self._asked = False

    def enrol(self) -> bytes:
        """The request with which a run, a new attempt or a returning site begins."""
        return m.request(self.place, m.Enrol(self.roster.digest))

    def add_advert(self, site: str, envelope: bytes) -> None:
        """A site's signed advert. The first one counts. Raises where it is not this site's, or comes after `fix`."""
        _, advert = opened(envelope, Advert, self.roster, self.place, site)
        if advert.head:
            unpacked(advert.head, site, self.roster.key(site))
        if self.list:
            raise ProtocolViolation(f"the keys of {site} came after the key list was closed", rule="late")
        self._adverts.setdefault(site, envelope)
        self._read.setdefault(site, advert)

    @property
    def advertised(self) -> Names:
        return self.roster.in_order(self._adverts)

    @property
    def ready(self) -> bool:
        """Whether enough sites have advertised keys for this round to go on."""
        return len(self._adverts) >= self.thresholds.survivors_needed

    def fix(self) -> Blobs:
        """Close the key list. Raises `TooManyDropouts` where too few sites advertised keys."""
        if not self.list:
            _enough(self.advertised, self.thresholds, "sent keys")
            self.head = self._witness(self.place, {name: self._read[name] for name in self.advertised})
            self.list = tuple(self._adverts[name] for name in self.advertised)
        return self.list

    def share(self) -> bytes:
        """The request for shares under the closed list; for the sites in `advertised`."""
        return m.request(self.place, m.Share(self.fix(), self.head))

    @property
    def digest(self) -> bytes:
        return m.key_list_digest(self.list, self.head)

    def add_shares(self, site: str, envelope: bytes) -> None:
        """A site's sealed shares, one for every other site of the list."""
        _, shares = opened(envelope, m.Shares, self.roster, self.place, site)
        if shares.keys != self.digest or shares.sealed.keys() != set(self.advertised) - {site}:
            raise ProtocolViolation(f"the shares of {site} belong to another key list", rule="key_list")
        if self._asked:
            raise ProtocolViolation(f"the shares of {site} came after the question was asked", rule="late")
        self._sealed.setdefault(site, shares.sealed)

    @property
    def sharers(self) -> Names:
        """The sites whose secrets are shared: those that are asked."""
        return self.roster.in_order(self._sealed)

    def sealed_for(self, site: str) -> dict[str, bytes]:
        return {peer: self._sealed[peer][site] for peer in self.sharers if peer != site}

    def instance(self, question: bytes, ring: Ring, length: int) -> Instance:
        """What is asked of the sharers, who are no more from now on. Raises `TooManyDropouts` where they are too few."""
        _enough(self.sharers, self.thresholds, "shared their secrets")
        self._asked = True
        return Instance(self.place, self.roster, dict(self._read), self.digest, self.sharers, question, ring, length)


@dataclass(frozen=True)
class Total:
    """A round, opened: the sum over the survivors as ring elements, and its transcript where it was wanted."""

    vector: Array
    survivors: Names
    dropped: Names
    """Sites of the study that are not in the sum."""
    transcript: m.Transcript | None


class Collector:
    """One question, from the masked updates to the total.

    `transcript`: keep the masked updates, so that every site can add them up itself. `before_unmask` gets the record from which
    `recovered` goes on after a crash; it returns once the record is on disk (fsync), and only then is a share asked for.
    """

    def __init__(
        self,
        instance: Instance,
        key_list: Blobs,
        thresholds: Thresholds,
        head: bytes = b"",
        *,
        transcript: bool,
        before_unmask: Callable[[bytes], None],
        following: KeyRound | None = None,
        threads: int = 1,
    ) -> None:
        self.instance, self.key_list, self.thresholds, self.following = instance, key_list, thresholds, following
        self._head = head
        self._keep, self._before_unmask, self._threads = transcript, before_unmask, threads
        self._sum = zeros(instance.length, instance.ring)
        self._arrived: set[str] = set()
        self._masked: dict[str, bytes] = {}
        self.survivors: Names = ()
        """Fixed by `close`."""
        self._signatures: dict[str, bytes] = {}
        self._request = b""
        self._unmasked: dict[str, tuple[bytes, m.Unmasked]] = {}
        self.liars: Names = ()
        """A site whose shares were false, and were done without."""

    # ---- first trip ---------------------------------------------------------------------------------------------
    def ask(self, keys: KeyRound, site: str, task: bytes) -> bytes:
        """The request to one of the sharers."""
        return m.request(self.instance.place, m.Ask(task, keys.sealed_for(site)))

    def add_masked(self, site: str, reply: bytes) -> None:
        """Add a site's masked update to the sum; a repeated one counts once. Its keys for the next round are noted."""
        first, *rest = m.envelopes_of(reply)
        _, masked = opened(first, m.Masked, self.instance.roster, self.instance.place, site)
        instance = self.instance
        told = (masked.keys, masked.sharers, masked.question, masked.bits, masked.length)
        if told != (instance.key_list, instance.sharers, instance.question, instance.ring.bits, instance.length):
            raise ProtocolViolation(f"the update of {site} answers another question or key list", rule="other_question")
        if self.survivors or site not in instance.sharers:
            raise ProtocolViolation(f"the update of {site} came too late or was not asked", rule="late")
        if site in self._arrived:
            return
        vector = from_bytes(masked.vector, instance.length, instance.ring)
        if self.following is not None:
            for envelope in rest:
                self.following.add_advert(site, envelope)
        add_into(self._sum, vector, instance.ring)
        self._arrived.add(site)
        if self._keep:
            self._masked[site] = first

    def close(self) -> Names:
        """Whoever has not answered by now has dropped out. Raises `TooManyDropouts`: nothing is opened, and the round may be
        asked again under a new attempt."""
        if not self.survivors:
            arrived = self.instance.roster.in_order(self._arrived)
            _enough(arrived, self.thresholds, "answered")
            self.survivors = arrived
        return self.survivors

    # ---- second trip, against an active coordinator alone ---------------------------------------------------------
    def survivors_request(self) -> bytes:
        return m.request(self.instance.place, m.Survivors(self.close()))

    def add_agreed(self, site: str, reply: bytes) -> None:
        """A survivor's signature under the survivor list."""
        (envelope,) = m.envelopes_of(reply)[:1]
        _, agreed = opened(envelope, m.Agreed, self.instance.roster, self.instance.place, site)
        if agreed != self.instance.agreed(self.survivors) or site not in self.survivors:
            raise ProtocolViolation(f"site {site} agreed to another survivor list", rule="other_survivors")
        self._signatures[site] = m.Envelope.decode(envelope).signature

    # ---- last trip ----------------------------------------------------------------------------------------------
    def unmask_request(self) -> bytes:
        """The request for shares, to every survivor. Masked sum and survivors are on disk before it exists."""
        if not self._request:
            if self.thresholds.adversary == "active":
                _enough(tuple(self._signatures), self.thresholds, "agreed to the survivor list")
            adverts = self.following.fix() if self.following is not None else ()
            head = self.following.head if self.following is not None else b""
            request = m.request(self.instance.place, m.Unmask(self.close(), self._signatures, adverts, head))
            self._before_unmask(self._record(request))
            self._request = request
        return self._request

    def add_unmasked(self, site: str, reply: bytes) -> None:
        """A survivor's shares, and those that it sealed for the next round."""
        first, *rest = m.envelopes_of(reply)
        instance = self.instance
        _, unmasked = opened(first, m.Unmasked, instance.roster, instance.place, site)
        told = (unmasked.keys, unmasked.question, unmasked.survivors)
        if told != (instance.key_list, instance.question, self.survivors) or site not in self.survivors:
            raise ProtocolViolation(f"the shares of {site} are for other survivors", rule="other_survivors")
        gone = set(instance.sharers) - set(self.survivors)
        if unmasked.seed_shares.keys() != set(self.survivors) or unmasked.key_shares.keys() != gone:
            raise MessageMalformed(f"site {site} sent shares of other sites than it was asked for")
        if self.following is not None and self.following.list:
            for envelope in rest:
                self.following.add_shares(site, envelope)
        self._unmasked.setdefault(site, (first, unmasked))

    @property
    def enough(self) -> bool:
        """Whether the shares that are here open the total."""
        return len(self._unmasked) >= self.thresholds.t

    def total(self) -> Total:
        """Open the sum, once.

        Raises `TooManyDropouts` for too few shares; `ProtocolViolation` where shares are false and leaving out one site
        does not help.
        """
        helpers = self._open(self.instance.roster.in_order(self._unmasked))
        self._sum.setflags(write=False)
        dropped = tuple(n for n in self.instance.roster.names if n not in self.survivors)
        if not self._keep:
            return Total(self._sum, self.survivors, dropped, None)
        masked, words = (self._masked[s] for s in self.survivors), (self._unmasked[h][0] for h in helpers)
        transcript = m.Transcript(self.key_list, tuple(masked), tuple(words), self._head)
        return Total(self._sum, self.survivors, dropped, transcript)

    def _open(self, helpers: Names) -> Names:
        """Take the masks out with these sites' shares; where one of them lies, with the others'. Whose shares served."""
        try:
            self._unmask(helpers)
            return helpers
        except ProtocolViolation as error:
            for liar in helpers if len(helpers) > self.thresholds.t else ():
                others = tuple(h for h in helpers if h != liar)
                with suppress(ProtocolViolation):
                    self._unmask(others)
                    self.liars = (liar,)
                    return others
            raise error

    def _unmask(self, helpers: Names) -> None:
        if len(helpers) < self.thresholds.t:
            raise TooManyDropouts(
                f"{len(helpers)} of {self.thresholds.n} sites helped to open round {self.instance.place.round}, "
                f"and {self.thresholds.t} are needed"
            )
        seeds = {h: self._unmasked[h][1].seed_shares for h in helpers}
        mask_keys = {h: self._unmasked[h][1].key_shares for h in helpers}
        self.instance.unmask(self._sum, self.survivors, seeds, mask_keys, self.thresholds.t, self._threads)

    # ---- after a crash ------------------------------------------------------------------------------------------
    def _record(self, request: bytes) -> bytes:
        place, instance = self.instance.place, self.instance
        return encode(
            {
                "place": (place.study, place.run, place.round, place.attempt),
                "adverts": self.key_list,
                "head": self._head,
                "sharers": instance.sharers,
                "question": instance.question,
                "bits": instance.ring.bits,
                "length": instance.length,
                "sum": to_bytes(self._sum, instance.ring),
                "survivors": self.survivors,
                "masked": self._masked,
                "request": request,
            }
        )


def recovered(
    record: bytes, roster: Roster, thresholds: Thresholds, *, following: KeyRound | None = None, threads: int = 1
) -> Collector:
    """The collector as it was when it handed out `record`: its request to unmask is the same bytes, and so are the replies."""
    kept = decode(record)
    place, ring = Place(*kept["place"]), RINGS[kept["bits"]]
    adverts = dict(opened(data, Advert, roster, place) for data in kept["adverts"])
    key_list = m.key_list_digest(kept["adverts"], kept["head"])
    instance = Instance(place, roster, adverts, key_list, kept["sharers"], kept["question"], ring, kept["length"])
    collector = Collector(
        instance,
        kept["adverts"],
        thresholds,
        kept["head"],
        transcript=bool(kept["masked"]),
        before_unmask=lambda _: None,
        following=following,
        threads=threads,
    )
    collector._sum = from_bytes(kept["sum"], instance.length, ring).copy()
    collector._masked, collector.survivors, collector._request = dict(kept["masked"]), kept["survivors"], kept["request"]
    return collector


def _enough(names: Names, thresholds: Thresholds, what: str) -> None:
    if len(names) < thresholds.survivors_needed:
        raise TooManyDropouts(f"{len(names)} of {thresholds.n} sites {what}, and {thresholds.survivors_needed} are needed")
