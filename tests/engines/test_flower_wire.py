"""Letters over Flower: who answers is proved, versions are compared first, hostile bytes are refused; the site's pace."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fivefold.auth.keys import new_key, public_of
from fivefold.coordinator.attendance import Attendance
from fivefold.engines.flower import site as process
from fivefold.engines.flower import wire
from fivefold.engines.flower.certificates import make_authority, make_connection_key
from fivefold.engines.flower.grid import FlowerEngine
from fivefold.engines.flower.site import SELDOM, SOON, SOON_FOR, Pace, attend, handle
from fivefold.engines.flower.wire import KIND, Answer, Letter, Seen
from fivefold.errors import FivefoldError, ProtocolViolation, SignatureWrong
from fivefold.protocol.encoding import decode, encode
from fivefold.protocol.messages import Roster
from fivefold.records.audit import AuditLog, entries
from fivefold.records.audit_report import chapter
from fivefold.site.folder import create

SITES = ("alder", "birch", "cedar")
PRIVATE = {name: new_key() for name in SITES}
PUBLIC = {name: public_of(key) for name, key in PRIVATE.items()}
NONCE = bytes(range(16))


def test_each_site_reads_what_is_for_it() -> None:
    request = wire.request(NONCE, {"alder": b"one", "birch": b"two", "cedar": b"one"}, 3)
    assert [wire.read_request(request, name).data for name in SITES] == [b"one", b"two", b"one"]
    assert wire.read_request(request, "elm").data is None
    assert request.count(b"one") == 1, "equal requests travel once"


def test_a_reply_is_its_sites_or_nobodys() -> None:
    said = wire.reply("alder", PRIVATE["alder"], NONCE, b"answer")
    assert wire.read_reply(said, NONCE, PUBLIC) == ("alder", b"answer")
    with pytest.raises(SignatureWrong):
        wire.read_reply(said, bytes(16), PUBLIC)  # played again to another request
    with pytest.raises(SignatureWrong):
        wire.read_reply(wire.reply("birch", PRIVATE["alder"], NONCE, b"answer"), NONCE, PUBLIC)
    with pytest.raises(SignatureWrong):
        wire.read_reply(wire.reply("elm", PRIVATE["alder"], NONCE, b"answer"), NONCE, PUBLIC)
    for part in ("site", "answer"):
        changed = dict(decode(said)) | {part: "birch" if part == "site" else b"other"}
        with pytest.raises(SignatureWrong):
            wire.read_reply(encode(changed), NONCE, PUBLIC)


def test_versions_are_compared_before_anything_else() -> None:
    next_version = dict(decode(wire.request(NONCE, {"alder": b"x"}, 1))) | {"protocol": wire.VERSION + 1, "nonce": 3}
    with pytest.raises(ProtocolViolation) as error:
        wire.read_request(encode(next_version), "alder")
    assert error.value.rule == "protocol_version"
    with pytest.raises(ProtocolViolation):
        wire.read_reply(encode({"protocol": wire.VERSION + 1, "site": "alder"}), NONCE, PUBLIC)


@given(st.binary(max_size=80) | st.dictionaries(st.text(max_size=8), st.integers() | st.binary(max_size=8)).map(encode))
def test_any_bytes_are_a_letter_or_a_refusal(data: bytes) -> None:
    for read in (lambda: wire.read_request(data, "alder"), lambda: wire.read_reply(data, NONCE, PUBLIC)):
        with pytest.raises(FivefoldError):
            read()


def test_a_site_asks_often_after_a_message_and_seldom_when_idle() -> None:
    now = [0.0]
    pace = Pace(lambda: now[0])
    assert pace.nothing() == SELDOM
    pace.message(5)
    assert (pace.nothing(), pace.busy) == (SOON, True)
    assert pace.nothing(cost=0.01) == pytest.approx(0.1), "five sites take half of the SuperLink's time"
    now[0] = SOON_FOR + 0.01
    waits = [pace.nothing() for _ in range(9)]
    assert waits == [min(SOON * 2**i, SELDOM) for i in range(1, 10)]
    pace.working()
    now[0] = 1e6
    assert pace.busy, "a long computation is a sign of life"


class Cut:
    """A SuperLink that is away, but for the tries `there`; then the connection breaks at once."""

    def __init__(self, there: set[int]) -> None:
        self.there, self.tries = there, 0

    def __call__(self, *_: object) -> Cut:
        self.tries += 1
        return self

    def connect(self, last: int = 0) -> int:
        if self.tries not in self.there:
            raise ConnectionError("away")
        return 7

    def receive(self) -> Letter | None:
        raise ConnectionError("cut")

    def alive(self, busy: bool) -> None:
        """Nobody listens."""

    def close(self) -> None:
        """Nothing is open."""


class Patience(threading.Event):
    """Waits for nobody, writes down how long it would have, and says stop in the end."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most, self.waits = most, list[float]()

    def wait(self, timeout: float | None = None) -> bool:
        self.waits.append(timeout or 0.0)
        if len(self.waits) == self.most:
            self.set()
        return self.is_set()


