"""What goes wrong in a run is told once on the screen, with a next step, and stands in the logs."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from examples import prepare
from fivefold.auth.keys import public_of, read_key
from fivefold.cli.main import run as fivefold_here
from fivefold.records.audit import entries, verify
from fivefold.results.write import read_json
from tests.journeys.consortium import SITES, alone


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The breast consortium with the description alone: two rounds. Signed, not yet frozen at the sites."""
    out = tmp_path_factory.mktemp("told") / "breast"
    prepare.prepare("breast", out)
    (out / "study.yaml").write_text(alone(out, "description"), "utf-8")
    resign(out)
    return out


def resign(out: Path) -> None:
    (out / "study.frozen.json").unlink(missing_ok=True)
    (out / "study.signed.json").unlink()
    prepare.fivefold("study", "sign", out / "study.yaml", "--key", out / "lead.key")
    for site in SITES:
        prepare.fivefold("site", "approve", out / "study.signed.json", "--site", out / "sites" / site, "--yes")


@pytest.fixture
def breast(prepared: Path, tmp_path: Path) -> Path:
    return shutil.copytree(prepared, tmp_path / "breast")


def go(*words: object) -> int:
    return fivefold_here([str(w) for w in words])


def told(capsys: pytest.CaptureFixture[str]) -> str:
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return " ".join(said.split())


def log_of(folder: Path, event: str) -> list[dict[str, Any]]:
    verify(folder / "audit.jsonl")
    return [dict(e.facts) for e in entries(folder / "audit.jsonl") if e.event == event]


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text("utf-8")
    assert re.search(old, text), old
    path.write_text(re.sub(old, new, text, count=1), "utf-8")


def infinite(cedar: Path) -> None:
    lines = (cedar / "aspirates.csv").read_text("utf-8").splitlines()
    cells = lines[1].split(";")
    cells[2] = "inf"
    (cedar / "aspirates.csv").write_text("\n".join([lines[0], ";".join(cells), *lines[2:]]) + "\n", "utf-8")
    edit(cedar / "mapping.yaml", "variables:", "on_invalid: refuse\nvariables:")


BAD = [
    (lambda c: (c / "aspirates.csv").unlink(), 21, "SourceNotFound", "", "there is no readable file"),
    (lambda c: edit(c / "mapping.yaml", r"Radius_nm", "Radius"), 22, "ColumnMissing", "radius", "line 7, radius: the source"),
    (lambda c: edit(c / "mapping.yaml", r"unit: nm", "unit: kg"), 23, "UnitUnknown", "radius", "line 7, radius: 'kg' does not"),
    (infinite, 24, "ValueNotFinite", "radius", "radius: 1 cell holds no value of it"),
    (lambda c: edit(c / "mapping.yaml", r"person:", "persons:"), 26, "MappingInvalid", "", "did you mean 'person'"),
    (lambda c: edit(c / "aspirates.csv", r"\n", "\n1;2\n"), 27, "SourceMalformed", "", "row 2 has 2 cells"),
    (lambda c: edit(c / "aspirates.csv", r"(?s)((?:.*?\n){3}).*", r"\1"), 33, "TooFewPersons", "", "fewer persons"),
]  # fmt: skip


@pytest.mark.parametrize(("spoil", "exit_code", "code", "variable", "sentence"), BAD, ids=[b[2] for b in BAD])
def test_a_site_s_bad_input(
    breast: Path, capsys: pytest.CaptureFixture[str], spoil: Any, exit_code: int, code: str, variable: str, sentence: str
) -> None:
    """The custodian reads what is wrong and where; the log has it; the coordinator learns code, rule and variable."""
    cedar = breast / "sites" / "cedar"
    spoil(cedar)
    capsys.readouterr()
    assert go("site", "prepare", breast / "study.signed.json", "--site", cedar) == exit_code
    said = told(capsys)
    assert sentence in said
    assert said.count("✗") == 1
    assert len(said.split("✗")[1].split(".")) > 1, "a next step"
    assert log_of(cedar / "state", "preparation asked refused")[-1]["code"] == code

    if code in ("SourceMalformed", "MappingInvalid", "UnitUnknown", "SourceNotFound"):
        return  # the same way to the coordinator as the others
    assert go("run", breast / "study.yaml", "--out", breast / "run", "--quiet") == 0
    assert f"cedar refused ({code}" in told(capsys)
    assert all(a["dropped"] == ["cedar"] for a in read_json(breast / "run")["analyses"])
    refusal = log_of(breast / "run", "refusal")[0]
    assert (refusal["site"], refusal["code"]) == ("cedar", code)
    assert log_of(cedar / "state", "refused")[-1]["variable"] == variable
    wire = (breast / "run" / "audit.jsonl").read_text("utf-8") + (breast / "run" / "result.json").read_text("utf-8")
    assert not re.search(r"Radius|Fall|Befund|aspirates.csv", wire)


def test_too_few_sites_and_persons(breast: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = breast / "study.yaml"
    whole = study.read_text("utf-8")
    sites = re.findall(r"  - \{name: .*\n", whole)
    study.write_text("".join(line for line in whole.splitlines(True) if line not in sites[2:]), "utf-8")
    assert go("study", "check", study) == 12
    assert "learn the other's" in " ".join(capsys.readouterr().out.split())
    study.write_text(whole.replace("minimum_persons: 5", "minimum_persons: 600"), "utf-8")
    resign(breast)
    capsys.readouterr()
    assert go("run", study, "--out", breast / "run", "--quiet") == 33
    assert "fewer than 600 persons remain over all sites. Widen the cohort" in told(capsys)
    assert log_of(breast / "run", "results")[0]["ended"] == {"description": "TooFewPersons"}
    assert not list((breast / "run").glob("tables/*"))


def test_a_run_that_stops_says_so_in_its_log(breast: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for site in SITES[:2]:
        (breast / "sites" / site / "aspirates.csv").unlink()
    capsys.readouterr()
    assert go("run", breast / "study.yaml", "--out", breast / "run", "--quiet") == 37
    assert "alder: SourceNotFound; birch: SourceNotFound" in told(capsys)
    assert log_of(breast / "run", "run stopped")[0]["code"] == "SiteRefused"


def test_a_second_run_and_a_run_that_was_tampered_with(breast: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import fcntl

    folder = breast / "run"
    assert go("run", breast / "study.yaml", "--out", folder, "--quiet") == 0
    handle = os.open(folder / ".lock", os.O_RDWR)
    fcntl.flock(handle, fcntl.LOCK_EX)
    capsys.readouterr()
    assert go("run", breast / "study.yaml", "--resume", folder, "--quiet") == 51
    assert "another process is running in" in told(capsys)
    os.close(handle)
    assert len(log_of(folder, "second run refused")) == 1
    verify(folder / "audit.jsonl", public_of(read_key(folder / "coordinator.key")))

    assert go("run", breast, "--quiet") == 11
    assert "is a folder, not a study" in told(capsys)
    log = folder / "audit.jsonl"
    whole = log.read_bytes()
    log.write_bytes(whole.replace(b"run begun", b"run begon"))
    assert go("run", breast / "study.yaml", "--resume", folder, "--quiet") == 55
    assert "audit.jsonl" in told(capsys)
    log.write_bytes(whole)
    (folder / "coordinator.key").unlink()
    assert go("run", breast / "study.yaml", "--resume", folder, "--quiet") == 15
    assert "start a new one with --out" in told(capsys)
