"""The collector over participants in memory: the plain sum of the survivors, or a clear end."""

from __future__ import annotations

import tracemalloc
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fivefold.auth.messages import signed
from fivefold.errors import ProtocolViolation, SiteRefused, TooManyDropouts
from fivefold.privacy.secagg.ring import RING32, RING128, Ring
from fivefold.protocol.envelope import Message, content_of
from tests.site.sums_in_memory import TRIPS, Consortium, consortium

NEEDED = {3: 2, 5: 3, 10: 7}


@pytest.mark.parametrize("active", [True, False], ids=["active", "curious"])
@pytest.mark.parametrize("ring", [RING32, RING128], ids=["32", "128"])
@pytest.mark.parametrize("n", [3, 5, 10])
def test_the_total_is_the_plain_sum_over_the_survivors(tmp_path: Path, n: int, ring: Ring, active: bool) -> None:
    needed = NEEDED[n]
    for trip in TRIPS if active else tuple(t for t in TRIPS if t != "survivors"):
        for lost in range(n - needed + 1):
            made = consortium(tmp_path / f"{trip}{lost}", n, needed, ring, active=active)
            dropped = frozenset(list(made.sites)[1 : 1 + lost])
            made.silent = {trip: dropped}
            got = made.sum(needed, 5, ring, active=active)
            before = trip in ("keys", "share", "ask")
            assert got.survivors == tuple(s for s in made.sites if not (before and s in dropped))
            assert np.array_equal(got.total, made.plain(got.survivors, 5, ring))
            assert made.refusals == []


@pytest.mark.parametrize("n", [3, 5, 10])
def test_drop_outs_spread_over_the_trips(tmp_path: Path, n: int) -> None:
    made = consortium(tmp_path, n, NEEDED[n], RING128)
    away = list(made.sites)[: n - NEEDED[n]]
    made.silent = {TRIPS[(2 * i + 2) % 5]: frozenset([name]) for i, name in enumerate(away)}
    got = made.sum(NEEDED[n], 5, RING128)
    assert np.array_equal(got.total, made.plain(got.survivors, 5, RING128))


@pytest.mark.parametrize("trip", TRIPS)
@pytest.mark.parametrize("n", [3, 5, 10])
def test_too_many_drop_outs_end_the_round(tmp_path: Path, n: int, trip: str) -> None:
    made = consortium(tmp_path, n, NEEDED[n], RING32)
    made.silent = {trip: frozenset(list(made.sites)[: n - NEEDED[n] + 1])}
    with pytest.raises(TooManyDropouts):
        made.sum(NEEDED[n], 5, RING32)


def test_a_lost_round_is_asked_again_under_a_new_attempt(tmp_path: Path) -> None:
    made = consortium(tmp_path, 5, 4, RING128)
    made.silent = {"ask": frozenset(list(made.sites)[:2])}
    with pytest.raises(TooManyDropouts):
        made.sum(4, 5, RING128)
    made.silent, made.gone = {}, set()
    got = made.sum(4, 5, RING128, attempt=2)
    assert got.survivors == tuple(made.sites)
    assert np.array_equal(got.total, made.plain(got.survivors, 5, RING128))


def test_the_masked_sum_is_shown_before_a_share_is_asked_for(tmp_path: Path) -> None:
    made = consortium(tmp_path, 3, 2, RING32)
    made.sum(2, 5, RING32)
    kinds = [content_of(data)[0].kind for _, data, _ in made.wire]
    assert kinds == [kind for kind in TRIPS for _ in range(3)]


def altering(made: Consortium, kind: str, change: Any, liar: str = "site00") -> None:
    """One site signs another body in one trip."""

    def alter(name: str, asked: Message, reply: bytes) -> bytes:
        if (name, asked.kind) != (liar, kind):
            return reply
        message = content_of(reply)[0]
        return signed(replace(message, **change(message)), made.sites[name].private)

    made.alter = alter


