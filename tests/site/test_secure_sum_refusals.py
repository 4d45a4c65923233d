"""What a site refuses in a secure sum, and by which rule: each attack that a coordinator, a peer or the way between may try."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fivefold.auth import keys
from fivefold.auth.signatures import signed
from fivefold.coordinator.aggregation import Collector, KeyRound
from fivefold.errors import (
    FivefoldError,
    MessageMalformed,
    ProtocolViolation,
    RunFolderTaken,
    SealBroken,
    SignatureWrong,
    StorageFull,
    StudyInvalid,
    TooFewSites,
    TooManyDropouts,
)
from fivefold.privacy.secagg import thresholds
from fivefold.privacy.secagg.ring import RING32
from fivefold.protocol import messages as m
from fivefold.protocol.messages import Envelope, Place
from fivefold.site import secure_sum
from fivefold.site.round_book import RoundBook
from fivefold.site.standing import Standing
from tests.site.secure_sum_bench import QUESTION, Bench, integers


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    it = Bench(tmp_path, 5)
    yield it
    it.stop()


@pytest.fixture
def curious(tmp_path: Path) -> Iterator[Bench]:
    it = Bench(tmp_path, 5, adversary="curious")
    yield it
    it.stop()


def refused(bench: Bench, site: str, request: bytes, rule: str, kind: type[FivefoldError] = ProtocolViolation) -> None:
    """The site says no by this rule; what leaves is the code and the rule alone, signed, and nothing else happens."""
    with pytest.raises(kind) as caught:
        bench.answer(site, request)
    assert caught.value.rule == rule
    (reply,) = m.envelopes_of(bench.reply(site, request))
    assert Envelope.decode(reply).message() == m.Refusal(kind.__name__, rule, "")


def unmask(place: Place, survivors: tuple[str, ...], signatures: dict[str, bytes]) -> bytes:
    return m.request(place, m.Unmask(survivors, signatures, ()))


def survivors(place: Place, names: tuple[str, ...]) -> bytes:
    return m.request(place, m.Survivors(names))


# ---- survivors --------------------------------------------------------------------------------------------------------
def test_different_survivor_lists_to_different_sites(bench: Bench) -> None:
    """One half is told that site4 dropped out, the other that all survived: neither list gathers the signatures it needs."""
    place, some = bench.place(), bench.names[:4]
    bench.masked(bench.open_keys())
    said = {name: bench.answer(name, survivors(place, some)) for name in ("site0", "site1")}
    said |= {name: bench.answer(name, survivors(place, bench.names)) for name in ("site2", "site3", "site4")}
    words = {name: Envelope.decode(m.envelopes_of(reply)[0]).signature for name, reply in said.items()}
    for listed in (some, bench.names):
        for site in some:
            request = unmask(place, listed, {n: words[n] for n in listed})
            mine = some if site in ("site0", "site1") else bench.names
            if mine == listed:
                refused(bench, site, request, "signature", SignatureWrong)
            else:
                refused(bench, site, request, "second_survivor_list")
    fewer = unmask(place, bench.names, {n: words[n] for n in ("site2", "site3", "site4")})
    refused(bench, "site2", fewer, "too_few_sites", TooFewSites)


def test_second_survivor_list(bench: Bench) -> None:
    bench.masked(bench.open_keys())
    bench.answer("site0", survivors(bench.place(), bench.names))
    refused(bench, "site0", survivors(bench.place(), bench.names[:4]), "second_survivor_list")
    bench.answer("site0", survivors(bench.place(), bench.names))


def test_second_survivor_list_after_the_round_was_opened(bench: Bench) -> None:
    """A new attempt with fresh keys serves the list that was opened, and no other."""
    collector = bench.agreed(bench.masked(bench.open_keys()))
    bench.answer("site0", collector.unmask_request())
    bench.masked(bench.open_keys(attempt=2))
    refused(bench, "site0", survivors(bench.place(attempt=2), bench.names[:4]), "second_survivor_list")
    bench.answer("site0", survivors(bench.place(attempt=2), bench.names))


def test_second_survivor_list_after_a_restart(bench: Bench) -> None:
    collector = bench.agreed(bench.masked(bench.open_keys()))
    bench.answer("site0", collector.unmask_request())
    bench.start("site0")
    bench.masked(bench.open_keys(attempt=2))
    refused(bench, "site0", survivors(bench.place(attempt=2), bench.names[:4]), "second_survivor_list")


def test_both_shares_of_one_site(curious: Bench) -> None:
    """First the seed's share of site4, as of a survivor; then its mask key's, as of one that dropped out."""
    curious.masked(curious.open_keys())
    reply = curious.answer("site0", unmask(curious.place(), curious.names, {}))
    word = m.Unmasked.decode(Envelope.decode(m.envelopes_of(reply)[0]).body)
    assert "site4" in word.seed_shares
    assert not word.key_shares
    refused(curious, "site0", unmask(curious.place(), curious.names[:4], {}), "both_shares")
    assert curious.answer("site0", unmask(curious.place(), curious.names, {})) == reply


def test_both_shares_of_one_site_against_an_active_coordinator(bench: Bench) -> None:
    collector = bench.agreed(bench.masked(bench.open_keys()))
    bench.answer("site0", collector.unmask_request())
    refused(bench, "site0", survivors(bench.place(), bench.names[:4]), "both_shares")
    refused(bench, "site0", unmask(bench.place(), bench.names[:4], {}), "both_shares")


def test_too_few_survivors(bench: Bench) -> None:
    bench.masked(bench.open_keys())
    refused(bench, "site0", survivors(bench.place(), bench.names[:3]), "too_few_sites", TooFewSites)


def test_survivor_list_that_leaves_out_who_is_asked(bench: Bench) -> None:
    bench.masked(bench.open_keys())
    refused(bench, "site4", survivors(bench.place(), bench.names[:4]), "not_a_survivor")


def test_survivor_list_with_a_stranger_or_out_of_order(bench: Bench) -> None:
    key_round = bench.open_keys(silent=["site4"])
    bench.masked(key_round)
    refused(bench, "site0", survivors(bench.place(), bench.names), "unknown_peer")
    refused(bench, "site0", survivors(bench.place(), (*bench.names[:4], "nobody")), "unknown_peer")
    refused(bench, "site0", survivors(bench.place(), ("site1", "site0", "site2", "site3")), "unknown_peer")


def test_unmasking_without_the_survivors_signatures(bench: Bench) -> None:
    collector = bench.agreed(bench.masked(bench.open_keys()))
    request = m.Unmask.decode(Envelope.decode(collector.unmask_request()).body)
    refused(bench, "site0", unmask(bench.place(), bench.names, {}), "too_few_sites", TooFewSites)
    three = dict(sorted(request.signatures.items())[:3])
    refused(bench, "site0", unmask(bench.place(), bench.names, three), "too_few_sites", TooFewSites)
    forged = dict(request.signatures) | {"site2": bytes(64)}
    refused(bench, "site0", unmask(bench.place(), bench.names, forged), "signature", SignatureWrong)
    borrowed = dict(request.signatures) | {"site2": request.signatures["site3"]}
    refused(bench, "site0", unmask(bench.place(), bench.names, borrowed), "signature", SignatureWrong)
    refused(bench, "site0", unmask(bench.place(), bench.names[:4], dict(request.signatures)), "second_survivor_list")


def test_survivors_signatures_of_another_attempt_or_question(bench: Bench) -> None:
    """Signatures bind study, run, round, attempt, key list, question and ring."""
    old = bench.agreed(bench.masked(bench.open_keys()))
    words = dict(m.Unmask.decode(Envelope.decode(old.unmask_request()).body).signatures)
    bench.masked(bench.open_keys(attempt=2))
    refused(bench, "site0", unmask(bench.place(attempt=2), bench.names, words), "signature", SignatureWrong)


# ---- keys -------------------------------------------------------------------------------------------------------------
def advertised(bench: Bench) -> KeyRound:
    key_round = KeyRound(bench.roster, bench.thresholds, bench.place())
    for name in bench.names:
        key_round.add_advert(name, m.envelopes_of(bench.answer(name, key_round.enrol()))[0])
    key_round.fix()
    return key_round


def share(bench: Bench, adverts: tuple[bytes, ...]) -> bytes:
    return m.request(bench.place(), m.Share(adverts))


def false_advert(bench: Bench, name: str, private: bytes) -> bytes:
    advert = m.Advert(bench.roster.digest, os.urandom(32), os.urandom(32), os.urandom(32), False)
    return signed(private, bench.place(), name, advert).encode()


def test_a_key_of_its_own_in_a_sites_place(bench: Bench) -> None:
    adverts = advertised(bench).list
    mine = false_advert(bench, "site3", keys.new_key())
    refused(bench, "site0", share(bench, (*adverts[:3], mine, adverts[4])), "signature", SignatureWrong)


def test_own_key_altered_or_left_out(bench: Bench) -> None:
    adverts = advertised(bench).list
    stolen = false_advert(bench, "site0", bench.private["site0"])
    refused(bench, "site0", share(bench, (stolen, *adverts[1:])), "own_key_altered")
    refused(bench, "site0", share(bench, adverts[1:]), "own_key_altered")


def test_site_that_the_study_does_not_name(bench: Bench) -> None:
    adverts = advertised(bench).list
    refused(bench, "site0", share(bench, (*adverts, false_advert(bench, "site9", keys.new_key()))), "unknown_peer")


def test_key_list_out_of_order_doubled_or_of_another_place(bench: Bench) -> None:
    adverts = advertised(bench).list
    refused(bench, "site0", share(bench, (adverts[0], *adverts[:0:-1])), "key_list")
    refused(bench, "site0", share(bench, (*adverts, adverts[4])), "key_list")
    other = KeyRound(bench.roster, bench.thresholds, bench.place(2))
    elsewhere = m.envelopes_of(bench.answer("site4", other.enrol()))[0]
    refused(bench, "site0", share(bench, (*adverts[:4], elsewhere)), "wrong_place")
    no_advert = m.envelopes_of(bench.reply("site4", share(bench, ())))[0]
    refused(bench, "site0", share(bench, (*adverts[:4], no_advert)), "wrong_place")


def test_one_key_for_two_purposes(bench: Bench) -> None:
    """A site (it signs itself) that advertises one key twice, or a peer's key as its own."""
    adverts = advertised(bench).list
    of_zero = m.Advert.decode(Envelope.decode(adverts[0]).body)
    copied = signed(bench.private["site4"], bench.place(), "site4", of_zero).encode()
    refused(bench, "site1", share(bench, (*adverts[:4], copied)), "key_list")
    twice = replace(of_zero, mask_key=bytes(31) + b"\x09", seal_key=bytes(31) + b"\x09")
    refused(
        bench,
        "site1",
        share(bench, (*adverts[:4], signed(bench.private["site4"], bench.place(), "site4", twice).encode())),
        "key_list",
    )


