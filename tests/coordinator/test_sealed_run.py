"""A sealed run: nobody but coordinator and output checkers reads a number before the release, whatever file they open."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

from examples import prepare
from fivefold.auth import keys
from fivefold.cli.main import run
from fivefold.coordinator import airlock, sealing
from fivefold.coordinator.session import run as run_study
from fivefold.engines.local import local_engine
from fivefold.errors import (
    JournalProblem,
    KeyProblem,
    MessageMalformed,
    NotApproved,
    OutputHeld,
    SealBroken,
    StatementInvalid,
)
from fivefold.governance.output_forms import numbers_in
from fivefold.protocol.objections import Objections
from fivefold.records.journal import read
from fivefold.study.digest import load_signed

NONE = Objections(5)


class Dying:
    """An engine whose process is killed at its n-th exchange."""

    def __init__(self, engine: object, n: int) -> None:
        self.engine, self.left = engine, n

    def exchange(self, requests: Mapping[str, bytes]) -> Iterable[tuple[str, bytes]]:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return self.engine.exchange(requests)


@pytest.fixture(scope="module")
def lung(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lung consortium in which the site inst-01-02 has an output checker of its own; its run is killed, and resumed."""
    out = tmp_path_factory.mktemp("sealed") / "lung"
    assert prepare.main(["lung", str(out)]) == 0
    own = keys.new_key()
    keys.write_key(out / "own-checker.key", own)
    folder = out / "sites" / "inst-01-02"
    who = f"Checker of inst-01-02={keys.public_of(own).hex()}"
    signed = out / "study.signed.json"
    assert run(["site", "approve", str(signed), "--site", str(folder), "--yes", "--checker", who]) == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(sealing.KEY_PLACE, str(out / "coordinator.key"))
        found, place = load_signed(signed), out / "runs" / "s"
        engine = local_engine(out / "sites", tuple(s.name for s in found.study.sites))
        words = {"tell": lambda at: None, "engine_name": "local"}
        with pytest.raises(KeyboardInterrupt):
            run_study(found, Dying(engine, 9), place, resume=False, sealed=True, **words)
        run_study(found, engine, place, resume=True, **words)
        engine.close()
    return out


