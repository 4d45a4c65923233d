"""The site's half of the secure sum: five trips of one attempt at one round, and what it refuses.

    keys → share → mask → agree → unmask

Secrets of a round live in memory only and are erased with it; what was said (which update, which survivors, which shares) is
on disk before it is sent, so that a site that restarts neither says two things nor loses count. An identical request gets the
stored reply, byte for byte.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fivefold.auth.messages import verified
from fivefold.errors import ProtocolViolation, TooFewSites
from fivefold.privacy.secagg.keys import KeyPair, agree, agree_all, new_pair
from fivefold.privacy.secagg.masks import apply_masks, pair_sign
from fivefold.privacy.secagg.ring import Ring, to_bytes
from fivefold.privacy.secagg.sealing import open_sealed, seal
from fivefold.privacy.secagg.shamir import split
from fivefold.protocol.encoding import decode, encode
from fivefold.protocol.envelope import Message
from fivefold.protocol.questions import Array, Value
from fivefold.records.journal import Journal, read
from fivefold.replay.opening import key_list_digest, pair_context, seal_context

SECRET = 32


@dataclass(frozen=True)
class Terms:
    """What this site holds every sum to. `roster` is the signed study's; `recognised` are the sites whose keys this site's own
    policy pins: no other counts toward `needed`."""

    me: str
    study: str
    run: str
    roster: tuple[str, ...]
    public_keys: Mapping[str, bytes]
    threshold: int
    needed: int
    recognised: frozenset[str]
    active: bool
    totals: bool
    """Whether this site's custodian permits that its own totals be seen; it is signed with the keys, so that peers know."""
    class_rule: Callable[[frozenset[str], frozenset[str]], None]
    """Raises where the survivor sets answered so far and this one would isolate too few sites that did not permit it."""


@dataclass
class Attempt:
    """Secrets and views of one attempt at one round. It dies with the round."""

    round: int
    attempt: int
    sealing: KeyPair = field(default_factory=new_pair)
    masking: KeyPair = field(default_factory=new_pair)
    self_seed: bytes = field(default_factory=lambda: os.urandom(SECRET))
    advertised: bytes = b""
    keys: dict[str, Message] = field(default_factory=dict)
    view: bytes = b""
    own_shares: dict[str, bytes] = field(default_factory=dict)
    members: tuple[str, ...] = ()
    held: dict[str, dict[str, bytes]] = field(default_factory=dict)
    survivors: frozenset[str] | None = None


