"""A malicious coordinator against real nodes: each attack ends in a refusal on the wire and in the site's own audit log."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from examples import prepare
from fivefold.auth.keys import new_key, read_key, sign
from fivefold.auth.messages import signed
from fivefold.errors import FivefoldError, Refused, SiteRefused
from fivefold.privacy.secagg.keys import new_pair
from fivefold.protocol.envelope import Message, content_of, wrapped
from fivefold.site.membership import Memberships, check, classes
from fivefold.study.digest import PURPOSE, canonical, sign_study
from tests.journeys.hostile import SITES, Alter, Consortium, Hostile, opens_nothing
from tests.journeys.hostile import prepared as prepared
from tests.journeys.hostile import them as them


# ---- 1: a question of its own ---------------------------------------------------------------------------------------
def own_argument(step: str, argument: str, change: Callable[[Any], Any]) -> Alter:
    """One argument of each question with that step is the coordinator's own."""

    def other(part: dict[str, Any]) -> dict[str, Any]:
        given = part["arguments"]
        return part if part["step"] != step else {**part, "arguments": {**given, argument: change(given.get(argument))}}

    def alter(name: str, m: Message) -> Message:
        if m.kind != "ask":
            return m
        asked = m.body["question"]
        return replace(m, body={**m.body, "question": tuple(map(other, asked)) if isinstance(asked, tuple) else other(asked)})

    return alter


@pytest.mark.parametrize("slope", [1e3, 1e-6])
def test_a_steep_beta_of_its_own_choice(them: Consortium, slope: float) -> None:
    hostile = them.attack(own_argument("glm.score_and_information/1", "beta", lambda beta: beta + np.array([0, slope, 0, 0])))
    them.holds(hostile, "ask", "QuestionNotApproved", "replayed_question")
    opens_nothing(hostile, 5)


def test_a_subgroup_of_its_own(them: Consortium) -> None:
    hostile = them.attack(own_argument("statistics.counts/1", "subgroup", lambda _: "radius > 25"))
    them.holds(hostile, "ask", "QuestionNotApproved", "replayed_question")


def test_a_later_round_before_its_time(them: Consortium) -> None:
    hostile = them.attack(lambda name, m: replace(m, round=m.round + 1) if m.kind == "ask" else m)
    them.holds(hostile, "ask", "QuestionNotApproved", "replayed_question")


