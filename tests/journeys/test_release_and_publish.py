"""A sealed run, released by two checkers, becomes a package that tells the release alone, and is published on Zenodo."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from examples import prepare
from fivefold.auth import keys
from fivefold.cli.main import run
from fivefold.coordinator import airlock, sealing
from fivefold.coordinator.life import lives_of
from fivefold.coordinator.recall import why_not
from fivefold.errors import AuditBroken
from fivefold.governance.output_forms import numbers_in
from fivefold.records import audit_entries as form
from fivefold.records.audit import entries, verify
from fivefold.records.five_safes_page import EPSILON
from fivefold.records.witness import against
from tests.records.repository_double import TOKEN, Repository, repository


@pytest.fixture(scope="module")
def lung(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Runs `sealed` (released, rounded, packed) and `open` (a rehearsal, packed as it lies)."""
    out = tmp_path_factory.mktemp("publish") / "lung"
    prepare.prepare("lung", out)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(sealing.KEY_PLACE, str(out / "coordinator.key"))
        place = str(out / "runs" / "sealed")
        assert run(["run", str(out / "study.yaml"), "--sealed", "--quiet", "--out", place]) == 0
        assert run(["crate", "build", place]) == 59  # nothing was released yet
        assert run(["report", place, "--pdf", "--out", str(out / "held.html")]) == 0
        assert run(["outputs", "request", place, "--key", str(out / "lead.key"), "--purpose", "a paper"]) == 0
        for who in ("first", "second"):
            words = ["release", "--form", "rounded", "--key", str(out / f"{who}-checker.key")]
            assert run(["outputs", "decide", place, "1", *words]) == 0
        assert run(["outputs", "release", place, "1", "--key", str(out / "coordinator.key")]) == 0
        assert run(["crate", "build", place]) == 0
        yield out


@pytest.fixture(scope="module")
def package(lung: Path) -> Path:
    return lung / "runs" / "sealed-crate"


@pytest.fixture
def zenodo(monkeypatch: pytest.MonkeyPatch) -> Iterator[Repository]:
    with repository() as found:
        monkeypatch.setenv("FIVEFOLD_ZENODO_URL", found.base)
        monkeypatch.setenv("FIVEFOLD_ZENODO_TOKEN", TOKEN)
        yield found


def test_the_package_holds_the_release_and_no_other_number(lung: Path, package: Path) -> None:
    it = airlock.airlock(lung / "runs" / "sealed")
    exact = airlock.opened(it, keys.read_key(lung / "first-checker.key")).results
    released = (package / "data" / "run" / "result.json").read_text("utf-8")
    secret = {v for r in exact.values() for v in numbers_in(r) if len(repr(v)) > 9 and repr(v) not in released}
    assert len(secret) > 200
    everything = b"".join(p.read_bytes() for p in package.rglob("*") if p.is_file())
    for value in sorted(secret)[::3]:
        assert repr(value).encode() not in everything
        assert struct.pack("<d", value) not in everything


def test_the_story_names_both_checkers_and_every_check(package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["crate", "show", str(package)]) == 0
    assert "✓ Disclosure check of request 1" in capsys.readouterr().out
    page = (package / "data" / "ro-crate-preview.html").read_text("utf-8")
    for words in ("First output checker, Second output checker", "sites=5 &gt;= 3", "differencing", "Custodian of inst-01-02"):
        assert words in page, words
    said = [json.loads(p.read_bytes())["kind"] for p in sorted((package / "data" / "disclosure").glob("0*.json"))]
    assert said == ["output_request", "output_decision", "output_decision", "output_release"]