@pytest.mark.parametrize("kind", TRIPS)
@pytest.mark.parametrize("body", [{}, {"seal": 1}], ids=["empty", "other"])
def test_a_reply_that_lacks_its_parts_is_a_refusal_of_that_site(tmp_path: Path, kind: str, body: Mapping[str, Any]) -> None:
    made = consortium(tmp_path, 5, 3, RING32)
    altering(made, kind, lambda message: {"body": body})
    got = made.sum(3, 5, RING32)
    assert ("site00", "MessageMalformed", "body") in made.refusals
    assert np.array_equal(got.total, made.plain(got.survivors, 5, RING32))


@pytest.mark.parametrize("change", [{"round": 2}, {"attempt": 7}, {"run": "other"}, {"study": "cd" * 32}, {"kind": "ask"}])
def test_a_reply_of_another_place_is_left_out(tmp_path: Path, change: dict[str, Any]) -> None:
    made = consortium(tmp_path, 5, 3, RING32)
    altering(made, "share", lambda message: change)
    got = made.sum(3, 5, RING32)
    assert made.refusals == [("site00", "ProtocolViolation", "message_of_another_place")]
    assert got.survivors == tuple(made.sites)[1:]
    assert np.array_equal(got.total, made.plain(got.survivors, 5, RING32))


def test_a_forged_signature_is_left_out(tmp_path: Path) -> None:
    made = consortium(tmp_path, 5, 3, RING32)
    made.alter = lambda name, asked, reply: reply[:-1] + bytes([reply[-1] ^ 1]) if name == "site01" else reply
    got = made.sum(3, 5, RING32)
    assert "site01" not in got.survivors
    assert {(name, code) for name, code, _ in made.refusals} == {("site01", "SignatureWrong")}


def test_a_withheld_parcel_splits_the_views_and_ends_the_round(tmp_path: Path) -> None:
    made = consortium(tmp_path, 5, 3, RING32)
    altering(made, "share", lambda m: {"body": {"parcels": {k: v for k, v in m.body["parcels"].items() if k != "site02"}}})
    with pytest.raises(SiteRefused):
        made.sum(3, 5, RING32)


@pytest.mark.parametrize("part", ["self", "pair"])
def test_a_withheld_share_is_a_violation(tmp_path: Path, part: str) -> None:
    made = consortium(tmp_path, 5, 3, RING32)
    made.silent = {"ask": frozenset(["site04"])}
    altering(made, "unmask", lambda message: {"body": {**message.body, part: {}}})
    with pytest.raises(ProtocolViolation):
        made.sum(3, 5, RING32)


def test_a_false_share_is_a_violation(tmp_path: Path) -> None:
    made = consortium(tmp_path, 5, 3, RING32)
    altering(made, "unmask", lambda m: {"body": {**m.body, "self": {k: bytes(33) for k in m.body["self"]}}})
    with pytest.raises(ProtocolViolation):
        made.sum(3, 5, RING32)


def test_memory_is_one_accumulator_beside_the_replies(tmp_path: Path) -> None:
    """The replies are kept for the sites' check, as bytes and read; adding them up costs one vector more, not one a site."""
    width, n = 1 << 16, 10
    size = 16 * width
    made = consortium(tmp_path, n, 7, RING128, width=width)
    peaks: dict[str, int] = {}

    class Watched:
        def exchange(self, requests: Mapping[str, bytes]) -> dict[str, bytes]:
            kind = content_of(next(iter(requests.values())))[0].kind
            if kind == "survivors":
                peaks["adding"] = tracemalloc.get_traced_memory()[1] - peaks["replies"]
            replies = made.exchange(requests)
            if kind == "ask":
                made.wire.clear()
                peaks["replies"] = tracemalloc.get_traced_memory()[0]
                tracemalloc.reset_peak()
            return replies

    watched = Consortium(made.sites)
    watched.exchange = Watched().exchange  # type: ignore[method-assign]
    tracemalloc.start()
    try:
        watched.sum(7, width, RING128)
    finally:
        tracemalloc.stop()
    assert peaks["adding"] < (n + 5) * size