def test_point_of_low_order(bench: Bench) -> None:
    """Its shared secret is known to anybody: the site refuses to agree on it."""
    adverts = advertised(bench).list
    low = replace(m.Advert.decode(Envelope.decode(adverts[4]).body), seal_key=bytes(32))
    request = share(bench, (*adverts[:4], signed(bench.private["site4"], bench.place(), "site4", low).encode()))
    with pytest.raises(ProtocolViolation, match="low order"):
        bench.answer("site0", request)


def test_second_key_list(bench: Bench) -> None:
    adverts = advertised(bench).list
    first = bench.answer("site0", share(bench, adverts))
    refused(bench, "site0", share(bench, adverts[:4]), "second_key_list")
    assert bench.answer("site0", share(bench, adverts)) == first


def test_too_few_sites_advertise(bench: Bench) -> None:
    refused(bench, "site0", share(bench, advertised(bench).list[:3]), "too_few_sites", TooFewSites)


def test_split_views_of_the_key_list(bench: Bench) -> None:
    """Two halves are shown different lists: their seals do not open, so nobody masks."""
    adverts = advertised(bench).list
    most = {n: _shares(bench.answer(n, share(bench, adverts))) for n in bench.names[:3]}
    less = {n: _shares(bench.answer(n, share(bench, (*adverts[:2], *adverts[3:])))) for n in bench.names[3:]}
    sealed = {n: s["site0"] for n, s in (most | less).items() if n != "site0"}
    request = m.request(bench.place(), m.Ask(b"task", sealed))
    with pytest.raises(SealBroken):
        bench.answer("site0", request)


