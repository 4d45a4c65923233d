"""A malicious coordinator against real nodes: each attack ends in a refusal on the wire and in the site's own audit log."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from examples import prepare
from fivefold.auth.keys import new_key
from fivefold.auth.signatures import signed
from fivefold.errors import FivefoldError, SiteRefused
from fivefold.protocol import messages as m
from fivefold.protocol.encoding import decode, encode
from fivefold.protocol.messages import Envelope
from fivefold.records.journal import Journal
from tests.journeys.hostile import SITES, Alter, Consortium, Hostile, changed, first, opens_nothing, task_of
from tests.journeys.hostile import prepared as prepared
from tests.journeys.hostile import them as them


def with_task(asked: Envelope, **parts: Any) -> Envelope:
    return changed(asked, m.Ask, task=replace(task_of(asked), **parts).encode())


# ---- 1: a question of its own ---------------------------------------------------------------------------------------
def own_argument(step: str, argument: str, change: Callable[[Any], Any]) -> Alter:
    """One argument of each question with that step is the coordinator's own."""

    def other(part: dict[str, Any]) -> dict[str, Any]:
        given = part["arguments"]
        return part if part["step"] != step else {**part, "arguments": {**given, argument: change(given.get(argument))}}

    def alter(name: str, asked: Envelope) -> Envelope:
        if asked.kind != "ask":
            return asked
        question = decode(task_of(asked).question)
        false = tuple(map(other, question)) if isinstance(question, tuple) else other(question)
        return with_task(asked, question=encode(false))

    return alter


@pytest.mark.parametrize("slope", [1e3, 1e-6])
def test_a_steep_beta_of_its_own_choice(them: Consortium, slope: float) -> None:
    hostile = them.attack(own_argument("glm.score_and_information/1", "beta", lambda beta: beta + np.array([0, slope, 0, 0])))
    them.holds(hostile, "ask", "QuestionNotApproved", "replayed_question")
    opens_nothing(hostile, 5)


def test_a_subgroup_of_its_own(them: Consortium) -> None:
    hostile = them.attack(own_argument("statistics.counts/1", "subgroup", lambda _: "radius > 25"))
    them.holds(hostile, "ask", "QuestionNotApproved", "replayed_question")


def test_the_question_of_a_later_round(them: Consortium) -> None:
    """In round 2 the sites are asked what they were asked in round 1."""
    first_question: list[bytes] = []

    def alter(name: str, asked: Envelope) -> Envelope:
        if asked.kind != "ask":
            return asked
        first_question.append(task_of(asked).question)
        return with_task(asked, question=first_question[0])

    hostile = them.attack(alter)
    them.holds(hostile, "ask", "QuestionNotApproved", "replayed_question")
    opens_nothing(hostile, 2)


def test_a_later_round_before_its_time(them: Consortium) -> None:
    def alter(name: str, asked: Envelope) -> Envelope:
        return replace(asked, place=replace(asked.place, round=asked.place.round + 1)) if asked.kind == "ask" else asked

    them.holds(them.attack(alter), "ask", "ProtocolViolation", "out_of_order")


# ---- 2: a false aggregate in the history ----------------------------------------------------------------------------
Falsified = Callable[[m.Told], m.Told]


def altered_history(change: Falsified) -> Alter:
    def alter(name: str, asked: Envelope) -> Envelope:
        if asked.kind != "ask" or not task_of(asked).history:
            return asked
        return with_task(asked, history=tuple(change(m.Told.decode(t)).encode() for t in task_of(asked).history))

    return alter


def more_persons(told: m.Told) -> m.Told:
    (totals,) = decode(told.totals)
    return replace(told, totals=encode(({**totals, "persons": totals["persons"] + 1},)))


def in_the_last_bit(told: m.Told) -> m.Told:
    (totals,) = decode(told.totals)
    name = next(n for n, v in totals.items() if v.dtype.kind == "f" and np.any(np.isfinite(v)))
    return replace(told, totals=encode(({**totals, name: np.nextafter(totals[name], np.inf)},)))


