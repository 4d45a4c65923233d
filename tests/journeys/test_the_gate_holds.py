"""Seven ways in which a study goes wrong. Each is decided at the site, and the logs of both sides say by which rule.

A site approves in part; one withdraws in mid-run; an approval expires; the study is altered after approval; the lead tries to
check their own output; a differencing pair is requested; the coordinator forges an approval.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fivefold.auth import keys
from fivefold.cli.life_table import draw
from fivefold.cli.main import run as call
from fivefold.coordinator.life import lives_of
from fivefold.coordinator.session import Run
from fivefold.coordinator.session import run as drive
from fivefold.engines.local import LocalEngine, local_engine
from fivefold.errors import ProtocolViolation, SiteRefused, TooManyDropouts
from fivefold.governance import approvals, statements
from fivefold.governance.custody import node_key
from fivefold.governance.proposals import beside, propose
from fivefold.protocol import messages as m
from fivefold.protocol.messages import Envelope
from fivefold.records.audit import AuditLog, entries, verify
from fivefold.replay.cursor import Cursor
from fivefold.results.write import read_results
from fivefold.site.admission import refuse_others
from fivefold.site.folder import create, opened, read_private
from fivefold.site.life import life_of
from fivefold.site.preparation import prepare
from fivefold.site.withdrawal import withdraw
from fivefold.study.definition import (
    Agreements,
    Analysis,
    Cohort,
    Lead,
    OutputChecker,
    Outputs,
    Privacy,
    Study,
    StudySite,
)
from fivefold.study.definition import (
    Envelope as Room,
)
from fivefold.study.dictionary import Dictionary, Variable
from fivefold.study.digest import SignedStudy, load_signed, sign_study
from tests.journeys.hostile import Hostile, first

SITES = ("alder", "birch", "cedar", "elm", "fir")
DICTIONARY = Dictionary(
    "clinic",
    "1",
    {
        v.name: v
        for v in (
            Variable("patient", "Patient number", "text"),
            Variable("age", "Age", "number", "year", 0, 120),
            Variable("sex", "Sex", "category", codes={"female": "Female", "male": "Male"}),
        )
    },
)
MAPPING = """\
source: {kind: csv, path: rows.csv}
person: id
variables:
  age: {column: years, unit: year}
  sex: {column: sex, codes: {f: female, m: male}}
"""
OLD = 2
"""Persons of 95 years and more at each site: with and without them is a difference of few."""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five sites with rows, a study that its lead proposed, and each custodian's approval."""
    out = tmp_path_factory.mktemp("gate") / "c"
    people = {name: keys.new_key() for name in ("lead", "first", "second")}
    folders = {name: create(out / "sites" / name, name, mapping=MAPPING) for name in SITES}
    nodes = {name: node_key(f.path) for name, f in folders.items()}
    rng = np.random.default_rng(5)
    for name, folder in folders.items():
        ages = [*rng.integers(30, 90, 58), *[96] * OLD]
        rows = [f"{name}{i},{age},{'fm'[i % 2]}" for i, age in enumerate(ages)]
        (folder.path / "rows.csv").write_text("\n".join(["id,years,sex", *rows]) + "\n")
        text = (folder.path / "site.yaml").read_text("utf-8").replace("version: 1", "version: 2")
        peers = [{"site": n, "fingerprint": keys.fingerprint(bytes.fromhex(k))} for n, k in nodes.items() if n != name]
        text = text.replace('site_totals: "refused"', 'site_totals: "permitted"').replace("peers: []", f"peers: {peers}")
        (folder.path / "site.yaml").write_text(text, "utf-8")
        assert call(["site", "sign-policy", "--site", str(folder.path)]) == 0
    checkers = tuple(OutputChecker(f"{n} checker", "Board", keys.public_of(people[n]).hex()) for n in ("first", "second"))
    study = Study(
        title="Age and sex",
        question="How old are they?",
        lead=Lead("Ada Lead", "University", keys.public_of(people["lead"]).hex()),
        sites=tuple(StudySite(n, k) for n, k in nodes.items()),
        dictionary=DICTIONARY,
        person="patient",
        cohort=Cohort(include=("age >= 18",)),
        variables={"age": "described", "sex": "described"},
        derived=(),
        analyses=(
            Analysis("all", "statistics", variables=("sex",)),
            Analysis("nearly", "statistics", variables=("sex",), subgroup="age < 95"),
        ),
        envelope=Room(),
        privacy=Privacy(),
        outputs=Outputs(checkers=checkers),
        agreements=Agreements("EK 2026-1", "research", (date.today() + timedelta(days=90)).isoformat()),
    )
    signed = sign_study(study, people["lead"])
    path = out / "study.signed.json"
    path.write_bytes(signed.to_bytes())
    beside(path).write_bytes(propose(signed, people["lead"]))
    for name, private in people.items():
        keys.write_key(out / f"{name}.key", private)
    for name in SITES:
        assert call(["site", "approve", str(path), "--yes", "--site", str(out / "sites" / name)]) == 0
        assert call(["site", "prepare", str(path), "--site", str(out / "sites" / name)]) == 0
    return out


