"""Three studies over a real SuperLink: TLS, node authentication, five site processes. One start serves all tests here."""

from __future__ import annotations

import hashlib
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from examples import prepare
from fivefold.coordinator import session
from fivefold.coordinator.rounds import Engine
from fivefold.engines.flower import parcels, wire
from fivefold.engines.flower.door import Door
from fivefold.engines.flower.foreign_app import APPS
from fivefold.engines.flower.grid import LOST, FlowerEngine
from fivefold.engines.flower.lasting import lasting
from fivefold.engines.flower.superlink import environment
from fivefold.engines.local import local_engine
from fivefold.errors import EngineProblem, ProtocolViolation, SiteRefused, SourceNotFound
from fivefold.protocol import messages
from fivefold.protocol.messages import Envelope
from fivefold.protocol.results import Result
from fivefold.records.audit import Entry, entries, verify
from fivefold.records.audit_report import chapter
from fivefold.results.write import comparable
from tests.journeys.consortium import ROOT, fivefold, killed_in_round, sign_anew, signed
from tests.journeys.deployed_studies import APP, INSTITUTIONS, approve, breast, lung_with_cox
from tests.journeys.deployment import Deployment, deployed

SITE = "inst-10-12"
KILL_AT = 8
"""The trip in which a site is killed: enrolment, a whole round, and into the next."""


