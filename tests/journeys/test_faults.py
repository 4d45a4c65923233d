"""Faults at a site and at the coordinator, in every phase: a right result or a clear refusal, in time, and nothing is lost.

CI plays a part of them; all thirty with FIVEFOLD_FAULTS=30.
"""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from fivefold.auth.keys import public_of, read_key
from fivefold.coordinator import session
from fivefold.engines.flower.grid import FlowerEngine, flower_engine
from fivefold.engines.flower.lasting import lasting
from fivefold.engines.flower.superlink import environment
from fivefold.engines.local import local_engine
from fivefold.errors import FivefoldError
from fivefold.records.audit import entries, verify
from fivefold.results.write import comparable
from tests.journeys.consortium import ROOT, Losing, signed
from tests.journeys.deployed_studies import lung_with_cox
from tests.journeys.deployment import Deployment, deployed
from tests.journeys.faults import FAULTS, HERE, OVER, SHARE, SITE, Carrier, Fault, Here, Over, Recording, Twice
from tests.journeys.meddling import Meddler, meddler

ALL = int(os.environ.get("FIVEFOLD_FAULTS", "0")) >= len(FAULTS)
PLAYED = [f for f in FAULTS if ALL or f.always]
BOUND = 150
"""Seconds in which every run ends."""
STOPPED = 4.0
"""Seconds for which a coordinator is stopped."""


@contextmanager
def within(seconds: int) -> Iterator[None]:
    def late(number: int, frame: FrameType | None) -> None:
        raise AssertionError(f"it hangs: {seconds} s are over")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@dataclass
class Arena:
    """A consortium, its SuperLink behind meddlers, and the results that must come out."""

    out: Path
    stack: ExitStack
    over: Deployment | None = None
    before_site: Meddler | None = None
    before_coordinator: Meddler | None = None
    expected: dict[tuple[int, ...], dict[str, Any]] = field(default_factory=dict)

    @property
    def sites(self) -> tuple[str, ...]:
        return tuple(s.name for s in signed(self.out).study.sites)

    def left_alone(self, absent: tuple[int, ...]) -> dict[str, Any]:
        """The result of the in-process engine where the site is absent from these rounds, and nothing else happens."""
        if absent not in self.expected:
            folder = self.out / f"alone{len(self.expected)}"
            with closing(local_engine(self.out / "sites", self.sites)) as engine:
                losing = Losing(engine, [SITE], ["ask"], absent)
                go(losing, self.out, folder, resume=False, name="local")
            self.expected[absent] = comparable(folder)
        return self.expected[absent]

    def superlink(self) -> tuple[Deployment, Meddler, Meddler]:
        """Started once, when the first fault wants it."""
        if self.over is None:

            def through(site: str, address: str) -> str:
                if site != SITE:
                    return address
                self.before_site = self.stack.enter_context(meddler(address))
                return self.before_site.address

            self.over = self.stack.enter_context(deployed(self.out, self.out / "coordinator", through))
            self.before_coordinator = self.stack.enter_context(meddler(self.over.coordinator.address()))
        assert self.before_site is not None
        assert self.before_coordinator is not None
        return self.over, self.before_site, self.before_coordinator


@pytest.fixture(scope="module")
def arena(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arena]:
    out = tmp_path_factory.mktemp("faults") / "lung"
    lung_with_cox(out)
    with ExitStack() as stack:
        yield Arena(out, stack)


def test_the_table_has_thirty_faults_of_every_kind_at_both_in_each_phase() -> None:
    assert len({f.name for f in FAULTS}) == 30
    assert {f.what for f in FAULTS} == {"kill", "stop", "cut", "slow", "corrupt", "duplicate"}
    both = {"site", "coordinator"}
    assert {(f.what, f.who) for f in FAULTS} == {(what, who) for what in {f.what for f in FAULTS} for who in both}
    phases = {"open", "enrol", "share", "ask", "survivors", "unmask", "close"}
    assert {(f.phase, f.who) for f in FAULTS} == {(phase, who) for phase in phases for who in both}


@pytest.mark.parametrize("fault", PLAYED, ids=lambda f: f.name)
def test_a_right_result_or_a_clear_refusal(fault: Fault, arena: Arena) -> None:
    run = arena.out / fault.name
    if fault.carrier == OVER:
        arena.superlink()
    with within(BOUND):
        (play_here if fault.carrier == HERE else play_over)(fault, arena, run)
    gone = [tuple(e.facts["dropped"]) for e in entries(run / "audit.jsonl") if e.event == "aggregate"]
    absent = tuple(number for number, names in enumerate(gone, 1) if names)
    assert {name for names in gone for name in names} <= {SITE}
    assert (1 <= len(absent) <= 2) if fault.ends == SHARE else not absent
    alike(comparable(run), arena.left_alone(absent))
    verify(run / "audit.jsonl", public_of(read_key(run / "coordinator.key")))
    for site in arena.sites:
        verify(arena.out / "sites" / site / "state" / "audit.jsonl")
    said_once(run.with_suffix(".heard"))


def alike(one: object, other: object) -> None:
    """Equal, numbers to 1e-12."""
    if isinstance(one, dict) and isinstance(other, dict):
        assert one.keys() == other.keys()
        for key in one:
            alike(one[key], other[key])
    elif isinstance(one, list) and isinstance(other, list):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            alike(a, b)
    elif isinstance(one, float) and isinstance(other, float):
        assert math.isclose(one, other, rel_tol=1e-12, abs_tol=1e-12), (one, other)
    else:
        assert one == other


