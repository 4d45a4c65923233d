"""Requests of a secure sum, and that they are refused."""

from __future__ import annotations

import pytest

from fivefold.errors import FivefoldError, ProtocolViolation
from fivefold.protocol import messages as m
from fivefold.protocol.messages import Envelope, Place
from tests.site.secure_sum_bench import Bench


def refused(bench: Bench, site: str, request: bytes, rule: str, kind: type[FivefoldError] = ProtocolViolation) -> None:
    """The site says no by this rule; what leaves is the code and the rule alone, signed, and nothing else happens."""
    with pytest.raises(kind) as caught:
        bench.answer(site, request)
    assert caught.value.rule == rule
    (reply,) = m.envelopes_of(bench.reply(site, request))
    assert Envelope.decode(reply).message() == m.Refusal(kind.__name__, rule, "")


def share(bench: Bench, adverts: tuple[bytes, ...]) -> bytes:
    return m.request(bench.place(), m.Share(adverts))


def survivors(place: Place, names: tuple[str, ...]) -> bytes:
    return m.request(place, m.Survivors(names))