def _shares(reply: bytes) -> m.Parcels:
    return m.Shares.decode(Envelope.decode(m.envelopes_of(reply)[0]).body).sealed


def test_sharers_differ_between_sites(bench: Bench) -> None:
    """Two sites are told of different sharers: their masks bind the set, so the coordinator gets garbage, not a partial sum."""
    key_round = bench.open_keys()
    four = {n: key_round.sealed_for(n) for n in bench.names[:4]}
    replies = {}
    for name in bench.names[:4]:
        sealed = dict(four[name])
        if name != "site0":
            del sealed["site4"]
        replies[name] = bench.answer(name, m.request(bench.place(), m.Ask(b"task", sealed)))
    collector = bench.collector(key_round)
    collector.add_masked("site0", replies["site0"])
    for name in bench.names[1:4]:
        with pytest.raises(ProtocolViolation, match="key list"):
            collector.add_masked(name, replies[name])


def test_seal_of_another_site(bench: Bench) -> None:
    key_round = bench.open_keys()
    sealed = key_round.sealed_for("site0")
    swapped = sealed | {"site1": sealed["site2"]}
    with pytest.raises(SealBroken):
        bench.answer("site0", m.request(bench.place(), m.Ask(b"task", swapped)))
    refused(bench, "site0", m.request(bench.place(), m.Ask(b"task", sealed | {"site0": b""})), "unknown_peer")
    short = {n: sealed[n] for n in ("site1", "site2")}
    refused(bench, "site0", m.request(bench.place(), m.Ask(b"task", short)), "too_few_sites", TooFewSites)


