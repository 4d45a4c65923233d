"""A study with differential privacy, end to end through the secure sum: noise, drop-outs, its charge, its promise, kill and
resume."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from examples import prepare
from fivefold.cli.main import run as cli
from fivefold.coordinator import session
from fivefold.coordinator.package_check import evidence_in
from fivefold.coordinator.rounds import Engine
from fivefold.errors import SiteRefused, TooManyDropouts
from fivefold.privacy.dp.accounting import spent
from fivefold.protocol.results import Result
from fivefold.records.audit import entries
from fivefold.records.sealed_journal import aggregates_of
from fivefold.results.noise_agreement import agreement
from fivefold.results.write import comparable, read_json
from fivefold.site.budget_book import load, place
from tests.journeys.consortium import SITES, Losing, approve_anew, command, engine, fivefold, pooled, sign_anew, signed


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The private breast study with a shorter training, at sites that do not permit their own totals."""
    out = tmp_path_factory.mktemp("private") / "breast"
    prepare.prepare("breast", out, "private.yaml")
    text = (out / "study.yaml").read_text("utf-8")
    sign_anew(out, text.replace("rounds: 12", "rounds: 3").replace("evaluate_every: 12", "evaluate_every: 3"))
    approve_anew(out, "--site-totals", "refused")
    return out


@pytest.fixture
def breast(prepared: Path, tmp_path: Path) -> Path:
    return shutil.copytree(prepared, tmp_path / "breast")


def run(out: Path, over: Engine, folder: str = "run") -> session.Run:
    try:
        return session.run(signed(out), over, out / folder, tell=lambda _: None, engine_name="local", resume=False)
    finally:
        over.close()


def described(done: session.Run) -> Result:
    found = done.results["description"]
    assert isinstance(found, Result), found
    return found


def test_a_private_run(breast: Path) -> None:
    done = run(breast, engine(breast))
    found, rows = described(done), pooled(breast)
    noise = found.facts["persons_noise"]
    assert isinstance(noise, float)
    # z·√k·Δ over the shares of five sites of which four suffice; eight fields.
    assert noise == pytest.approx(5.9 * np.sqrt(8) * np.sqrt(5 / 4), rel=1e-6)
    assert abs(found.facts["persons"] - len(rows)) < 6 * noise
    assert found.facts["persons"] != len(rows)
    table = found.tables["numbers"]
    for name, mean, error in zip(*(table.column(c) for c in ("variable", "mean", "standard_error")), strict=True):
        assert abs(mean - rows[name].mean()) < 6 * error
    # The promise stands with every result, table and figure.
    epsilon = spent(done.rounds, 5.9, 1e-5)
    for result in done.results.values():
        assert isinstance(result, Result)
        assert str(result.facts["privacy"]).startswith("ε = ")
        assert float(str(result.facts["privacy"]).split()[2]) == pytest.approx(epsilon, rel=0.01)
        assert "one person at a site, there or not" in str(result.facts["privacy"])
        assert any("ε = 1:" in note and "ε = 3:" in note and "ε = 10:" in note for note in result.notes)
        assert all(any("ε = " in note for note in t.notes) for t in result.tables.values())
    plain = read_json(done.folder)
    assert "ε = " in plain["analyses"][0]["facts"]["privacy"]
    # Each site was charged for each round, before anything left.
    for site in SITES:
        folder = breast / "sites" / site
        asset = next(line.split(":")[1].strip() for line in (folder / "site.yaml").read_text().splitlines() if "asset:" in line)
        book = load(place(folder / "state", asset.split("#")[0].strip()))
        assert len(book.entries) == done.rounds
        assert all(e.events[0].noise_multiplier == 5.9 for e in book.entries)


def test_a_second_run_gets_fresh_noise_until_the_studys_epsilon_is_spent(breast: Path) -> None:
    first, second = described(run(breast, engine(breast))), described(run(breast, engine(breast), "again"))
    assert first.tables["categories"] != second.tables["categories"]
    with pytest.raises(SiteRefused) as refused:
        run(breast, engine(breast), "third")
    assert refused.value.rule == "study_epsilon"


