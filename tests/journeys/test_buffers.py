"""Asynchronous training: buffers are secure sums among those who are done, and a slow site's update still counts."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import date
from functools import partialmethod
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from examples.consortium import prepared
from fivefold.algorithms import fedbuff
from fivefold.coordinator import buffers, session
from fivefold.coordinator.aggregation import Collector
from fivefold.coordinator.buffers import Buffers
from fivefold.coordinator.rounds import Engine, Progress
from fivefold.coordinator.secure_rounds import SecureRounds
from fivefold.engines.local import local_engine
from fivefold.errors import SiteRefused, TooManyDropouts
from fivefold.governance import study_check
from fivefold.governance.threats import threats
from fivefold.privacy.dp.accounting import spent
from fivefold.protocol.encoding import decode
from fivefold.protocol.messages import Told
from fivefold.protocol.results import Result
from fivefold.records.audit import entries
from fivefold.records.journal import read
from fivefold.replay.buffered import weighed
from fivefold.replay.cursor import Asked, Cursor, Outcome
from fivefold.site.budget_book import load
from fivefold.site.folder import opened
from fivefold.site.preparation import open_prepared
from fivefold.study.consistency import thresholds
from fivefold.study.definition import Analysis, Privacy
from fivefold.study.dictionary import Variable
from fivefold.study.digest import load_signed
from tests.journeys.consortium import SITES
from tests.journeys.hostile import Hostile
from tests.journeys.slow import done_with, with_slow

COMPUTE = frozenset({"compute"})
OPTIONS: dict[str, Any] = {
    "model": {"kind": "logistic"}, "rounds": 8, "buffer": 4, "learning_rate": 0.5, "local_epochs": 2, "batch_size": 8,
    "bins": 0,
}  # fmt: skip
EXACT = OPTIONS | {"site_totals": "needed"}
PRIVATE = OPTIONS | {"clip": 1.0, "ranges": {"u": [-2, 2], "v": [-2, 2]}}
NOISE = {"unit": "site", "epsilon": 60.0, "delta": 1e-5, "noise_multiplier": 1.0}
LAX = Privacy(threshold=3)
FAST = ("alder", "birch", "cedar", "fir")


def consortium(out: Path, options: dict[str, Any], **more: Any) -> Path:
    r = np.random.default_rng(4)
    x = r.normal(size=(200, 2))
    ill = (x[:, 0] - x[:, 1] + r.normal(size=200) > 0).astype(float)
    frame = pd.DataFrame({"u": x[:, 0], "v": x[:, 1], "ill": ill, "site": np.resize(SITES, 200)})
    variables = (*(Variable(n, n, "number", minimum=-9, maximum=9) for n in "uv"), Variable("ill", "ill", "boolean"))
    prepared(out, "ill", frame, variables, (Analysis("slow", "fedbuff", "ill ~ u + v", options=options),), seed=5, **more)
    return out


@pytest.fixture(scope="module")
def exact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return consortium(tmp_path_factory.mktemp("exact") / "it", EXACT)


@pytest.fixture(scope="module")
def private(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("private") / "it"
    return consortium(out, PRIVATE, privacy={"differential_privacy": NOISE}, policy={"max_epsilon": 100.0})


def aggregates(run: Path) -> list[dict[str, Any]]:
    """What the journal says of each round; `told` decoded."""
    found = [dict(r) for r in read(run / "journal" / "rounds.journal") if r["event"] == "aggregate"]
    return [r | {"told": Told.decode(r["told"])} for r in found]


def run(out: Path, over: Engine, to: Path, tell: Callable[[Progress], None] = lambda _: None, **more: Any) -> Result:
    done = session.run(
        load_signed(out / "study.signed.json"), over, to, tell=tell, engine_name="local", **{"resume": False} | more
    )
    found = done.results["slow"]
    assert isinstance(found, Result), found
    return found


def play(out: Path, to: Path, free_after: int) -> Result:
    """A run in which elm is at its first update until the buffer of this round is filled."""
    engine, slow = with_slow(out, {"elm": (COMPUTE, range(1, 99))})

    def tell(at: Progress) -> None:
        if at.round == free_after:
            slow["elm"].go.set()
            done_with(engine, "elm")

    with closing(engine):
        try:
            return run(out, engine, to, tell)
        finally:
            slow["elm"].go.set()


def test_a_slow_site_holds_nobody_up_and_its_update_counts_by_its_age(exact: Path, tmp_path: Path) -> None:
    out = shutil.copytree(exact, tmp_path / "it")
    found = play(out, tmp_path / "run", free_after=6)
    # Round 1 counts, 2 evaluates, 3 to 10 are buffers, 11 evaluates.
    told = aggregates(tmp_path / "run")
    assert [len(r["told"].sites) for r in told] == [5, 5, *[4] * 8, 5]
    buffers = [r["buffer"] for r in told if "buffer" in r]
    assert len(buffers) == 8
    assert all(set(b) == set(FAST) for b in buffers[:4])
    assert all(v == {"version": i, "weight": 1.0} for i, b in enumerate(buffers[:4]) for v in b.values())
    first = next(b["elm"] for b in buffers if "elm" in b)
    at = next(i for i, b in enumerate(buffers) if "elm" in b)
    assert at in (4, 5)
    assert first == {"version": 0, "weight": 1 / math.sqrt(1 + at)}
    assert found.dropped == ()
    assert any("a buffer of 4 of 5 sites" in note for note in found.notes)
    assert found.facts["accuracy"] > 0.7
    # The site's own log says from which version each of its answers was.
    own = [
        e for e in entries(out / "sites" / "elm" / "state" / "audit.jsonl") if e.event == "ask" and "computed_from" in e.facts
    ]
    assert own[0].facts["computed_from"] == 0
    assert own[0].facts["version"] == at


def test_the_weights_are_a_function_of_the_journal(exact: Path, tmp_path: Path) -> None:
    """Replayed, the journal gives the weights; and what it says of members and versions gives each sum from the rows."""
    out = shutil.copytree(exact, tmp_path / "it")
    found = play(out, tmp_path / "run", free_after=5)
    it = load_signed(out / "study.signed.json")
    tables = {s: open_prepared(opened(out / "sites" / s), it.study, it.digest).table for s in SITES}
    cursor, asked = Cursor(it.study), list[Any]()
    for record in aggregates(tmp_path / "run"):
        question, told = cursor.open, record["told"]
        assert question is not None
        totals = decode(told.totals)
        if question.buffer is not None:
            asked.append(question)
            assert question.version == len(asked) - 1
            summed = {"update": np.zeros(3), "weight": np.zeros(())}
            for site, one in record["buffer"].items():
                (base,) = asked[one["version"]].sums
                answer = weighed(base.step(tables[site], **base.arguments), question.buffer, question.version - one["version"])
                summed = {name: summed[name] + answer[name] for name in summed}
            for name, value in summed.items():
                assert np.allclose(totals[0][name], value, atol=1e-6), name
        cursor.feed(Outcome(totals, told.sites, told.dropped, told.ended))
    replayed = cursor.results["slow"]
    assert isinstance(replayed, Result)
    assert replayed.facts["weights_sha256"] == found.facts["weights_sha256"]
    assert {r["buffer"]["elm"]["version"] for r in aggregates(tmp_path / "run") if "elm" in r.get("buffer", {})} & {0}


def test_each_site_is_charged_once_for_each_buffer_that_it_is_in(private: Path, tmp_path: Path) -> None:
    out = shutil.copytree(private, tmp_path / "it")
    play(out, tmp_path / "run", free_after=3)
    told = aggregates(tmp_path / "run")
    assert len(told) == 8  # under `unit: site` nothing but updates is asked
    assert all(len(r["buffer"]) == 4 for r in told)
    for site in SITES:
        (ledger,) = (out / "sites" / site / "state" / "budget").glob("*.ledger")
        book = load(ledger)
        mine = [r["told"].round for r in told if site in r["buffer"]]
        assert [e.round for e in book.entries] == mine
        assert all(e.events[0].noise_multiplier == 1.0 for e in book.entries)
    assert sum("elm" in r["buffer"] for r in told) < 8
    # The cap of the study is for a site that is in every buffer.
    cost = fedbuff.METHOD.cost(fedbuff.METHOD.parse(*_asked(out)))
    assert cost.rounds == 8
    assert spent(8, 1.0, 1e-5) < 60.0


def test_noise_is_shared_among_the_members_and_the_sensitivity_is_not_changed(private: Path) -> None:
    asked = Cursor(load_signed(private / "study.signed.json").study).open
    assert asked is not None
    assert asked.sharing is not None
    assert (asked.sharing.sites, asked.sharing.honest) == (4, 4)
    (field,) = asked.fields
    assert field.noise is not None
    assert field.sensitivity == 1.0
    # Four shares make what the multiplier says; a roster's fifth would be missing from every buffer.
    assert field.noise.share * math.sqrt(4) == pytest.approx(math.ldexp(1.0, field.noise.exponent), rel=1e-6)
    assert asked.buffer is not None
    large = {"update": np.array([0.6, 0.8, 0.0])}
    for age in range(5):
        assert np.linalg.norm(weighed(large, asked.buffer, age)["update"]) == pytest.approx(1 / math.sqrt(1 + age))


def _asked(out: Path) -> Any:
    from fivefold.replay.cursor import setting_of

    study = load_signed(out / "study.signed.json").study
    return study.analyses[0], setting_of(study)


def test_an_engine_that_cannot_post_asks_in_turn_and_a_cut_run_is_resumed(exact: Path, tmp_path: Path) -> None:
    out = shutil.copytree(exact, tmp_path / "it")

    def stop(at: Progress) -> None:
        if at.round == 6:
            raise KeyboardInterrupt

    with closing(local_engine(out / "sites", SITES)) as engine, pytest.raises(KeyboardInterrupt):
        run(out, engine, tmp_path / "run", stop)
    with closing(local_engine(out / "sites", SITES)) as engine:
        found = run(out, engine, tmp_path / "run", resume=True)
    told = aggregates(tmp_path / "run")
    assert [r["told"].round for r in told] == list(range(1, 12))
    assert [len(r["buffer"]) for r in told if "buffer" in r] == [4] * 8
    # One after the other, nobody is slow: whoever was left out of a buffer is in the next, one version old.
    assert {v["version"] for r in told[2:4] for v in r["buffer"].values()} == {0, 1}
    assert found.facts["training_rounds"] == 8
    assert found.facts["accuracy"] > 0.7


def test_a_buffer_that_was_masked_is_opened_after_a_crash(exact: Path, tmp_path: Path) -> None:
    """The coordinator dies between the masked sum's record and the first share: the sites, who live, open the same buffer."""
    out = shutil.copytree(exact, tmp_path / "it")
    with closing(local_engine(out / "sites", SITES)) as engine:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(SecureRounds, "_open", _dies_in_round_5)
            with pytest.raises(KeyboardInterrupt):
                run(out, engine, tmp_path / "run")
        (masked,) = [r for r in read(tmp_path / "run" / "journal" / "rounds.journal") if r["event"] == "masked"][-1:]
        found = run(out, engine, tmp_path / "run", resume=True)
    assert masked["round"] == 5
    (fifth,) = [r for r in aggregates(tmp_path / "run") if r["told"].round == 5]
    assert {s: v["version"] for s, v in fifth["buffer"].items()} == dict(masked["versions"])
    assert found.facts["training_rounds"] == 8


