"""A site's part in the secure sums of one run: what it says, what it holds, and what it refuses.

    advertise → share → mask → agree → unmask        and so on, each round

(Bonawitz et al., CCS 2017, figure 4, with the last trip of a round doing the first of the next.) Every refusal names its rule.
Nothing is trusted that the coordinator says; what it passes on from other sites is signed by them. Round secrets live in memory
and are forgotten as soon as the shares that depend on them have been computed; a site that restarts has none, and says so.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from fivefold.auth.signatures import check, opened, signed
from fivefold.errors import FivefoldError, TooFewSites
from fivefold.privacy.secagg import keys, sealing, shamir
from fivefold.privacy.secagg.instance import Instance, commitment, point, seal_context
from fivefold.privacy.secagg.ring import Ring, require, to_bytes
from fivefold.protocol import messages as m
from fivefold.protocol.messages import Advert, Envelope, Names, Place
from fivefold.protocol.questions import Array
from fivefold.site.round_book import RoundBook
from fivefold.site.round_secrets import Round, Secrets, violation
from fivefold.site.standing import Standing

Asked = TypeVar("Asked", bound=m.Message)
REPEATS = 4
"""Requests to unmask one round that differ in the next round's key list alone; each gets the same shares for this round."""


@dataclass(frozen=True)
class Sum:
    """A total that is about to be opened. `permitted` are the sites known in this run to permit their own totals."""

    place: Place
    question: bytes
    survivors: Names
    permitted: frozenset[str]


Judge = Callable[[Sum], None]
"""Raises where this total may not be opened; what it writes is durable when it returns."""


def _nothing(_: Sum) -> None:
    return


Witness = Callable[[Place, Mapping[str, Advert], bytes], None]
"""Is shown a key list that is right, and the head of the coordinator's log. Raises where heads contradict what was seen."""


def _unwitnessed(place: Place, adverts: Mapping[str, Advert], head: bytes) -> None:
    return