# ---- 2: a false aggregate in the history ----------------------------------------------------------------------------
def altered_history(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Alter:
    def alter(name: str, m: Message) -> Message:
        if m.kind != "ask" or not m.body["history"]:
            return m
        return replace(m, body={**m.body, "history": tuple(change(dict(r)) for r in m.body["history"])})

    return alter


def more_persons(record: dict[str, Any]) -> dict[str, Any]:
    (totals,) = record["totals"]
    return record | {"totals": ({**totals, "persons": totals["persons"] + 1},)}


def a_site_less(record: dict[str, Any]) -> dict[str, Any]:
    return record | {"sites": record["sites"][1:]}


def without_an_update(record: dict[str, Any]) -> dict[str, Any]:
    heard = record["transcript"]
    return record | {"transcript": {**heard, "masked": {n: d for n, d in heard["masked"].items() if n != "fir"}}}


def ended_early(record: dict[str, Any]) -> dict[str, Any]:
    return record | {"ended": "TooFewPersons"}


def an_empty_total(record: dict[str, Any]) -> dict[str, Any]:
    return record | {"totals": ()}


def a_drop_out_invented(record: dict[str, Any]) -> dict[str, Any]:
    return record | {"dropped": ("fir",)}


def a_field_too_many(record: dict[str, Any]) -> dict[str, Any]:
    (totals,) = record["totals"]
    return record | {"totals": ({**totals, "more": totals["persons"]},)}


def a_peer_less(record: dict[str, Any]) -> dict[str, Any]:
    heard = record["transcript"]
    return record | {"transcript": {**heard, "members": tuple(n for n in heard["members"] if n != "fir")}}


FALSE = [more_persons, a_site_less, without_an_update, ended_early, an_empty_total]
FALSE += [a_drop_out_invented, a_field_too_many, a_peer_less]


@pytest.mark.parametrize("change", FALSE)
def test_a_false_aggregate(them: Consortium, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    hostile = them.attack(altered_history(change))
    them.holds(hostile, "ask", "AggregateFalse", "transcript")
    opens_nothing(hostile, 2)


def test_an_update_signed_by_the_coordinator(them: Consortium) -> None:
    def change(record: dict[str, Any]) -> dict[str, Any]:
        heard = record["transcript"]
        false = signed(content_of(heard["masked"]["fir"])[0], new_key())
        return record | {"transcript": {**heard, "masked": {**heard["masked"], "fir": false}}}

    hostile = them.attack(altered_history(change))
    said = hostile.refusals("ask")
    assert {r["code"] for r in said.values()} == {"SignatureWrong"}
    them.holds(hostile, "ask", "SignatureWrong", said["alder"]["rule"])


# ---- 3, 4: two survivor lists ---------------------------------------------------------------------------------------
LISTS = {name: tuple(s for s in SITES if s != ("fir" if name != "fir" else "alder")) for name in SITES}


def test_different_survivor_lists_to_different_sites(them: Consortium) -> None:
    """Each list is fine by itself: what the sites signed of them gives the coordinator away."""

    def alter(name: str, m: Message) -> Message:
        return replace(m, body={**m.body, "survivors": LISTS[name]}) if m.kind in ("survivors", "unmask") else m

    hostile = them.attack(alter)
    them.holds(hostile, "unmask", "ProtocolViolation", "second_survivor_list")
    opens_nothing(hostile, 1)


def test_another_list_at_the_opening(them: Consortium) -> None:
    """All agree to five survivors; then each is asked to open four, with what the five signed."""

    def alter(name: str, m: Message) -> Message:
        return replace(m, body={**m.body, "survivors": LISTS[name]}) if m.kind == "unmask" else m

    hostile = them.attack(alter)
    them.holds(hostile, "unmask", "ProtocolViolation", "second_survivor_list")
    opens_nothing(hostile, 1)


def test_both_shares_of_one_site(them: Consortium) -> None:
    """After the shares of fir's own mask, those of its masking key: the two together would show fir's update."""
    hostile, answers = Hostile(them.engine), {}
    send = hostile.send

    def twice(name: str, data: bytes) -> bytes:
        reply = send(name, data)
        asked = content_of(data)[0]
        if asked.kind == "unmask" and asked.round == 1:
            second = replace(asked, body={**asked.body, "survivors": LISTS["alder"]})
            answers[name] = content_of(send(name, wrapped(second.content())))[0]
        return reply

    hostile.send = twice  # type: ignore[method-assign]
    with contextlib.suppress(SiteRefused):
        them.run(hostile)
    assert set(answers) == set(SITES)
    for site, answer in answers.items():
        assert (answer.kind, answer.body["code"], answer.body["rule"]) == ("refusal", "ProtocolViolation", "replayed_round")
        assert ("unmask", "replayed_round") in [(f["trip"], f["rule"]) for f in them.refused(site)]


def test_both_shares_over_two_attempts(them: Consortium) -> None:
    """Round 1 is opened; a second attempt at it is asked to leave fir out: the two sums would differ by fir's own."""

    def alter(name: str, m: Message) -> Message:
        again = m.attempt == 2 and m.kind in ("survivors", "unmask")
        return replace(m, body={**m.body, "survivors": LISTS[name]}) if again else m

    hostile = Hostile(them.engine, alter)
    exchange = hostile.exchange

    def loses(requests: Mapping[str, bytes]) -> dict[str, bytes]:
        replies = exchange(requests)
        asked = content_of(next(iter(requests.values())))[0]
        return {} if (asked.kind, asked.attempt) == ("unmask", 1) else replies

    hostile.exchange = loses  # type: ignore[method-assign]
    with pytest.raises(FivefoldError):
        them.run(hostile)
    them.holds(hostile, "survivors", "ProtocolViolation", "second_survivor_list")


# ---- 5: replays -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("trip", ["keys", "share", "ask", "survivors", "unmask"])
def test_a_round_played_again(them: Consortium, trip: str) -> None:
    """In round 2 each site is sent a request of round 1 once more, altered by one part so that it is not the same request."""

    def alter(name: str, m: Message) -> Message:
        return replace(m, round=1, body={**m.body, "more": 1}) if m.kind == trip and m.round == 2 else m

    code, rule = ("QuestionNotApproved", "replayed_question") if trip == "ask" else ("ProtocolViolation", "replayed_round")
    them.holds(them.attack(alter), trip, code, rule)


# ---- 6, 9: keys -----------------------------------------------------------------------------------------------------
def own_keys(whose: Callable[[str], str], sender: str | None = None) -> Alter:
    """The key list with an advertisement of the coordinator's own making in one site's place."""
    private, pair = new_key(), new_pair()

    def alter(name: str, m: Message) -> Message:
        if m.kind != "share":
            return m
        place = whose(name)
        body = {"seal": pair.public, "mask": pair.public}
        false = signed(Message("keys", m.study, m.run, m.round, m.attempt, sender or place, body), private)
        return replace(m, body={"keys": {**m.body["keys"], place: false}})

    return alter


def test_a_key_of_its_own_in_the_sites_own_place(them: Consortium) -> None:
    them.holds(them.attack(own_keys(lambda name: name)), "share", "ProtocolViolation", "own_key")


def test_a_key_of_its_own_in_a_peers_place(them: Consortium) -> None:
    hostile = them.attack(own_keys(lambda name: "fir" if name != "fir" else "alder"))
    said = hostile.refusals("share")
    assert set(said) == set(SITES)
    them.holds(hostile, "share", "SignatureWrong", said["alder"]["rule"])


def test_a_peer_that_is_not_in_the_study(them: Consortium) -> None:
    them.holds(them.attack(own_keys(lambda _: "mallory", "mallory")), "share", "SignatureWrong", "unknown_peer")


def test_a_peers_key_under_another_name(them: Consortium) -> None:
    def alter(name: str, m: Message) -> Message:
        peer, other = [s for s in SITES if s != name][:2]
        return replace(m, body={"keys": {**m.body["keys"], peer: m.body["keys"][other]}}) if m.kind == "share" else m

    them.holds(them.attack(alter), "share", "ProtocolViolation", "unknown_peer")


def test_a_key_list_without_signatures(them: Consortium) -> None:
    def alter(name: str, m: Message) -> Message:
        bare = {n: d if n == name else wrapped(content_of(d)[0].content()) for n, d in m.body.get("keys", {}).items()}
        return replace(m, body={"keys": bare}) if m.kind == "share" else m

    hostile = them.attack(alter)
    them.holds(hostile, "share", "SignatureWrong", hostile.refusals("share")["alder"]["rule"])


# ---- 7: the study altered after approval ----------------------------------------------------------------------------
def enrols_with(study: bytes) -> Alter:
    return lambda name, m: replace(m, body={"study": study}) if m.kind == "enrol" else m


def test_one_byte_of_the_study(them: Consortium) -> None:
    data = them.study.to_bytes()
    at = data.index(b"minimum_persons") + len(b'minimum_persons":')
    hostile = them.attack(enrols_with(data[:at] + b"2" + data[at + 1 :]))
    them.holds(hostile, "enrol", "StudyAltered", "study_digest")


def test_a_study_signed_by_another_key(them: Consortium) -> None:
    false = them.study._replace(signature=sign(new_key(), canonical(them.study.study), PURPOSE))
    them.holds(them.attack(enrols_with(false.to_bytes())), "enrol", "SignatureWrong", "study_signature")


def test_a_study_that_the_lead_changed_after_approval(them: Consortium) -> None:
    """Properly signed by the lead itself: nobody approved it."""
    changed = sign_study(replace(them.study.study, title="Another"), read_key(them.out / "lead.key"))
    hostile = them.attack(lambda name, m: m, changed)
    rule = hostile.refusals("enrol")["alder"]["rule"]
    them.holds(hostile, "enrol", "NotApproved", rule)


def test_a_study_under_the_name_of_another(them: Consortium) -> None:
    hostile = them.attack(lambda name, m: replace(m, study="0" * 64))
    them.holds(hostile, "enrol", "MessageMalformed", "study_digest")


# ---- 8: survivor sets that isolate one site -------------------------------------------------------------------------
def refuse_totals(them: Consortium, *sites: str) -> None:
    for site in sites:
        words = ("approve", them.out / "study.signed.json", "--site", them.out / "sites" / site, "--site-totals", "refused")
        with contextlib.redirect_stdout(io.StringIO()):
            prepare.fivefold("site", *words, "--yes")


def test_a_site_isolated_between_rounds(them: Consortium) -> None:
    """All five answer round 1; round 2 is to be opened without fir, and no site permits its totals."""
    refuse_totals(them, *SITES)
    hostile = them.attack(lambda name, m: None if m.kind == "ask" and m.round == 2 and name == "fir" else m)
    them.holds(hostile, "survivors", "Refused", "class_rule", SITES[:4])
    opens_nothing(hostile, 2)


def test_a_site_isolated_by_the_others(them: Consortium) -> None:
    """Only fir refuses that its totals may be seen. A second run leaves it out from the beginning: the first sum less the
    second would be fir's own."""
    refuse_totals(them, "fir")
    them.attack(lambda name, m: None if m.round == 2 else m)
    hostile = Hostile(them.engine, lambda name, m: None if name == "fir" or m.round == 2 else m)
    with pytest.raises(FivefoldError):
        them.run(hostile)
    opens_nothing(hostile, 1)


def test_the_class_rule(tmp_path: Path) -> None:
    five, four, three = frozenset(SITES), frozenset(SITES[:4]), frozenset(SITES[:3])
    assert sorted(map(sorted, classes([five, three]))) == [["alder", "birch", "cedar"], ["elm", "fir"]]
    check([], five, least=2, permitted=())
    check([five], three, least=2, permitted=())
    for before, new in (([five], four), ([four], five), ([five, three], four)):
        with pytest.raises(Refused) as refused:
            check(before, new, least=2, permitted=())
        assert refused.value.rule == "class_rule"
    check([five], four, least=2, permitted=["fir"])
    with pytest.raises(Refused):
        check([five], four, least=2, permitted=["alder"])
    kept = Memberships(tmp_path / "sets.journal")
    kept.add(five)
    kept.add(five)
    kept.add(three)
    assert Memberships(kept.path).sets() == [five, three]