@pytest.fixture
def at_the_coordinator(lung: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(sealing.KEY_PLACE, str(lung / "coordinator.key"))


def key(lung: Path, name: str) -> bytes:
    return keys.read_key(lung / f"{name}.key")


def written(value: float) -> list[bytes]:
    """How a number may stand in a file: as text, or as the eight bytes of a float."""
    text = repr(value)
    return [text.encode(), struct.pack("<d", value), struct.pack(">d", value), text[:8].encode()]


def test_no_file_of_a_sealed_run_holds_a_number_of_its_results(lung: Path, at_the_coordinator: None) -> None:
    folder = lung / "runs" / "s"
    results = airlock.opened(airlock.airlock(folder), key(lung, "first-checker")).results
    assert set(results) == {"description", "survival", "cox", "cox-by-site"}
    exact = {v for r in results.values() for v in numbers_in(r) if len(repr(v)) > 9}
    assert len(exact) > 400
    files = [p for p in folder.rglob("*") if p.is_file()]
    assert {p.name for p in files} >= {"status.json", "results.box", "journal.box", "rounds.journal", "audit.jsonl"}
    assert not [p for p in files if p.suffix in (".csv", ".svg", ".png", ".html", ".key") or p.name == "result.json"]
    everything = b"".join(p.read_bytes() for p in files)
    assert not [v for v in sorted(exact)[::4] for form in written(v) if form in everything]
    status = json.loads((folder / "status.json").read_text("utf-8"))
    assert set(status) == {"run", "rounds", "sites", "converged", "privacy_spent"}
    assert status["converged"] == dict.fromkeys(results, True)


def test_the_lead_a_node_and_a_stranger_open_nothing(lung: Path, at_the_coordinator: None) -> None:
    it = airlock.airlock(lung / "runs" / "s")
    node = keys.read_key(lung / "sites" / "inst-01-02" / "keys" / "node.key")
    for private in (key(lung, "lead"), node, keys.new_key()):
        with pytest.raises(NotApproved):
            airlock.opened(it, private)
        with pytest.raises(KeyProblem):
            sealing.journal_key(it.folder, private)


def test_the_sealed_journal_opens_for_a_checker_and_not_when_moved(lung: Path, tmp_path: Path) -> None:
    folder = lung / "runs" / "s"
    journal, secret = folder / "journal" / "rounds.journal", sealing.journal_key(folder, key(lung, "second-checker"))
    events = [r["event"] for r in read(journal, secret)]
    assert events.count("aggregate") > 5
    with pytest.raises(SealBroken):
        list(read(journal, bytes(32)))
    with pytest.raises(MessageMalformed):
        list(read(journal))
    data = journal.read_bytes()
    first = 40 + int.from_bytes(data[:8], "big")
    moved = tmp_path / "moved.journal"
    moved.write_bytes(data[first:])
    with pytest.raises((SealBroken, JournalProblem)):
        list(read(moved, secret))


def test_a_sites_own_checker_has_a_binding_word(lung: Path, at_the_coordinator: None) -> None:
    it = airlock.airlock(lung / "runs" / "s")
    assert [c.name for c in it.checkers() if c.site] == ["Checker of inst-01-02"]
    airlock.request(it, key(lung, "lead"), analyses=["cox"], what="", purpose="a paper")
    with pytest.raises(NotApproved) as caught:
        airlock.word(it, key(lung, "first-checker"), 1, "release", "rounded", "")  # no site was asked
    assert caught.value.rule == "output_checks_failed"
    for name in ("first-checker", "second-checker"):
        airlock.word(it, key(lung, name), 1, "release", "rounded", "", objections=NONE)
    with pytest.raises(OutputHeld, match="an own checker of inst-01-02 has to agree"):
        airlock.release(it, key(lung, "first-checker"), 1)
    airlock.word(it, key(lung, "own-checker"), 1, "refuse", "rounded", "our patients are too few")
    assert airlock.queue(it)[0].state == "refused"
    with pytest.raises(OutputHeld, match="our patients are too few"):
        airlock.release(it, key(lung, "first-checker"), 1)

    airlock.request(it, key(lung, "lead"), analyses=["cox"], what="", purpose="a paper, with changes")
    for name in ("first-checker", "second-checker", "own-checker"):
        airlock.word(it, key(lung, name), 2, "release", "rounded", "", objections=NONE)
    place = airlock.release(it, key(lung, "first-checker"), 2, objections=NONE)
    assert (place / "tables" / "cox.coefficients.csv").exists()
    assert not list(place.glob("tables/description*"))


def test_a_statement_taken_away_stops_every_release(lung: Path, at_the_coordinator: None) -> None:
    it = airlock.airlock(lung / "runs" / "s")
    airlock.request(it, key(lung, "lead"), analyses=["survival"], what="", purpose="a talk")
    number = airlock.queue(it)[-1].request.number
    airlock.word(it, key(lung, "own-checker"), number, "refuse", "rounded", "not this one")
    with pytest.raises(OutputHeld, match="refused"):
        airlock.release(it, key(lung, "first-checker"), number)  # this logs what was said
    last = sorted(it.chain.glob("*.json"))[-1]
    veto = last.read_bytes()
    last.unlink()
    for name in ("first-checker", "second-checker", "own-checker"):
        airlock.word(it, key(lung, name), number, "release", "rounded", "", objections=NONE)
    with pytest.raises(StatementInvalid, match="taken away or replaced"):
        airlock.release(it, key(lung, "first-checker"), number)
    assert b"not this one" in veto


def test_a_digest_of_a_proposal_cannot_be_guessed(lung: Path, at_the_coordinator: None) -> None:
    """Two checkers get one digest; who knows the table but not the sealed secret gets another."""
    it = airlock.airlock(lung / "runs" / "s")
    held = [airlock.opened(it, key(lung, name)) for name in ("first-checker", "second-checker")]
    airlock.request(it, key(lung, "lead"), analyses=["cox"], what="", purpose="digests")
    number = airlock.queue(it)[-1].request.number
    first, second = (airlock.proposal(it, h, number, "rounded")[1] for h in held)
    assert first == second
    guessed = airlock.Held(held[0].results, bytes(32))
    assert airlock.proposal(it, guessed, number, "rounded")[1] != first
    assert held[0].secret == held[1].secret != bytes(32)


def test_a_study_without_checkers_cannot_be_run_sealed(tmp_path: Path) -> None:
    out = tmp_path / "breast"
    assert prepare.main(["breast", str(out)]) == 0
    assert run(["run", str(out / "study.yaml"), "--sealed", "--out", str(tmp_path / "r")]) == OutputHeld.exit_code