def test_a_lost_connection_is_sought_again_ever_less_often(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = create(tmp_path / "basel", "basel")
    make_connection_key(folder.keys)
    make_authority(tmp_path)
    monkeypatch.setattr(process, "SiteConnection", Cut({9}))
    monkeypatch.setattr(process, "Answering", lambda _: SimpleNamespace(close=lambda: None))
    stop, said = Patience(11), list[str]()
    process.start(folder.path, "localhost:1", tmp_path / "ca.pem", tell=said.append, stop=stop)
    doubled = [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 0.5, 1.0, 2.0]  # once connected, it begins anew
    assert [most / 2 <= waited <= most for waited, most in zip(stop.waits, doubled, strict=True)] == [True] * 11
    assert len(set(stop.waits)) > 9, "sites that were cut off together do not come back together"
    assert said.count("basel is connected to localhost:1") == 1


class Over:
    """A SuperLink that takes no reply, for the run is over; and a site's child, with one answer for all."""

    def reply(self, letter: Letter, payload: bytes) -> None:
        raise PermissionError("Run is finished.")

    def answer(self, request: bytes) -> tuple[bytes, int]:
        return b"answer", 3


def test_a_reply_that_nobody_takes_is_no_reason_to_hang_up() -> None:
    said = list[str]()
    assert handle(Over(), Over(), Letter(1, "a", KIND, 1, b"x"), said.append) == 3
    assert said == ["a reply was not taken: Run is finished."]


class Heart:
    """A SuperLink that a first sign of life does not reach, and that does not know the site at the third."""

    def __init__(self) -> None:
        self.errors: list[Exception | None] = [ConnectionError("slow"), None, PermissionError("who?")]
        self.beats = 0

    def alive(self, busy: bool) -> None:
        self.beats += 1
        error = self.errors.pop(0)
        if error:
            raise error

    def receive(self) -> None:
        return None


def test_a_sign_of_life_that_did_not_get_through_is_given_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A site that is connected and gives none would be asked nothing, for ever."""
    monkeypatch.setattr("fivefold.engines.flower.site.HEARTBEAT_BUSY", 0.0)
    monkeypatch.setattr("fivefold.engines.flower.site.BEAT_IDLE", 0.0)
    fleet = Heart()
    with pytest.raises(PermissionError, match="no sign of life"):
        attend(fleet, fleet, threading.Event())
    assert fleet.beats == 3


class Wired:
    """A SuperLink of the test's own: `behind` says which site is behind which node; some nodes are silent."""

    def __init__(self, behind: Mapping[int, str], silent: frozenset[int] = frozenset()) -> None:
        self.behind, self.silent = dict(behind), set(silent)
        self.asked: list[int] = []
        self.waiting: dict[str, tuple[int, bytes]] = {}
        self.alive = 100.0

    def nodes(self) -> list[Seen]:
        return [Seen(node, self.alive) for node in self.behind if node not in self.silent]

    def push(self, payloads: Mapping[int, bytes], seconds: float) -> dict[str, int]:
        ids = {f"{len(self.asked)}-{node}": node for node in payloads}
        self.asked += payloads
        self.waiting |= {i: (node, payloads[node]) for i, node in ids.items()}
        return ids

    def pull(self, ids: list[str]) -> list[Answer]:
        found = []
        for id in [i for i in ids if self.waiting[i][0] not in self.silent]:
            node, payload = self.waiting.pop(id)
            name = self.behind[node]
            request = wire.read_request(payload, name)
            answer = b"" if request.data is None else name.encode() + request.data
            key = PRIVATE.get(name, PRIVATE["alder"])
            found.append(Answer(id, node, wire.reply(name, key, request.nonce, answer)))
        return found

    def close(self) -> None:
        pass


def test_sites_are_found_by_their_signatures_and_then_asked_alone() -> None:
    link = Wired({11: "cedar", 12: "alder", 13: "birch", 14: "stranger"})
    engine = FlowerEngine(link, PUBLIC, gather=0.0)
    asked = dict.fromkeys(SITES, b"!")
    assert dict(engine.exchange(asked)) == {name: name.encode() + b"!" for name in SITES}
    assert sorted(link.asked) == [11, 12, 13, 14]
    link.asked.clear()
    assert dict(engine.exchange(asked)) == {name: name.encode() + b"!" for name in SITES}
    assert sorted(link.asked) == [11, 12, 13]


def test_who_pretends_to_be_a_site_stands_in_the_coordinators_log(tmp_path: Path) -> None:
    """A connection that was let in, and signs as somebody else: once a run, as an attempt; a site of another study is none."""

    class Pretended(Wired):
        def pull(self, ids: list[str]) -> list[Answer]:
            asked = {i: wire.read_request(self.waiting[i][1], "alder") for i in ids}
            false = {14: ("alder", "birch"), 15: ("elm", "birch")}
            found = super().pull(ids)
            for at, one in enumerate(found):
                if one.node in false:
                    name, key = false[one.node]
                    found[at] = replace(one, payload=wire.reply(name, PRIVATE[key], asked[one.to].nonce, b"false"))
            return found

    link = Pretended({11: "cedar", 12: "alder", 13: "birch", 14: "x", 15: "y", 16: "stranger"})
    with AuditLog(tmp_path / "audit.jsonl", bytes(range(32)), "coordinator") as log:
        engine = FlowerEngine(link, PUBLIC, gather=0.0)
        there = Attendance(engine, Roster(tuple(SITES), tuple(PUBLIC[s] for s in SITES)), log)
        for _ in range(2):
            assert dict(there.exchange(dict.fromkeys(SITES, b"!"))) == {name: name.encode() + b"!" for name in SITES}
            engine._node.clear()  # everybody is asked once more, as after a restart
    found = [(chapter(e), e.facts["node"], e.facts["rule"]) for e in entries(tmp_path / "audit.jsonl") if e.event != "opened"]
    assert sorted(found) == [("authentication", "14", "signature"), ("authentication", "15", "unknown_site")]


def test_a_site_that_fell_silent_is_not_waited_for_until_it_shows_life() -> None:
    link = Wired({11: "cedar", 12: "alder", 13: "birch"})
    engine = FlowerEngine(link, PUBLIC, deadline=0.3, gather=0.0)
    asked = dict.fromkeys(SITES, b"!")
    assert len(dict(engine.exchange(asked))) == 3
    link.silent = {13}
    assert set(dict(engine.exchange(asked))) == {"alder", "cedar"}
    link.asked.clear()
    assert set(dict(engine.exchange(asked))) == {"alder", "cedar"}
    assert 13 not in link.asked
    link.silent, link.alive = set(), 200.0
    assert set(dict(engine.exchange(asked))) == set(SITES)


def test_another_version_ends_the_run_in_a_sentence() -> None:
    class Later(Wired):
        def pull(self, ids: list[str]) -> list[Answer]:
            return [Answer(i, 0, encode({"protocol": 99, "site": "alder"})) for i in ids]

    with pytest.raises(ProtocolViolation, match="site 'alder' speaks protocol version 99, not"):
        dict(FlowerEngine(Later({12: "alder"}), PUBLIC).exchange({"alder": b"!"}))


def test_a_trip_that_need_not_wait_ends_and_the_late_site_is_busy_until_it_is_done() -> None:
    link = Wired({11: "cedar", 12: "alder", 13: "birch"})
    engine = FlowerEngine(link, PUBLIC, gather=0.0)
    assert len(dict(engine.exchange(dict.fromkeys(SITES, b"!")))) == 3
    link.silent = {13}
    heard = dict[str, bytes]()
    for site, reply in engine.exchange_until(dict.fromkeys(SITES, b"?"), lambda: len(heard) == 2):
        heard[site] = reply
    assert set(heard) == {"alder", "cedar"}
    assert engine.busy() == {"birch"}
    link.silent = set()
    assert dict(engine.exchange(dict.fromkeys(SITES, b"+"))) == {name: name.encode() + b"+" for name in SITES}
    assert engine.busy() == frozenset()


def test_what_is_posted_arrives_while_others_are_asked_and_a_lost_site_is_told() -> None:
    link = Wired({11: "cedar", 12: "alder", 13: "birch"})
    engine = FlowerEngine(link, PUBLIC, gather=0.0)
    assert len(dict(engine.exchange(dict.fromkeys(SITES, b"!")))) == 3
    link.silent = {13}
    engine.post({"birch": b"long", "cedar": b"short"})
    assert engine.busy() == {"birch", "cedar"}
    assert dict(engine.arrived()) == {"cedar": b"cedarshort"}
    assert dict(engine.exchange({"alder": b"?"})) == {"alder": b"alder?"}
    link.silent = set()
    assert dict(engine.arrived()) == {"birch": b"birchlong"}
    assert engine.arrived() == []
    # A node that is gone answers nothing, and a site that nobody found has none.
    engine.post({"birch": b"again", "dogwood": b"?"})
    assert dict(engine.arrived()) == {"dogwood": b""}
    link.behind.pop(13)
    link.silent = {13}
    assert dict(engine.arrived()) == {"birch": b""}
