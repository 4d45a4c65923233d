"""What the study says about slow sites is what the driver does: wait, a quorum after a deadline, or drop."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from examples import prepare
from fivefold.coordinator import session
from fivefold.coordinator.rounds import Progress
from fivefold.protocol.messages import Told
from fivefold.records.journal import read
from tests.journeys.consortium import SITES, signed
from tests.journeys.slow import Slow, done_with, sign_again, with_slow

WITHOUT = tuple(s for s in SITES if s != "cedar")
ASK = frozenset({"ask"})


@pytest.fixture(scope="module")
def breast(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("slow") / "breast"
    prepare.prepare("breast", out, "private.yaml")
    return out


def text(out: Path, stragglers: str) -> str:
    """The private study as a training of six rounds, with what it says about slow sites."""
    it = (out / "study.yaml").read_text("utf-8").partition("stragglers:")[0]
    head, rest = it.split("  - name: description")[0], it.split("  - name: adam")[-1]
    rest = rest.replace("rounds: 12", "rounds: 6").replace("evaluate_every: 12", "evaluate_every: 0")
    return f"{head}  - name: adam{rest}{stragglers}"


def play(
    out: Path,
    to: Path,
    rounds: range,
    clock: Callable[[Slow], float],
    tell: Callable[[Progress, Slow, Callable[[], None]], None],
) -> list[tuple[str, ...]]:
    """The sites in each round of a run in which cedar stops in these rounds."""
    engine, slow = with_slow(out, {"cedar": (ASK, rounds)})
    cedar = slow["cedar"]

    def free() -> None:
        cedar.go.set()
        done_with(engine, "cedar")

    with closing(engine):
        try:
            session.run(
                signed(out),
                engine,
                to,
                tell=lambda at: tell(at, cedar, free),
                engine_name="local",
                resume=False,
                clock=lambda: clock(cedar),
            )
        finally:
            cedar.go.set()
    told = [Told.decode(r["told"]) for r in read(to / "journal" / "rounds.journal") if r["event"] == "aggregate"]
    return [one.sites for one in told]


def test_a_quorum_suffices_after_the_deadline_and_the_slow_site_comes_back(breast: Path, tmp_path: Path) -> None:
    out = shutil.copytree(breast, tmp_path / "breast")
    sign_again(out, text(out, "stragglers: {policy: quorum, quorum: 4, deadline: 60}\n"))
    seen: list[str] = []

    def tell(at: Progress, cedar: Slow, free: Callable[[], None]) -> None:
        seen.append("stopped" if cedar.stopped.is_set() and not cedar.go.is_set() else "free")
        if at.round == 4:
            free()

    # The clock stands still until cedar stops: before the deadline the round waits for it.
    sites = play(out, tmp_path / "run", range(3, 4), lambda cedar: 61.0 if cedar.stopped.is_set() else 0.0, tell)
    assert sites == [SITES, SITES, WITHOUT, WITHOUT, WITHOUT, SITES, SITES]
    assert seen[2:4] == ["stopped", "stopped"]


def test_before_its_deadline_a_quorum_does_not_suffice(breast: Path, tmp_path: Path) -> None:
    out = shutil.copytree(breast, tmp_path / "breast")
    sign_again(out, text(out, "stragglers: {policy: quorum, deadline: 60}\n"))

    def clock(cedar: Slow) -> float:
        """Asked for the time until cedar has been waited for a thousand times; the deadline never comes."""
        if cedar.stopped.is_set():
            waited.append(1)
            if len(waited) == 50:
                cedar.go.set()
        return 0.0

    waited: list[int] = []
    assert play(out, tmp_path / "run", range(3, 4), clock, lambda at, cedar, free: None) == [SITES] * 7
    assert len(waited) >= 50


def test_who_is_late_is_dropped_at_once(breast: Path, tmp_path: Path) -> None:
    out = shutil.copytree(breast, tmp_path / "breast")
    sign_again(out, text(out, "stragglers: {policy: drop, quorum: 4}\n"))
    sites = play(out, tmp_path / "run", range(2, 99), lambda cedar: 0.0, lambda at, cedar, free: None)
    assert len(sites) == 7
    assert all(len(names) == 4 for names in sites)  # no deadline: four of five, whichever they are
    assert sum("cedar" in names for names in sites[1:]) == 0


def test_without_a_word_a_round_waits(breast: Path, tmp_path: Path) -> None:
    out = shutil.copytree(breast, tmp_path / "breast")
    sign_again(out, text(out, ""))
    engine, slow = with_slow(out, {"cedar": (ASK, range(2, 99))})
    sites: list[int] = []

    def tell(at: Progress) -> None:
        slow["cedar"].go.set()
        sites.append(at.answered)

    with closing(engine):
        session.run(signed(out), engine, tmp_path / "run", tell=tell, engine_name="local", resume=False)
    assert sites == [5] * 7
