"""From the opened sum of a round to what the study's method is given: coordinator and every site take the same steps.

A false total would steer the next question as well as a false question would. So each site adds the round up itself from what
the sites signed (`site/transcript.py`), where that is small enough to travel. The updates of a wide model are not, nor are a
buffer's, which only its members have: their aggregates are taken on trust.
"""

from __future__ import annotations

from collections.abc import Sequence

from fivefold.disclosure.rules import screen
from fivefold.errors import TooFewPersons
from fivefold.privacy.fixed_point import ring_for, unpack, width
from fivefold.privacy.secagg.ring import RING128
from fivefold.protocol.questions import Array
from fivefold.replay.cursor import Asked, Outcome

VERIFIABLE = 1 << 22
"""Ring elements of all sites' updates together, above which no transcript of a round travels (64 MiB of statistics)."""


MODELS = 1 << 20
"""Bytes of all sites' updates together in a round (1 MiB), above which no transcript of a training travels: it does so in every
one of many rounds. Up to 52,000 weights at five sites."""


def on_trust(asked: Asked, sites: int) -> bool:
    """Whether the aggregate of this question cannot be added up by its sites: model updates of more than `MODELS` bytes, other
    answers of more than `VERIFIABLE` ring elements over all sites of the study, buffers. Public, so that coordinator and sites
    agree."""
    if asked.gathered:  # each reply is signed, and travels as it is
        return False
    numbers = width(asked.fields) * sites
    if any(f.kind == "update" for f in asked.fields):
        return asked.buffer is not None or numbers * ring_for(asked.fields).element_bytes > MODELS
    return asked.buffer is not None or numbers > VERIFIABLE


def may_be_on_trust(numbers: int, sites: int, *, trains: bool, buffered: bool) -> bool:
    """The same of an analysis before it is run, from the most `numbers` that it asks in a round: certain where it says no."""
    if trains:
        return buffered or numbers * sites * RING128.element_bytes > MODELS
    return numbers * sites > VERIFIABLE


def taking_part(asked: Asked, roster: Sequence[str]) -> tuple[str, ...]:
    """Who takes part in the analysis of a question, in the study's order: those that it names, or all."""
    named = asked.analysis.sites
    return tuple(name for name in roster if not named or name in named)


def outcome(asked: Asked, vector: Array, roster: Sequence[str], survivors: Sequence[str], minimum_persons: int) -> Outcome:
    """An opened sum (ring elements) as numbers, small totals hidden before anybody sees them.

    Raises `ProtocolViolation` where masks are left in it.
    """
    dropped = tuple(name for name in taking_part(asked, roster) if name not in survivors)
    if asked.gathered:
        from fivefold.replay.gathered import side_by_side

        return side_by_side(asked, vector, len(roster), survivors, dropped)
    totals = unpack(vector, asked.fields, len(roster), len(survivors))
    try:
        return Outcome(asked.split(screen(totals, asked.fields, minimum_persons)), tuple(survivors), dropped)
    except TooFewPersons as error:
        return Outcome((), tuple(survivors), dropped, error.code)