class Them:
    """A copy of it, for one story."""

    def __init__(self, out: Path) -> None:
        self.out, self.path = out, out / "study.signed.json"
        self.signed = load_signed(self.path)
        self.engine = local_engine(out / "sites", SITES)

    def site(self, name: str) -> Any:
        return opened(self.out / "sites" / name)

    def custodian(self, name: str) -> bytes:
        return read_private(self.site(name).keys / "custodian.key")

    def key(self, name: str) -> bytes:
        return keys.read_key(self.out / f"{name}.key")

    def run(self, engine: LocalEngine | None = None, signed: SignedStudy | None = None, name: str = "a") -> Run:
        return drive(
            signed or self.signed, engine or self.engine, self.out / "runs" / name, tell=lambda _: None, engine_name="local",
            resume=False, proposal=b"" if signed else beside(self.path).read_bytes(),
        )  # fmt: skip

    def log(self, name: str, *events: str) -> list[dict[str, Any]]:
        """Facts of a whole log's entries of these events: a site's, or the coordinator's of a run (`runs/a`)."""
        place = self.out / name if "/" in name else self.site(name).state
        verify(place / "audit.jsonl")
        return [dict(e.facts) for e in entries(place / "audit.jsonl") if e.event in events]

    def refused(self, name: str) -> set[tuple[str, str]]:
        return {(f["trip"], f["rule"]) for f in self.log(name, "refused")}

    def told(self, run: str = "runs/a") -> set[tuple[str, str]]:
        """(site, rule) of the refusals that the coordinator's log has."""
        return {(f["site"], f["rule"]) for f in self.log(run, "refusal")}

    def states(self, run: str = "a") -> dict[str, str]:
        return {name: life.state for name, life in lives_of(self.out / "runs" / run).items()}


@pytest.fixture
def them(prepared: Path, tmp_path: Path) -> Iterator[Them]:
    shutil.copytree(prepared, tmp_path / "c")
    made = Them(tmp_path / "c")
    yield made
    made.engine.close()


def test_a_site_approves_in_part(them: Them) -> None:
    assert call(["site", "approve", str(them.path), "--yes", "--analysis", "all", "--site", str(them.site("fir").path)]) == 0
    done = them.run()
    assert done.results["all"].dropped == ()
    assert done.results["nearly"].dropped == ("fir",)
    assert them.refused("fir") == {("ask", "analysis_not_approved")}
    assert ("fir", "analysis_not_approved") in them.told()
    approved = {f["site"]: f["analyses"] for f in them.log("runs/a", "approval")}
    assert approved == {name: ["all"] if name == "fir" else ["all", "nearly"] for name in SITES}


