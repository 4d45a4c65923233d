"""What sites say of a release: a sum over all of them, of a proposal that was signed, and no sign of who objects."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from examples import prepare
from fivefold.auth import keys
from fivefold.auth.signatures import opened as opened_envelope
from fivefold.cli.main import run
from fivefold.coordinator import airlock, objections
from fivefold.disclosure.tables import Count
from fivefold.engines.local import LocalEngine, local_engine
from fivefold.errors import OutputHeld
from fivefold.governance.output_counts import population
from fivefold.governance.statements import signed
from fivefold.protocol import messages as m
from fivefold.protocol.encoding import encode
from fivefold.protocol.messages import Envelope, Place
from fivefold.protocol.objections import REMARKS, RULES, STATEMENT, Considered, Objections, Propose
from fivefold.records.audit import entries
from fivefold.replay.roster import roster_of
from fivefold.site.folder import opened
from fivefold.site.objections import own_count
from fivefold.site.preparation import open_prepared
from fivefold.site.proposals import AT_ONCE
from fivefold.site.release_ledger import PER_DAY, Proposed, verdict

PLENTY = 100_000
NOTHING = Objections(5, 0, dict.fromkeys(RULES, 0), dict.fromkeys(REMARKS, 0))


@pytest.fixture(scope="module")
def lung(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("objections") / "lung"
    prepare.prepare("lung", out)
    place = str(out / "runs" / "a")
    assert run(["run", str(out / "study.yaml"), "--quiet", "--out", place]) == 0
    words = ["--purpose", "a paper", "--analysis", "description", "--key", str(out / "lead.key")]
    assert run(["outputs", "request", place, *words]) == 0
    return out


@dataclass
class Asking:
    """Five sites, and a checker who shows them counts."""

    it: airlock.Airlock
    engine: LocalEngine
    sites: Path
    keys: Path

    def proposal(self, total: int, key: str = "first-checker") -> Propose:
        """Of one count, that of all persons."""
        private = keys.read_key(self.keys / f"{key}.key")
        request = (self.it.chain / "0001-output_request.json").read_bytes()
        counts = encode({"salt": b"salt", "counts": {"description": [Count.of({}, total).plain()]}})
        return self.signed(Propose(self.it.study.to_bytes(), request, b"", counts, models=encode({})), private)

    def signed(self, shown: Propose, private: bytes, **other: str) -> Propose:
        import hashlib

        own = {"study": self.it.study.digest, "run": self.it.run, "request": hashlib.sha256(shown.request).hexdigest()}
        digests = {"counts": hashlib.sha256(shown.counts).hexdigest(), "models": hashlib.sha256(shown.models).hexdigest()}
        facts = own | {"form": "as_is"} | digests | other
        return replace(shown, proposal=signed(STATEMENT, facts, private))

    def ask(self, shown: Propose) -> Objections:
        return objections.ask(self.engine, self.it.study, shown)

    def own(self) -> dict[str, int]:
        found = self.it.study
        counts = {n: own_count(open_prepared(opened(self.sites / n), found.study, found.digest).table, Count.of({}, 0))
                  for n in self.engine.nodes}  # fmt: skip
        return {n: c for n, c in counts.items() if c is not None}

    def verdicts(self, site: str) -> list[bool]:
        log = entries(self.sites / site / "state" / "audit.jsonl")
        return [e.facts["objects"] for e in log if e.event == "release verdict"]


@pytest.fixture
def asking(lung: Path, tmp_path: Path) -> Iterator[Asking]:
    shutil.copytree(lung / "sites", tmp_path / "sites")
    it = airlock.airlock(lung / "runs" / "a")
    engine = local_engine(tmp_path / "sites", tuple(s.name for s in it.study.study.sites))
    yield Asking(it, engine, tmp_path / "sites", lung)
    engine.close()


class Between:
    """An engine whose messages somebody reads, and may change or keep back."""

    def __init__(self, engine: LocalEngine, change: Callable[[str, bytes, bytes], bytes | None]) -> None:
        self.engine, self.change = engine, change

    def exchange(self, requests: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
        for site, reply in self.engine.exchange(requests):
            changed = self.change(site, requests[site], reply)
            if changed is not None:
                yield site, changed


def test_one_site_objects_and_nobody_can_tell_which(asking: Asking) -> None:
    own = asking.own()
    largest = max(own, key=lambda n: own[n])
    shown, seen = asking.proposal(own[largest] + 3), dict[str, list[Envelope]]()

    def read(site: str, request: bytes, reply: bytes) -> bytes:
        seen.setdefault(site, []).extend(Envelope.decode(part) for part in m.envelopes_of(reply))
        return reply

    said = objections.ask(Between(asking.engine, read), asking.it.study, shown)
    assert (said.objecting, said.rules["threshold"]) == (1, 1)
    assert str(said).startswith("1 of 5 sites object (threshold")
    assert {n: asking.verdicts(n) for n in own} == {n: [n == largest] for n in own}
    masked = {n: e for n, said in seen.items() for e in said if e.kind == m.Masked.kind}
    roster = roster_of(asking.it.study.study)
    vectors = [opened_envelope(e.encode(), m.Masked, roster, e.place)[1].vector for e in masked.values()]
    assert len(set(vectors)) == 5
    assert all(sum(b == 0 for b in v) < len(v) / 2 for v in vectors)  # a nought or one alone would be fifteen noughts and it
    rest = [{e.kind: len(e.body) for e in said if e.kind != m.Advert.kind} for said in seen.values()]
    assert all(one == rest[0] for one in rest)  # the same messages of the same length from everybody
    assert not [p for n in own for p in (asking.sites / n / "state" / "objections").glob("*")]


def test_the_coordinators_files_name_no_site_that_objects(asking: Asking, capsys: pytest.CaptureFixture[str]) -> None:
    place = asking.it.folder
    before = {p for p in place.rglob("*") if p.is_file()}
    words = ["outputs", "check", str(place), "1", "--key", str(asking.keys / "first-checker.key")]
    assert run([*words, "--sites", str(asking.sites), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    (words_of,) = [f["words"] for f in report["together"] if f["rule"] == "nk-rule, p-ratio"]
    assert " of 5 sites object (" in words_of
    (kept,) = {p for p in place.rglob("*") if p.is_file()} - before
    assert kept == place / "airlock" / "asked" / "001-as_is.json"
    for name in asking.engine.nodes:
        assert name not in kept.read_text("utf-8")
        assert name not in words_of


def test_nobody_objects_to_what_gives_nothing_away(asking: Asking) -> None:
    assert str(asking.ask(asking.proposal(PLENTY))) == "none of 5 sites objects"


def test_a_proposal_that_is_not_what_was_signed_is_refused(asking: Asking) -> None:
    shown, checker = asking.proposal(PLENTY), keys.read_key(asking.keys / "first-checker.key")
    small = encode({"salt": b"salt", "counts": {"description": [Count.of({}, 3).plain()]}})
    unasked = encode({"salt": b"salt", "counts": {"cox": [Count.of({}, 3).plain()]}})
    forged = signed("output_request", {"request": 1, "analyses": ["description"]}, keys.new_key())
    refused = {
        "proposal_altered": [
            replace(shown, counts=small),
            asking.signed(replace(shown, counts=unasked), checker),
            replace(shown, models=encode({"description": b"a model"})),
            asking.signed(replace(shown, models=encode({"cox": b"a model"})), checker),
        ],
        "proposal_run": [asking.signed(shown, checker, run="another"), asking.signed(shown, checker, run="../a")],
        "proposal_request": [asking.signed(replace(shown, request=forged), checker)],
        "checker_unknown": [asking.signed(shown, keys.new_key())],
        "lead_cannot_check": [asking.proposal(PLENTY, "lead")],
    }
    for rule, proposals in refused.items():
        for one in proposals:
            said = asking.ask(one)
            assert said.missing == {rule: 5}
            assert "over all 5 sites or not at all" in str(said)
    assert not any(asking.verdicts(n) for n in asking.engine.nodes)  # nothing was judged


def test_a_site_that_was_shown_something_else_opens_nothing(asking: Asking) -> None:
    """Each is signed by a checker; but a difference between what sites judged would tell one of them apart."""
    true, other, last = asking.proposal(PLENTY), asking.proposal(PLENTY + 1), list(asking.engine.nodes)[-1]

    def ask_other(site: str, request: bytes, reply: bytes) -> bytes:
        asked = Envelope.decode(request)
        if site != last or asked.kind != Propose.kind:
            return reply
        return reply if asked.body == other.encode() else asking.engine.nodes[site].answer(m.request(asked.place, other))

    engine = Between(asking.engine, ask_other)
    said = objections.ask(engine, asking.it.study, true)
    assert said.missing
    assert said.objecting == 0


def test_a_sum_without_one_site_is_not_opened(asking: Asking) -> None:
    """With it and without it would tell what it said. The threshold of a round would bear the loss."""

    last = list(asking.engine.nodes)[-1]

    def loses(kind: str) -> Callable[[str, bytes, bytes], bytes | None]:
        return lambda site, request, reply: None if site == last and Envelope.decode(request).kind == kind else reply

    for kind in (Propose.kind, m.Enrol.kind, m.Share.kind, m.Ask.kind):
        refusals = list[str]()

        def noted(site: str, request: bytes, reply: bytes, kind: str = kind, refusals: list[str] = refusals) -> bytes | None:
            first = Envelope.decode(m.envelopes_of(reply)[0])
            if first.kind == m.Refusal.kind:
                refusals.append(m.Refusal.decode(first.body).rule)
            return loses(kind)(site, request, reply)

        said = objections.ask(Between(asking.engine, noted), asking.it.study, asking.proposal(PLENTY))
        assert said.missing, kind
        assert kind == Propose.kind or "too_few_sites" in refusals


def test_a_site_that_judged_enough_today_keeps_its_word(asking: Asking) -> None:
    site, found = opened(asking.sites / next(iter(asking.engine.nodes))), asking.it.study
    for i in range(PER_DAY):
        verdict(site, found, Proposed({"description": (Count.of({}, PLENTY + 1 + i),)}, population(found)))
    assert asking.ask(asking.proposal(PLENTY)).missing == {"verdict_rate": 1}
    assert asking.ask(asking.proposal(PLENTY + 1)) == NOTHING  # said before: nothing new


def test_every_site_enters_a_release_once_before_it_is_anybodys(asking: Asking) -> None:
    shown, found = asking.proposal(PLENTY), asking.it.study

    def entered(site: str) -> list[str]:
        log = entries(asking.sites / site / "state" / "audit.jsonl")
        return [e.facts["release"] for e in log if e.event == "release entered"]

    last = list(asking.engine.nodes)[-1]
    silent = Between(asking.engine, lambda site, request, reply: None if site == last else reply)
    with pytest.raises(OutputHeld, match=f"not entered the release in their ledgers: {last}"):
        objections.enter(silent, found, shown)
    objections.enter(asking.engine, found, shown)
    assert {n: entered(n) for n in asking.engine.nodes} == {n: [f"{asking.it.run}/1"] for n in asking.engine.nodes}
    assert asking.ask(asking.proposal(PLENTY - 2)).rules["differencing"] == 5  # of the same persons, two apart

    with pytest.raises(OutputHeld, match="proposal_altered"):
        objections.enter(asking.engine, found, replace(shown, counts=asking.proposal(7).counts))
    assert all(len(entered(n)) == 1 for n in asking.engine.nodes)


def test_what_is_open_at_a_site_is_bounded(asking: Asking) -> None:
    node, shown = next(iter(asking.engine.nodes.values())), asking.proposal(PLENTY)
    for i in range(AT_ONCE + 3):
        place = Place(asking.it.study.digest, f"proposal{i}", 1, 1)
        assert Envelope.decode(m.envelopes_of(node.answer(m.request(place, shown)))[0]).kind == Considered.kind
    assert len(list((node.folder.state / "objections").iterdir())) == AT_ONCE
