"""The coordinator's part: totals over survivors, drop-outs in every trip, crashes, false shares, memory."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest

from fivefold.auth.signatures import signed
from fivefold.coordinator.aggregation import Collector, KeyRound, recovered
from fivefold.errors import MessageMalformed, ProtocolViolation, SignatureWrong, TooManyDropouts
from fivefold.privacy.secagg.ring import RING32, RING128, Ring
from fivefold.protocol import messages as m
from fivefold.protocol.messages import Envelope
from tests.site.secure_sum_bench import Bench, integers

Adversary = Literal["active", "curious"]
BOTH = pytest.mark.parametrize("adversary", ["active", "curious"])
RINGS = pytest.mark.parametrize("ring", [RING32, RING128], ids=["ring32", "ring128"])


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    it = Bench(tmp_path, 5)
    yield it
    it.stop()


@BOTH
@RINGS
@pytest.mark.parametrize("n", [3, 5, 10])
def test_drop_outs_in_every_trip(tmp_path: Path, n: int, ring: Ring, adversary: Adversary) -> None:
    """0 .. n-t sites are lost in each trip of the second of three rounds; each total is the plain sum over its survivors."""
    trips = ["ask", "unmask", *(["survivors"] if adversary == "active" else [])]
    for trip in trips:
        for lost in range(n - 2 * n // 3):
            bench = Bench(tmp_path / f"{trip}{lost}", n, adversary=adversary, ring=ring)
            rounds = bench.rounds()
            gone = set(bench.names[:lost])
            assert integers(bench.ask(rounds, 1).vector) == bench.total(bench.names)
            bench.silent = lambda site, request, gone=gone, trip=trip: (
                site in gone and request.place.round == 2 and request.kind == trip
            )
            total = bench.ask(rounds, 2)
            alive = tuple(s for s in bench.names if trip != "ask" or s not in gone)
            assert (total.survivors, integers(total.vector)) == (alive, bench.total(alive))
            third = bench.ask(rounds, 3, more=False)
            assert integers(third.vector) == bench.total(third.survivors)
            assert len(third.survivors) >= bench.thresholds.survivors_needed
            assert not bench.refusals
            bench.stop()


@BOTH
def test_drop_outs_before_the_first_question(tmp_path: Path, adversary: Adversary) -> None:
    for trip in ("enrol", "share"):
        bench = Bench(tmp_path / trip, 10, adversary=adversary)
        bench.silent = lambda site, request, trip=trip: site in ("site0", "site9", "site4") and request.kind == trip
        total = bench.ask(bench.rounds(), 1)
        assert total.survivors == tuple(s for s in bench.names if s not in ("site0", "site9", "site4"))
        assert integers(total.vector) == bench.total(total.survivors)
        assert total.dropped == ("site0", "site4", "site9")
        bench.stop()


def test_drop_outs_of_all_trips_count_together(bench: Bench) -> None:
    """n - t over all trips of a round: one in the first and one in the second are too many for five sites."""
    rounds = bench.rounds()
    bench.silent = lambda site, request: (site, request.kind) in {("site0", "ask"), ("site1", "survivors")}
    with pytest.raises(TooManyDropouts):
        bench.ask(rounds, 1)
    bench.silent = lambda site, request: False
    assert bench.ask(rounds, 1).survivors == bench.names
    assert rounds.attempts[1] == 2


def test_lost_round_is_asked_again_with_fresh_keys(bench: Bench) -> None:
    rounds = bench.rounds()
    bench.ask(rounds, 1)
    bench.silent = lambda site, request: site in ("site0", "site1") and request.kind == "ask"
    with pytest.raises(TooManyDropouts):
        bench.ask(rounds, 2)
    first = [r for _, q, r in bench.wire if Envelope.decode(q).kind == "ask" and Envelope.decode(q).place.round == 2]
    bench.silent = lambda site, request: False
    assert integers(bench.ask(rounds, 2).vector) == bench.total(bench.names)
    second = [r for _, q, r in bench.wire if Envelope.decode(q).place == bench.place(2, 2) and Envelope.decode(q).kind == "ask"]
    assert not {_vector(r) for r in first} & {_vector(r) for r in second}
    assert integers(bench.ask(rounds, 3).vector) == bench.total(bench.names)
    assert not bench.refusals


def test_site_lost_in_the_first_trip_is_back_a_round_later(bench: Bench) -> None:
    """It is asked for keys while the others agree on the survivors, and shares while they unmask."""
    rounds = bench.rounds()
    bench.silent = lambda site, request: site == "site2" and request.place.round == 1 and request.kind == "ask"
    assert "site2" not in bench.ask(rounds, 1).survivors
    assert bench.ask(rounds, 2).survivors == bench.names


def test_restarted_site_misses_the_round_and_the_prepared_one(bench: Bench) -> None:
    rounds = bench.rounds()
    bench.ask(rounds, 1)
    bench.start("site3")
    assert "site3" not in bench.ask(rounds, 2).survivors
    assert {r for _, _, r in bench.refusals} == {"secrets_lost"}
    assert bench.ask(rounds, 3).survivors == bench.names


def test_all_sites_restart(bench: Bench) -> None:
    """Nobody holds keys any more: the next round begins with fresh ones, under an attempt that no site has seen."""
    bench.ask(bench.rounds(), 1)
    for name in bench.names:
        bench.start(name)
    total = bench.ask(bench.rounds(), 2)
    assert (total.survivors, integers(total.vector)) == (bench.names, bench.total(bench.names))


# ---- crashes of the coordinator ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("transcript", [False, True])
def test_record_is_written_before_a_share_is_asked_for(bench: Bench, transcript: bool) -> None:
    records: list[bytes] = []

    def before(record: bytes) -> None:
        assert not any(Envelope.decode(q).kind == "unmask" for _, q, _ in bench.wire)
        records.append(record)

    total = bench.ask(bench.rounds(), 1, before, transcript=transcript)
    assert len(records) == 1
    again = bench.rounds().recover(records[0])
    assert integers(again.vector) == integers(total.vector) == bench.total(bench.names)
    assert again.survivors == total.survivors
    assert again.transcript == total.transcript
    replies: dict[str, set[bytes]] = {}
    for name, request, reply in bench.wire:
        if Envelope.decode(request).kind == "unmask":
            replies.setdefault(name, set()).add(reply)
    assert all(len(r) == 1 for r in replies.values())


def test_a_failing_journal_stops_the_opening(bench: Bench) -> None:
    def full(record: bytes) -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        bench.ask(bench.rounds(), 1, full)
    assert not any(Envelope.decode(q).kind == "unmask" for _, q, _ in bench.wire)


def test_recovery_where_sites_restarted_too(bench: Bench) -> None:
    """Two of five hold shares no more: the round cannot be opened from the record, and is asked anew for the same survivors."""
    records: list[bytes] = []
    rounds = bench.rounds()
    bench.silent = lambda site, request: request.kind == "unmask" and site != "site4"
    with pytest.raises(TooManyDropouts):
        bench.ask(rounds, 1, records.append)
    bench.start("site0")
    bench.start("site1")
    bench.silent = lambda site, request: False
    later = bench.rounds()
    with pytest.raises(TooManyDropouts):
        later.recover(records[0])
    total = bench.ask(later, 1)
    assert (total.survivors, integers(total.vector)) == (bench.names, bench.total(bench.names))


# ---- hostile replies --------------------------------------------------------------------------------------------------
def test_altered_reply_does_not_count(bench: Bench) -> None:
    key_round = bench.open_keys()
    following = KeyRound(bench.roster, bench.thresholds, bench.place(2))
    collector = bench.collector(key_round, following=following)
    reply = bench.answer("site0", collector.ask(key_round, "site0", b"task"))
    for i in range(0, len(reply), 7):
        altered = reply[:i] + bytes([reply[i] ^ 1]) + reply[i + 1 :]
        with pytest.raises((MessageMalformed, SignatureWrong, ProtocolViolation)):
            collector.add_masked("site0", altered)
    with pytest.raises(ProtocolViolation, match="another site"):
        collector.add_masked("site1", reply)
    collector.add_masked("site0", reply)
    collector.add_masked("site0", reply)  # a repeated one counts once
    for name in bench.names[1:]:
        collector.add_masked(name, bench.answer(name, collector.ask(key_round, name, b"task")))
    bench.agreed(collector)
    for name in bench.names:
        collector.add_unmasked(name, bench.answer(name, collector.unmask_request()))
    assert integers(collector.total().vector) == bench.total(bench.names)


def test_shares_that_come_after_the_question_do_not_count(bench: Bench) -> None:
    """Otherwise some sites would be asked with them and others without: two sets of sharers, and a total of garbage."""
    key_round = KeyRound(bench.roster, bench.thresholds, bench.place())
    for name in bench.names:
        key_round.add_advert(name, m.envelopes_of(bench.answer(name, key_round.enrol()))[0])
    replies = {name: m.envelopes_of(bench.answer(name, key_round.share()))[0] for name in bench.names}
    for name in bench.names[:4]:
        key_round.add_shares(name, replies[name])
    collector = bench.collector(key_round)
    with pytest.raises(ProtocolViolation, match="after the question"):
        key_round.add_shares("site4", replies["site4"])
    assert key_round.sharers == collector.instance.sharers == bench.names[:4]


def test_late_update_is_not_added(bench: Bench) -> None:
    key_round = bench.open_keys()
    collector = bench.masked(key_round, silent=["site2"])
    with pytest.raises(ProtocolViolation, match="late"):
        collector.add_masked("site2", bench.answer("site2", collector.ask(key_round, "site2", b"task")))


@pytest.mark.parametrize("dropped", [(), ("site6",)])
def test_one_false_share_is_done_without(tmp_path: Path, dropped: tuple[str, ...]) -> None:
    bench = Bench(tmp_path, 7)
    collector = bench.agreed(bench.masked(bench.open_keys(), silent=dropped))
    for name in collector.survivors:
        reply = bench.answer(name, collector.unmask_request())
        collector.add_unmasked(name, _with_false_share(bench, name, reply) if name == "site3" else reply)
    total = collector.total()
    assert integers(total.vector) == bench.total(collector.survivors)
    assert collector.liars == ("site3",)
    bench.stop()


def test_false_share_without_one_to_spare_is_noticed(tmp_path: Path) -> None:
    bench = Bench(tmp_path, 3)
    collector = bench.agreed(bench.masked(bench.open_keys()))
    for name in collector.survivors:
        reply = bench.answer(name, collector.unmask_request())
        collector.add_unmasked(name, _with_false_share(bench, name, reply) if name == "site1" else reply)
    with pytest.raises(ProtocolViolation, match="false"):
        collector.total()
    bench.stop()


def test_damaged_record_is_not_recovered(bench: Bench) -> None:
    records: list[bytes] = []
    bench.ask(bench.rounds(), 1, records.append)
    with pytest.raises(MessageMalformed):
        recovered(records[0][:-1], bench.roster, bench.thresholds)


# ---- memory -----------------------------------------------------------------------------------------------------------
def _peak(folder: Path, n: int, length: int) -> int:
    """Bytes that a coordinator holds at most while n updates arrive from disk, one site drops out, and all is opened."""
    bench = Bench(folder, n, ring=RING32, length=length)
    key_round = bench.open_keys()
    collector = bench.collector(key_round)
    for name in bench.names:
        (folder / f"{name}.reply").write_bytes(bench.answer(name, collector.ask(key_round, name, b"task")))
    bench.wire.clear()
    tracemalloc.start()
    try:
        collector = bench.collector(key_round)
        lost = bench.names[-1] if n > 3 else ""
        for name in bench.names:
            if name != lost:
                collector.add_masked(name, (folder / f"{name}.reply").read_bytes())
        _finish(bench, collector)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        bench.stop()


def _finish(bench: Bench, collector: Collector) -> None:
    collector.close()
    bench.agreed(collector)
    for name in collector.survivors:
        collector.add_unmasked(name, bench.answer(name, collector.unmask_request()))
    total = collector.total().vector
    plain = sum(int(bench.vectors[name][-1]) for name in collector.survivors)
    assert int(total[-1]) == plain % (1 << 32)


def test_peak_memory_does_not_depend_on_the_number_of_sites(tmp_path: Path) -> None:
    length = 1 << 20  # 4 MiB an update
    few, many = _peak(tmp_path / "few", 3, length), _peak(tmp_path / "many", 15, length)
    assert many < 1.02 * few
    assert few < 6 * 4 * length


# ---- helpers ----------------------------------------------------------------------------------------------------------
def _vector(reply: bytes) -> bytes:
    return m.Masked.decode(Envelope.decode(m.envelopes_of(reply)[0]).body).vector


def _with_false_share(bench: Bench, name: str, reply: bytes) -> bytes:
    """The reply of a site that lies about one share, signed by itself."""
    envelope = Envelope.decode(m.envelopes_of(reply)[0])
    word = m.Unmasked.decode(envelope.body)
    part = "key_shares" if word.key_shares else "seed_shares"
    shares: Any = dict(getattr(word, part))
    owner = sorted(shares)[0]
    shares[owner] = bytes(32) + bytes([shares[owner][-1] ^ 1])
    return m.reply(signed(bench.private[name], envelope.place, name, replace(word, **{part: shares})).encode())


@BOTH
def test_a_crash_within_a_trip_costs_no_site_its_round(tmp_path: Path, adversary: Adversary) -> None:
    """Coordinator and nodes die when one site alone has answered, and has advertised keys for the next round."""
    bench = Bench(tmp_path, 5, adversary=adversary)
    bench.silent = lambda site, request: request.kind == "ask" and site != "site0"
    with pytest.raises(TooManyDropouts):
        bench.ask(bench.rounds(), 1)
    bench.silent = lambda site, request: False
    for name in bench.names:
        bench.start(name)
    rounds = bench.rounds()
    for round in (1, 2, 3):
        total = bench.ask(rounds, round)
        assert (total.survivors, integers(total.vector)) == (bench.names, bench.total(bench.names))
    bench.stop()