OPENED = SecureRounds._open


def _dies_in_round_5(self: SecureRounds, collector: Collector) -> None:
    if collector.instance.place.round == 5:
        collector.unmask_request()
        raise KeyboardInterrupt
    OPENED(self, collector)


def test_a_site_that_does_not_permit_its_totals_is_in_no_exact_buffer(exact: Path, tmp_path: Path) -> None:
    from examples.prepare import fivefold as typed

    out = shutil.copytree(exact, tmp_path / "it")
    for site in ("elm", "fir"):
        typed("site", "approve", out / "study.signed.json", "--site", out / "sites" / site, "--site-totals", "refused", "--yes")
    with closing(local_engine(out / "sites", SITES)) as engine, pytest.raises(SiteRefused) as refused:
        run(out, engine, tmp_path / "run")
    assert "site_totals" in str(refused.value)
    for site in ("elm", "fir"):
        told = [e.event for e in entries(out / "sites" / site / "state" / "audit.jsonl")]
        assert "compute" not in told


@pytest.mark.parametrize(
    ("options", "privacy", "what"),
    [
        (OPTIONS, {}, "'site_totals' is not said to be needed"),
        (PRIVATE | {"site_totals": "needed"}, {"differential_privacy": NOISE}, "for exact sums alone"),
        (EXACT | {"buffer": 3}, {}, "a buffer of 3 sites is not 4"),
        (EXACT | {"buffer": 3}, {"threshold": 3}, ""),
        (PRIVATE | {"buffer": 3}, {"threshold": 3, "differential_privacy": NOISE | {"dropouts": 1}}, ""),
        (EXACT | {"patience": 2, "evaluate_every": 1}, {}, "'patience'"),
    ],
)
def test_what_study_check_says_of_a_buffer(
    exact: Path, tmp_path: Path, options: dict[str, Any], privacy: dict[str, Any], what: str
) -> None:
    it = json.loads((exact / "study.yaml").read_text("utf-8"))
    it["analyses"][0]["options"] = options
    it["privacy"] |= privacy
    (tmp_path / "study.yaml").write_text(json.dumps(it), "utf-8")
    shutil.copy(exact / "dictionary.yaml", tmp_path)
    faults = [f.what for f in study_check.check(tmp_path / "study.yaml", today=date(2026, 6, 1)).faults]
    assert any(what in fault for fault in faults) if what else faults == []


