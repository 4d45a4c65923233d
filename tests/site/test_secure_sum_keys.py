"""Keys and seals that a site refuses in a secure sum: false, altered, repeated, of strangers, or too few."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from fivefold.auth import keys
from fivefold.auth.signatures import signed
from fivefold.coordinator.aggregation import KeyRound
from fivefold.errors import ProtocolViolation, SealBroken, SignatureWrong, StudyInvalid, TooFewSites, TooManyDropouts
from fivefold.privacy.secagg import thresholds
from fivefold.protocol import messages as m
from fivefold.protocol.messages import Envelope
from fivefold.site.standing import Standing
from tests.site.secure_sum_bench import Bench, integers
from tests.site.secure_sum_requests import refused, share, survivors


def advertised(bench: Bench) -> KeyRound:
    key_round = KeyRound(bench.roster, bench.thresholds, bench.place())
    for name in bench.names:
        key_round.add_advert(name, m.envelopes_of(bench.answer(name, key_round.enrol()))[0])
    key_round.fix()
    return key_round


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