def test_two_runs_on_the_same_rows_agree_within_their_noise_and_on_other_rows_do_not(
    breast: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = run(breast, engine(breast)).folder
    again = run(breast, engine(breast), "again").folder
    words = ["crate", "build", str(first), "--journal", "open", "--sites", str(breast / "sites"), "--out"]
    assert cli([*words, str(breast / "package")]) == 0
    capsys.readouterr()
    assert cli(["crate", "reproduce", str(breast / "package"), "--against", str(again), "--json"]) == 0
    noise = json.loads(capsys.readouterr().out)["noise"]
    assert noise["rounds"] >= 1
    assert noise["numbers"] >= 8
    assert 0 < noise["largest"] <= noise["bound"]
    then = aggregates_of(first)
    name = next(iter(then[0].totals[0]))
    moved = replace(then[0], totals=({**then[0].totals[0], name: then[0].totals[0][name] + 1000.0},))
    found = agreement(signed(breast).study, then, (moved, *then[1:]))
    assert found.difference.startswith(f"round 1: the total {name!r} differs by ")
    assert found.largest > found.bound


def test_a_declared_drop_out_changes_nothing_and_the_class_rule_does_not_bind(breast: Path) -> None:
    """cedar is lost in one round and back in the next: between exact sums its own total would be the difference."""
    done = run(breast, Losing(engine(breast), {"cedar"}, {"ask"}, {1, 3}))
    found = described(done)
    assert found.sites == tuple(s for s in SITES if s != "cedar")
    model = done.results["adam"]
    assert isinstance(model, Result)
    assert "cedar" in model.dropped


def test_fewer_survivors_than_the_noise_needs_open_nothing(breast: Path) -> None:
    """t would be four of five as well here: the sites themselves count the shares of the noise, whatever the coordinator
    says."""
    with pytest.raises((TooManyDropouts, SiteRefused)):
        run(breast, Losing(engine(breast), {"cedar", "elm"}, {"ask"}, range(99)))
    for site in SITES:
        events = [e.event for e in entries(breast / "sites" / site / "state" / "audit.jsonl")]
        assert "unmask" not in events


def test_killed_twice_and_resumed_gives_the_same_results(breast: Path, tmp_path: Path) -> None:
    """Noise is a function of the site's secret and the run: a round asked again after a crash carries the same noise. Two
    copies of a consortium are killed in one run; one goes on in peace, the other is killed once more."""
    folder = breast / "run"
    killed_after(breast, ("--out", folder), rounds=2)
    other = shutil.copytree(breast, tmp_path / "other")
    assert fivefold("run", breast / "study.yaml", "--resume", folder, "--quiet").returncode == 0
    killed_after(other, ("--resume", other / "run"), rounds=5)
    assert fivefold("run", other / "study.yaml", "--resume", other / "run", "--quiet").returncode == 0
    assert comparable(folder) == comparable(other / "run")
    for file in sorted((folder / "tables").glob("*.csv")):
        assert file.read_bytes() == (other / "run" / "tables" / file.name).read_bytes()
    # Nobody was charged twice for the rounds that were asked again.
    rounds = read_json(folder)["study"]["rounds"]
    for out in (breast, other):
        for ledger in (out / "sites").glob("*/state/budget/*.ledger"):
            assert len(load(ledger).entries) == rounds


def killed_after(out: Path, how: tuple[object, ...], rounds: int) -> None:
    """Run, and kill -9 when so many rounds were told."""
    process = subprocess.Popen(
        command("run", out / "study.yaml", *how), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    deadline = time.monotonic() + 100
    for line in process.stdout:
        if (line.startswith("round") and int(line.split()[1]) >= rounds) or time.monotonic() > deadline:
            process.send_signal(signal.SIGKILL)
            break
    process.stdout.close()
    assert process.wait() == -signal.SIGKILL


def test_the_package_tells_what_was_spent_and_is_reproduced_noise_and_all(breast: Path) -> None:
    """Noise is in the aggregates, so a replay has it, too; every site signs what it spent."""
    done = run(breast, engine(breast), "runs/one")
    assert cli(["crate", "build", str(breast / "runs" / "one"), "--journal", "open"]) == 0
    package = breast / "runs" / "one-crate"
    told = [s.spent for s in evidence_in(package)]
    assert told == [pytest.approx(spent(done.rounds, 5.9, 1e-5), rel=0.01)] * 5
    assert "Privacy spent on this study (ε)" in (package / "data" / "ro-crate-preview.html").read_text("utf-8")
    assert cli(["crate", "reproduce", str(package)]) == 0