def test_a_site_refuses_and_both_sides_tell_it(them: Them, capsys: pytest.CaptureFixture[str]) -> None:
    """The custodian's signed no comes with the node's; one that others signed in their names counts for nothing."""
    signed = load_signed(sign_study(replace(them.signed.study, seed=11), them.key("lead")).to_bytes())
    path = them.out / "other.signed.json"
    path.write_bytes(signed.to_bytes())
    for name in SITES[:-1]:
        site = them.site(name)
        approvals.approve(site.path, signed.study, signed.digest, them.custodian(name))
        prepare(site, signed.study, signed.digest)
    assert call(["site", "refuse", str(path), "--why", "no ethics vote", "--site", str(them.site("fir").path)]) == 0
    with contextlib.suppress(SiteRefused):
        them.run(signed=signed)
    assert ("fir", "study_refused") in them.told()
    here, there = life_of(them.site("fir"), signed), lives_of(them.out / "runs" / "a")["fir"]
    assert here.state == there.state == "refused"
    (mine,), (theirs,) = ([a for a in life.acts if a.what == "refuse"] for life in (here, there))
    assert mine == theirs
    assert (mine.why, mine.key) == ("no ethics vote", keys.public_of(them.custodian("fir")).hex())
    assert {s for n, s in them.states().items() if n != "fir"} == {"outputs held"}

    draw({"fir": lives_of(them.out / "runs" / "a")["fir"]})
    shown = capsys.readouterr().out
    assert shown.count("begin → no: study_refused") == 1  # asked again and again, and told once
    assert " times)" in shown

    notice = them.site("fir").state / "refusals" / f"{signed.digest}.json"
    facts = statements.read_statement(notice.read_bytes(), "it").facts
    notice.write_bytes(statements.signed("refusal_notice", facts, keys.new_key(), keys.new_key()))
    with contextlib.suppress(SiteRefused):
        them.run(signed=signed, name="b")
    assert {f["site"] for f in them.log("runs/b", "notice refused")} == {"fir"}
    assert them.states("b")["fir"] == "proposed"


def test_one_withdraws_in_mid_run(them: Them) -> None:
    gone: list[int] = []

    def alter(name: str, asked: Envelope) -> Envelope:
        if not gone and (asked.kind, asked.place.round) == ("ask", 2):
            gone.append(asked.place.round)
            withdraw(them.site("fir"), them.signed.digest, them.custodian("fir"), reason="new board")
        return asked

    hostile = Hostile(them.engine, alter)
    done = them.run(hostile)
    assert gone
    assert done.results["nearly"].dropped == ("fir",)
    at = next(i for i, (s, _, e) in enumerate(hostile.heard) if s == "fir" and e.kind == "refusal")
    assert {e.kind for s, _, e in hostile.heard[at:] if s == "fir"} <= {"refusal", "closed"}
    assert ("ask", "approval_withdrawn") in them.refused("fir")
    assert ("fir", "approval_withdrawn") in them.told()
    assert all(them.log(peer, "notice") for peer in SITES[:-1])
    here, there = life_of(them.site("fir"), them.signed), lives_of(them.out / "runs" / "a")["fir"]
    for life in (here, there):  # both sides tell the same, each from its own evidence
        assert life.state == "withdrawn"
        (act,) = [a for a in life.acts if a.what == "withdraw"]
        assert not life.void or life is there
        assert (act.key, act.why) == (keys.public_of(them.custodian("fir")).hex(), "new board; totals: keep")
    assert {s for n, s in them.states().items() if n != "fir"} == {"outputs held"}


def test_an_approval_expires(them: Them) -> None:
    """Two sites approved until today; while the run goes on, midnight passes for them."""
    today = datetime.now(UTC).date()
    late = datetime.now(UTC) + timedelta(days=1)
    for name in ("elm", "fir"):
        site = them.site(name)
        approvals.approve(site.path, them.signed.study, them.signed.digest, them.custodian(name), expires=today)

    def alter(name: str, asked: Envelope) -> Envelope:
        if name in ("elm", "fir") and asked.place.round == 2:
            them.engine.nodes[name].now = lambda: late
        return asked

    with pytest.raises((SiteRefused, TooManyDropouts)):
        them.run(Hostile(them.engine, alter))
    for name in ("elm", "fir"):
        assert "approval_expired" in {rule for _, rule in them.refused(name)}
        assert (name, "approval_expired") in them.told()
        life = life_of(them.site(name), them.signed, late)
        assert (life.state, life.acts[-1].role) == ("expired", "clock")
    assert {n: life.state for n, life in lives_of(them.out / "runs" / "a", late).items()} == {
        **dict.fromkeys(("alder", "birch", "cedar"), "approved"), **dict.fromkeys(("elm", "fir"), "expired"),
    }  # fmt: skip


