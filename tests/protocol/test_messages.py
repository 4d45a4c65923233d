"""Messages and envelopes: there and back, and whatever hostile bytes may hold."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fivefold.auth import keys
from fivefold.auth.signatures import check, opened, signed
from fivefold.errors import FivefoldError, MessageMalformed, ProtocolViolation, SignatureWrong
from fivefold.protocol import messages as m
from fivefold.protocol.encoding import decode, encode
from fivefold.protocol.messages import REPLIES, REQUESTS, Envelope, Place, Roster

PLACE = Place("ab" * 32, "run", 3, 2)
PRIVATE = {n: keys.new_key() for n in ("basel", "bern", "genf")}
ROSTER = Roster(tuple(PRIVATE), tuple(keys.public_of(p) for p in PRIVATE.values()))
SAMPLES = {
    "str": "text",
    "bytes": b"\x00\x01",
    "bool": True,
    "int": 7,
    "Names": ("basel", "bern"),
    "Blobs": (b"a", b""),
    "Parcels": {"basel": b"x", "bern": b""},
}
WRONG: dict[str, list[Any]] = {
    "str": [1, b"", None],
    "bytes": ["", 1, None],
    "bool": [1, "true", None],
    "int": [-1, 1 << 53, True, 1.0, "1"],
    "Names": [("a", "a"), ("a", 1), "ab", {"a": 1}],
    "Blobs": [("a",), b"", (1,)],
    "Parcels": [{"a": 1}, {"a": "x"}, (b"a",), None],
}
KINDS = [*REQUESTS.values(), *REPLIES.values(), m.Transcript]
EVERY = pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.kind)


def sample(kind: type[m.Message]) -> m.Message:
    return kind(**{f.name: SAMPLES[str(f.type)] for f in fields(kind)})


@EVERY
def test_there_and_back(kind: type[m.Message]) -> None:
    message = sample(kind)
    assert kind.decode(message.encode()) == message
    assert message.encode() == sample(kind).encode()


@EVERY
def test_parts_missing_surplus_or_of_another_type(kind: type[m.Message]) -> None:
    parts = decode(sample(kind).encode())
    with pytest.raises(MessageMalformed):
        kind.decode(encode(dict(parts) | {"surplus": 1}))
    with pytest.raises(MessageMalformed):
        kind.decode(encode(tuple(parts)))
    for f in fields(kind):
        with pytest.raises(MessageMalformed):
            kind.decode(encode({k: v for k, v in parts.items() if k != f.name}))
        for wrong in WRONG[str(f.type)]:
            with pytest.raises(MessageMalformed):
                kind.decode(encode(dict(parts) | {f.name: wrong}))


@EVERY
def test_request_and_reply_kinds_are_told_apart_by_the_sender(kind: type[m.Message]) -> None:
    message = sample(kind)
    for sender, known in (("", REQUESTS), ("basel", REPLIES)):
        envelope = Envelope(PLACE, kind.kind, sender, message.encode())
        if kind.kind in known:
            assert Envelope.decode(envelope.encode()).message() == message
        else:
            with pytest.raises(MessageMalformed):
                envelope.message()


def test_every_part_of_an_envelope_is_signed() -> None:
    envelope = signed(PRIVATE["basel"], PLACE, "basel", m.Closed())
    check(envelope, ROSTER)
    assert opened(envelope.encode(), m.Closed, ROSTER, PLACE) == ("basel", m.Closed())
    changes: list[dict[str, Any]] = [{"kind": "refusal"}, {"sender": "bern"}, {"body": b"x"}, {"signature": bytes(64)}]
    changes += [{"place": replace(PLACE, **c)} for c in ({"study": "cd"}, {"run": "r"}, {"round": 4}, {"attempt": 1})]
    for change in changes:
        with pytest.raises(SignatureWrong):
            check(replace(envelope, **change), ROSTER)


def test_signature_given_for_another_purpose_is_not_valid() -> None:
    envelope = signed(PRIVATE["basel"], PLACE, "basel", m.Closed())
    for purpose in ("approval", "secure-sum agreed", "audit-entry"):
        stolen = replace(envelope, signature=keys.sign(PRIVATE["basel"], envelope.claim, purpose))
        with pytest.raises(SignatureWrong):
            check(stolen, ROSTER)


def test_opened_says_where_a_message_does_not_belong() -> None:
    data = signed(PRIVATE["basel"], PLACE, "basel", m.Closed()).encode()
    for kind, place, sender in (
        (m.Refusal, PLACE, None),
        (m.Closed, replace(PLACE, round=4), None),
        (m.Closed, PLACE, "bern"),
    ):
        with pytest.raises(ProtocolViolation):
            opened(data, kind, ROSTER, place, sender)
    with pytest.raises(ProtocolViolation, match="not in the signed study"):
        opened(signed(PRIVATE["basel"], PLACE, "paris", m.Closed()).encode(), m.Closed, ROSTER, PLACE)


def test_other_protocol_version_says_so() -> None:
    parts = dict(decode(Envelope(PLACE, "close", "", m.Close().encode()).encode()))
    with pytest.raises(MessageMalformed, match="version 9"):
        Envelope.decode(encode(parts | {"version": 9}))


@pytest.mark.parametrize("change", [{"round": 0}, {"attempt": 0}, {"round": -1}, {"round": 1 << 60}, {"study": 1}])
def test_impossible_places(change: dict[str, Any]) -> None:
    parts = dict(decode(Envelope(PLACE, "close", "", m.Close().encode()).encode()))
    with pytest.raises(MessageMalformed):
        Envelope.decode(encode(parts | change))


@pytest.mark.parametrize("value", [(), (b"", b"", b""), ("text",), b"bytes", {"a": b""}])
def test_replies_hold_one_or_two_envelopes(value: Any) -> None:
    with pytest.raises(MessageMalformed):
        m.envelopes_of(encode(value))


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_malformed(data: bytes) -> None:
    for read in (Envelope.decode, m.envelopes_of, *(k.decode for k in KINDS if fields(k))):
        with pytest.raises(MessageMalformed):
            read(data)


@given(st.data())
def test_damaged_envelope_is_never_taken_for_the_whole_one(data: st.DataObject) -> None:
    whole = signed(PRIVATE["basel"], PLACE, "basel", m.Shares(bytes(32), {"bern": b"sealed"})).encode()
    at = data.draw(st.integers(0, len(whole) - 1))
    damaged = whole[:at] + bytes([whole[at] ^ data.draw(st.integers(1, 255))]) + whole[at + 1 :]
    with pytest.raises(FivefoldError):
        opened(damaged, m.Shares, ROSTER, PLACE)


def test_roster_gives_each_site_one_name_and_key() -> None:
    for names, public in ((("a", "a"), ROSTER.keys[:2]), (("a", "b"), (ROSTER.keys[0],) * 2), (("a",), ROSTER.keys)):
        with pytest.raises(ValueError, match="roster"):
            Roster(names, public)
    assert ROSTER.in_order({"genf", "basel"}) == ("basel", "genf")
    other = Roster(ROSTER.names[::-1], ROSTER.keys[::-1])
    assert other.digest != ROSTER.digest
