"""A round laid open: a site adds up the signed masked updates itself, so that no coordinator can tell it another total.

The promise of the secure sum already covers a coordinator that shares all it sees with sites; so a transcript tells nothing
that was hidden. A false total would steer the next question as well as a false question would; therefore it must be true.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

from fivefold.auth.signatures import opened
from fivefold.errors import AggregateFalse, FivefoldError
from fivefold.privacy.secagg.instance import Instance
from fivefold.privacy.secagg.ring import Ring, add_into, from_bytes, zeros
from fivefold.protocol import messages as m
from fivefold.protocol.messages import Advert, Blobs, Names, Place
from fivefold.protocol.questions import Array
from fivefold.site.standing import Standing

Word = TypeVar("Word", bound=m.Message)


@dataclass(frozen=True)
class Verified:
    """What a round's own messages say: its total as ring elements (read-only) and whose it is."""

    vector: Array
    survivors: Names
    attempt: int


def verify_transcript(
    transcript: m.Transcript, standing: Standing, run: str, round: int, question: bytes, ring: Ring, length: int
) -> Verified:
    """The total of a round of this run, added up and opened from what each site signed.

    It needs no memory of the round, so a site that missed it can follow. Raises `AggregateFalse` for anything that is not
    signed by the study's sites, is of another round or question, or is opened by fewer than t sites that this site recognises.
    Two different transcripts of one round cannot both pass: an honest site would have had to serve two survivor lists.
    """
    try:
        return _verified(transcript, standing, run, round, question, ring, length)
    except AggregateFalse:
        raise
    except FivefoldError as error:
        raise AggregateFalse(f"the transcript of round {round} does not hold: {error.message}", rule="transcript") from error


def _verified(
    transcript: m.Transcript, standing: Standing, run: str, round: int, question: bytes, ring: Ring, length: int
) -> Verified:
    roster, t = standing.roster, standing.thresholds.t
    _require(bool(transcript.adverts and transcript.masked), "it is empty")
    attempt = m.Envelope.decode(transcript.adverts[0]).place.attempt
    place = Place(standing.study, run, round, attempt)
    adverts = dict(_read(transcript.adverts, Advert, standing, place))
    key_list = m.key_list_digest(transcript.adverts, transcript.head)

    total, survivors, sharers = zeros(length, ring), [], None
    for site, masked in _read(transcript.masked, m.Masked, standing, place):
        sharers = masked.sharers if sharers is None else sharers
        told = (masked.keys, masked.sharers, masked.question, masked.bits, masked.length)
        _require(told == (key_list, sharers, question, ring.bits, length), f"the update of {site} answers another question")
        add_into(total, from_bytes(masked.vector, length, ring), ring)
        survivors.append(site)
    alive = tuple(survivors)
    _require(sharers is not None and set(alive) <= set(sharers) <= adverts.keys(), "it names sites that had no part")
    _require(standing.counted(alive) >= standing.wanted, "it holds the updates of too few sites")

    words = dict(_read(transcript.unmasked, m.Unmasked, standing, place))
    for site, word in words.items():
        same = (word.keys, word.question, word.survivors) == (key_list, question, alive)
        _require(site in alive and same, f"the shares of {site} open another sum")
        gone = set(sharers or ()) - set(alive)
        _require(word.seed_shares.keys() == set(alive) and word.key_shares.keys() == gone, f"shares of {site} are missing")
    _require(standing.counted(words) >= t, "too few sites opened it")

    instance = Instance(place, roster, adverts, key_list, sharers or (), question, ring, length)
    seeds = {site: word.seed_shares for site, word in words.items()}
    mask_keys = {site: word.key_shares for site, word in words.items()}
    instance.unmask(total, alive, seeds, mask_keys, t)
    total.setflags(write=False)
    return Verified(total, alive, attempt)


def _read(envelopes: Blobs, kind: type[Word], standing: Standing, place: Place) -> Iterator[tuple[str, Word]]:
    """Sender and message of each, in the study's order, no sender twice."""
    last = -1
    for data in envelopes:
        sender, message = opened(data, kind, standing.roster, place)
        _require(standing.roster.place[sender] > last, "it holds a site twice or out of order")
        last = standing.roster.place[sender]
        yield sender, message


def _require(holds: bool, why: str) -> None:
    if not holds:
        raise AggregateFalse(f"the transcript that was sent is false: {why}", rule="transcript")
