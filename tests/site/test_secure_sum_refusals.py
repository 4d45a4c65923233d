"""What a site refuses in a secure sum, and by which rule: each attack that a coordinator, a peer or the way between may try."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fivefold.coordinator.aggregation import KeyRound
from fivefold.errors import (
    ProtocolViolation,
    SignatureWrong,
    TooFewSites,
)
from fivefold.protocol import messages as m
from fivefold.protocol.messages import Envelope, Place
from fivefold.site import secure_sum
from tests.site.secure_sum_bench import Bench
from tests.site.secure_sum_requests import refused, share, survivors


def unmask(place: Place, survivors: tuple[str, ...], signatures: dict[str, bytes]) -> bytes:
    return m.request(place, m.Unmask(survivors, signatures, ()))


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