@pytest.fixture(scope="module")
def flower(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    out = tmp_path_factory.mktemp("flower") / "lung"
    lung_with_cox(out)
    with deployed(out, out / "coordinator") as it:
        yield it


@pytest.fixture(scope="module")
def studies(flower: Deployment) -> tuple[Path, Path]:
    """The two studies of breast masses, at sites that run already."""
    return breast(flower.consortium)


def log_of(flower: Deployment, site: str) -> list[Entry]:
    return list(entries(flower.consortium / "sites" / site / "state" / "audit.jsonl"))


def test_the_result_is_that_of_the_in_process_engine(flower: Deployment) -> None:
    out = flower.consortium
    words = ("run", out / "study.yaml", "--quiet", "--out")
    over = fivefold(*words, out / "over", "--engine", "flower", "--coordinator", flower.coordinator.path)
    assert over.returncode == 0, over.stderr
    assert fivefold(*words, out / "here").returncode == 0
    assert comparable(out / "over") == comparable(out / "here")
    assert (out / "over" / "tables" / "cox.coefficients.csv").read_bytes() == (
        out / "here" / "tables" / "cox.coefficients.csv"
    ).read_bytes()
    for site in (s.name for s in signed(out).study.sites):
        verify(out / "sites" / site / "state" / "audit.jsonl")
        assert any(e.event == "answering" and e.facts["network"] != "" for e in log_of(flower, site))


def test_sites_judge_a_release_and_enter_it_over_the_superlink(flower: Deployment) -> None:
    """No site folder is at hand: what sites say is one secure sum, and all enter the release before it is out."""
    out, run = flower.consortium, flower.consortium / "elsewhere" / "runs" / "over"
    shutil.copytree(out / "over", run)

    def outputs(verb: str, *words: object, key: str) -> subprocess.CompletedProcess[str]:
        return fivefold("outputs", verb, run, *words, "--key", out / f"{key}.key")

    assert outputs("request", "--purpose", "a paper", key="lead").returncode == 0
    there = ("--form", "rounded", "--coordinator", flower.coordinator.path)
    assert "they have not been asked" in outputs("check", 1, "--form", "rounded", key="first-checker").stdout
    assert "none of 5 sites objects" in outputs("check", 1, *there, key="first-checker").stdout
    for who in ("first-checker", "second-checker"):
        decided = outputs("decide", 1, "release", *there, key=who)
        assert decided.returncode == 0, decided.stderr
    released = outputs("release", 1, *there[2:], key="first-checker")
    assert released.returncode == 0, released.stderr
    for site in INSTITUTIONS:
        assert [e.event for e in log_of(flower, site)].count("release verdict") == 1  # said once, and again as it was
        assert [e.event for e in log_of(flower, site)].count("release entered") == 1


def test_a_coordinator_killed_in_a_run_resumes_over_another_flower_run(flower: Deployment) -> None:
    out = flower.consortium
    over = ("--engine", "flower", "--coordinator", flower.coordinator.path)
    killed_in_round(3, "run", out / "study.yaml", "--out", out / "cut", *over)
    assert not (out / "cut" / "result.json").exists()
    again = fivefold("run", out / "study.yaml", "--resume", out / "cut", *over)
    assert again.returncode == 0, again.stderr
    first = next(line for line in again.stderr.splitlines() if line.startswith("round"))
    assert int(first.split()[1]) > 3, "answered rounds are replayed, not asked again"
    assert fivefold("run", out / "study.yaml", "--out", out / "whole", "--quiet").returncode == 0
    assert comparable(out / "cut") == comparable(out / "whole")


class Stopping:
    """Stops the SuperLink before one trip."""

    def __init__(self, engine: Engine, flower: Deployment) -> None:
        self.engine, self.flower, self.trip = engine, flower, 0

    def exchange(self, requests: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
        self.trip += 1
        if self.trip == KILL_AT:
            self.flower.stop_superlink()
        yield from self.engine.exchange(requests)


def test_a_run_outlives_its_superlink(flower: Deployment) -> None:
    """It is stopped in mid-round: the run seeks it as long as it is told to, and goes on over another Flower run."""
    out, said = flower.consortium, list[str]()
    stopping = iter([True])

    def work(engine: Engine, again: bool) -> session.Run:
        carrier = Stopping(engine, flower) if next(stopping, False) else engine
        return session.run(signed(out), carrier, out / "stopped", tell=quiet, engine_name="flower", resume=again)

    def tell(line: str) -> None:
        said.append(line)
        if len(said) > 2:
            before = {name: flower.said(name).count("is connected") for name in INSTITUTIONS}
            flower.start_superlink()
            flower.wait_for(lambda: all(flower.said(name).count("is connected") > before[name] for name in INSTITUTIONS))

    lasting(flower.engine, work, patience=60.0, tell=tell, wait=lambda seconds: None)
    assert len(said) == 3
    assert all("the SuperLink does not answer; trying again" in line for line in said)
    assert not any(r["dropped"] for r in rounds_of(out / "stopped"))
    numbers = [r["round"] for r in rounds_of(out / "stopped")]
    assert numbers == sorted(set(numbers)), "answered rounds are replayed, not asked again"
    with closing(local_engine(out / "sites", INSTITUTIONS)) as here:
        session.run(signed(out), here, out / "never-stopped", tell=quiet, engine_name="local", resume=False)
    assert comparable(out / "stopped") == comparable(out / "never-stopped")


def test_a_superlink_that_stays_away_ends_the_run_in_a_sentence(flower: Deployment) -> None:
    def work(engine: Engine, again: bool) -> None:
        raise EngineProblem("it does not answer", rule=LOST, help="continue with --resume")

    def connect() -> AbstractContextManager[Engine]:
        if waited:
            raise SourceNotFound("no SuperLink was started here")
        return flower.engine()

    waited = list[float]()
    with pytest.raises(EngineProblem, match="it does not answer") as stopped:
        lasting(connect, work, patience=100.0, tell=lambda line: None, wait=waited.append)
    assert "--resume" in stopped.value.hint
    assert sum(waited) == pytest.approx(100.0)
    assert waited[0] <= 1.0 < 4.0 <= waited[3]
    waited.append(0.0)
    with pytest.raises(SourceNotFound):  # one that was never there is not sought
        lasting(connect, work, patience=100.0, tell=lambda line: None, wait=waited.append)


def test_a_logistic_model_and_an_app_in_torch_are_those_of_the_in_process_engine(
    flower: Deployment, studies: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, plain = flower.consortium, studies[0].parent
    with flower.engine(deadline=600.0) as engine:  # five sites load torch at once
        over = session.run(signed(plain), engine, plain / "over", tell=quiet, engine_name="flower", resume=False)
    monkeypatch.setenv(APPS, str(out / "apps"))
    with closing(local_engine(out / "sites", INSTITUTIONS)) as local:
        session.run(signed(plain), local, plain / "here", tell=quiet, engine_name="local", resume=False)
    assert comparable(plain / "over") == comparable(plain / "here")
    theirs = over.results["theirs"]
    assert isinstance(theirs, Result)
    before, after = theirs.tables["rounds"].column("loss")
    assert after < 0.6 < before, "the app has learnt"
    for site in INSTITUTIONS:
        verify(out / "sites" / site / "state" / "audit.jsonl")
        asked = [e.facts for e in log_of(flower, site) if e.event == "ask" and e.facts.get("analysis") == "theirs"]
        assert any(f"flower_app.{APP}/1" in step for e in asked for step in e["steps"])


def test_a_training_with_noise_is_that_of_the_in_process_engine_under_one_run_id(
    flower: Deployment, studies: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Noise is drawn from a site's secret and the run's id: the same sites, as they were before, and the same id."""
    private = studies[1].parent
    shutil.copytree(flower.consortium / "sites", private / "sites")
    monkeypatch.setattr(session, "secrets", SimpleNamespace(token_hex=lambda n: "5f" * n))
    with flower.engine() as engine:
        done = session.run(signed(private), engine, private / "over", tell=quiet, engine_name="flower", resume=False)
    with closing(local_engine(private / "sites", INSTITUTIONS)) as local:
        session.run(signed(private), local, private / "here", tell=quiet, engine_name="local", resume=False)
    assert comparable(private / "over") == comparable(private / "here")
    adam = done.results["adam"]
    assert isinstance(adam, Result)
    assert str(adam.facts["privacy"]).startswith("ε = ")
    monkeypatch.setattr(session, "secrets", SimpleNamespace(token_hex=lambda n: "60" * n))
    with flower.engine() as engine:
        session.run(signed(private), engine, private / "again", tell=quiet, engine_name="flower", resume=False)
    assert comparable(private / "again") != comparable(private / "over"), "another run has another noise"


def rounds_of(folder: Path) -> list[Mapping[str, Any]]:
    return [e.facts for e in entries(folder / "audit.jsonl") if e.event == "aggregate"]


def quiet(_: object) -> None:
    """Says nothing of a run's progress."""


class Killing:
    """Kills a site's process in one trip; when the others have answered, starts it again and waits until it is connected."""

    def __init__(self, engine: Engine, flower: Deployment) -> None:
        self.engine, self.flower, self.trip = engine, flower, 0

    def exchange(self, requests: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
        self.trip += 1
        killed = self.trip == KILL_AT
        if killed:
            assert SITE in requests
            self.flower.kill(SITE)
        yield from self.engine.exchange(requests)
        if killed:
            before = self.flower.said(SITE).count("is connected")
            self.flower.start(SITE)
            self.flower.wait_for(lambda: self.flower.said(SITE).count("is connected") > before)


def test_a_killed_site_costs_its_share_of_two_rounds_at_most(flower: Deployment) -> None:
    out = flower.consortium
    with flower.engine() as engine:
        over = Killing(engine, flower)
        done = session.run(signed(out), over, out / "killed", tell=quiet, engine_name="flower", resume=False)
    assert over.trip > KILL_AT
    rounds = rounds_of(out / "killed")
    assert len(rounds) > 4
    assert 1 <= sum(bool(r["dropped"]) for r in rounds) <= 2
    assert all(set(r["dropped"]) <= {SITE} for r in rounds)
    assert done.results["cox"].dropped == (SITE,)
    verify(out / "sites" / SITE / "state" / "audit.jsonl")


class Sleeping:
    """Lets a site's process sleep from the first question on, and wakes it in the last trip."""

    def __init__(self, engine: FlowerEngine, flower: Deployment) -> None:
        self.engine, self.site, self.asleep = engine, flower.processes[SITE], False
        self.busy = engine.busy

    def exchange(self, requests: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
        yield from self.exchange_until(requests, lambda: False)

    def exchange_until(self, requests: Mapping[str, bytes], enough: Callable[[], bool]) -> Iterator[tuple[str, bytes]]:
        kind = Envelope.decode(next(iter(requests.values()))).kind
        if kind == messages.Ask.kind and not self.asleep:
            self.site.send_signal(signal.SIGSTOP)
            self.asleep = True
        if kind == messages.Close.kind:
            self.site.send_signal(signal.SIGCONT)
        yield from self.engine.exchange_until(requests, enough)


def test_a_study_that_drops_stragglers_goes_on_without_a_site_that_sleeps(flower: Deployment) -> None:
    """No round waits for it: it is held to be busy, and not to be gone, and its share is in none of them."""
    out = flower.consortium
    quick = shutil.copytree(out, out.parent / "quick", ignore=shutil.ignore_patterns("sites", "coordinator", "*.log"))
    text = (
        (quick / "study.yaml")
        .read_text("utf-8")
        .replace("privacy:\n", "stragglers: {policy: drop, quorum: 4}\n\nprivacy:\n", 1)
    )
    sign_anew(quick, text)
    approve(out, quick / "study.yaml")
    with flower.engine() as engine:
        try:
            over = Sleeping(engine, flower)
            done = session.run(signed(quick), over, quick / "run", tell=quiet, engine_name="flower", resume=False)
        finally:
            flower.processes[SITE].send_signal(signal.SIGCONT)
    assert over.asleep
    rounds = rounds_of(quick / "run")
    assert len(rounds) > 4
    assert all(set(r["dropped"]) == {SITE} for r in rounds)
    assert isinstance(done.results["cox"], Result)


def test_a_study_that_nobody_approved_is_refused_before_a_row_is_read(flower: Deployment) -> None:
    out = flower.consortium
    data = next((out / "sites" / SITE).glob("*.csv"))
    away = data.rename(data.with_suffix(".away"))  # a node that reads rows first fails by that
    other = shutil.copytree(out, out.parent / "other", ignore=shutil.ignore_patterns("sites", "coordinator", "*.log"))
    try:
        sign_anew(other, (other / "study.yaml").read_text("utf-8").replace("age + sex + ecog", "age + sex"))
        with flower.engine() as engine, pytest.raises(SiteRefused) as refused:
            session.run(signed(other), engine, other / "run", tell=quiet, engine_name="flower", resume=False)
        assert f"{SITE}: NotApproved" in refused.value.message
        last = log_of(flower, SITE)[-1]
        assert (last.event, last.facts["code"]) == ("refused", "NotApproved")
        prepare.fivefold("site", "approve", other / "study.signed.json", "--site", out / "sites" / SITE, "--yes")
        with flower.engine() as engine, pytest.raises(SiteRefused) as control:
            session.run(signed(other), engine, other / "again", tell=quiet, engine_name="flower", resume=False)
        assert f"{SITE}: {SourceNotFound.__name__}" in control.value.message
    finally:
        away.rename(data)


def test_anything_else_that_arrives_is_refused_and_logged(flower: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    """An ordinary Flower message, a message of ours that is none, and one for the next version of the protocol."""
    with flower.engine() as engine:
        nodes = [one.node for one in engine.link.nodes()]
        assert len(nodes) == 5
        with monkeypatch.context() as changed:
            changed.setattr(parcels, "KIND", "train")
            assert [a.payload for a in told(flower, engine.link, {n: b"%d" % n for n in nodes})] == [None] * 5
        assert [a.payload for a in told(flower, engine.link, {nodes[0]: b"no request"})] == [None]
        with monkeypatch.context() as changed:
            changed.setattr(wire, "VERSION", 99)
            request = wire.request(bytes(16), {SITE: b"x"}, 1)
            heard = told(flower, engine.link, {nodes[0]: request})[0].payload or b""
            with pytest.raises(ProtocolViolation, match=f"speaks protocol version {messages.VERSION}, not 99"):
                wire.read_reply(heard, bytes(16), engine.keys)
        logs = [e for site in engine.keys for e in log_of(flower, site)]
        foreign = [e.facts for e in logs if e.event == "foreign message refused"]
        assert [f["kind"] for f in foreign if f.get("rule") == "foreign_message"] == ["train"] * 5
        assert any(f.get("code") == "MessageMalformed" for f in foreign)
        assert any(e.event == "refused" and e.facts["rule"] == "protocol_version" for e in logs)
        assert len(dict(engine.exchange(dict.fromkeys(engine.keys, b"nothing either")))) == 5  # all are there still


def told(flower: Deployment, link: wire.Link, payloads: Mapping[int, bytes]) -> list[wire.Answer]:
    waiting, found = list(link.push(payloads, 60.0)), []

    def arrived() -> bool:
        found.extend(link.pull([i for i in waiting if i not in {a.to for a in found}]))
        return len(found) == len(waiting)

    flower.wait_for(arrived)
    return found


def test_a_site_that_was_not_admitted_is_told_so(flower: Deployment, tmp_path: Path) -> None:
    assert fivefold("site", "init", tmp_path / "stranger", "--name", "stranger").returncode == 0
    words = ("--superlink", flower.address, "--root-certificates", flower.coordinator.authority)
    done = fivefold("site", "start", "--site", tmp_path / "stranger", *words)
    assert done.returncode == EngineProblem.exit_code
    assert re.search("does not admit this site's connection key", done.stderr)
    last = list(entries(tmp_path / "stranger" / "state" / "audit.jsonl"))[-1]
    assert (last.event, chapter(last)) == ("connection refused", "authentication")
    door, sites = Door(flower.coordinator.path), flower.coordinator.sites()
    flower.wait_for(lambda: door.look(sites.values()) >= 1, 20.0)  # and at the coordinator
    assert door.look(sites.values()) == Door(flower.coordinator.path).look(sites.values()) == 0  # once
    verify(flower.coordinator.path / "audit.jsonl")
    *admitted, met = list(entries(flower.coordinator.path / "audit.jsonl"))[1:]
    assert [(e.event, e.facts["site"]) for e in admitted] == [("site admitted", site) for site in sites]
    key = (tmp_path / "stranger" / "keys" / "connection.pub").read_bytes()
    assert (chapter(met), met.facts["keys"]) == ("authentication", [hashlib.sha256(key).hexdigest()])


def test_the_answering_process_has_no_network(tmp_path: Path) -> None:
    """Both ways of giving it up, in processes of their own, with the control that there was one before."""
    for namespaces in (True, False):
        code = (
            "import socket; from fivefold.engines.flower.isolation import _reaches_out, leave_network;"
            "s = socket.socketpair(); listening = socket.create_server(('127.0.0.1', 0));"
            f"print(leave_network(namespaces={namespaces})); s[0].send(b'pipes stay'); assert s[1].recv(99) == b'pipes stay'\n"
            "try: socket.create_connection(listening.getsockname(), 2)\n"
            "except OSError as error: print('unreachable')"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, env=environment(), cwd=ROOT, check=False
        )
        assert done.stdout.split() == ["namespace" if namespaces else "seccomp", "unreachable"], done.stderr