class Participant:
    """One run at one site."""

    def __init__(self, terms: Terms, store: Path) -> None:
        self.terms = terms
        self._path = store
        self._now: Attempt | None = None
        self._replies: dict[bytes, bytes] = {}
        self._asked: dict[int, bytes] = {}
        self._attempts: dict[int, int] = {}
        self._opened: dict[int, frozenset[str]] = {}
        self._permitted: dict[str, bool] = {}
        for record in read(store):
            if record["event"] == "masked":
                self._asked[record["round"]] = bytes(record["question"])
            elif record["event"] == "permissions":
                self._permitted |= {name: bool(choice) for name, choice in record["sites"].items()}
            elif record["event"] == "unmasked":
                self._opened[record["round"]] = frozenset(record["survivors"])
                self._replies[bytes(record["request"])] = bytes(record["reply"])
            self._attempts[record["round"]] = max(record["attempt"], self._attempts.get(record["round"], 0))

    # ---- the trips --------------------------------------------------------------------------------------------------
    def keys(self, round: int, attempt: int) -> dict[str, Value]:
        """Fresh keys for an attempt. Raises `ProtocolViolation` for a round or attempt that lies behind."""
        if attempt <= self._attempts.get(round, 0) or round < max(self._attempts, default=0):
            raise ProtocolViolation("this round or attempt was begun before", rule="replayed_round")
        self._write({"event": "begun", "round": round, "attempt": attempt})
        self._now = Attempt(round, attempt)
        return {"seal": self._now.sealing.public, "mask": self._now.masking.public, "totals": self.terms.totals}

    def advertised(self, reply: bytes) -> None:
        """The node signed the keys: from here on nobody may show this site another key in its own place."""
        if self._now is not None:
            self._now.advertised = reply

    def share(self, round: int, attempt: int, advertisements: Mapping[str, bytes]) -> dict[str, Value]:
        """The key list of all → shares of this attempt's two secrets, one sealed parcel for each peer."""
        now = self._at(round, attempt)
        if now.view:
            raise ProtocolViolation("a second key list for one attempt", rule="second_key_list")
        if advertisements.get(self.terms.me) != now.advertised:
            raise ProtocolViolation("the key list shows another key in this site's place", rule="own_key")
        keys = {name: self._own_round(data, "keys", now, name) for name, data in advertisements.items()}
        self._enough(keys)
        now.keys, now.view = keys, key_list_digest(keys)
        self._remember({name: message.body.get("totals") is True for name, message in keys.items()}, now)
        points = [self.terms.roster.index(name) + 1 for name in sorted(keys, key=self.terms.roster.index)]
        names = sorted(keys, key=self.terms.roster.index)
        selves = split(now.self_seed, points, self.terms.threshold)
        pairs = split(now.masking.private, points, self.terms.threshold)
        parcels: dict[str, Value] = {}
        for name, point in zip(names, points, strict=True):
            parcel = encode({"self": selves[point], "pair": pairs[point]})
            if name == self.terms.me:
                now.held[name] = decode(parcel)
                continue
            context = seal_context(now.view, self.terms.me, name)
            secret = agree(now.sealing.private, bytes(keys[name].body["seal"]), context)
            parcels[name] = seal(secret, parcel, context)
        return {"parcels": parcels}

    def mask(
        self, round: int, attempt: int, vector: Array, ring: Ring, question: bytes, parcels: Mapping[str, bytes]
    ) -> dict[str, Value]:
        """Peers' parcels and this site's ring vector (masked in place) → the masked update."""
        now = self._at(round, attempt)
        if not now.view or now.members:
            raise ProtocolViolation("a masked update is given once, after the key list", rule="order_of_trips")
        if self._asked.get(round, question) != question:
            raise ProtocolViolation("another question was asked in this round before", rule="replayed_round")
        for sender, parcel in parcels.items():
            if sender not in now.keys or sender == self.terms.me:
                raise ProtocolViolation("a parcel comes from no peer of this round", rule="unknown_peer")
            context = seal_context(now.view, sender, self.terms.me)
            secret = agree(now.sealing.private, bytes(now.keys[sender].body["seal"]), context)
            now.held[sender] = decode(open_sealed(secret, bytes(parcel), context))
        self._enough(now.held)
        now.members = tuple(sorted(now.held, key=self.terms.roster.index))
        self._write({"event": "masked", "round": round, "attempt": attempt, "question": question})
        self._asked[round] = question
        peers = [name for name in now.members if name != self.terms.me]
        seeds = agree_all(
            now.masking.private,
            [(bytes(now.keys[p].body["mask"]), pair_context(now.view, self.terms.me, p)) for p in peers],
        )
        me = self.terms.roster.index(self.terms.me)
        signs = [pair_sign(me, self.terms.roster.index(p)) for p in peers]
        apply_masks(vector, ring, [(now.self_seed, 1), *zip(seeds, signs, strict=True)])
        return {"vector": to_bytes(vector, ring), "question": question, "members": now.members, "view": now.view}

    def agree(self, round: int, attempt: int, survivors: Sequence[str]) -> dict[str, Value]:
        """The survivor list, if this site can stand for it: its signature on it is its word that it has seen no other."""
        now = self._at(round, attempt)
        self._accept(now, frozenset(survivors))
        return {"survivors": tuple(sorted(survivors))}

    def unmask(self, round: int, attempt: int, survivors: Sequence[str], agreements: Mapping[str, bytes]) -> dict[str, Value]:
        """Shares that open the sum: of each survivor's self-mask, and of the mask key of each that dropped out; never both."""
        now = self._at(round, attempt)
        chosen = frozenset(survivors)
        if self.terms.active:
            said = {n: self._own_round(data, "survivors", now, n) for n, data in agreements.items()}
            if any(frozenset(m.body["survivors"]) != chosen for m in said.values()) or not frozenset(said) <= chosen:
                raise ProtocolViolation("sites were shown different survivor lists", rule="second_survivor_list")
            self._enough(said)
        self._accept(now, chosen)
        return {
            "self": {name: now.held[name]["self"] for name in now.members if name in chosen},
            "pair": {name: now.held[name]["pair"] for name in now.members if name not in chosen},
            "survivors": tuple(sorted(chosen)),
        }

    # ---- replies, stored before they are sent -----------------------------------------------------------------------
    def stored(self, request: bytes) -> bytes | None:
        """The reply that an identical request got before."""
        return self._replies.get(hashlib.sha256(request).digest())

    def store(self, request: bytes, reply: bytes, *, released: Message | None = None) -> None:
        """Keep a reply. One that opens a sum (`released`) is on disk before it is sent, and the round's secrets are erased."""
        identity = hashlib.sha256(request).digest()
        if released is not None:
            survivors = tuple(released.body["survivors"])
            self._write(
                {
                    "event": "unmasked",
                    "round": released.round,
                    "attempt": released.attempt,
                    "survivors": survivors,
                    "request": identity,
                    "reply": reply,
                }
            )
            self._opened[released.round] = frozenset(survivors)
            self.erase()
        self._replies[identity] = reply

    def erase(self) -> None:
        """Forget the round's secrets and the replies that only they made."""
        self._now = None
        self._replies.clear()

    # ---- what it refuses --------------------------------------------------------------------------------------------
    def _at(self, round: int, attempt: int) -> Attempt:
        if self._now is None or (self._now.round, self._now.attempt) != (round, attempt):
            raise ProtocolViolation("this site holds no secrets for that attempt", rule="replayed_round")
        return self._now

    def _own_round(self, data: bytes, kind: str, now: Attempt, name: str) -> Message:
        """A peer's signed message of this very study, run, round and attempt. Raises `SignatureWrong`, `ProtocolViolation`."""
        message = verified(bytes(data), self.terms.public_keys)
        expected = (kind, self.terms.study, self.terms.run, now.round, now.attempt, name)
        if (message.kind, message.study, message.run, message.round, message.attempt, message.sender) != expected:
            raise ProtocolViolation("a peer's message belongs to another place", rule="unknown_peer")
        return message

    def _enough(self, names: Collection[str]) -> None:
        if len(frozenset(names) & self.terms.recognised) < self.terms.needed:
            raise TooFewSites("fewer sites than this site's rules need would be in the sum", rule="too_few_survivors")

    def _accept(self, now: Attempt, survivors: frozenset[str]) -> None:
        if self.terms.me not in survivors or not survivors <= frozenset(now.members):
            raise ProtocolViolation("the survivor list names a site that masked nothing", rule="survivor_list")
        if now.survivors not in (None, survivors) or self._opened.get(now.round, survivors) != survivors:
            raise ProtocolViolation("a second survivor list for one round", rule="second_survivor_list")
        self._enough(survivors)
        self.terms.class_rule(survivors, frozenset(name for name, choice in self._permitted.items() if choice))
        now.survivors = survivors

    def _remember(self, choices: Mapping[str, bool], now: Attempt) -> None:
        """What each peer signed about its totals: it holds for a peer that drops out later, too."""
        if any(self._permitted.get(name) is not choice for name, choice in choices.items()):
            self._permitted |= choices
            self._write({"event": "permissions", "round": now.round, "attempt": now.attempt, "sites": self._permitted})

    def _write(self, record: dict[str, Value]) -> None:
        journal = Journal(self._path)
        try:
            journal.append(record)
        finally:
            journal.close()
        self._attempts[record["round"]] = max(record["attempt"], self._attempts.get(record["round"], 0))