def said_once(heard: Path) -> None:
    """No site said two things in one place: round, attempt and kind."""
    said = defaultdict(set)
    for line in heard.read_text("utf-8").splitlines():
        *where, digest = line.split()
        if where[-1] != "refusal":
            said[tuple(where)].add(digest)
    assert said
    assert [where for where, digests in said.items() if len(digests) > 1] == []


# ---- in this process ------------------------------------------------------------------------------------------------
def play_here(fault: Fault, arena: Arena, run: Path) -> None:
    with closing(local_engine(arena.out / "sites", arena.sites)) as engine:
        striking = Here(engine, fault, run.with_suffix(".heard"))
        if isinstance(fault.ends, str):
            go(striking, arena.out, run, resume=False, name="local")
        else:
            with pytest.raises(fault.ends) as refused:
                go(striking, arena.out, run, resume=False, name="local")
            clear(refused.value)
            go(striking, arena.out, run, resume=True, name="local")
        assert striking.struck


def clear(error: FivefoldError) -> None:
    """A sentence, and what to do next; an exit code of its own."""
    assert error.message
    assert error.hint
    assert error.exit_code > 2


# ---- over the SuperLink ---------------------------------------------------------------------------------------------
def play_over(fault: Fault, arena: Arena, run: Path) -> None:
    flower, before_site, before_coordinator = arena.superlink()
    if fault.who == "coordinator" and fault.what in {"kill", "stop"}:
        struck_itself(fault, flower, run)
    else:
        meddle, sought = before_site if fault.who == "site" else before_coordinator, list[str]()

        def work(engine: FlowerEngine, again: bool) -> None:
            if again:
                go(Recording(engine, run.with_suffix(".heard")), flower.consortium, run, resume=True)
            else:
                strike(fault, flower, engine, meddle, run)

        lasting(lambda: engine_of(flower, before_coordinator), work, patience=60.0, tell=sought.append)
        assert bool(sought) == fault.loses_the_link
    if fault.what == "kill" and fault.who == "coordinator":
        assert not (run / "result.json").exists() or fault.phase == "close"
        with engine_of(flower, before_coordinator) as engine:
            go(Recording(engine, run.with_suffix(".heard")), flower.consortium, run, resume=True)


def go(engine: Carrier, consortium: Path, run: Path, *, resume: bool, name: str = "flower") -> None:
    session.run(signed(consortium), engine, run, tell=lambda _: None, engine_name=name, resume=resume)


@contextmanager
def engine_of(flower: Deployment, through: Meddler) -> Iterator[FlowerEngine]:
    keys = {s.name: bytes.fromhex(s.public_key) for s in signed(flower.consortium).study.sites}
    engine = flower_engine(flower.coordinator.path, keys, address=through.address, deadline=60.0)
    try:
        yield engine
    finally:
        through.mode = "pass"
        engine.close()


def struck_itself(fault: Fault, flower: Deployment, run: Path) -> None:
    words = (flower.consortium, flower.coordinator.path, run, fault.what, fault.phase)
    command = [sys.executable, "-m", "tests.journeys.faults", *map(str, words)]
    with subprocess.Popen(command, env=environment(), cwd=ROOT) as process:
        if fault.what == "kill":
            assert process.wait(BOUND) == -signal.SIGKILL
            return
        _, status = os.waitpid(process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        signal.sigtimedwait([], STOPPED)
        process.send_signal(signal.SIGCONT)
        assert process.wait(BOUND) == 0


def strike(fault: Fault, flower: Deployment, engine: FlowerEngine, meddle: Meddler, run: Path) -> None:
    heard, seen = run.with_suffix(".heard"), flower.said(SITE).count("is connected")

    def begin() -> None:
        if fault.what == "kill":
            flower.kill(SITE)
        elif fault.what == "stop":
            flower.processes[SITE].send_signal(signal.SIGSTOP)
        elif fault.what == "cut":
            meddle.cut()
        else:
            meddle.mode = fault.what

    def mend() -> None:
        """The site comes back by itself; one that was killed, as a service manager starts it again."""
        meddle.mode = "pass"
        if fault.what == "kill":
            flower.start(SITE)
        elif fault.what == "stop":
            last = beat(engine, flower)
            flower.processes[SITE].send_signal(signal.SIGCONT)
            flower.wait_for(lambda: beat(engine, flower) != last)
        if fault.who == "site" and fault.what in {"kill", "cut", "corrupt"}:
            flower.wait_for(lambda: flower.said(SITE).count("is connected") > seen)

    struck_before = meddle.struck
    striking = Twice(engine, fault.phase, heard) if fault.what == "duplicate" else Over(engine, fault.phase, heard, begin, mend)

    try:
        go(striking, flower.consortium, run, resume=False)
    finally:
        assert striking.struck
        assert meddle.struck > struck_before or fault.what in {"kill", "stop", "duplicate"}


def beat(engine: FlowerEngine, flower: Deployment) -> float:
    """Until when the SuperLink holds the site to be alive."""
    node = int((flower.consortium / "sites" / SITE / "state" / "connection.node").read_text("ascii"))
    return next((one.alive_until for one in engine.link.nodes() if one.node == node), 0.0)