def test_the_study_is_altered_after_approval(them: Them) -> None:
    study = them.signed.study
    wider = sign_study(replace(study, cohort=Cohort(include=("age >= 17",))), them.key("lead"))
    hostile = Hostile(them.engine)
    with pytest.raises(SiteRefused):
        them.run(hostile, wider)
    assert {e.kind for _, _, e in hostile.heard} == {"refusal"}
    for name in SITES:
        assert them.refused(name) == {("open", "no_approval")}
    assert them.told() == {(name, "no_approval") for name in SITES}
    assert {life_of(them.site(n), wider).state for n in SITES} == {"proposed"}

    altered = them.signed._replace(study=replace(study, question="Another?"))  # under the old digest and signature
    with pytest.raises(SiteRefused):
        them.run(hostile, altered, "b")
    assert all(("open", "study_digest") in them.refused(name) for name in SITES)


def test_the_lead_tries_to_check_their_own_output(them: Them, capsys: pytest.CaptureFixture[str]) -> None:
    them.run()
    place = str(them.out / "runs" / "a")
    assert call(["outputs", "request", place, "--purpose", "a paper", "--key", str(them.out / "lead.key")]) == 0
    assert call(["outputs", "decide", place, "1", "release", "--key", str(them.out / "lead.key")]) == 31
    assert {f["refused"] for f in them.log("runs/a", "output decision")} == {"lead_cannot_check"}
    # nor does a site take the lead for a checker of its own, under whatever name
    who = f"Somebody={keys.public_of(them.key('lead')).hex()}"
    assert call(["site", "approve", str(them.path), "--yes", "--checker", who, "--site", str(them.site("fir").path)]) == 31
    assert [f["rule"] for f in them.log("fir", "approval asked refused")] == ["operator_cannot_check"]


def test_a_differencing_pair_is_requested(them: Them, capsys: pytest.CaptureFixture[str]) -> None:
    them.run()
    place = str(them.out / "runs" / "a")

    def outputs(verb: str, *words: str, key: str) -> int:
        return call(["outputs", verb, place, *words, "--key", str(them.out / f"{key}.key")])

    for number, analysis in enumerate(("all", "nearly"), 1):
        assert outputs("request", "--analysis", analysis, "--purpose", "a paper", key="lead") == 0
        if number == 1:
            assert outputs("decide", "1", "release", "--form", "rounded", key="first") == 0
            assert outputs("decide", "1", "release", "--form", "rounded", key="second") == 0
            assert outputs("release", "1", key="first") == 0
    assert outputs("decide", "2", "release", "--form", "rounded", key="first") == 31
    assert "5 of 5 sites object" in capsys.readouterr().err
    for name in SITES:
        assert "differencing" in them.log(name, "release verdict")[-1]["reasons"]
        assert len(them.log(name, "release entered")) == 1
    assert them.log("runs/a", "output decision")[-1]["refused"] == "output_binding"
    assert set(them.states().values()) == {"released"}
    assert {life_of(them.site(n), them.signed).state for n in SITES} == {"released"}
    assert read_results(them.out / "runs" / "a" / "released" / "001").keys() == {"all"}


