"""From the opened sum of a round to what the study's method is given: coordinator and every site take the same steps.

A false total would steer the next question as well as a false question would. So each site adds the round up itself from what
the sites signed (`site/transcript.py`), where that is small enough to travel. Model updates are not: their aggregates are taken
on trust.
"""

from __future__ import annotations

from collections.abc import Sequence

from fivefold.disclosure.rules import screen
from fivefold.errors import TooFewPersons
from fivefold.privacy.fixed_point import unpack, width
from fivefold.protocol.questions import Array
from fivefold.replay.cursor import Asked, Outcome

VERIFIABLE = 1 << 22
"""Ring elements of all sites' updates together, above which no transcript of a round travels (64 MiB of statistics)."""


def on_trust(asked: Asked, sites: int) -> bool:
    """Whether the aggregate of this question cannot be added up by its sites: model updates, or more than `VERIFIABLE` ring
    elements over all sites of the study. Public, so that coordinator and sites agree."""
    return any(f.kind == "update" for f in asked.fields) or width(asked.fields) * sites > VERIFIABLE


def taking_part(asked: Asked, roster: Sequence[str]) -> tuple[str, ...]:
    """Who takes part in the analysis of a question, in the study's order: those that it names, or all."""
    named = asked.analysis.sites
    return tuple(name for name in roster if not named or name in named)


def outcome(asked: Asked, vector: Array, roster: Sequence[str], survivors: Sequence[str], minimum_persons: int) -> Outcome:
    """An opened sum (ring elements) as numbers, small totals hidden before anybody sees them.

    Raises `ProtocolViolation` where masks are left in it.
    """
    dropped = tuple(name for name in taking_part(asked, roster) if name not in survivors)
    totals = unpack(vector, asked.fields, len(roster), len(survivors))
    try:
        return Outcome(asked.split(screen(totals, asked.fields, minimum_persons)), tuple(survivors), dropped)
    except TooFewPersons as error:
        return Outcome((), tuple(survivors), dropped, error.code)
