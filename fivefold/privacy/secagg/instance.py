"""One secure sum: what its keys bind, and how its total is opened (Bonawitz et al., CCS 2017, figures 2 and 4).

Sites and coordinator derive the same seeds from here. A seal binds protocol version, study, run, round, attempt, roster, key
list and both ends; a mask binds the question, the ring, its length and the set of sharers as well. So two sites with different
views of any of these share no mask: the coordinator gets garbage, never a partial sum.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from fivefold.errors import ProtocolViolation
from fivefold.privacy.secagg import keys, masks, shamir
from fivefold.privacy.secagg.ring import RING32, RING128, Ring
from fivefold.protocol.encoding import encode
from fivefold.protocol.messages import VERSION, Advert, Agreed, Names, Parcels, Place, Roster
from fivefold.protocol.questions import Array

RINGS: Mapping[int, Ring] = {ring.bits: ring for ring in (RING32, RING128)}
COMMITMENT = b"fivefold/self-mask/commitment/1"


def point(roster: Roster, site: str) -> int:
    """Where a site's shares are evaluated: its number in the signed study, from 1."""
    return roster.place[site] + 1


def seal_context(place: Place, roster: Roster, key_list: bytes, sender: str, receiver: str) -> bytes:
    """What the key of a seal, and its associated data, bind. Each direction has a key of its own."""
    return encode(("seal", VERSION, _where(place), roster.digest, key_list, sender, receiver))


def commitment(seed: bytes, place: Place, site: str) -> bytes:
    """Hides and binds the seed of a self-mask (32 random bytes), so that a false share of it is noticed."""
    return hmac.digest(seed, COMMITMENT + encode((_where(place), site)), "sha256")


@dataclass(frozen=True)
class Instance:
    """A question asked in one place of a run, under one key list, among the sites that shared their secrets there."""

    place: Place
    roster: Roster
    adverts: Mapping[str, Advert]
    """The key list."""
    key_list: bytes
    """Its digest."""
    sharers: Names
    question: bytes
    ring: Ring
    length: int

    @cached_property
    def _bound(self) -> bytes:
        """One digest of everything that a mask binds beside its two ends."""
        where = (VERSION, _where(self.place), self.roster.digest, self.key_list, self.sharers)
        return hashlib.sha256(encode((*where, self.question, self.ring.bits, self.length))).digest()

    def agreed(self, survivors: Names) -> Agreed:
        """What a site signs about its survivors."""
        return Agreed(self.key_list, self.sharers, self.question, self.ring.bits, self.length, survivors)

    def self_seed(self, seed: bytes, site: str) -> bytes:
        """The seed of a site's self-mask, from the secret that it shares."""
        return hmac.digest(seed, encode(("self", self._bound, site)), "sha256")

    def pair_seeds(self, private: bytes, site: str, peers: Iterable[str]) -> Iterator[tuple[bytes, int]]:
        """The masks that a site shares with its peers, each with the sign with which this site applies it."""
        others = [p for p in peers if p != site]
        seeds = keys.agree_all(private, [(self.adverts[p].mask_key, self._pair_context(site, p)) for p in others])
        for peer, seed in zip(others, seeds, strict=True):
            yield seed, masks.pair_sign(self.roster.place[site], self.roster.place[peer])

    def _pair_context(self, a: str, b: str) -> bytes:
        return encode(("mask", self._bound, self.roster.in_order((a, b))))

    def mask(self, vector: Array, private: bytes, seed: bytes, site: str, threads: int = 1) -> None:
        """Add a site's self-mask and apply those that it shares with every other sharer, in place."""
        own = (self.self_seed(seed, site), 1)
        masks.apply_masks(vector, self.ring, [own, *self.pair_seeds(private, site, self.sharers)], threads)

    def unmask(
        self,
        total: Array,
        survivors: Names,
        seed_shares: Mapping[str, Parcels],
        key_shares: Mapping[str, Parcels],
        t: int,
        threads: int = 1,
    ) -> None:
        """Take the masks out of the survivors' sum, in place.

        `seed_shares[helper][survivor]` and `key_shares[helper][dropped]` are the shares that each helper sent. Every rebuilt
        secret is compared with what its owner advertised: raises `ProtocolViolation` where a helper sent a false share,
        `TooManyDropouts` for fewer than `t` helpers, `MessageMalformed` for shares of another form.
        """
        dropped = tuple(s for s in self.sharers if s not in survivors)
        sharings = [self._sharing(seed_shares, s) for s in survivors] + [self._sharing(key_shares, d) for d in dropped]
        secrets = shamir.combine_many(sharings, t)
        seeds, privates = secrets[: len(survivors)], secrets[len(survivors) :]
        for site, seed in zip(survivors, seeds, strict=True):
            if not hmac.compare_digest(commitment(seed, self.place, site), self.adverts[site].commitment):
                raise ProtocolViolation(f"a share of the self-mask of {site} is false", rule="false_share")
        for site, private in zip(dropped, privates, strict=True):
            if keys.pair_from_private(private).public != self.adverts[site].mask_key:
                raise ProtocolViolation(f"a share of the mask key of {site} is false", rule="false_share")
        own = (self.self_seed(seed, site) for site, seed in zip(survivors, seeds, strict=True))
        # A dropped site's signs are those with which *it* would have masked; each survivor applied the opposite.
        pairs = (
            (seed, -sign)
            for site, private in zip(dropped, privates, strict=True)
            for seed, sign in self.pair_seeds(private, site, survivors)
        )
        masks.unmask(total, self.ring, own, pairs, threads)

    def _sharing(self, shares: Mapping[str, Parcels], owner: str) -> dict[int, bytes]:
        return {point(self.roster, helper): sent[owner] for helper, sent in shares.items()}


def _where(place: Place) -> tuple[str, str, int, int]:
    return (place.study, place.run, place.round, place.attempt)
