"""A site withdraws in the middle of a run: nothing leaves it any more, and its peers open no sum with it in."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import pytest

from fivefold.errors import SiteRefused, TooManyDropouts
from fivefold.governance import approvals
from fivefold.protocol import messages as m
from fivefold.protocol.messages import Envelope
from fivefold.records.audit import entries
from fivefold.site.folder import opened, read_private
from fivefold.site.withdrawal import withdraw
from tests.journeys.hostile import SITES, Consortium, Hostile
from tests.journeys.hostile import prepared as prepared
from tests.journeys.hostile import them as them


def leaves(them: Consortium, site: str, trip: str, round: int) -> Callable[[str, Envelope], Envelope]:
    """The custodian withdraws just before the first site gets this trip of a round."""
    gone: list[str] = []

    def alter(name: str, asked: Envelope) -> Envelope:
        if not gone and (asked.kind, asked.place.round) == (trip, round):
            gone.append(site)
            folder = opened(them.out / "sites" / site)
            withdraw(folder, them.study.digest, read_private(folder.keys / "custodian.key"), reason="new board")
        return asked

    return alter


def events(them: Consortium, site: str, event: str) -> list[dict[str, object]]:
    return [dict(e.facts) for e in entries(them.out / "sites" / site / "state" / "audit.jsonl") if e.event == event]


@pytest.mark.parametrize("trip", ["ask", "survivors", "unmask"])
def test_nothing_leaves_and_the_peers_open_nothing(them: Consortium, trip: str) -> None:
    hostile = Hostile(them.engine, leaves(them, "fir", trip, 3))
    done = them.run(hostile)  # every site permits its own totals here, so the run goes on without it
    assert trip == "unmask" or all("fir" in r.dropped for r in done.results.values())
    at = next(i for i, (s, kind, e) in enumerate(hostile.heard) if s == "fir" and e.kind == "refusal")
    said = [e for s, _, e in hostile.heard[at:] if s == "fir"]
    assert {e.kind for e in said} == {"refusal"}
    assert m.Refusal.decode(said[0].body).rule == "approval_withdrawn"
    (mine,) = events(them, "fir", "withdrawal")
    run = (them.out / "run0" / "run.id").read_text()
    assert mine["may_still_be_opened"] == ([] if trip == "ask" else [[run, 3]])
    for peer in SITES[:-1]:
        (heard,) = events(them, peer, "notice")
        assert heard["site"] == "fir"
        # the sums that were opened afterwards, if any, do not hold it
        late = list(entries(them.out / "sites" / peer / "state" / "audit.jsonl"))
        after = late[next(i for i, e in enumerate(late) if e.event == "notice") :]
        assert not [e for e in after if e.event == "unmask" and "fir" in e.facts["survivors"]]
    log = [e for e in entries(them.out / "run0" / "audit.jsonl") if e.event == "withdrawal"]
    assert [(e.facts["site"], e.facts["reason"]) for e in log] == [("fir", "new board")]
    assert (them.out / "run0" / "withdrawn" / "fir.json").exists()


def test_it_is_not_begun_again_on_the_same_data(them: Consortium) -> None:
    """Exact sums with and without the site would differ by its own, which it does not permit to show: the class rule says no,
    in every later run too."""
    fir = opened(them.out / "sites" / "fir")
    key = read_private(fir.keys / "custodian.key")
    approvals.approve(fir.path, them.study.study, them.study.digest, key, site_totals="refused")
    with pytest.raises((SiteRefused, TooManyDropouts)):
        them.run(Hostile(them.engine, leaves(them, "fir", "ask", 3)))
    for _ in range(2):
        hostile = Hostile(them.engine)
        with pytest.raises((SiteRefused, TooManyDropouts)) as caught:
            them.run(hostile)
        assert "class_rule" in caught.value.message
        assert not [e for _, kind, e in hostile.heard if kind == "unmask" and e.kind != "refusal"]


def test_a_coordinator_that_does_not_pass_the_notice_on(them: Consortium, tmp_path: Path) -> None:
    """It keeps the notice back; the custodian sends it to one peer by another way, and that peer refuses."""
    gone = leaves(them, "fir", "unmask", 3)

    def alter(name: str, asked: Envelope) -> Envelope | None:
        if asked.kind == "notice":
            return None
        before = (them.out / "sites/fir/state/notices").exists()
        gone(name, asked)
        if not before and (them.out / "sites/fir/state/notices").exists():
            source = them.out / "sites/fir/state/notices" / them.study.digest / "fir.json"
            target = them.out / "sites/elm/state/notices" / them.study.digest / "fir.json"
            target.parent.mkdir(parents=True)
            target.write_bytes(source.read_bytes())
        return asked

    hostile = Hostile(them.engine, alter)
    with contextlib.suppress(SiteRefused, TooManyDropouts):
        them.run(hostile)
    assert hostile.refusals("unmask")["elm"].rule == "peer_withdrew"


def test_a_forged_notice_counts_for_nothing(them: Consortium) -> None:
    """The coordinator writes a notice in a site's name, to have it left out."""
    from fivefold.auth.keys import new_key
    from fivefold.governance.withdrawals import make_notice

    facts = {"study": them.study.digest, "site": "fir", "custodian": "", "reason": "", "at": "", "statement": "", "wishes": {}}
    forged = make_notice(facts, new_key(), new_key())

    def alter(name: str, asked: Envelope) -> Envelope | bytes:
        if (asked.kind, asked.place.round) == ("survivors", 2) and name == "alder":
            reply = them.engine.nodes["elm"].answer(m.request(asked.place, m.Notice(forged)))
            said.append(m.Refusal.decode(Envelope.decode(m.envelopes_of(reply)[0]).body))
        return asked

    said: list[m.Refusal] = []
    done = them.run(Hostile(them.engine, alter))
    assert (said[0].code, said[0].rule) == ("StatementInvalid", "notice")
    assert all(not r.dropped for r in done.results.values())


def test_a_repeated_request_gets_no_answer_after_it(them: Consortium) -> None:
    """What was said before is not said again: a stored reply is not served either."""
    kept: list[bytes] = []

    def alter(name: str, asked: Envelope) -> Envelope:
        if (name, asked.kind, asked.place.round) == ("fir", "unmask", 2):
            kept.append(asked.encode())
        if kept and not again and (asked.kind, asked.place.round) == ("ask", 3):
            folder = opened(them.out / "sites" / "fir")
            approvals.withdraw(folder.path, them.study.digest, read_private(folder.keys / "custodian.key"))
            again.append(Envelope.decode(m.envelopes_of(them.engine.nodes["fir"].answer(kept[0]))[0]))
        return asked

    again: list[Envelope] = []
    them.run(Hostile(them.engine, alter))
    assert m.Refusal.decode(again[0].body).rule == "approval_withdrawn"