def test_unrecognised_sites_count_toward_nothing(bench: Bench) -> None:
    """The lead's list alone makes no honest site: site0 recognises three of five, and needs four."""
    fewer = frozenset(keys.fingerprint(bench.roster.key(n)) for n in ("site1", "site2"))
    bench.standings["site0"] = bench.standing("site0", recognised=fewer)
    bench.start("site0")
    refused(bench, "site0", share(bench, advertised(bench).list), "too_few_sites", TooFewSites)


def test_unrecognised_sites_may_be_in_a_sum(bench: Bench) -> None:
    """Four recognised sites are enough; the fifth is summed with them, but cannot stand in for one of the four."""
    known = frozenset(keys.fingerprint(bench.roster.key(n)) for n in ("site1", "site2", "site3"))
    bench.standings["site0"] = bench.standing("site0", recognised=known)
    bench.start("site0")
    rounds = bench.rounds()
    assert integers(bench.ask(rounds, 1).vector) == bench.total(bench.names)
    bench.silent = lambda site, request: site == "site3" and request.kind == "ask"
    with pytest.raises(TooManyDropouts):
        bench.ask(rounds, 2)
    assert ("site0", "TooFewSites", "too_few_sites") in bench.refusals


def test_policy_that_wants_more_survivors(bench: Bench) -> None:
    bench.standings["site0"] = bench.standing("site0", needed=5)
    bench.start("site0")
    bench.masked(bench.open_keys())
    refused(bench, "site0", survivors(bench.place(), bench.names[:4]), "too_few_sites", TooFewSites)


def test_thresholds_are_those_of_the_signed_study(bench: Bench) -> None:
    with pytest.raises(StudyInvalid):
        Standing("ab" * 32, bench.roster, "site0", bench.private["site0"], thresholds.Thresholds(4), bench.known)
    with pytest.raises(StudyInvalid):
        Standing("ab" * 32, bench.roster, "elsewhere", bench.private["site0"], bench.thresholds, bench.known)


# ---- replays and order ------------------------------------------------------------------------------------------------
def _asked(bench: Bench, round: int = 1) -> bytes:
    return next(
        q
        for n, q, _ in bench.wire
        if n == "site0" and Envelope.decode(q).kind == "ask" and Envelope.decode(q).place.round == round
    )


def test_replayed_round(bench: Bench) -> None:
    """An old question, an old key list, an old survivor list: nothing of a round that is over is answered anew."""
    rounds = bench.rounds()
    for round in (1, 2, 3):
        bench.ask(rounds, round)
    old = [q for n, q, _ in bench.wire if n == "site0" and Envelope.decode(q).place.round == 1]
    assert {Envelope.decode(q).kind for q in old} == {"enrol", "share", "ask", "survivors", "unmask"}
    for request in old:
        if Envelope.decode(request).kind != "enrol":
            refused(bench, "site0", request, "replayed_round")
    refused(bench, "site0", KeyRound(bench.roster, bench.thresholds, bench.place(1, 2)).enrol(), "replayed_round")