def a_site_less(told: m.Told) -> m.Told:
    return replace(told, sites=told.sites[1:])


def with_transcript(told: m.Told, **parts: Any) -> m.Told:
    return replace(told, transcript=replace(m.Transcript.decode(told.transcript), **parts).encode())


def without_an_update(told: m.Told) -> m.Told:
    return with_transcript(told, masked=m.Transcript.decode(told.transcript).masked[:-1])


def ended_early(told: m.Told) -> m.Told:
    return replace(told, ended="TooFewPersons", totals=encode(()))


def ended_with_totals(told: m.Told) -> m.Told:
    return replace(told, ended="TooFewPersons")


def an_empty_total(told: m.Told) -> m.Told:
    return replace(told, totals=encode(()))


def a_drop_out_invented(told: m.Told) -> m.Told:
    return replace(told, dropped=("fir",))


def a_field_too_many(told: m.Told) -> m.Told:
    (totals,) = decode(told.totals)
    return replace(told, totals=encode(({**totals, "more": totals["persons"]},)))


def a_peer_less(told: m.Told) -> m.Told:
    return with_transcript(told, adverts=m.Transcript.decode(told.transcript).adverts[:-1])


def no_transcript(told: m.Told) -> m.Told:
    return replace(told, transcript=b"")


def another_question(told: m.Told) -> m.Told:
    return replace(told, question=encode({"kind": "sum"}))


FALSE = [more_persons, a_site_less, without_an_update, ended_early, ended_with_totals, an_empty_total]


FALSE += [a_drop_out_invented, a_field_too_many, a_peer_less, no_transcript, another_question]


@pytest.mark.parametrize("change", FALSE)
def test_a_false_aggregate(them: Consortium, change: Falsified) -> None:
    hostile = them.attack(altered_history(change))
    them.holds(hostile, "ask", "AggregateFalse", "transcript")
    opens_nothing(hostile, 2)


def test_a_total_that_is_false_in_its_last_bit(them: Consortium) -> None:
    def change(told: m.Told) -> m.Told:
        return in_the_last_bit(told) if told.round == 4 else told

    hostile = them.attack(altered_history(change))
    them.holds(hostile, "ask", "AggregateFalse", "transcript")
    opens_nothing(hostile, 5)


def test_an_update_signed_by_the_coordinator(them: Consortium) -> None:
    def change(told: m.Told) -> m.Told:
        masked = m.Transcript.decode(told.transcript).masked
        true = Envelope.decode(masked[-1])
        false = signed(new_key(), true.place, true.sender, true.message()).encode()
        return with_transcript(told, masked=(*masked[:-1], false))

    hostile = them.attack(altered_history(change))
    them.holds(hostile, "ask", "AggregateFalse", "transcript")
    opens_nothing(hostile, 2)


# ---- 3, 4: two survivor lists ---------------------------------------------------------------------------------------
LISTS = {name: tuple(s for s in SITES if s != ("fir" if name != "fir" else "alder")) for name in SITES}


"""To each site the list without one peer that survived."""


def test_different_survivor_lists_to_different_sites(them: Consortium) -> None:
    """Two sites hear that fir dropped out, three that alder did: either list is fine by itself, but no list has the signatures
    of as many as must survive, whichever of them are shown."""
    lost = dict.fromkeys(SITES[:2], "fir") | dict.fromkeys(SITES[2:], "alder")
    heard = {s: tuple(p for p in SITES if p != lost[s]) for s in SITES}

    def alter(name: str, asked: Envelope) -> Envelope:
        return changed(asked, m.Survivors, survivors=heard[name]) if asked.kind == "survivors" else asked

    hostile = Hostile(them.engine, alter)
    with pytest.raises(FivefoldError):
        them.run(hostile)
    agreed = [(s, e) for s, trip, e in hostile.heard if trip == "survivors" and e.kind == "agreed"]
    words, place = {s: e.signature for s, e in agreed}, agreed[0][1].place
    assert set(words) == set(SITES)
    for site, told in heard.items():
        mine = {s: w for s, w in words.items() if s in told}
        for said in (mine, {s: w for s, w in mine.items() if heard[s] == told}, {}):
            reply = first(hostile.send(site, m.request(place, m.Unmask(told, said, ()))))
            hostile.heard.append((site, "unmask", reply))
            assert reply.kind == "refusal", site
        assert {f["rule"] for f in them.refused(site) if f["trip"] == "unmask"} == {"signature", "too_few_sites"}
    opens_nothing(hostile, 1)


