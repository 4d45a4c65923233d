"""What one participant gives, keeps and refuses; and the class rule over survivor sets."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fivefold.auth.messages import signed
from fivefold.errors import FivefoldError, ProtocolViolation, Refused, SealBroken, SignatureWrong, TooFewSites
from fivefold.privacy.secagg.ring import RING32
from fivefold.protocol.envelope import content_of
from fivefold.site.membership import Memberships, check, classes
from tests.site.sums_in_memory import QUESTION, Consortium, consortium, request

ALL = ("site00", "site01", "site02", "site03")


class Steps:
    """The coordinator's steps by hand, with what each site said so far."""

    def __init__(self, folder: Path, **changes: Any) -> None:
        self.made: Consortium = consortium(folder, 4, 3, RING32, **changes)
        self.said: dict[str, dict[str, bytes]] = {}
        self.asked: dict[str, dict[str, bytes]] = {}

    def trip(self, kind: str, bodies: dict[str, Any], round: int = 1, attempt: int = 1) -> dict[str, bytes]:
        self.asked[kind] = {name: request(kind, body, round, attempt) for name, body in bodies.items()}
        self.said[kind] = {name: self.made.sites[name].answer(data) for name, data in self.asked[kind].items()}
        return self.said[kind]

    def to_mask(self, masking: tuple[str, ...] = ALL, attempt: int = 1) -> Steps:
        keys = self.trip("keys", {name: {} for name in ALL}, attempt=attempt)
        self.trip("share", {name: {"keys": keys} for name in ALL}, attempt=attempt)
        self.trip("ask", {name: {"question": QUESTION, "parcels": self.parcels(name)} for name in masking}, attempt=attempt)
        return self

    def parcels(self, me: str) -> dict[str, bytes]:
        return {s: content_of(d)[0].body["parcels"][me] for s, d in self.said["share"].items() if s != me}

    def to_agreed(self, survivors: tuple[str, ...] = ALL) -> Steps:
        self.to_mask(survivors).trip("survivors", {name: {"survivors": survivors} for name in survivors})
        return self

    def refused(self, name: str, data: bytes, kind: type[FivefoldError], rule: str | None = None) -> None:
        with pytest.raises(kind) as caught:
            self.made.sites[name].answer(data)
        assert rule is None or caught.value.rule == rule


def unmask(steps: Steps, survivors: tuple[str, ...], attempt: int = 1, **changes: Any) -> bytes:
    return request("unmask", {"survivors": survivors, "agreements": steps.said.get("survivors", {}), **changes}, 1, attempt)


def test_an_identical_request_gets_the_same_bytes(tmp_path: Path) -> None:
    steps = Steps(tmp_path).to_agreed()
    for kind, requests in steps.asked.items():
        for name, data in requests.items():
            assert steps.made.sites[name].answer(data) == steps.said[kind][name]
    data = unmask(steps, ALL)
    reply = steps.made.sites["site00"].answer(data)
    assert steps.made.sites["site00"].answer(data) == reply


def test_shares_are_of_one_kind_a_peer(tmp_path: Path) -> None:
    left = ALL[:3]
    steps = Steps(tmp_path).to_agreed(left)
    body = content_of(steps.made.sites["site00"].answer(unmask(steps, left)))[0].body
    assert set(body["self"]) == set(left)
    assert set(body["pair"]) == {"site03"}


def test_after_a_restart_the_stored_shares_are_served_and_nothing_else_of_that_attempt(tmp_path: Path) -> None:
    steps = Steps(tmp_path).to_agreed()
    site, data = steps.made.sites["site00"], unmask(steps, ALL)
    reply = site.answer(data)
    site.restart()
    assert site.answer(data) == reply
    for kind in ("keys", "share", "ask", "survivors"):
        steps.refused("site00", steps.asked[kind]["site00"], ProtocolViolation, "replayed_round")
    steps.refused("site00", unmask(steps, ALL[:3]), ProtocolViolation, "replayed_round")


@pytest.mark.parametrize("last", ["keys", "share", "ask", "survivors"])
def test_a_restart_without_shares_given_leaves_the_attempt_dead(tmp_path: Path, last: str) -> None:
    steps = Steps(tmp_path).to_agreed()
    steps.made.sites["site00"].restart()
    steps.refused("site00", steps.asked[last]["site00"], ProtocolViolation, "replayed_round")
    assert content_of(steps.made.sites["site00"].answer(request("keys", {}, 1, 2)))[0].attempt == 2


