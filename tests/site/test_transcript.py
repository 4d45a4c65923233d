"""A site adds up the round itself: a false aggregate is found, however it was made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fivefold.auth import keys
from fivefold.auth.signatures import signed
from fivefold.errors import AggregateFalse
from fivefold.privacy.secagg.ring import RING32, RING128
from fivefold.protocol import messages as m
from fivefold.protocol.messages import Envelope, Transcript
from fivefold.site.standing import Standing
from fivefold.site.transcript import verify_transcript
from tests.site.secure_sum_bench import QUESTION, RUN, Bench, integers


def told(bench: Bench, round: int = 1, **more: object) -> Transcript:
    found = bench.ask(bench.rounds(), round, transcript=True, **more).transcript
    assert found is not None
    return Transcript.decode(found.encode())


def verify(bench: Bench, transcript: Transcript, standing: Standing | None = None, round: int = 1, question: bytes = QUESTION):
    standing = standing or bench.standings["site0"]
    return verify_transcript(transcript, standing, RUN, round, question, bench.ring, bench.length)


@pytest.mark.parametrize("adversary", ["active", "curious"])
@pytest.mark.parametrize("ring", [RING32, RING128], ids=["ring32", "ring128"])
def test_every_site_finds_the_total(tmp_path: Path, ring, adversary) -> None:
    """Those that took part, the one that dropped out, and one that restarted since."""
    bench = Bench(tmp_path, 5, ring=ring, adversary=adversary)
    bench.silent = lambda site, request: site == "site3" and request.kind == "ask"
    transcript = told(bench)
    for name in bench.names:
        found = verify(bench, transcript, bench.standings[name])
        assert found.survivors == ("site0", "site1", "site2", "site4")
        assert integers(found.vector) == bench.total(found.survivors)
        assert not found.vector.flags.writeable
    bench.stop()


def test_a_later_attempt_counts_as_well(bench: Bench) -> None:
    rounds = bench.rounds(attempts={1: 3})
    found = bench.ask(rounds, 1, transcript=True).transcript
    assert found is not None
    assert verify(bench, found).attempt == 4


def _without_last_masked(t: Transcript) -> Transcript:
    return replace(t, masked=t.masked[:-1])


def _doubled(t: Transcript) -> Transcript:
    return replace(t, masked=(*t.masked, t.masked[-1]))


def _swapped(t: Transcript) -> Transcript:
    return replace(t, masked=(t.masked[1], t.masked[0], *t.masked[2:]))


def _too_few_shares(t: Transcript) -> Transcript:
    return replace(t, unmasked=t.unmasked[:3])


def _keys_reordered(t: Transcript) -> Transcript:
    return replace(t, adverts=t.adverts[::-1])


def _key_left_out(t: Transcript) -> Transcript:
    return replace(t, adverts=t.adverts[:-1])


def _empty(t: Transcript) -> Transcript:
    return Transcript((), (), ())


def _mixed_up(t: Transcript) -> Transcript:
    return replace(t, masked=t.unmasked, unmasked=t.masked)


@pytest.mark.parametrize(
    "alter",
    [
        _without_last_masked,
        _doubled,
        _swapped,
        _too_few_shares,
        _keys_reordered,
        _key_left_out,
        _empty,
        _mixed_up,
    ],
)
def test_altered_transcript_is_false(bench: Bench, alter: Callable[[Transcript], Transcript]) -> None:
    transcript = told(bench)
    verify(bench, transcript)
    with pytest.raises(AggregateFalse) as caught:
        verify(bench, alter(transcript))
    assert caught.value.rule == "transcript"


def test_any_changed_byte_of_an_update_is_found(bench: Bench) -> None:
    transcript = told(bench)
    update = transcript.masked[2]
    for i in range(0, len(update), 5):
        altered = update[:i] + bytes([update[i] ^ 4]) + update[i + 1 :]
        with pytest.raises(AggregateFalse):
            verify(bench, replace(transcript, masked=(*transcript.masked[:2], altered, *transcript.masked[3:])))


def test_update_made_up_by_the_coordinator(bench: Bench) -> None:
    """It may sign for site2 with a key of its own, or replay another round's update: both are found."""
    transcript = told(bench)
    envelope = Envelope.decode(transcript.masked[2])
    word = m.Masked.decode(envelope.body)
    forged = signed(keys.new_key(), envelope.place, "site2", replace(word, vector=bytes(len(word.vector)))).encode()
    with pytest.raises(AggregateFalse):
        verify(bench, replace(transcript, masked=(*transcript.masked[:2], forged, *transcript.masked[3:])))
    second = told(bench, 2)
    with pytest.raises(AggregateFalse):
        verify(bench, replace(transcript, masked=(*transcript.masked[:2], second.masked[2], *transcript.masked[3:])))
    with pytest.raises(AggregateFalse):
        verify(bench, second)
    assert integers(verify(bench, second, round=2).vector) == bench.total(bench.names)


def test_colluding_site_cannot_move_the_total_after_the_fact(bench: Bench) -> None:
    """site4 signs another update and lies about a share: what it signs is its own answer, but the others' shares bind."""
    transcript = told(bench)
    envelope = Envelope.decode(transcript.unmasked[4])
    word = m.Unmasked.decode(envelope.body)
    false = replace(word, seed_shares=dict(word.seed_shares) | {"site0": bytes(33)})
    lie = signed(bench.private["site4"], envelope.place, "site4", false).encode()
    with pytest.raises(AggregateFalse):
        verify(bench, replace(transcript, unmasked=(*transcript.unmasked[:4], lie)))
    fewer = replace(word, survivors=bench.names[:4])
    lie = signed(bench.private["site4"], envelope.place, "site4", fewer).encode()
    with pytest.raises(AggregateFalse):
        verify(bench, replace(transcript, unmasked=(*transcript.unmasked[:4], lie)))


def test_another_question_or_ring(bench: Bench) -> None:
    transcript = told(bench)
    with pytest.raises(AggregateFalse):
        verify(bench, transcript, question=bytes(32))
    with pytest.raises(AggregateFalse):
        verify_transcript(transcript, bench.standings["site0"], RUN, 1, QUESTION, RING32, bench.length)
    with pytest.raises(AggregateFalse):
        verify_transcript(transcript, bench.standings["site0"], RUN, 1, QUESTION, bench.ring, bench.length + 1)
    with pytest.raises(AggregateFalse):
        verify_transcript(transcript, bench.standings["site0"], "run-2", 1, QUESTION, bench.ring, bench.length)


def test_sites_that_are_not_recognised_open_nothing(bench: Bench) -> None:
    """A lead that lists keys of its own cannot tell a site a total that they alone have opened."""
    known = frozenset(keys.fingerprint(bench.roster.key(n)) for n in ("site1", "site2"))
    with pytest.raises(AggregateFalse):
        verify(bench, told(bench), bench.standing("site0", recognised=known))