@pytest.mark.parametrize(
    ("with_key", "rule"), [("its own", "custodian_key_unlisted"), ("the node's", "node_key_cannot_approve")]
)
def test_the_coordinator_forges_an_approval(them: Them, with_key: str, rule: str) -> None:
    """fir never approved this version. The coordinator writes an approval into its folder, and one into its own log."""
    signed = load_signed(sign_study(replace(them.signed.study, seed=7), them.key("lead")).to_bytes())
    for name in SITES[:-1]:
        site = them.site(name)
        approvals.approve(site.path, signed.study, signed.digest, them.custodian(name))
        prepare(site, signed.study, signed.digest)
    fir, forger = them.site("fir"), keys.new_key()
    given = statements.read_chain(approvals.chain_of(them.site("elm").path, signed.digest))[0].facts
    facts = dict(given) | {"site": "fir", "asset": fir.policy().asset, "custodian": "Data custodian"}
    policy = fir.policy()
    facts["policy"] = {"version": policy.version, "digest": policy.digest}
    private = forger if with_key == "its own" else fir.node_key()
    statements.write(approvals.chain_of(fir.path, signed.digest), "approval", facts, private)
    with contextlib.suppress(SiteRefused):
        done = them.run(signed=signed)
        assert {r.dropped for r in done.results.values()} == {("fir",)}
    assert them.refused("fir") == {("open", rule)}
    assert ("fir", rule) in them.told()
    assert (life_of(fir, signed).state, [r for _, r in life_of(fir, signed).void]) == ("proposed", ["life_key"])

    run = them.out / "runs" / "a"
    with AuditLog(run / "audit.jsonl", keys.read_key(run / "coordinator.key"), "coordinator") as log:
        log.write(
            "approval", site="fir", study=signed.digest, by="Data custodian", key=keys.public_of(forger).hex(), at=given["at"],
            until=given["expires"], analyses=["all"], statement="0" * 64,
        )  # fmt: skip
    life = lives_of(run)["fir"]
    assert life.state == "proposed"
    assert "life_key" in {rule for _, rule in life.void}


def test_a_site_is_kept_out_of_one_analysis(them: Them) -> None:
    """fir's answer to the study: not the second analysis. The lead leaves it out there, in a version that all approve; each
    sum then holds whom the study names, whatever the coordinator asks."""
    note, where = str(them.out / "note.json"), str(them.site("fir").path)
    old = sign_study(replace(them.signed.study, seed=9), them.key("lead"))  # a study that nobody has approved yet
    draft = them.out / "draft.signed.json"
    draft.write_bytes(old.to_bytes())
    words = ["--without-analysis", "nearly", "--why", "too few old people here", "--out", note]
    assert call(["site", "counter", str(draft), *words, "--site", where]) == 0
    assert call(["study", "counter", note, str(draft), "--keep-out", "--key", str(them.out / "lead.key")]) == 0
    signed = load_signed(them.out / "draft.v2.signed.json")
    assert [a.sites for a in signed.study.analyses] == [(), SITES[:-1]]
    for name in SITES:
        site = them.site(name)
        approvals.approve(site.path, signed.study, signed.digest, them.custodian(name))
        prepare(site, signed.study, signed.digest)
    hostile = Hostile(them.engine)
    done = them.run(hostile, signed=signed)
    assert done.results["all"].sites == SITES
    assert done.results["nearly"].sites == SITES[:-1]
    assert {r.dropped for r in done.results.values()} == {()}
    assert not them.log("fir", "refused")
    assert [e.place.round for s, trip, e in hostile.heard if (s, trip) == ("fir", "ask")] == [1]

    # a coordinator that asks it all the same gets nothing; and the others serve no sum with it in
    def alter(name: str, asked: Envelope) -> Envelope:
        if (asked.kind, asked.place.round, name) == ("ask", 2, "elm"):
            said.append(first(them.engine.nodes["fir"].answer(asked.encode())))
        return asked

    said: list[Envelope] = []
    them.run(Hostile(them.engine, alter), signed=signed, name="b")
    assert m.Refusal.decode(said[0].body).rule == "analysis_sites"
    assert ("ask", "analysis_sites") in them.refused("fir")
    open_now = Cursor(signed.study, ()).open
    assert open_now is not None
    nearly = replace(open_now, analysis=signed.study.analyses[1])
    refuse_others(signed.study, nearly, 1, SITES[:-1])
    for survivors, round in ((SITES, 1), (SITES[:-1], 2)):
        with pytest.raises(ProtocolViolation) as caught:
            refuse_others(signed.study, nearly, round, survivors)
        assert caught.value.rule == "analysis_sites"
