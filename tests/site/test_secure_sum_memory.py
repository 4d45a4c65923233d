"""A site's own disk and memory in a secure sum: what stays, what is forgotten, and what a full disk changes."""

from __future__ import annotations

from pathlib import Path

import pytest

from fivefold.coordinator.aggregation import Collector, KeyRound
from fivefold.errors import MessageMalformed, RunFolderTaken, StorageFull, TooFewSites
from fivefold.privacy.secagg.ring import RING32
from fivefold.protocol.messages import Envelope
from fivefold.site import secure_sum
from fivefold.site.round_book import RoundBook
from tests.site.secure_sum_bench import QUESTION, Bench, integers
from tests.site.secure_sum_requests import refused


def test_second_process_of_one_site(bench: Bench) -> None:
    with pytest.raises(RunFolderTaken):
        RoundBook(bench.folder / "site0", "run-1")


@pytest.mark.parametrize("trip", ["enrol", "ask", "survivors", "unmask"])
def test_full_disk_says_nothing_and_loses_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch, trip: str) -> None:
    """In every trip with a fact to keep: no reply leaves while it cannot be written, and the same request serves later."""
    site = bench.sites["site0"]
    note = RoundBook._note
    full = {trip}

    def failing(self: RoundBook, fact: dict[str, object]) -> None:
        kind = {"advertised": "enrol", "answered": "ask", "signed": "survivors", "released": "unmask"}
        if self is site.book and any(kind[k] in full for k in fact if k != "advertised" or len(fact) == 1):
            raise StorageFull("the disk is full")
        note(self, fact)

    monkeypatch.setattr(RoundBook, "_note", failing)

    def answer(name: str, request: bytes) -> bytes:
        if name == "site0" and Envelope.decode(request).kind == trip:
            full.add(trip)
            with pytest.raises(StorageFull):
                Bench.answer(bench, name, request)
            full.clear()
        return Bench.answer(bench, name, request)

    monkeypatch.setattr(bench, "answer", answer)
    assert integers(bench.ask(bench.rounds(), 1).vector) == bench.total(bench.names)


def test_gate_may_refuse_at_both_moments(tmp_path: Path) -> None:
    """`consider` before a signature, `release` before the first share; once opened, a repeat does not ask again."""
    seen: list[tuple[str, secure_sum.Sum]] = []
    bench = Bench(tmp_path, 3, consider=lambda s: seen.append(("consider", s)), release=lambda s: seen.append(("release", s)))
    bench.ask(bench.rounds(), 1)
    assert [what for what, _ in seen] == ["consider"] * 3 + ["release"] * 3
    assert {s for _, s in seen} == {secure_sum.Sum(bench.place(), QUESTION, bench.names, frozenset())}
    for name, request, reply in list(bench.wire):
        assert bench.answer(name, request) == reply
    assert len(seen) == 6
    bench.stop()


def test_dropped_sites_choice_is_known_to_the_survivors(tmp_path: Path) -> None:
    seen: list[secure_sum.Sum] = []
    bench = Bench(tmp_path, 5, release=seen.append)
    for name in ("site1", "site4"):
        bench.standings[name] = bench.standing(name, site_totals=True)
        bench.start(name)
    bench.silent = lambda site, request: site == "site4" and request.kind == "ask"
    bench.ask(bench.rounds(), 1)
    assert {s.permitted for s in seen} == {frozenset({"site1", "site4"})}
    bench.stop()


def test_refusal_at_release_lets_nothing_out(tmp_path: Path) -> None:
    def no(_: secure_sum.Sum) -> None:
        raise TooFewSites("no", rule="class_rule")

    bench = Bench(tmp_path, 3, release=no)
    collector: Collector = bench.agreed(bench.masked(bench.open_keys()))
    for name in bench.names:
        refused(bench, name, collector.unmask_request(), "class_rule", TooFewSites)
        assert not bench.sites[name].book.released
    bench.stop()


def _secrets(bench: Bench) -> list[bytes]:
    found = []
    for site in bench.sites.values():
        for held in site._rounds.values():
            if held.secret is not None:
                found += [held.secret.seal.private, held.secret.mask.private, held.secret.seed]
                found += [share for pair in held.secret.held.values() for share in pair]
    return found


def test_round_secrets_never_reach_the_disk_or_the_wire(bench: Bench) -> None:
    bench.masked(bench.open_keys())
    secrets = _secrets(bench)
    assert len(secrets) > 50
    sent = b"".join(q + r for _, q, r in bench.wire)
    kept = b"".join(p.read_bytes() for p in bench.folder.rglob("*") if p.is_file())
    assert kept
    for secret in secrets:
        for start in range(len(secret) - 15):
            assert secret[start : start + 16] not in sent
            assert secret[start : start + 16] not in kept
    assert "private" not in repr(bench.sites["site0"]._rounds)


def test_round_secrets_are_forgotten(bench: Bench) -> None:
    rounds = bench.rounds()
    bench.ask(rounds, 1)
    for site in bench.sites.values():
        assert site._rounds[1, 1].secret is None
        assert site._rounds[2, 1].secret is not None
    bench.ask(rounds, 2)
    bench.ask(rounds, 3)
    assert all(set(site._rounds) == {(2, 1), (3, 1), (4, 1)} for site in bench.sites.values())
    rounds.close(3)
    assert not any(site._rounds for site in bench.sites.values())
    assert not bench.refusals


def test_coordinator_cannot_fill_a_sites_memory_with_rounds(bench: Bench) -> None:
    for round in range(1, 30):
        bench.answer("site0", KeyRound(bench.roster, bench.thresholds, bench.place(round)).enrol())
        bench.answer("site0", KeyRound(bench.roster, bench.thresholds, bench.place(round, 2)).enrol())
    assert len(bench.sites["site0"]._rounds) <= 3


def test_vector_of_another_ring_is_an_error(bench: Bench) -> None:
    key_round = bench.open_keys()
    request = Envelope.decode(bench.collector(key_round).ask(key_round, "site0", b"task"))
    with pytest.raises(MessageMalformed):
        bench.sites["site0"].mask(request, bench.vectors["site0"], RING32, QUESTION)


def test_answer_is_not_changed_by_masking(bench: Bench) -> None:
    before = {n: v.copy() for n, v in bench.vectors.items()}
    bench.ask(bench.rounds(), 1)
    assert all((before[n] == bench.vectors[n]).all() for n in bench.names)