def test_another_list_at_the_opening(them: Consortium) -> None:
    """All agree to five survivors; then each is asked to open four, with what the five signed."""

    def alter(name: str, asked: Envelope) -> Envelope:
        if asked.kind != "unmask":
            return asked
        words = m.Unmask.decode(asked.body).signatures
        kept = {s: w for s, w in words.items() if s in LISTS[name]}
        return changed(asked, m.Unmask, survivors=LISTS[name], signatures=kept)

    hostile = them.attack(alter)
    them.holds(hostile, "unmask", "ProtocolViolation", "second_survivor_list")
    opens_nothing(hostile, 1)


def test_both_shares_of_one_site(them: Consortium) -> None:
    """After the shares of fir's own mask, those of its masking key: the two together would show fir's update."""
    hostile, answers = Hostile(them.engine), {}
    send = hostile.send

    def twice(name: str, data: bytes) -> bytes:
        reply = send(name, data)
        asked = Envelope.decode(data)
        if asked.kind == "unmask" and asked.place.round == 1:
            second = changed(asked, m.Unmask, survivors=LISTS[name])
            answers[name] = first(send(name, second.encode()))
        return reply

    hostile.send = twice
    them.run(hostile)
    assert set(answers) == set(SITES)
    for site, answer in answers.items():
        said = answer.message()
        assert isinstance(said, m.Refusal)
        assert (said.code, said.rule) == ("ProtocolViolation", "both_shares")
        assert ("unmask", "both_shares") in [(f["trip"], f["rule"]) for f in them.refused(site)]


