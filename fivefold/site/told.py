"""What the coordinator tells of a round: believed only as far as the sites' own signatures bear it out.

A site goes on with the total that it added up itself. Where the round's updates are too large to travel (`on_trust`), it goes
on with the coordinator's total, once its sites are those that this site served and its shape is that of the question.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from fivefold.disclosure.rules import screen
from fivefold.errors import AggregateFalse, MessageMalformed, TooFewPersons
from fivefold.privacy.fixed_point import ring_for, width
from fivefold.protocol.encoding import decode, encode
from fivefold.protocol.messages import Told, Transcript
from fivefold.replay.compare import described, same
from fivefold.replay.cursor import Asked, Outcome
from fivefold.replay.totals import on_trust, outcome, taking_part
from fivefold.site.gathered import verify_replies
from fivefold.site.round_book import RoundBook
from fivefold.site.standing import Standing
from fivefold.site.transcript import verify_transcript


def verified(
    told: Told,
    asked: Asked,
    standing: Standing,
    run: str,
    book: RoundBook,
    minimum_persons: int,
    members: tuple[int, int] | None = None,
) -> Outcome:
    """The outcome of a round that a site may feed to its own replay. `members`: of a buffer, the fewest and the most sites in
    it. Raises `AggregateFalse` (rule `transcript`, or
    `aggregate` for one that is taken on trust)."""
    roster = standing.roster
    claimed = _claimed(told, asked)
    if on_trust(asked, len(roster.names)):
        return _on_trust(told, claimed, asked, standing, book, minimum_persons, members)
    if not same(plain(described(asked.question)), _decoded(told.question)):
        raise _false("it belongs to a question that does not follow from the study")
    if asked.gathered:
        found = verify_replies(_transcript(told.transcript), asked, standing, run, told.question)
    else:
        found = verify_transcript(
            _transcript(told.transcript),
            standing,
            run,
            told.round,
            hashlib.sha256(told.question).digest(),
            ring_for(asked.fields),
            width(asked.fields),
        )
    true = outcome(asked, found.vector, roster.names, found.survivors, minimum_persons)
    if (told.sites, told.dropped) != (true.sites, true.dropped):
        raise _false("the sites that it names are not those whose updates are in the sum")
    if told.ended != true.ended or not _equal(claimed, true.totals):
        raise _false("it is not the sum of the sites' updates")
    return true


def _on_trust(
    told: Told,
    claimed: tuple[Mapping[str, Any], ...],
    asked: Asked,
    standing: Standing,
    book: RoundBook,
    minimum_persons: int,
    members: tuple[int, int] | None,
) -> Outcome:
    """What can be checked without the updates: whose sum it is, its form, and the minimum of persons."""
    roster = standing.roster
    if told.sites != roster.in_order(told.sites) or not set(told.sites) <= set(roster.names):
        raise _false("it names sites that are not in the study", "aggregate")
    if told.dropped != tuple(n for n in taking_part(asked, roster.names) if n not in told.sites):
        raise _false("the sites that dropped are not those that are not in the sum", "aggregate")
    least, most = (standing.wanted, len(roster.names)) if members is None else members
    if book.released.get(told.round, told.sites) != told.sites or standing.counted(told.sites) < least:
        raise _false("this site served other survivors", "aggregate")
    if len(told.sites) > most:
        raise _false("it names more sites than its buffer holds", "aggregate")
    if told.ended:
        if told.ended != TooFewPersons.__name__ or claimed or not any(f.kind == "persons" for f in asked.fields):
            raise _false("no total can have ended the analysis", "aggregate")
        return Outcome((), told.sites, told.dropped, told.ended)
    joined = asked.join(claimed)
    for field in asked.fields:
        value = joined[field.name]
        holes = field.kind == "cell"
        if value.shape != field.shape or value.dtype.kind not in "if" or not (holes or np.all(np.isfinite(value))):
            raise _false(f"the total of {field.name} has another form than its question", "aggregate")
    try:
        screened = screen(joined, asked.fields, minimum_persons)
    except TooFewPersons:
        raise _false("the total lies under the minimum of persons", "aggregate") from None
    if not _equal(claimed, asked.split(screened)):
        raise _false("small cells show in it", "aggregate")
    return Outcome(claimed, told.sites, told.dropped)


def plain(value: Any) -> Any:
    """A value as it is after its trip: the form in which a sent question arrives."""
    return decode(encode(value))


def _claimed(told: Told, asked: Asked) -> tuple[Mapping[str, Any], ...]:
    """The totals as they were sent: none where the analysis ended, else a mapping for each sum with exactly its fields."""
    value = _decoded(told.totals)
    wanted = () if told.ended else asked.sums
    if not isinstance(value, tuple) or len(value) != len(wanted):
        raise _false("it is not the total of each sum")
    for totals, one in zip(value, wanted, strict=True):
        if not isinstance(totals, Mapping) or totals.keys() != {f.name for f in one.fields}:
            raise _false("its fields are not those of the question")
        if not all(isinstance(v, np.ndarray) for v in totals.values()):
            raise _false("its fields are not numbers")
    return value


def _equal(claimed: tuple[Mapping[str, Any], ...], true: tuple[Mapping[str, Any], ...]) -> bool:
    """Bit for bit, as totals travel."""
    return encode(claimed) == encode(true)


def _decoded(data: bytes) -> Any:
    try:
        return decode(data)
    except MessageMalformed as error:
        raise _false("it cannot be read") from error


def _transcript(data: bytes) -> Transcript:
    try:
        return Transcript.decode(data)
    except MessageMalformed as error:
        raise _false("it cannot be read") from error


def _false(why: str, rule: str = "transcript") -> AggregateFalse:
    return AggregateFalse(f"the aggregate that was sent is false: {why}", rule=rule)
