"""Whatever a coordinator or a network does with the messages of the secure sum: drops, delays, repeats, forges, restarts."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from fivefold.auth.messages import signed
from fivefold.errors import FivefoldError
from fivefold.privacy.secagg.ring import RING32, RING128
from fivefold.protocol.envelope import Message, content_of
from fivefold.replay.opening import opened, summed
from tests.site.sums_in_memory import QUESTION, TRIPS, Consortium, consortium, request

WIDTH = 2
MEMORY = Path("/dev/shm")
"""Thousands of journals are synchronised; where there is a file system in memory, that costs nothing."""
PICK = st.integers(0, 2**16)
Place = tuple[int, int]


class SecureSum(RuleBasedStateMachine):
    """The rules are a coordinator that may do anything but sign for a site. `said` is all that sites ever signed."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="fivefold-sum-", dir=MEMORY if MEMORY.is_dir() else None))
        self.round, self.attempt = 1, 1
        self.said: list[Message] = []
        self.bytes: dict[tuple[int, int, str, str], list[bytes]] = {}
        self.requests: list[tuple[str, bytes]] = []
        self.answered: dict[tuple[str, bytes], bytes] = {}
        self.judged = 0

    def teardown(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    @initialize(n=st.integers(4, 5), wide=st.booleans(), active=st.booleans())
    def begin(self, n: int, wide: bool, active: bool) -> None:
        self.needed = n - 1
        self.ring = RING128 if wide else RING32
        self.active = active
        self.made: Consortium = consortium(self.folder, n, self.needed, self.ring, active=active, width=WIDTH)
        self.names = tuple(self.made.sites)

    # ---- what the coordinator holds ---------------------------------------------------------------------------------
    def held(self, kind: str, place: Place, pick: int = 0) -> dict[str, bytes]:
        found = {n: self.bytes.get((*place, kind, n), []) for n in self.names}
        return {n: replies[pick % len(replies)] for n, replies in found.items() if replies}

    def some(self, pick: int, names: tuple[str, ...]) -> tuple[str, ...]:
        """All of them as a rule, else all but one or a chosen few."""
        if pick % 3 == 0 or not names:
            return names
        if pick % 3 == 1:
            return tuple(n for i, n in enumerate(names) if i != pick // 3 % len(names))
        return tuple(n for i, n in enumerate(names) if pick >> (i + 2) & 1)

    def send(self, name: str, data: bytes) -> None:
        """A site answers or raises `FivefoldError`; any other exception fails the test."""
        self.requests.append((name, data))
        try:
            reply = self.made.sites[name].answer(data)
        except FivefoldError:
            return
        message = content_of(reply)[0]
        if self.answered.setdefault((name, data), reply) == reply and message in self.said:
            return
        assert self.answered[name, data] == reply, "one request got two replies"
        self.said.append(message)
        self.bytes.setdefault((message.round, message.attempt, message.kind, name), []).append(reply)

    def body(self, kind: str, name: str, place: Place, pick: int) -> dict[str, Any]:
        keys = self.held("keys", place, pick)
        if kind == "keys":
            return {}
        if kind == "share":
            return {"keys": {n: keys[n] for n in self.some(pick, tuple(keys))}}
        if kind == "ask":
            shared = {s: content_of(d)[0].body["parcels"] for s, d in self.held("share", place).items() if s != name}
            chosen = self.some(pick, tuple(s for s in shared if name in shared[s]))
            return {"question": QUESTION, "parcels": {s: shared[s][name] for s in chosen}}
        survivors = self.some(pick, tuple(self.held("ask", place)))
        if kind == "survivors":
            return {"survivors": survivors}
        return {"survivors": survivors, "agreements": self.held("survivors", place)}

    # ---- rules ------------------------------------------------------------------------------------------------------
    @rule(upto=st.integers(1, 5), pick=PICK, dropped=st.integers(-8, 4))
    def trips(self, upto: int, pick: int, dropped: int) -> None:
        """An honest coordinator's trips of one attempt, with at most one site silent and one list of survivors."""
        place = (self.round, self.attempt)
        silent_from = pick % 5
        lists: tuple[str, ...] | None = None
        for at, kind in enumerate(TRIPS[:upto]):
            if kind in ("survivors", "unmask") and lists is None:
                lists = tuple(self.held("ask", place))
            for i, name in enumerate(self.names):
                if i == dropped and at >= silent_from:
                    continue
                body = self.body(kind, name, place, 0)
                if lists is not None:
                    body["survivors"] = lists
                self.send(name, request(kind, body, *place))

    @rule(kind=st.sampled_from(TRIPS), who=st.integers(0, 4), pick=PICK, back=st.integers(0, 1))
    def ask_one(self, kind: str, who: int, pick: int, back: int) -> None:
        """One site alone is asked anything, perhaps of an attempt that lies behind, with parts left out."""
        name, place = self.names[who % len(self.names)], (self.round, max(1, self.attempt - back))
        self.send(name, request(kind, self.body(kind, name, place, pick), *place))

    @rule(pick=PICK)
    def repeat(self, pick: int) -> None:
        """An old request again, to the same site: late or twice."""
        if self.requests:
            self.send(*self.requests[pick % len(self.requests)])

    @rule(pick=PICK, who=st.integers(0, 4), change=st.sampled_from(["round", "attempt", "kind", "study", "site"]))
    def misplace(self, pick: int, who: int, change: str) -> None:
        """An old request's body in another place, or to another site."""
        if not self.requests:
            return
        name, data = self.requests[pick % len(self.requests)]
        asked = content_of(data)[0]
        kind = TRIPS[(TRIPS.index(asked.kind) + 1) % 5] if change == "kind" else asked.kind
        if change == "kind":
            return self.send(
                name, request(kind, self.body(kind, name, (asked.round, asked.attempt), pick), asked.round, asked.attempt)
            )
        place = (asked.round + (change == "round"), asked.attempt + (change == "attempt"))
        other = self.names[who % len(self.names)] if change == "site" else name
        return self.send(other, request(kind, asked.body, *place))

    @rule(pick=PICK, who=st.integers(0, 4), kind=st.sampled_from(["share", "ask", "unmask"]), how=st.integers(0, 2))
    def forge(self, pick: int, who: int, kind: str, how: int) -> None:
        """A peer's key list entry, parcel or agreement is flipped, signed by another, or taken from another peer or place."""
        name, place = self.names[who % len(self.names)], (self.round, self.attempt)
        body = self.body(kind, name, place, 0)
        part = {"share": "keys", "ask": "parcels", "unmask": "agreements"}[kind]
        peers = [p for p in body[part] if p != name]
        if not peers:
            return
        peer = peers[pick % len(peers)]
        true = bytes(body[part][peer])
        if how == 0 or kind == "ask":
            at = pick % len(true)
            false = true[:at] + bytes([true[at] ^ 1 + pick % 255]) + true[at + 1 :]
        elif how == 1:
            message = replace(content_of(true)[0], body={**content_of(true)[0].body, "survivors": [name]})
            false = signed(message, self.made.sites[name].private)
        else:
            old = [b for (r, a, k, n), bs in self.bytes.items() for b in bs if n == peer and (r, a) != place]
            false = old[pick % len(old)] if old else bytes(body[part].get(name, b""))
        if false == true:
            return
        body[part] = {**body[part], peer: false}
        if kind == "unmask" and not self.active:
            return  # agreements are not looked at
        try:
            self.made.sites[name].answer(request(kind, body, *place))
        except FivefoldError:
            return
        raise AssertionError("a forged message was taken")

    @rule(who=st.integers(0, 4))
    def restart(self, who: int) -> None:
        site = self.made.sites[self.names[who % len(self.names)]]
        site.restart()

    @rule()
    def another_attempt(self) -> None:
        self.attempt += 1

    @rule()
    def next_round(self) -> None:
        self.round, self.attempt = self.round + 1, 1

    # ---- what always holds ------------------------------------------------------------------------------------------
    @invariant()
    def no_site_contradicts_itself(self) -> None:
        kinds: dict[tuple[int, str, str], str] = {}
        opened_sets: dict[tuple[int, str], tuple[str, ...]] = {}
        signed_sets: dict[tuple[int, int, str], tuple[str, ...]] = {}
        masked: set[tuple[int, int, str]] = set()
        for m in self.said:
            if m.kind == "ask":
                assert (m.round, m.attempt, m.sender) not in masked, "two masked updates in one attempt"
                masked.add((m.round, m.attempt, m.sender))
            if m.kind in ("survivors", "unmask"):
                chosen = tuple(m.body["survivors"])
                assert signed_sets.setdefault((m.round, m.attempt, m.sender), chosen) == chosen
                assert m.sender in chosen
                assert len(chosen) >= self.needed
            if m.kind == "unmask":
                assert opened_sets.setdefault((m.round, m.sender), chosen) == chosen
                for part in ("self", "pair"):
                    for peer in m.body[part]:
                        assert kinds.setdefault((m.round, m.sender, peer), part) == part, "both kinds of share for one peer"
        by_round: dict[int, dict[tuple[str, ...], int]] = {}
        for (round, _), chosen in opened_sets.items():
            by_round.setdefault(round, {}).setdefault(chosen, 0)
            by_round[round][chosen] += 1
        for counts in by_round.values():
            assert sum(count >= self.needed for count in counts.values()) <= 1, "two sets of one round can be opened"

    @invariant()
    def what_opens_is_the_plain_sum(self) -> None:
        if self.judged == len(self.said):
            return
        self.judged = len(self.said)
        givers: dict[tuple[int, int, tuple[str, ...]], dict[str, Message]] = {}
        for m in self.said:
            if m.kind == "unmask":
                givers.setdefault((m.round, m.attempt, tuple(m.body["survivors"])), {})[m.sender] = m
        for (round, attempt, chosen), shares in givers.items():
            masked = {m.sender: m for m in self.said if (m.kind, m.round, m.attempt) == ("ask", round, attempt)}
            views = {(masked[n].body["members"], masked[n].body["view"]) for n in chosen}
            if len(shares) < self.needed or len(views) != 1:
                continue  # nothing opens, or the collector ends the round
            members = next(iter(views))[0]
            keys = {n: content_of(d)[0] for n, d in self.listed(round, attempt, next(iter(views))[1]).items()}
            survivors = tuple(n for n in self.names if n in chosen)
            total = summed(masked, survivors, WIDTH, self.ring)
            opened(total, self.ring, self.names, self.needed, keys, members, survivors, shares)
            assert np.array_equal(total, self.made.plain(survivors, WIDTH, self.ring))

    def listed(self, round: int, attempt: int, view: bytes) -> dict[str, bytes]:
        """The key list that was shown under that digest."""
        from fivefold.replay.opening import key_list_digest

        for _, data in self.requests:
            asked = content_of(data)[0]
            if (asked.kind, asked.round, asked.attempt) == ("share", round, attempt):
                keys = {n: content_of(d)[0] for n, d in asked.body["keys"].items()}
                if key_list_digest(keys) == view:
                    return dict(asked.body["keys"])
        raise AssertionError("sites answered to a key list that nobody sent")


SecureSum.TestCase.settings = settings(
    max_examples=200, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck), print_blob=False
)
TestSecureSum = SecureSum.TestCase