def test_a_package_witnesses_what_was_logged_after_the_last_round(
    lung: Path, package: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Requests, decisions and releases are written when no site is shown a head any more."""
    logs = [lung / "runs" / "sealed" / "audit.jsonl", *sorted((lung / "sites").glob("*/state/audit.jsonl"))]
    for log in logs:
        compared = against(log, [package])
        assert compared.heads["the package sealed-crate"] == 1
        assert compared.report.closed == (log is logs[0])  # a run's log is closed, and the airlock writes on
        last = [e.event for e in entries(log)][: compared.last]
        assert {"output decision", "output release"} < set(last) if log is logs[0] else "release entered" in last, last
    for suffix in ("", ".head"):
        shutil.copy(f"{logs[0]}{suffix}", tmp_path / f"audit.jsonl{suffix}")
    lines = logs[0].read_bytes().splitlines(keepends=True)
    at = next(n for n, e in enumerate(entries(logs[0])) if e.event == "output decision")
    last = form.entry_of(lines[at - 1], "audit.jsonl", at)
    it = airlock.airlock(lung / "runs" / "sealed")
    key = airlock.coordinator_key(it.folder, it.run)
    (tmp_path / "audit.jsonl").write_bytes(b"".join(lines[:at]))
    end = form.new_head(last, sum(map(len, lines[:at])), key)
    (tmp_path / "audit.jsonl.head").write_bytes(form.line_of(end))
    for site in logs[1:]:
        against(tmp_path / "audit.jsonl", [site])  # the sites know of nothing
    assert run(["audit", "verify", str(tmp_path / "audit.jsonl"), "--against", str(package)]) == 55
    assert "and the package sealed-crate witnessed line" in capsys.readouterr().err
    shutil.copytree(package, changed := tmp_path / "changed")
    note = changed / "data" / "sign-offs" / "inst-01-02.json"
    note.write_text(note.read_text("utf-8").replace('"size": ', '"size": 1'), "utf-8")
    with pytest.raises(AuditBroken, match=r"sign-offs/inst-01-02\.json was altered"):
        against(logs[0], [changed])


def test_a_checker_reproduces_the_release_with_its_rounding(
    lung: Path, package: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["crate", "reproduce", str(package), "--key", str(lung / "second-checker.key")]) == 0
    assert "the result's digest is the same" in capsys.readouterr().out


def test_aggregates_of_a_release_never_travel_open(lung: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--journal", "open", "--out", str(tmp_path / "open")]
    assert run(["crate", "build", str(lung / "runs" / "sealed"), *words]) == 59
    assert "travel sealed" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_it_is_published_when_asked_and_only_then(
    package: Path, zenodo: Repository, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["crate", "publish", str(package), "--to", "zenodo", "--sandbox", "--community", "heart"]
    assert run(words) == 0
    assert "It will have the DOI 10.5072/zenodo.1001" in capsys.readouterr().out
    assert not zenodo.deposits[1001]["submitted"]
    assert run([*words, "--yes"]) == 0
    said = capsys.readouterr()
    assert "published: 10.5072/zenodo.1001" in said.out
    assert zenodo.deposits[1001]["submitted"]
    assert zenodo.deposits[1001]["metadata"]["title"] == "Survival with advanced lung cancer"
    assert zenodo.deposits[1001]["metadata"]["communities"] == [{"identifier": "heart"}]
    assert zenodo.files[1001] == {"sealed-crate.zip": package.with_name("sealed-crate.zip").read_bytes()}
    assert TOKEN not in said.out + said.err + package.with_name("sealed-crate.zenodo.json").read_text()
    assert TOKEN.encode() not in zenodo.files[1001]["sealed-crate.zip"]
    assert not [p for p in package.parents[1].rglob("*") if p.is_file() and TOKEN.encode() in p.read_bytes()]  # logs too


def test_a_package_that_was_changed_is_not_published(package: Path, zenodo: Repository, tmp_path: Path) -> None:
    shutil.copytree(package, changed := tmp_path / "changed")
    with (changed / "data" / "run" / "result.json").open("a") as file:
        file.write(" ")
    assert run(["crate", "publish", str(changed)]) == 56
    assert zenodo.seen == []


def test_what_no_checker_let_go_is_not_published(
    lung: Path, zenodo: Repository, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "open"
    assert run(["run", str(lung / "study.yaml"), "--quiet", "--out", str(place)]) == 0
    assert run(["crate", "build", str(place), "--sites", str(lung / "sites")]) == 0
    assert run(["crate", "publish", str(tmp_path / "open-crate"), "--yes"]) == 59
    assert "no output checker has let the results of this package go" in capsys.readouterr().err
    assert zenodo.seen == []


def test_the_evidence_of_a_package_and_of_a_study_is_one_page(lung: Path, package: Path, tmp_path: Path) -> None:
    of_package, of_study = tmp_path / "package.html", tmp_path / "study.html"
    assert run(["report", str(package), "--pdf", "--out", str(of_package)]) == 0
    assert run(["report", str(lung / "study.yaml"), "--out", str(of_study)]) == 0
    text = of_package.read_text("utf-8")
    for safe in ("Safe project", "Safe people", "Safe settings", "Safe data", "Safe outputs", "Evidence: logs"):
        assert safe in text
    for words in (
        "Approvals, given by each site alone",
        "Heads of the audit logs",
        "at least 5 persons in a total",
        "Privacy spent (ε)",
    ):
        assert words in text
    assert "<script" not in text
    assert of_package.with_suffix(".pdf").read_bytes().startswith(b"%PDF-")
    assert "Safe outputs" in of_study.read_text("utf-8")
    assert "73 %" in EPSILON


def test_the_page_of_a_run_that_is_held_tells_all_but_its_results(lung: Path) -> None:
    text, pdf = (lung / "held.html").read_text("utf-8"), (lung / "held.pdf").read_bytes()
    assert "The results are held: nothing of this sealed run was released" in text
    for words in ("Approvals, given by each site alone", "Privacy spent", "Coordinator", "Custodian of inst-01-02"):
        assert words in text
    assert "Tables in this package" not in text
    assert pdf.startswith(b"%PDF-")  # made of the page alone
    exact = airlock.opened(airlock.airlock(lung / "runs" / "sealed"), keys.read_key(lung / "first-checker.key")).results
    assert not [v for r in exact.values() for v in numbers_in(r) if len(repr(v)) > 9 and repr(v)[:7] in text]


def test_a_wrong_release_is_recalled(
    lung: Path, zenodo: Repository, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A notice that anybody can verify, an incident at both sides, a mark on the release and on its package."""
    out = tmp_path / "lung"
    shutil.copytree(lung, out)
    place, package = out / "runs" / "sealed", out / "runs" / "sealed-crate"
    assert run(["crate", "publish", str(package)]) == 0
    keys.write_key(tmp_path / "stranger.key", keys.new_key())
    words = ["outputs", "recall", str(place), "1", "--why", "two patients were counted twice", "--key"]
    assert run([*words, str(tmp_path / "stranger.key")]) == 31
    assert run(["outputs", "recall", str(place), "1", "--why", "", "--key", str(out / "lead.key")]) == 31
    capsys.readouterr()
    assert run([*words, str(out / "second-checker.key")]) == 0
    said = capsys.readouterr().out
    assert "marked as recalled" in said
    assert f"record {max(zenodo.deposits)} at" in said
    assert run([*words, str(out / "lead.key")]) == 58  # once

    def facts(log: Path, event: str) -> list[dict[str, object]]:
        return [dict(e.facts) for e in entries(log) if e.event == event]

    logs = [place / "audit.jsonl", *sorted((out / "sites").glob("*/state/audit.jsonl"))]
    statements = set()
    for log in logs:
        verify(log)
        assert facts(log, "incident")
        (told,) = facts(log, "release recalled")
        assert (told["by"], told["reason"]) == ("Second output checker", "two patients were counted twice")
        statements.add(told["statement"])
    assert len(statements) == 1
    assert {life.state for life in lives_of(place).values()} == {"outputs held"}
    assert run(["outputs", "list", str(place)]) == 0
    assert "1  recalled" in capsys.readouterr().out

    assert run(["crate", "validate", str(package)]) == 56
    assert "was recalled on" in capsys.readouterr().err
    assert run(["crate", "show", str(package)]) == 0
    assert "RECALLED: release 1 of run" in capsys.readouterr().out
    assert run(["report", str(package), "--out", str(tmp_path / "page.html")]) == 0
    assert "Recalled:</strong> release 1 of run" in (tmp_path / "page.html").read_text("utf-8")
    assert run(["report", str(place), "--out", str(tmp_path / "run.html")]) == 0
    of_run = (tmp_path / "run.html").read_text("utf-8")
    assert "Recalled:</strong> release 1 of run" in of_run
    assert "The results are held: release 1" in of_run
    assert run(["crate", "publish", str(package), "--yes"]) == 59
    assert run(["crate", "build", str(place), "--out", str(tmp_path / "again")]) == 59
    note = package / "recalled.json"
    note.write_bytes(note.read_bytes().replace(b"twice", b"once "))  # the mark cannot be altered unseen either
    assert "was altered" in why_not(package)
    site = out / "sites" / "inst-01-02"
    (place / "notice").write_bytes(note.read_bytes())
    assert run(["site", "recall", str(place / "notice"), str(out / "study.signed.json"), "--site", str(site)]) == 39
