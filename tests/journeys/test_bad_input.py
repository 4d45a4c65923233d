"""What goes wrong at the command line is one sentence with its own exit code, never a traceback."""

from __future__ import annotations

import resource
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from examples import prepare
from fivefold.cli.main import run as fivefold_here
from fivefold.engines.local import LocalEngine
from fivefold.protocol.messages import Envelope
from fivefold.results.write import read_json
from tests.journeys.consortium import TRIPS, command, fivefold

FIRST = ("enrol", "share")
"""Trips of a run's first round alone: later rounds prepare each other's keys."""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bad") / "breast"
    prepare.prepare("breast", out)
    return out


@pytest.fixture
def breast(prepared: Path, tmp_path: Path) -> Path:
    return shutil.copytree(prepared, tmp_path / "breast")


def says(capsys: pytest.CaptureFixture[str], code: int, sentence: str, *words: object) -> None:
    capsys.readouterr()
    assert fivefold_here([str(w) for w in words]) == code
    said = capsys.readouterr().err
    one_sentence(said, sentence)


def one_sentence(said: str, sentence: str) -> None:
    assert sentence in said.replace("\n", " ")
    assert said.count("✗") == 1
    assert "Traceback" not in said


def test_missing_study(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    says(capsys, 11, "there is no study at", "run", tmp_path / "study.yaml")
    says(capsys, 11, "there is no study at", "run", tmp_path / "study.signed.json")


def test_unsigned_study(breast: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (breast / "study.signed.json").unlink()
    says(capsys, 11, "there is no signed study", "run", breast / "study.yaml")


def test_study_changed_after_signing(breast: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = breast / "study.yaml"
    study.write_text(study.read_text("utf-8").replace("title: Cell", "title: Other cell"), "utf-8")
    says(capsys, 13, "was changed after it was signed", "run", study)
    signed = breast / "study.signed.json"
    signed.write_bytes(signed.read_bytes().replace(b"Cell nuclei in", b"Cell nuclei of"))
    code = fivefold_here(["run", str(signed)])
    assert 10 <= code < 50
    one_sentence(capsys.readouterr().err, "")


def test_missing_site_folder(breast: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(breast / "sites" / "cedar")
    says(capsys, 21, "there is no site folder for cedar", "run", breast / "study.yaml")


def test_folders_of_other_runs(breast: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = breast / "run"
    says(capsys, 51, "there is no run to resume", "run", breast / "study.yaml", "--resume", run)
    assert not run.exists()
    run.mkdir()
    says(capsys, 51, "there is no run to resume", "run", breast / "study.yaml", "--resume", run)
    (run / "run.id").write_text("abc")
    (run / ".lock").touch()
    (run / "study.signed.json").write_text("another")
    says(capsys, 51, "already holds a run", "run", breast / "study.yaml", "--out", run)
    says(capsys, 51, "the run of another study", "run", breast / "study.yaml", "--resume", run)


@pytest.mark.parametrize("trip", TRIPS)
def test_sites_that_die_in_a_trip(
    breast: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, trip: str
) -> None:
    """Two of five are more than the study can lose: the run stops with a sentence, and goes on when they are back."""
    honest = LocalEngine.exchange
    dead: set[str] = set()

    def exchange(self: LocalEngine, requests: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
        for name in requests:
            asked = Envelope.decode(requests[name])
            if name in ("birch", "fir") and asked.kind == trip and asked.place.round == (1 if trip in FIRST else 2):
                dead.add(name)
            if name not in dead:
                yield from honest(self, {name: requests[name]})

    with monkeypatch.context() as patch:
        patch.setattr(LocalEngine, "exchange", exchange)
        says(capsys, 45, "3 of 5 sites", "run", breast / "study.yaml", "--out", breast / "run", "--quiet")
    assert fivefold_here(["run", str(breast / "study.yaml"), "--resume", str(breast / "run"), "--quiet"]) == 0
    assert all(not a["dropped"] for a in read_json(breast / "run")["analyses"])


@pytest.mark.parametrize("limit", [1, 3_000, 40_000])
def test_full_disk(breast: Path, limit: int) -> None:
    full = subprocess.run(
        command("run", breast / "study.yaml", "--out", breast / "run", "--quiet"),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert full.returncode == 54, full.stderr
    one_sentence(full.stderr, "the disk is full")
    again = fivefold("run", breast / "study.yaml", "--resume", breast / "run", "--quiet")
    assert again.returncode == 0, again.stderr