class Participant:
    """One site in one run. Each method takes a request of the coordinator and gives the reply's bytes.

    `consider` is asked before a survivor list is signed, `release` before the first unmask share for it leaves: the gate, the
    class rule and the audit log stand there. `witness` is shown each key list and the coordinator's head; `head` gives the
    site's. Every method raises `ProtocolViolation`, `SignatureWrong`, `TooFewSites`, `SealBroken` or `MessageMalformed` with
    its rule, or `StorageFull`; then nothing was said, and the same request may come again.
    """

    def __init__(
        self,
        standing: Standing,
        run: str,
        book: RoundBook,
        *,
        consider: Judge = _nothing,
        release: Judge = _nothing,
        witness: Witness = _unwitnessed,
        head: Callable[[], bytes] = bytes,
        threads: int = 1,
    ) -> None:
        self.standing, self.run, self.book = standing, run, book
        self._consider, self._release, self._threads = consider, release, threads
        self._witness, self._head = witness, head
        self._rounds: dict[tuple[int, int], Round] = {}
        self._permitted: dict[str, bool] = {standing.site: standing.site_totals}

    # ---- the trips ----------------------------------------------------------------------------------------------
    def advertise(self, request: Envelope) -> bytes:
        """Enrol → Advert: two fresh X25519 keys for a round and attempt."""
        enrol = self._read(request, m.Enrol)
        if enrol.roster != self.standing.roster.digest:
            raise violation("roster", "the coordinator's roster is not that of the signed study")
        return m.reply(self._advertised(request.place))

    def share(self, request: Envelope) -> bytes:
        """Share → Shares: the key list is verified, the secrets are split and sealed for each peer."""
        asked = self._read(request, m.Share)
        return m.reply(self._shared(request.place, asked.adverts, asked.head))

    def stored(self, request: Envelope) -> bytes | None:
        """The reply to an `Ask` that was answered before; None where it may be answered now. Raises where it may not: before
        anything is computed or charged."""
        self._read(request, m.Ask)
        held = self._found(request.place)
        if not held.masked:
            if not held.shares:
                raise violation("out_of_order", "a question came before this site's shares for its round were asked")
            return None
        if held.asked != request.identity:
            raise violation("second_request", "another question was answered in this round and attempt")
        return held.masked

    def mask(
        self, request: Envelope, vector: Array, ring: Ring, question: bytes, members: tuple[int, int] | None = None
    ) -> bytes:
        """Ask → Masked, and Advert for the next round. `vector` is this site's answer as ring elements (it is not changed),
        `question` the digest of the question that was sent. `members`: of a buffer, the fewest and the most sites in it."""
        ask = self._read(request, m.Ask)
        if (stored := self.stored(request)) is not None:
            return stored
        place, held = request.place, self._found(request.place)
        if self.book.answered.get(place.round, (0, question))[1] != question:
            raise violation("question_changed", "a new attempt asks another question than the attempt before")
        received = self._opened_shares(place, held, ask.sealed)
        sharers = self.standing.roster.in_order({*received, self.standing.site})
        held.wanted, most = (self.standing.wanted, len(self.standing.roster.names)) if members is None else members
        self._enough(sharers, "sites share their secrets", held.wanted)
        if len(sharers) > most:
            raise violation("buffer_size", f"a buffer is filled by {most} sites, and {len(sharers)} are to be in it")
        instance = Instance(
            place, self.standing.roster, held.adverts, held.key_list, sharers, question, ring, len(require(vector, ring))
        )
        masked = vector.copy()
        instance.mask(masked, held.secrets.mask.private, held.secrets.seed, self.standing.site, self._threads)
        message = m.Masked(held.key_list, sharers, question, ring.bits, len(masked), to_bytes(masked, ring))
        following, prepared = self._prepared(place.following())
        self.book.note_answered(place, question, place.following() if prepared else None)
        if prepared:
            self._rounds[place.round + 1, 1] = prepared
        held.secrets.held |= received
        held.instance, held.asked = instance, request.identity
        held.masked = m.reply(*(part for part in (self._signed(place, message), following) if part))
        self._forget_before(place.round)
        return held.masked

    def agree(self, request: Envelope) -> bytes:
        """Survivors → Agreed: this site's word that it serves this list and no other."""
        place, survivors = request.place, self._read(request, m.Survivors).survivors
        instance = self._judged(place, survivors)
        if self.book.signed.get((place.round, place.attempt)) != survivors:
            self._consider(self._sum(instance, survivors))
            self.book.note_signed(place, survivors)
        return m.reply(self._signed(place, instance.agreed(survivors)))

    def unmask(self, request: Envelope) -> bytes:
        """Unmask → Unmasked, and Shares for the next round: the moment at which a total is released."""
        ask, place = self._read(request, m.Unmask), request.place
        instance, held = self._judged(place, ask.survivors), self._found(place)
        if self.standing.thresholds.adversary == "active":
            self._agreed_by_enough(instance, ask)
        if request.identity in held.opened:
            return held.opened[request.identity]
        if len(held.opened) == REPEATS:
            raise violation("second_request", "this round was opened in too many ways already")
        following = place.following()
        prepared = self._rounds.get((following.round, following.attempt))
        shares = self._shared(following, ask.adverts, ask.head) if ask.adverts and prepared else b""
        if not held.unmasked:
            self._release(self._sum(instance, ask.survivors))
            self.book.note_released(place, ask.survivors)
            held.unmasked = self._signed(place, _one_share_each(instance, held.secrets.held, ask.survivors))
            held.erase()
        held.opened[request.identity] = m.reply(*(part for part in (held.unmasked, shares) if part))
        return held.opened[request.identity]

    def close(self, request: Envelope) -> bytes:
        """Close → Closed."""
        self._read(request, m.Close)
        self.erase()
        return m.reply(self._signed(request.place, m.Closed(self._head())))

    def refuse(self, request: Envelope, error: FivefoldError) -> bytes:
        """The reply that says no, with no more than `public()` says."""
        return m.reply(self._signed(request.place, m.Refusal(error.code, error.rule, error.variable)))

    def erase(self) -> None:
        """Forget every round's secrets and replies."""
        for held in self._rounds.values():
            held.erase()
        self._rounds.clear()

    # ---- keys ---------------------------------------------------------------------------------------------------
    def _advertised(self, place: Place) -> bytes:
        if (held := self._rounds.get((place.round, place.attempt))) is not None:
            return held.advert
        self._open(place)
        if place.attempt <= self.book.advertised.get(place.round, 0):
            raise violation("attempt_over", "keys were advertised for this attempt or a later one before, and are gone")
        fresh = self._fresh(place)
        self.book.note_advertised(place)
        for other in [k for k in self._rounds if (k[0] == place.round and k[1] < place.attempt) or k[0] < place.round - 2]:
            self._rounds.pop(other).erase()
        self._rounds[place.round, place.attempt] = fresh
        return fresh.advert

    def _prepared(self, place: Place) -> tuple[bytes, Round | None]:
        """The advert for the next round (none where a restart lost its keys), and what to hold if it is fresh."""
        if (held := self._rounds.get((place.round, place.attempt))) is not None:
            return held.advert, None
        if place.round in self.book.advertised:
            return b"", None
        fresh = self._fresh(place)
        return fresh.advert, fresh

    def _fresh(self, place: Place) -> Round:
        seal, mask, seed = keys.new_pair(), keys.new_pair(), os.urandom(32)
        mine = self.standing
        promise = commitment(seed, place, mine.site)
        advert = Advert(mine.roster.digest, seal.public, mask.public, promise, mine.site_totals, self._head())
        return Round(Secrets(seal, mask, seed), self._signed(place, advert))

    def _shared(self, place: Place, adverts: m.Blobs, head: bytes) -> bytes:
        held = self._found(place)
        listed = m.key_list_digest(adverts, head)
        if held.shares:
            if listed != held.key_list:
                raise violation("second_key_list", "two key lists were sent for one round and attempt")
            return held.shares
        read, secret = self._key_list(place, held, adverts), held.secrets
        self._witness(place, read, head)
        points = {name: point(self.standing.roster, name) for name in read}
        t = self.standing.thresholds.t
        of_seed = shamir.split(secret.seed, tuple(points.values()), t)
        of_key = shamir.split(secret.mask.private, tuple(points.values()), t)
        me, sealed = self.standing.site, {}
        peers = [name for name in read if name != me]
        contexts = [seal_context(place, self.standing.roster, listed, me, peer) for peer in peers]
        agreed = keys.agree_all(secret.seal.private, [(read[p].seal_key, c) for p, c in zip(peers, contexts, strict=True)])
        for peer, context, key in zip(peers, contexts, agreed, strict=True):
            sealed[peer] = sealing.seal(key, of_seed[points[peer]] + of_key[points[peer]], context)
        held.adverts, held.key_list = read, listed
        secret.held[me] = (of_seed[points[me]], of_key[points[me]])
        held.shares = self._signed(place, m.Shares(listed, sealed))
        self._permitted |= {name: advert.site_totals for name, advert in read.items()}
        return held.shares

    def _key_list(self, place: Place, held: Round, adverts: m.Blobs) -> dict[str, Advert]:
        """The list, every entry verified: each signed by the key that the study gives its sender, this site's own unaltered."""
        read: dict[str, Advert] = {}
        for data in adverts:
            name, advert = opened(data, Advert, self.standing.roster, place)
            if name in read or advert.roster != self.standing.roster.digest:
                raise violation("key_list", "the key list names a site twice, or a site with another roster")
            if name == self.standing.site and data != held.advert:
                raise violation("own_key_altered", "the key list holds another key of this site than it advertised")
            read[name] = advert
        if self.standing.site not in read:
            raise violation("own_key_altered", "the key list leaves out this site's own key")
        if tuple(read) != self.standing.roster.in_order(read):
            raise violation("key_list", "the key list is not in the study's order")
        public = [key for advert in read.values() for key in (advert.seal_key, advert.mask_key)]
        if len(set(public)) != len(public):
            raise violation("key_list", "a key stands in the key list twice")
        self._enough(read, "sites advertise keys", self.standing.listed)
        return read

    def _opened_shares(self, place: Place, held: Round, sealed: m.Parcels) -> dict[str, tuple[bytes, bytes]]:
        mine, received = self.standing, {}
        if not sealed.keys() <= held.adverts.keys() - {mine.site}:
            raise violation("unknown_peer", "shares come from a site that is not in the key list")
        contexts = {peer: seal_context(place, mine.roster, held.key_list, peer, mine.site) for peer in sealed}
        agreed = keys.agree_all(held.secrets.seal.private, [(held.adverts[peer].seal_key, contexts[peer]) for peer in sealed])
        for peer, key in zip(sealed, agreed, strict=True):
            plain = sealing.open_sealed(key, sealed[peer], contexts[peer])
            if len(plain) != 2 * shamir.SHARE:
                raise violation("share_malformed", f"site {peer} sealed something that is not two shares")
            received[peer] = (plain[: shamir.SHARE], plain[shamir.SHARE :])
        return received

    # ---- survivors ----------------------------------------------------------------------------------------------
    def _judged(self, place: Place, survivors: Names) -> Instance:
        """The sum that these survivors would open, once everything about the list is right."""
        held, mine = self._found(place), self.standing
        instance = held.instance
        if instance is None:
            raise violation("out_of_order", "a survivor list came before this site's masked update left")
        if not set(survivors) <= set(instance.sharers) or survivors != mine.roster.in_order(survivors):
            raise violation("unknown_peer", "the survivor list names a site without a part in this round, or is out of order")
        if mine.site not in survivors:
            raise violation("not_a_survivor", "the survivor list leaves out this site, whose masked update left")
        self._enough(survivors, "sites survive", held.wanted)
        if self.book.released.get(place.round, survivors) != survivors:
            if held.unmasked:
                raise violation("both_shares", "both the seed's share and the mask key's share of one site are asked")
            raise violation("second_survivor_list", "this round was opened for other survivors, and no other list is served")
        if self.book.signed.get((place.round, place.attempt), survivors) != survivors:
            raise violation("second_survivor_list", "this site agreed to another survivor list in this round and attempt")
        return instance

    def _agreed_by_enough(self, instance: Instance, ask: m.Unmask) -> None:
        """The survivors' own signatures under this list, by as many as must survive: two lists cannot both have them."""
        if not set(ask.signatures) <= set(ask.survivors):
            raise violation("unknown_peer", "a survivor list is signed by a site that is not on it")
        body = instance.agreed(ask.survivors).encode()
        for name, signature in ask.signatures.items():
            check(Envelope(instance.place, m.Agreed.kind, name, body, signature), self.standing.roster)
        self._enough(ask.signatures, "survivors signed the survivor list", self._found(instance.place).wanted)

    def _sum(self, instance: Instance, survivors: Names) -> Sum:
        return Sum(instance.place, instance.question, survivors, frozenset(n for n, yes in self._permitted.items() if yes))

    def _enough(self, names: Iterable[str], what: str, wanted: int) -> None:
        counted = self.standing.counted(names)
        if counted < wanted:
            raise TooFewSites(
                f"{counted} {what} whose keys this site recognises, and at least {wanted} are needed",
                rule="too_few_sites",
            )

    # ---- order --------------------------------------------------------------------------------------------------
    def _read(self, request: Envelope, kind: type[Asked]) -> Asked:
        if request.place.study != self.standing.study or request.place.run != self.run:
            raise violation("wrong_place", "a request belongs to another study or run")
        if request.sender != m.COORDINATOR or request.kind != kind.kind:
            raise violation("wrong_place", "a request is of another kind than its trip")
        return kind.decode(request.body)

    def _open(self, place: Place) -> None:
        if place.round < self.book.round:
            raise violation("replayed_round", "the round is over: a later one was answered")

    def _found(self, place: Place) -> Round:
        """What is held for a round and attempt, or the reason why nothing is."""
        self._open(place)
        if (held := self._rounds.get((place.round, place.attempt))) is not None:
            return held
        last = self.book.advertised.get(place.round, 0)
        if place.attempt < last:
            raise violation("attempt_over", "a later attempt of this round has begun")
        if place.attempt > last:
            raise violation("out_of_order", "no keys were advertised for this round and attempt")
        if self.book.answered.get(place.round, (0, b""))[0] == place.attempt:
            raise violation("replayed_round", "this round was answered before the node restarted, and is not answered again")
        raise violation("secrets_lost", "the node restarted after it advertised keys for this round and attempt")

    def _forget_before(self, round: int) -> None:
        """The rounds before are over: their secrets go, and all but the last one's replies."""
        for key in [k for k in self._rounds if k[0] < round]:
            self._rounds[key].erase()
            if key[0] < round - 1:
                del self._rounds[key]

    def _signed(self, place: Place, message: m.Message) -> bytes:
        return signed(self.standing.private, place, self.standing.site, message).encode()


def _one_share_each(instance: Instance, held: Mapping[str, tuple[bytes, bytes]], survivors: Names) -> m.Unmasked:
    """For each sharer one share: of the seed if it survived, of the mask key if not. Never both."""
    alive = set(survivors)
    seeds = {name: held[name][0] for name in instance.sharers if name in alive}
    mask_keys = {name: held[name][1] for name in instance.sharers if name not in alive}
    return m.Unmasked(instance.key_list, instance.question, survivors, seeds, mask_keys)