FILLED = Buffers._filled


def _filled_by(
    self: Buffers, size: int, asked: Asked, question: bytes, _: int, only: tuple[str, ...] | None
) -> tuple[str, ...]:
    return FILLED(self, asked, question, size, only)


def test_a_larger_or_smaller_buffer_than_the_study_says_is_refused(exact: Path, tmp_path: Path) -> None:
    """A coordinator that fills a buffer with all five sites, or with three: no site masks."""
    for size, rule in ((5, "buffer_size"), (3, "too_few_sites")):
        out = shutil.copytree(exact, tmp_path / f"it{size}")
        engine = Hostile(local_engine(out / "sites", SITES))
        with closing(engine), pytest.MonkeyPatch.context() as patch:
            patch.setattr(Buffers, "_filled", partialmethod(_filled_by, size))
            patch.setattr(buffers, "thresholds", lambda study, among: thresholds(replace(study, privacy=LAX)))
            with pytest.raises((SiteRefused, TooManyDropouts)):
                run(out, engine, tmp_path / f"run{size}")
        # Three keys are refused already in the key list, five members when the question comes.
        assert {r.rule for trip in ("share", "ask") for r in engine.refusals(trip).values()} == {rule}


def test_the_guide_says_what_exact_buffers_leave_open(exact: Path, private: Path) -> None:
    for out, wanted in ((exact, True), (private, False)):
        (found,) = (t for t in threats(load_signed(out / "study.signed.json").study) if t.name == "differencing")
        assert any("a single site's update shows" in gap for gap in found.open) == wanted