def test_both_shares_over_two_attempts(them: Consortium) -> None:
    """Round 1 is opened; a second attempt at it is asked to leave fir out: the two sums would differ by fir's own."""

    def alter(name: str, asked: Envelope) -> Envelope:
        again = asked.place.attempt == 2 and asked.kind == "survivors"
        return changed(asked, m.Survivors, survivors=LISTS[name]) if again else asked

    hostile = Hostile(them.engine, alter)
    exchange = hostile.exchange

    def loses(requests: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
        for name in requests:
            asked = Envelope.decode(requests[name])
            for replied in exchange({name: requests[name]}):
                if (asked.kind, asked.place.attempt) != ("unmask", 1):
                    yield replied

    hostile.exchange = loses
    with pytest.raises(FivefoldError):
        them.run(hostile)
    them.holds(hostile, "survivors", "ProtocolViolation", "second_survivor_list")


# ---- 5: replays -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("trip", ["enrol", "share", "ask", "survivors", "unmask"])
def test_a_round_played_again(them: Consortium, trip: str) -> None:
    """In round 4 each site is sent a request of round 1 once more: the bytes that it answered, and then altered by a part."""
    said: dict[str, bytes] = {}
    replies: dict[str, list[Envelope]] = {name: [] for name in SITES}

    def alter(name: str, asked: Envelope) -> Envelope | None:
        if asked.kind == trip and asked.place.round == 1:
            said.setdefault(name, asked.encode())
        if asked.kind == "ask" and asked.place.round == 4:
            true = Envelope.decode(said[name])
            message = true.message()
            other = {
                "enrol": lambda: replace(message, roster=bytes(32)),
                "share": lambda: replace(message, adverts=message.adverts[:-1]),
                "ask": lambda: replace(message, sealed={}),
                "survivors": lambda: replace(message, survivors=LISTS[name]),
                "unmask": lambda: replace(message, signatures={}),
            }[trip]()
            for again in (true, replace(true, body=other.encode())):
                replies[name].append(first(hostile.send(name, again.encode())))
        return asked

    hostile = Hostile(them.engine, alter)
    them.run(hostile)
    for site, answers in replies.items():
        assert [e.kind for e in answers] == ["refusal", "refusal"], site
        rules = {"replayed_round"} if trip != "enrol" else {"replayed_round", "roster"}
        assert {e.message().rule for e in answers} == rules
        assert (trip, "replayed_round") in [(f["trip"], f["rule"]) for f in them.refused(site)]


# ---- 8: survivor sets that isolate one site -------------------------------------------------------------------------
def refuse_totals(them: Consortium, *sites: str) -> None:
    for site in sites:
        words = ("approve", them.out / "study.signed.json", "--site", them.out / "sites" / site, "--site-totals", "refused")
        with contextlib.redirect_stdout(io.StringIO()):
            prepare.fivefold("site", *words, "--yes")


def test_a_site_isolated_between_rounds(them: Consortium) -> None:
    """All five answer round 1; round 2 is to be opened without fir, and no site permits its totals."""
    refuse_totals(them, *SITES)
    hostile = them.attack(lambda name, asked: None if (asked.kind, asked.place.round, name) == ("ask", 2, "fir") else asked)
    them.holds(hostile, "survivors", "DifferencingRefused", "class_rule", SITES[:4])
    opens_nothing(hostile, 2)


def test_a_site_isolated_by_the_others(them: Consortium) -> None:
    """Only fir refuses that its totals may be seen. A second run leaves it out from the beginning: the first sum less the
    second would be fir's own."""
    refuse_totals(them, "fir")
    them.attack(lambda name, asked: None if asked.place.round == 2 and asked.kind == "ask" else asked)
    hostile = Hostile(them.engine, lambda name, asked: None if name == "fir" else asked)
    with pytest.raises(SiteRefused):
        them.run(hostile)
    them.holds(hostile, "survivors", "DifferencingRefused", "class_rule", SITES[:4])
    opens_nothing(hostile, 1)


def test_a_class_of_one_by_three_survivor_sets(them: Consortium) -> None:
    """Sums over all five, over three of them in another study, and over four would single one site out, though no two would."""
    refuse_totals(them, *SITES)
    hostile = Hostile(them.engine)
    them.run(hostile)
    before = {s: len((them.out / "sites" / s / "state" / "classes").glob("*.journal").__next__().read_bytes()) for s in SITES}
    for site in SITES:
        (path,) = (them.out / "sites" / site / "state" / "classes").glob("*.journal")
        journal = Journal(path)
        keys = {s.name: s.public_key for s in them.study.study.sites}
        journal.append({"sites": sorted(keys[s] for s in SITES[:3]), "permitted": [], "study": "", "run": "", "round": 1})
        journal.close()
        assert len(path.read_bytes()) > before[site]
    hostile = Hostile(them.engine, lambda name, asked: None if name == "fir" else asked)
    with pytest.raises(SiteRefused):
        them.run(hostile)
    them.holds(hostile, "survivors", "DifferencingRefused", "class_rule", SITES[:4])
    opens_nothing(hostile, 1)


def test_a_run_that_was_closed(them: Consortium) -> None:
    """Nothing more is answered in it."""
    hostile = Hostile(them.engine)
    them.run(hostile)
    opening = next(d for d in hostile.bytes[::2] if Envelope.decode(d).kind == "open")
    for site in SITES:
        assert first(hostile.send(site, opening)).message() == m.Refusal("ProtocolViolation", "run_closed", "")
        assert ("open", "run_closed") in [(f["trip"], f["rule"]) for f in them.refused(site)]