def test_replayed_round_after_a_restart(bench: Bench) -> None:
    bench.ask(bench.rounds(), 1)
    bench.start("site0")
    refused(bench, "site0", _asked(bench), "replayed_round")
    refused(bench, "site0", survivors(bench.place(), bench.names), "replayed_round")


def test_identical_request_gets_the_identical_reply(bench: Bench) -> None:
    rounds = bench.rounds()
    bench.ask(rounds, 1)
    bench.ask(rounds, 2)
    for name, request, reply in list(bench.wire):
        if Envelope.decode(request).place.round == 2:
            assert bench.answer(name, request) == reply
    assert bench.answer("site0", _asked(bench, 2)) == bench.sites["site0"].stored(Envelope.decode(_asked(bench, 2)))


def test_repeated_unmasking_is_identical_though_the_next_round_began_anew(bench: Bench) -> None:
    rounds = bench.rounds()
    bench.ask(rounds, 1)
    _, request, reply = next(w for w in bench.wire if w[0] == "site0" and Envelope.decode(w[1]).kind == "unmask")
    assert len(m.envelopes_of(reply)) == 2
    bench.answer("site0", KeyRound(bench.roster, bench.thresholds, bench.place(2, 2)).enrol())
    assert bench.answer("site0", request) == reply


def test_unmasking_in_many_ways_ends(curious: Bench) -> None:
    """A coordinator that varies what does not matter gets the same shares, a few times."""
    curious.masked(curious.open_keys())
    place = curious.place()
    first = curious.answer("site0", unmask(place, curious.names, {}))
    for i in range(1, secure_sum.REPEATS):
        assert curious.answer("site0", unmask(place, curious.names, {"site1": bytes([i])})) == first
    refused(curious, "site0", unmask(place, curious.names, {"site1": b"more"}), "second_request")


def test_another_question_in_the_same_round(bench: Bench) -> None:
    key_round = bench.open_keys()
    bench.masked(key_round)
    again = m.request(bench.place(), m.Ask(b"another task", key_round.sealed_for("site0")))
    refused(bench, "site0", again, "second_request")


def test_another_question_under_a_new_attempt(bench: Bench) -> None:
    """The same round is the same question: otherwise two totals a hair apart would differ by a derivative."""
    bench.masked(bench.open_keys())
    key_round = bench.open_keys(attempt=2)
    request = bench.collector(key_round).ask(key_round, "site0", b"task")
    with pytest.raises(ProtocolViolation) as caught:
        bench.answer("site0", request, question=bytes(32))
    assert caught.value.rule == "question_changed"
    bench.answer("site0", request)


def test_earlier_attempt_is_over_once_a_new_one_began(bench: Bench) -> None:
    key_round = bench.open_keys()
    collector = bench.masked(key_round)
    bench.open_keys(attempt=2)
    refused(bench, "site0", collector.survivors_request(), "attempt_over")
    refused(bench, "site0", key_round.enrol(), "attempt_over")


def test_trips_out_of_order(bench: Bench) -> None:
    place = bench.place()
    refused(bench, "site0", share(bench, ()), "out_of_order")
    bench.answer("site0", KeyRound(bench.roster, bench.thresholds, place).enrol())
    refused(bench, "site0", m.request(place, m.Ask(b"task", {})), "out_of_order")
    refused(bench, "site0", survivors(place, bench.names), "out_of_order")
    refused(bench, "site0", unmask(place, bench.names, {}), "out_of_order")


def test_other_study_run_or_roster(bench: Bench) -> None:
    place = bench.place()
    for elsewhere in (replace(place, study="cd" * 32), replace(place, run="run-2")):
        refused(bench, "site0", m.request(elsewhere, m.Enrol(bench.roster.digest)), "wrong_place")
    refused(bench, "site0", m.request(place, m.Enrol(bytes(32))), "roster")


def test_site_does_not_take_a_sites_message_for_a_request(bench: Bench) -> None:
    body = m.Enrol(bench.roster.digest).encode()
    request = Envelope(bench.place(), "enrol", "site1", body)
    with pytest.raises(ProtocolViolation):
        bench.sites["site0"].advertise(request)


# ---- a site's own disk and memory -------------------------------------------------------------------------------------
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
