"""The secure sum under everything that a network, a disk, a crash and a lying coordinator may do, step by step.

A coordinator that keeps to the protocol runs round after round, while messages are lost, delayed, repeated and forged, nodes
and the coordinator restart, and, where the adversary is active, sites are lied to about who survived. Whatever happens:

- every total that is opened is the plain sum over its survivors, of whom there are enough;
- no site shows both shares of a secret's owner, answers twice in one place, or serves two survivor lists;
- no two survivor lists of a round are opened by a threshold of sites;
- no message holds a piece of a site's plain answer;
- afterwards, all sites can still sum together.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fivefold.auth import keys
from fivefold.auth.signatures import signed
from fivefold.coordinator.aggregation import Collector, KeyRound, recovered
from fivefold.errors import FivefoldError, TooManyDropouts
from fivefold.privacy.secagg.ring import RING32, RING128
from fivefold.protocol import messages as m
from fivefold.protocol.messages import Envelope, Place
from tests.site.secure_sum_bench import Bench, integers

EXAMPLES = int(os.environ.get("FIVEFOLD_STATEFUL", "40"))
"""Of 50 steps each; 200 take minutes, and are run by hand before a release."""
ATTEMPTS = 4
TRIPS = 6
number = st.integers(0, 1 << 16)
rarely = st.integers(0, 3).map(lambda i: i == 0)
some_sites = st.sets(st.integers(0, 4), max_size=2)


class SecureRoundsMachine(RuleBasedStateMachine):
    @initialize(
        n=st.sampled_from([3, 5, 5]),
        adversary=st.sampled_from(["active", "active", "curious"]),
        ring=st.sampled_from([RING32, RING128]),
        length=st.integers(4, 6),
        transcript=st.booleans(),
    )
    def consortium(self, n: int, adversary: Any, ring: Any, length: int, transcript: bool) -> None:
        self.disk = mock.patch("os.fsync")  # thousands of facts; that they are on disk is tested elsewhere
        self.disk.start()
        self.folder = Path(tempfile.mkdtemp(prefix="secure-sum-"))
        self.bench = Bench(self.folder, n, adversary=adversary, ring=ring, length=length)
        self.needed = self.bench.thresholds.survivors_needed
        self.transcript = transcript
        plain = {name: vector.tobytes() for name, vector in self.bench.vectors.items()}
        self.windows = {name: {raw[i : i + 16] for i in range(len(raw) - 15)} for name, raw in plain.items()}
        self.round = 1
        self.attempts: dict[int, int] = {}
        self.delayed: list[tuple[str, bytes]] = []
        self.words: dict[tuple[Place, tuple[str, ...]], dict[str, bytes]] = {}
        self.read = 0
        self.masked: dict[tuple[str, Place], bytes] = {}
        self.agreed: dict[tuple[str, Place], tuple[str, ...]] = {}
        self.released: dict[tuple[str, int], tuple[str, ...]] = {}
        self.shown: dict[tuple[str, Place, str], str] = {}
        self.openers: dict[int, dict[tuple[str, ...], set[str]]] = {}
        self.anew()

    # ---- the coordinator ----------------------------------------------------------------------------------------
    def anew(self) -> None:
        """Fresh keys of all sites; a round that was tried often enough is given up."""
        if self.attempts.get(self.round, 0) >= ATTEMPTS:
            self.round += 1
        attempt = self.attempts[self.round] = self.attempts.get(self.round, 0) + 1
        self.keys = KeyRound(self.bench.roster, self.bench.thresholds, self.bench.place(self.round, attempt))
        self.collector: Collector | None = None
        self.record = b""
        self.retried = False
        self.begin("enrol", dict.fromkeys(self.bench.names, self.keys.enrol()))

    def begin(self, trip: str, requests: dict[str, bytes]) -> None:
        self.trip, self.pending = trip, requests

    def advance(self) -> None:
        """Whoever has not answered by now has dropped out of the trip."""
        try:
            self.next_trip()
        except TooManyDropouts:
            self.anew()

    def next_trip(self) -> None:
        if self.trip == "enrol":
            self.begin("share", dict.fromkeys(self.keys.advertised, self.keys.share()))
        elif self.trip == "share":
            self.ask()
        elif self.trip == "ask" and self.bench.thresholds.adversary == "active":
            survivors = self.sum.close()
            self.begin("survivors", dict.fromkeys(survivors, self.sum.survivors_request()))
        elif self.trip == "unmask":
            self.open_total()
        else:
            self.sum.close()
            if self.sum.following is not None and not self.sum.following.ready:
                self.sum.following = None
            request = self.sum.unmask_request()
            self.begin("unmask", dict.fromkeys(self.sum.survivors, request))

    @property
    def sum(self) -> Collector:
        assert self.collector is not None
        return self.collector

    def ask(self) -> None:
        following = KeyRound(self.bench.roster, self.bench.thresholds, self.keys.place.following())
        self.collector = self.bench.collector(self.keys, before=self.journal, transcript=self.transcript, following=following)
        self.begin("ask", {s: self.sum.ask(self.keys, s, b"task") for s in self.keys.sharers})

    def journal(self, record: bytes) -> None:
        self.record = record

    def open_total(self) -> None:
        if not self.sum.enough:
            if self.retried:
                return self.anew()
            self.retried = True
            return self.begin("unmask", dict.fromkeys(self.sum.survivors, self.sum.unmask_request()))
        total, following = self.sum.total(), self.sum.following
        assert len(total.survivors) >= self.needed
        assert integers(total.vector) == self.bench.total(total.survivors)
        self.round += 1
        if following is None or len(following.sharers) < self.needed:
            self.attempts[self.round] = max(1, self.attempts.get(self.round, 0))
            return self.anew()
        self.attempts[self.round] = 1
        self.keys, self.record, self.retried = following, b"", False
        return self.ask()

    def feed(self, request: bytes, site: str, reply: bytes) -> bool:
        """Give a reply to whoever waits for it; False where it is not taken."""
        asked = Envelope.decode(request)
        if asked.place != self.keys.place:
            return False
        handlers: dict[str, Callable[[str, bytes], None]] = {
            "enrol": lambda s, r: self.keys.add_advert(s, m.envelopes_of(r)[0]),
            "share": lambda s, r: self.keys.add_shares(s, m.envelopes_of(r)[0]),
        }
        if self.collector is not None:
            handlers["ask"] = self.collector.add_masked
            handlers["survivors"] = self.collector.add_agreed
            handlers["unmask"] = self.collector.add_unmasked
        try:
            handlers[asked.kind](site, reply)
        except (FivefoldError, KeyError):
            return False
        return True

    def deliver(self, site: str) -> tuple[bytes, bytes]:
        request = self.pending.pop(site)
        return request, self.bench.reply(site, request)

    def one_of_the_pending(self, which: int) -> str:
        return sorted(self.pending)[which % len(self.pending)]

    def one_of_all(self, which: int) -> str:
        return self.bench.names[which % len(self.bench.names)]

    # ---- the network --------------------------------------------------------------------------------------------
    @rule()
    def whole_trip(self) -> None:
        for site in list(self.pending):
            request, reply = self.deliver(site)
            self.feed(request, site, reply)
        self.advance()

    @rule()
    def rest_of_the_round(self) -> None:
        before = self.round
        for _ in range(TRIPS):
            self.whole_trip()
            if self.round != before:
                return

    @rule(lost=some_sites, unheard=some_sites, late=some_sites)
    def trip_with_losses(self, lost: set[int], unheard: set[int], late: set[int]) -> None:
        """Requests that never arrive, replies that are lost, requests that come later."""
        for i, site in enumerate(self.bench.names):
            if site not in self.pending or i in lost:
                continue
            if i in late:
                self.delayed.append((site, self.pending.pop(site)))
                continue
            request, reply = self.deliver(site)
            if i not in unheard:
                self.feed(request, site, reply)
        self.advance()

    @rule(gone=st.integers(0, 4), heard=st.booleans())
    def trip_without_one(self, gone: int, heard: bool) -> None:
        self.trip_with_losses(set() if heard else {gone}, {gone}, set())

    @precondition(lambda self: self.pending)
    @rule(which=number)
    def one_message(self, which: int) -> None:
        site = self.one_of_the_pending(which)
        request, reply = self.deliver(site)
        self.feed(request, site, reply)

    @precondition(lambda self: self.delayed)
    @rule(which=number)
    def late_request_arrives(self, which: int) -> None:
        site, request = self.delayed.pop(which % len(self.delayed))
        self.feed(request, site, self.bench.reply(site, request))

    @precondition(lambda self: self.bench.wire)
    @rule(which=number)
    def request_is_repeated(self, which: int) -> None:
        """The identical reply, or none."""
        site, request, reply = self.bench.wire[-1 - which % min(len(self.bench.wire), 40)]
        try:
            again = self.bench.answer(site, request)
        except FivefoldError:
            return
        assert again == reply
        self.feed(request, site, again)

    @precondition(lambda self: self.pending)
    @rule(which=number, at=number, bit=st.integers(0, 7))
    def reply_is_forged(self, which: int, at: int, bit: int) -> None:
        """One bit is turned. What is taken all the same is untouched, and the bit lay in the part for the round after."""
        site = self.one_of_the_pending(which)
        request, reply = self.deliver(site)
        place = at % len(reply)
        forged = reply[:place] + bytes([reply[place] ^ (1 << bit)]) + reply[place + 1 :]
        if self.feed(request, site, forged):
            assert m.envelopes_of(forged)[0] == m.envelopes_of(reply)[0]

    @precondition(lambda self: self.pending)
    @rule(which=number, other=number)
    def reply_of_another_site(self, which: int, other: int) -> None:
        site, stranger = self.one_of_the_pending(which), self.one_of_all(other)
        request, reply = self.deliver(site)
        if stranger != site:
            assert not self.feed(request, stranger, reply)
        self.feed(request, site, reply)

    @precondition(lambda self: self.trip == "share" and self.pending)
    @rule(which=number, victim=number)
    def key_list_is_forged(self, which: int, victim: int) -> None:
        """Another key in a site's place, signed by a key that the study does not know."""
        adverts = list(self.keys.list)
        name = self.keys.advertised[victim % len(adverts)]
        advert = m.Advert(self.bench.roster.digest, bytes(range(32)), bytes(range(1, 33)), bytes(32), True)
        adverts[victim % len(adverts)] = signed(keys.new_key(), self.keys.place, name, advert).encode()
        self.must_refuse(self.one_of_the_pending(which), m.request(self.keys.place, m.Share(tuple(adverts))))

    # ---- crashes ------------------------------------------------------------------------------------------------
    @rule(which=number, now=rarely)
    def node_restarts(self, which: int, now: bool) -> None:
        if now:
            self.bench.start(self.one_of_all(which))

    @precondition(lambda self: self.trip == "unmask")
    @rule()
    def coordinator_restarts_with_a_record(self) -> None:
        self.collector = recovered(self.record, self.bench.roster, self.bench.thresholds)
        self.begin("unmask", dict.fromkeys(self.sum.survivors, self.sum.unmask_request()))

    @precondition(lambda self: self.trip in ("ask", "survivors"))
    @rule(now=rarely)
    def coordinator_restarts_without_a_record(self, now: bool) -> None:
        if now:
            self.anew()

    @precondition(lambda self: self.trip == "unmask")
    @rule(shares=st.integers(0, 3), without=st.integers(0, 4))
    def opening_is_abandoned(self, shares: int, without: int) -> None:
        """Some shares are out already; the round is asked again with one site less, and has to end as it was opened."""
        for site in list(self.pending)[:shares]:
            self.deliver(site)
        self.anew()
        for _ in range(3):
            self.trip_without_one(without, heard=False)
        self.rest_of_the_round()

    # ---- a coordinator that lies --------------------------------------------------------------------------------
    def told(self, left_out: int) -> tuple[str, ...]:
        """The survivors without one that did survive."""
        return tuple(s for s in self.sum.survivors if s != self.one_of_all(left_out))

    @precondition(lambda self: self.bench.thresholds.adversary == "active" and self.trip in ("survivors", "unmask"))
    @rule(which=number, left_out=number)
    def site_hears_of_other_survivors(self, which: int, left_out: int) -> None:
        """One site is told that another dropped out. It may sign, if it has signed nothing else."""
        site, told = self.one_of_all(which), self.told(left_out)
        reply = self.bench.reply(site, m.request(self.keys.place, m.Survivors(told)))
        envelope = Envelope.decode(m.envelopes_of(reply)[0])
        if envelope.kind == "agreed":
            self.words.setdefault((self.keys.place, told), {})[site] = envelope.signature

    @precondition(lambda self: self.bench.thresholds.adversary == "active" and self.trip in ("survivors", "unmask"))
    @rule(which=number, left_out=number)
    def site_is_asked_to_open_for_other_survivors(self, which: int, left_out: int) -> None:
        """With all signatures that the lie has gathered; where they are too few, nobody opens."""
        told = self.told(left_out)
        words = self.words.get((self.keys.place, told), {})
        request = m.request(self.keys.place, m.Unmask(told, words, ()))
        if len(words) < self.needed:
            self.must_refuse(self.one_of_all(which), request)
        else:
            self.bench.reply(self.one_of_all(which), request)

    @precondition(lambda self: self.trip == "unmask" and self.bench.thresholds.adversary == "active")
    @rule(which=number, left_out=number)
    def survivors_signatures_are_borrowed(self, which: int, left_out: int) -> None:
        """The signatures of the true list under another one."""
        survivors = self.sum.survivors
        gone = survivors[left_out % len(survivors)]
        true = m.Unmask.decode(Envelope.decode(self.sum.unmask_request()).body)
        words = {s: w for s, w in true.signatures.items() if s != gone}
        false = m.Unmask(tuple(s for s in survivors if s != gone), words, ())
        self.must_refuse(survivors[which % len(survivors)], m.request(self.keys.place, false))

    @precondition(lambda self: self.trip in ("survivors", "unmask") and self.bench.thresholds.adversary == "active")
    @rule(which=number, left_out=number)
    def survivors_signatures_are_made_up(self, which: int, left_out: int) -> None:
        told = self.told(left_out)
        words = {s: signed(keys.new_key(), self.keys.place, s, self.sum.instance.agreed(told)).signature for s in told}
        self.must_refuse(told[which % len(told)], m.request(self.keys.place, m.Unmask(told, words, ())))

    def must_refuse(self, site: str, request: bytes) -> None:
        try:
            self.bench.answer(site, request)
        except FivefoldError:
            return
        raise AssertionError(f"{site} answered a forged {Envelope.decode(request).kind}")

    # ---- what holds throughout ----------------------------------------------------------------------------------
    @invariant()
    def nothing_is_said_twice_and_nothing_shows(self) -> None:
        for site, request, reply in self.bench.wire[self.read :]:
            assert not any(window in reply or window in request for window in self.windows[site])
            for data in m.envelopes_of(reply):
                envelope = Envelope.decode(data)
                self.watch(site, envelope.place, envelope.message())
        self.read = len(self.bench.wire)

    def watch(self, site: str, place: Place, message: m.Message) -> None:
        if isinstance(message, m.Masked):
            assert self.masked.setdefault((site, place), message.vector) == message.vector
        if isinstance(message, m.Agreed):
            assert self.agreed.setdefault((site, place), message.survivors) == message.survivors
        if isinstance(message, m.Unmasked):
            assert self.released.setdefault((site, place.round), message.survivors) == message.survivors
            assert len(message.survivors) >= self.needed
            for part, owners in (("seed", message.seed_shares), ("key", message.key_shares)):
                for owner in owners:
                    assert self.shown.setdefault((site, place, owner), part) == part
            lists = self.openers.setdefault(place.round, {})
            lists.setdefault(message.survivors, set()).add(site)
            assert sum(len(sites) >= self.bench.thresholds.t for sites in lists.values()) <= 1

    def teardown(self) -> None:
        """Whatever came before: with everybody back, the next round sums all sites."""
        if not hasattr(self, "bench"):
            return
        try:
            total = self.bench.ask(self.bench.rounds(attempts=self.attempts), self.round + 1, transcript=True)
            assert total.survivors == self.bench.names
            assert integers(total.vector) == self.bench.total(self.bench.names)
            self.nothing_is_said_twice_and_nothing_shows()
        finally:
            self.bench.stop()
            shutil.rmtree(self.folder)
            self.disk.stop()


TestSecureRounds = SecureRoundsMachine.TestCase
TestSecureRounds.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=50,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