def test_a_restart_remembers_the_opened_set_over_attempts(tmp_path: Path) -> None:
    left = ALL[:3]
    steps = Steps(tmp_path).to_agreed(left)
    site = steps.made.sites["site00"]
    site.answer(unmask(steps, left))
    site.restart()
    steps.to_mask(attempt=2)
    steps.refused("site00", request("survivors", {"survivors": ALL}, 1, 2), ProtocolViolation, "second_survivor_list")
    assert site.answer(request("survivors", {"survivors": left}, 1, 2))


def test_rounds_and_attempts_go_forward_only(tmp_path: Path) -> None:
    steps = Steps(tmp_path)
    site = steps.made.sites["site00"]
    site.answer(request("keys", {}, 2, 2))
    for place in ((1, 1), (1, 9), (2, 1)):
        steps.refused("site00", request("keys", {}, *place), ProtocolViolation, "replayed_round")
    site.restart()
    steps.refused("site00", request("keys", {}, 2, 2), ProtocolViolation, "replayed_round")
    assert site.answer(request("keys", {}, 3, 1))


def test_another_question_in_one_round_is_refused_after_a_restart_too(tmp_path: Path) -> None:
    steps = Steps(tmp_path).to_mask()
    site = steps.made.sites["site00"]
    again = request("ask", {"question": bytes(32), "parcels": steps.parcels("site00")})
    steps.refused("site00", again, ProtocolViolation, "order_of_trips")
    site.restart()
    keys = steps.trip("keys", {name: {} for name in ALL}, attempt=2)
    steps.trip("share", {name: {"keys": keys} for name in ALL}, attempt=2)
    other = request("ask", {"question": bytes(32), "parcels": steps.parcels("site00")}, 1, 2)
    steps.refused("site00", other, ProtocolViolation, "replayed_round")


def test_key_lists_are_refused_when_altered(tmp_path: Path) -> None:
    steps = Steps(tmp_path)
    keys = steps.trip("keys", {name: {} for name in ALL})
    share = lambda changed: request("share", {"keys": changed})  # noqa: E731
    steps.refused("site00", share({**keys, "site00": keys["site01"]}), ProtocolViolation, "own_key")
    steps.refused("site00", share({n: d for n, d in keys.items() if n != "site00"}), ProtocolViolation, "own_key")
    steps.refused("site00", share({**keys, "site01": keys["site02"]}), ProtocolViolation, "unknown_peer")
    steps.refused("site00", share({**keys, "stranger": keys["site02"]}), ProtocolViolation, "unknown_peer")
    message = content_of(keys["site01"])[0]
    forged = signed(message, steps.made.sites["site02"].private)
    steps.refused("site00", share({**keys, "site01": forged}), SignatureWrong)
    old = signed(replace(message, attempt=7), steps.made.sites["site01"].private)
    steps.refused("site00", share({**keys, "site01": old}), ProtocolViolation, "unknown_peer")
    steps.refused("site00", share({n: keys[n] for n in ALL[:2]}), TooFewSites, "too_few_survivors")
    assert steps.made.sites["site00"].answer(share(keys))
    steps.refused("site00", share({n: keys[n] for n in ALL[:3]}), ProtocolViolation, "second_key_list")


def test_parcels_are_refused_when_altered(tmp_path: Path) -> None:
    steps = Steps(tmp_path)
    keys = steps.trip("keys", {name: {} for name in ALL})
    steps.trip("share", {name: {"keys": keys} for name in ALL})
    good = steps.parcels("site00")
    ask = lambda parcels: request("ask", {"question": QUESTION, "parcels": parcels})  # noqa: E731
    steps.refused("site00", ask({**good, "site01": good["site02"]}), SealBroken)
    steps.refused("site00", ask({**good, "site00": good["site02"]}), ProtocolViolation, "unknown_peer")
    steps.refused("site00", ask({**good, "stranger": good["site02"]}), ProtocolViolation, "unknown_peer")
    assert steps.made.sites["site00"].answer(ask(good))


def test_only_recognised_sites_count(tmp_path: Path) -> None:
    steps = Steps(tmp_path, recognised=frozenset(ALL[:2]))
    keys = {name: steps.made.sites[name].answer(request("keys", {})) for name in ALL}
    steps.refused("site00", request("share", {"keys": keys}), TooFewSites, "too_few_survivors")


def test_survivor_lists_are_refused(tmp_path: Path) -> None:
    steps = Steps(tmp_path).to_mask()
    lists = lambda names: request("survivors", {"survivors": names})  # noqa: E731
    steps.refused("site00", lists(ALL[1:]), ProtocolViolation, "survivor_list")
    steps.refused("site00", lists((*ALL, "stranger")), ProtocolViolation, "survivor_list")
    steps.refused("site00", lists(ALL[:2]), TooFewSites, "too_few_survivors")
    steps.made.sites["site00"].answer(lists(ALL))
    steps.refused("site00", lists(ALL[:3]), ProtocolViolation, "second_survivor_list")


def test_an_active_site_wants_the_word_of_enough_others(tmp_path: Path) -> None:
    steps = Steps(tmp_path).to_agreed()
    said = steps.said["survivors"]
    few = {name: said[name] for name in ALL[:2]}
    steps.refused("site00", unmask(steps, ALL, agreements=few), TooFewSites, "too_few_survivors")
    message = content_of(said["site01"])[0]
    other = signed(replace(message, body={"survivors": ALL[:3]}), steps.made.sites["site01"].private)
    steps.refused("site00", unmask(steps, ALL, agreements={**said, "site01": other}), ProtocolViolation, "second_survivor_list")
    forged = signed(message, steps.made.sites["site02"].private)
    steps.refused("site00", unmask(steps, ALL, agreements={**said, "site01": forged}), SignatureWrong)
    steps.refused("site00", unmask(steps, ALL, agreements={**said, "site01": said["site02"]}), ProtocolViolation)
    assert steps.made.sites["site00"].answer(unmask(steps, ALL))


def test_secrets_die_with_the_round(tmp_path: Path) -> None:
    steps = Steps(tmp_path).to_agreed()
    site = steps.made.sites["site00"]
    site.answer(unmask(steps, ALL))
    assert site.participant._now is None
    steps.refused("site00", steps.asked["ask"]["site00"], ProtocolViolation, "replayed_round")


def test_the_class_rule_is_asked_before_a_site_agrees(tmp_path: Path) -> None:
    def rule(survivors: frozenset[str], _: frozenset[str]) -> None:
        check([frozenset(ALL)], survivors, least=2, permitted=())

    steps = Steps(tmp_path, class_rule=rule).to_mask()
    steps.refused("site00", request("survivors", {"survivors": ALL[:3]}), Refused, "class_rule")
    assert steps.made.sites["site00"].answer(request("survivors", {"survivors": ALL}))


def test_masked_updates_look_like_noise(tmp_path: Path) -> None:
    steps = Steps(tmp_path).to_mask()
    for name in ALL:
        vector = np.frombuffer(content_of(steps.said["ask"][name])[0].body["vector"], "<u4")
        assert not np.array_equal(vector, steps.made.sites[name].vector(1))


# ---- membership -----------------------------------------------------------------------------------------------------
def sets(*words: str) -> list[frozenset[str]]:
    return [frozenset(word) for word in words]


def test_classes_sort_sites_by_pattern() -> None:
    assert classes([]) == []
    assert classes(sets("abcd")) == sets("abcd")
    assert sorted(classes(sets("abcd", "abc")), key=sorted) == sets("abc", "d")
    assert sorted(classes(sets("abcd", "cdef", "abcd")), key=sorted) == sets("ab", "cd", "ef")


@pytest.mark.parametrize(
    ("before", "new", "least", "permitted", "passes"),
    [
        ((), "abc", 2, "", True),
        ((), "a", 2, "", False),
        (("abc",), "abc", 2, "", True),
        (("abc",), "ab", 2, "", False),
        (("abc",), "ab", 2, "c", True),
        (("abcd",), "ab", 2, "", True),
        (("abcd",), "ab", 3, "", False),
        (("abcd",), "ab", 3, "abc", False),
        (("abcd",), "ab", 3, "abcd", True),
        (("abcd", "ab"), "ac", 2, "", False),
        (("abc",), "defg", 3, "", True),
    ],
)
def test_the_class_rule(before: tuple[str, ...], new: str, least: int, permitted: str, passes: bool) -> None:
    if passes:
        check(sets(*before), frozenset(new), least=least, permitted=frozenset(permitted))
        return
    with pytest.raises(Refused) as caught:
        check(sets(*before), frozenset(new), least=least, permitted=frozenset(permitted))
    assert caught.value.rule == "class_rule"


def test_survivor_sets_are_kept_once(tmp_path: Path) -> None:
    path = tmp_path / "asset.journal"
    kept = Memberships(path)
    assert kept.sets() == []
    for word in ("abc", "ab", "abc"):
        kept.add(frozenset(word))
    assert Memberships(path).sets() == sets("abc", "ab")
